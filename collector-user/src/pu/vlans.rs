//! VLANs above an interface: where they are, frames come in with tags that the device, or the sender, may have put beside them.

use std::collections::{BTreeMap, BTreeSet};

use crate::host::links::Link;

/// The kinds of such devices.
const KINDS: [&str; 5] = ["vlan", "bridge", "openvswitch", "macvlan", "macvtap"];

/// Whether frames that come in by the interface may have a VLAN tag that is for somebody on this host: a VLAN device lies above
/// it, in whatever way, or a bridge, which may tell VLANs apart itself, or what gives a guest an address on the same wire, who may
/// tag, too. Of devices above it in other network namespaces the
/// kernel says nothing.
pub fn are_above(links: &BTreeMap<u32, Link>, index: u32) -> bool {
    let mut below = BTreeSet::from([index]);
    loop {
        let is_above = |link: &&Link| {
            let lies_on = |lower| link.lower_namespace.is_none() && !link.is_pair() && below.contains(&lower);
            let has_slave =
                links.values().any(|it| below.contains(&it.index) && it.master == Some(link.index));
            !below.contains(&link.index) && (link.lower.is_some_and(lies_on) || has_slave)
        };
        let above: Vec<&Link> = links.values().filter(is_above).collect();
        if above.iter().any(|link| KINDS.contains(&link.kind.as_str())) {
            return true;
        }
        if above.is_empty() {
            return false;
        }
        below.extend(above.iter().map(|link| link.index));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::are_above;
    use crate::host::links::Link;

    #[test]
    fn a_tag_is_for_what_lies_above_in_whatever_way() {
        let link = |index, kind: &str, master, lower| {
            (index, Link { index, kind: kind.into(), master, lower, ..Link::default() })
        };
        let elsewhere = Link { lower_namespace: Some(0), ..link(9, "vlan", None, Some(8)).1 };
        let links: BTreeMap<_, _> = [
            link(1, "", Some(2), None),
            link(2, "bond", None, None),
            link(3, "vlan", None, Some(2)),
            link(4, "", Some(5), None),
            link(5, "bridge", None, None),
            link(6, "veth", None, Some(7)),
            link(7, "veth", Some(5), Some(6)),
            link(8, "", None, None),
            (9, elsewhere),
            link(10, "macvlan", None, Some(8)),
        ]
        .into();
        let tagged: Vec<u32> = links.keys().copied().filter(|index| are_above(&links, *index)).collect();
        // The other end of a pair does not lie above it.
        assert_eq!(tagged, [1, 2, 4, 7, 8]);
    }
}
