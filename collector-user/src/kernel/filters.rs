//! The clsact filters on an interface: whose they are, and where there is room.
//!
//! A collector that was killed leaves filters behind that only let packets pass. A filter is such a leftover when its
//! name is ours and the lease of its program has run out: a collector that lives renews it. Leftovers are removed, and
//! nothing else is.

use std::collections::BTreeSet;

use aya::{
    maps::{Array, Map, MapData, MapInfo},
    programs::{
        TcAttachType,
        links::Link as _,
        loaded_programs,
        tc::{SchedClassifierLink, TcHandle},
    },
};
use collector_ebpf::abi::control::{Anchor, Control};
use futures_util::TryStreamExt as _;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};
use rtnetlink::Handle;

use crate::{
    host::links::Link,
    kernel::programs::{EGRESS, INGRESS},
};

/// The handle of our filters where the clsact qdisc is ours as well: if we are killed, whoever removes them, or finds a
/// place beside them, knows that it may go with them. Handles that the kernel allots are small.
pub const OWN_QDISC: TcHandle = TcHandle::new(0xDA7A, 1);

/// The hooks, and what our filters there are called.
const HOOKS: [(TcAttachType, &str); 2] = [(TcAttachType::Ingress, INGRESS), (TcAttachType::Egress, EGRESS)];

/// Removes the leftovers on an interface; how many there were.
///
/// Interfaces without filters, or whose filters the kernel does not list, have none.
pub async fn remove(netlink: &Handle, link: &Link, now: &Anchor) -> usize {
    let mut removed = 0;
    let mut qdisc = false;
    for (hook, name) in HOOKS {
        for filter in filters(netlink, link.index, hook).await.unwrap_or_default() {
            let Some((handle, program)) = ours(&filter, name) else { continue };
            let preference = preference(&filter);
            if !is_abandoned(program, now) {
                continue;
            }
            let link = SchedClassifierLink::attached(&link.name, hook, preference, handle, None);
            if link.is_ok_and(|link| link.detach().is_ok()) {
                removed += 1;
                qdisc |= handle == OWN_QDISC;
            }
        }
    }
    if qdisc {
        remove_qdisc(netlink, link.index).await;
    }
    removed
}

/// Where a filter of ours would stand on both hooks of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The least preference that nobody has: 1 where it comes before all others.
    pub preference: u16,
    /// Filters that are not ours come before it. Whoever decides finally about a packet (`TC_ACT_OK` included) ends its way
    /// through the filters, and those behind do not see it; a collector never does.
    pub behind_others: bool,
    /// The clsact qdisc there was made for filters of ours: by a collector that was killed a moment ago, or by one that
    /// runs beside this one. The last of them takes it along.
    pub qdisc_is_ours: bool,
    /// A qdisc of kind `ingress` stands where clsact would: with it, what is attached to the egress hook runs on what comes in.
    pub has_ingress: bool,
}

/// Where there is room. Where the kernel does not list the filters, before all of them. Of `ingress` see [`with_ingress`].
pub async fn free_place(handle: &Handle, ifindex: u32, ingress: &BTreeSet<u32>) -> Place {
    let mut taken = Vec::new();
    for (hook, name) in HOOKS {
        let filters = filters(handle, ifindex, hook).await;
        let seen = |filter| (preference(filter), ours(filter, name).map(|(handle, _)| handle));
        taken.extend(filters.iter().flatten().map(seen));
    }
    Place { has_ingress: ingress.contains(&ifindex), ..place_among(&taken) }
}

/// The indexes of the interfaces with a qdisc of kind `ingress`; none where the kernel does not say. It lists the qdiscs of
/// all interfaces whichever is asked about, so that this is for whoever attaches to many.
pub async fn with_ingress(handle: &Handle) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut messages = std::pin::pin!(handle.qdisc().get().execute());
    while let Ok(Some(message)) = messages.try_next().await {
        let is_ingress =
            |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == "ingress");
        if message.attributes.iter().any(is_ingress) {
            found.extend(u32::try_from(message.header.index));
        }
    }
    found
}

/// `taken`: the preference of each filter, and the handle of those that are ours.
fn place_among(taken: &[(u16, Option<TcHandle>)]) -> Place {
    let is_free = |preference: &u16| taken.iter().all(|(other, _)| other != preference);
    let preference = (1..u16::MAX).find(is_free).unwrap_or(u16::MAX);
    Place {
        preference,
        behind_others: taken.iter().any(|(other, ours)| *other < preference && ours.is_none()),
        qdisc_is_ours: taken.iter().any(|(_, ours)| *ours == Some(OWN_QDISC)),
        has_ingress: false,
    }
}

/// Which of the filters with these programs hang on an interface, on the ingress and on the egress hook; `None` where the
/// kernel does not say.
pub async fn present(handle: &Handle, ifindex: u32, programs: [u32; 2]) -> Option<[bool; 2]> {
    let mut present = [false; 2];
    for ((hook, name), (program, present)) in HOOKS.into_iter().zip(programs.into_iter().zip(&mut present)) {
        let filters = filters(handle, ifindex, hook).await.ok()?;
        *present = filters.iter().any(|filter| ours(filter, name).is_some_and(|(_, id)| id == program));
    }
    Some(present)
}

/// Whether no filter hangs on either hook of an interface's clsact qdisc; `false` where the kernel does not say.
async fn is_bare(handle: &Handle, ifindex: u32) -> bool {
    for (hook, _) in HOOKS {
        match filters(handle, ifindex, hook).await {
            Ok(filters) if filters.is_empty() => {}
            _ => return false,
        }
    }
    true
}

/// Removes the clsact qdisc of an interface, unless somebody has a filter there.
pub async fn remove_qdisc(handle: &Handle, ifindex: u32) {
    if !is_bare(handle, ifindex).await {
        return;
    }
    let mut request = handle.qdisc().del(ifindex as i32);
    request.message_mut().header.parent = netlink_packet_route::tc::TcHandle::CLSACT;
    if let Err(error) = request.execute().await {
        tracing::debug!(ifindex, %error, "the clsact qdisc stays");
    }
}

async fn filters(
    handle: &Handle,
    ifindex: u32,
    hook: TcAttachType,
) -> Result<Vec<TcMessage>, rtnetlink::Error> {
    let mut handle = handle.traffic_filter(ifindex as i32);
    let request = match hook {
        TcAttachType::Egress => handle.get().egress(),
        _ => handle.get().ingress(),
    };
    let mut filters = Vec::new();
    let mut messages = std::pin::pin!(request.execute());
    while let Some(message) = messages.try_next().await? {
        // Each chain begins with a message that has no handle: the preference by itself.
        if u32::from(message.header.handle) != 0 {
            filters.push(message);
        }
    }
    Ok(filters)
}

/// The preference of a filter: those with a lesser one come before it.
fn preference(filter: &TcMessage) -> u16 {
    (filter.header.info >> 16) as u16
}

/// Handle and program id of a filter that has our name.
fn ours(filter: &TcMessage, name: &str) -> Option<(TcHandle, u32)> {
    let options = filter.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let mut named = false;
    let mut id = None;
    for option in options {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(found)) => named |= found == name,
            TcOption::Bpf(TcFilterBpfOption::ProgId(found)) => id = Some(*found),
            _ => {}
        }
    }
    let handle = TcHandle::from(u32::from(filter.header.handle));
    id.filter(|_| named).map(|id| (handle, id))
}

/// Whether a program of ours is no longer renewed. What cannot be read is not ours to remove.
fn is_abandoned(program: u32, now: &Anchor) -> bool {
    let Some(program) = loaded_programs().filter_map(Result::ok).find(|info| info.id() == program) else {
        return false;
    };
    let Ok(Some(maps)) = program.map_ids() else { return false };
    let control = maps
        .into_iter()
        .find(|id| MapInfo::from_id(*id).is_ok_and(|info| info.name_as_str() == Some("CONTROL")));
    let lease = control.and_then(|id| {
        let map = Map::from_map_data(MapData::from_id(id).ok()?).ok()?;
        let control: Array<MapData, Control> = map.try_into().ok()?;
        Some(control.get(&0, 0).ok()?.lease)
    });
    lease.is_some_and(|lease| lease <= now.jiffies)
}

#[cfg(test)]
mod tests {
    use aya::programs::tc::TcHandle;

    use super::{OWN_QDISC, Place, place_among};

    #[test]
    fn a_place_is_the_first_free_one_and_ours_are_no_others() {
        let allotted = TcHandle::new(0, 1);
        for (taken, preference, behind_others, qdisc_is_ours) in [
            (&[][..], 1, false, false),
            (&[(100, None)], 1, false, false),
            (&[(1, Some(OWN_QDISC)), (1, Some(OWN_QDISC))], 2, false, true),
            (&[(1, Some(allotted)), (2, None)], 3, true, false),
            (&[(1, None), (3, Some(OWN_QDISC))], 2, true, true),
        ] {
            let want = Place { preference, behind_others, qdisc_is_ours, has_ingress: false };
            assert_eq!(place_among(taken), want, "{taken:?}");
        }
    }
}
