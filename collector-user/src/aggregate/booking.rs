//! What the flows have counted for processing units.
//!
//! A packet that a flow holds is counted once, in the flow: what a unit has is what its flows hold, added up here as they
//! are drained, and what no flow holds, which the programs count for it. Two amounts have to wait. A flow whose unit is
//! [provisional](how::PROVISIONAL) came in for this host, and may turn out to be somebody else's once an answer leaves:
//! it is booked when that is known, or has been waited for long enough. And the host's end of a
//! container's flow counts in the class `local` of whoever the socket belongs to, which is known at the same time.
//! Nothing is ever taken back, so every counter only grows.

use std::collections::BTreeMap;

use collector_ebpf::abi::{
    counter::DirectionCounters,
    flow::{FIRST_BOUNDARY, LOOPBACK_BOUNDARY, RX, TX, how},
    network,
};

use crate::drain::flow::{FlowDelta, FlowId};

/// Amounts by direction: `RX`, `TX`.
type Amounts = [DirectionCounters; 2];

/// What a unit has been given by its flows since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// At the unit's boundary.
    pub boundary: Amounts,
    /// In the class `local`.
    pub local: Amounts,
}

/// The unit at the host's end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostEnd {
    /// Index of the unit.
    pub pu: u16,
    /// The host is the remote end: the boundary is the host-side end of a container.
    pub is_remote: bool,
}

/// Whose the indexes are that flows are counted for.
pub trait Owners {
    /// The unit at the host's end of a flow at the boundary of another one, of which the programs know the index, or 0.
    fn host_end(&self, id: &FlowId, known: u16) -> HostEnd;

    /// Whether two indexes are of one unit: the programs count by one before anybody knows whose it is.
    fn are_one(&self, one: u16, other: u16) -> bool {
        one == other
    }
}

/// Where each unit has one index.
impl<F: Fn(&FlowId, u16) -> HostEnd> Owners for F {
    fn host_end(&self, id: &FlowId, known: u16) -> HostEnd {
        self(id, known)
    }
}

/// What a flow has counted and no unit has been given yet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Open {
    provisional: Amounts,
    local: Amounts,
}

impl Open {
    /// Takes in what was drained and has to wait.
    pub fn add(&mut self, delta: &FlowDelta) {
        if delta.how & how::PROVISIONAL != 0 {
            add(&mut self.provisional, &amounts(delta));
        }
        if delta.id.boundary >= FIRST_BOUNDARY && !network::is_inside(delta.id.boundary) {
            add(&mut self.local, &amounts(delta));
        }
    }

    /// Whether there is nothing to give.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What has been given to each unit.
#[derive(Debug, Default)]
pub struct Credits {
    units: BTreeMap<u16, Credit>,
}

impl Credits {
    /// Gives what was drained to the unit that it was counted for, where that is known. What loopback carries crosses no
    /// boundary: the programs count it for both its ends. What is inside of a tunnel has been counted as the tunnel's.
    pub fn book(&mut self, delta: &FlowDelta) {
        let FlowId { boundary, .. } = delta.id;
        if delta.how & how::PROVISIONAL == 0 && boundary != LOOPBACK_BOUNDARY && !network::is_inside(boundary)
        {
            add(&mut self.units.entry(delta.pu).or_default().boundary, &amounts(delta));
        }
    }

    /// Gives what is open: to the flow's unit `pu`, and to that of its end on this host, if it has one.
    pub fn give(&mut self, open: &mut Open, pu: u16, host_end: Option<HostEnd>) {
        let Open { provisional, local } = std::mem::take(open);
        if provisional != Amounts::default() {
            add(&mut self.units.entry(pu).or_default().boundary, &provisional);
        }
        if let Some(HostEnd { pu, is_remote }) = host_end
            && local != Amounts::default()
        {
            let [received, sent] = local;
            let seen_there = if is_remote { [sent, received] } else { [received, sent] };
            add(&mut self.units.entry(pu).or_default().local, &seen_there);
        }
    }

    /// What a unit has been given.
    pub fn of(&self, pu: u16) -> Credit {
        self.units.get(&pu).copied().unwrap_or_default()
    }
}

fn amounts(delta: &FlowDelta) -> Amounts {
    let mut amounts = Amounts::default();
    for direction in [RX, TX] {
        if let (Some(into), Some(packets), Some(bytes), Some(skbs)) = (
            amounts.get_mut(direction),
            delta.packets.get(direction),
            delta.bytes.get(direction),
            delta.skbs.get(direction),
        ) {
            *into = DirectionCounters { packets: *packets, bytes: *bytes, skbs: *skbs };
        }
    }
    amounts
}

fn add(into: &mut Amounts, from: &Amounts) {
    for (into, from) in into.iter_mut().zip(from) {
        into.packets += from.packets;
        into.bytes += from.bytes;
        into.skbs += from.skbs;
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use collector_ebpf::abi::{
        flow::{LOOPBACK_BOUNDARY, RX, TX, how, ports},
        network,
    };

    use super::{Credit, Credits, HostEnd, Open};
    use crate::drain::flow::{FlowDelta, FlowId};

    fn delta(how: u8) -> FlowDelta {
        let address = IpAddr::from([10, 0, 0, 1]);
        FlowDelta {
            id: FlowId {
                local: address,
                remote: address,
                local_port: 1,
                remote_port: 2,
                boundary: 0,
                protocol: 17,
                ports: ports::TRANSPORT,
            },
            bytes: [300, 70],
            packets: [3, 1],
            skbs: [2, 1],
            begun: 0,
            first: 0,
            last: 0,
            pu: 1,
            interface: 1,
            tcp_flags: [0; 2],
            how,
            host_pu: 0,
            verdict: 0,
            rejected: [0; 2],
        }
    }

    fn at(boundary: u16, how: u8) -> FlowDelta {
        let delta = delta(how);
        FlowDelta { id: FlowId { boundary, ..delta.id }, ..delta }
    }

    #[test]
    fn what_is_decided_is_given_at_once_and_what_is_not_once_it_is() {
        let (mut open, mut credits) = (Open::default(), Credits::default());
        open.add(&delta(0));
        credits.book(&delta(0));
        assert!(open.is_empty());
        assert_eq!(credits.of(1).boundary[RX].packets, 3);
        open.add(&delta(how::PROVISIONAL));
        credits.book(&delta(how::PROVISIONAL));
        assert_eq!(credits.of(1).boundary[RX].packets, 3, "it waits");
        credits.give(&mut open, 7, None);
        assert!(open.is_empty(), "and is given once");
        let given = credits.of(7);
        assert_eq!(
            (given.boundary[RX].packets, given.boundary[RX].bytes, given.boundary[RX].skbs),
            (3, 300, 2)
        );
        assert_eq!((given.boundary[TX].packets, given.local), (1, Credit::default().local));
        assert_eq!(credits.of(8), Credit::default());
    }

    #[test]
    fn what_loopback_carries_crosses_no_boundary() {
        let mut credits = Credits::default();
        credits.book(&at(LOOPBACK_BOUNDARY, 0));
        assert_eq!(credits.of(1), Credit::default());
        credits.book(&at(LOOPBACK_BOUNDARY + 1, 0));
        assert_eq!(credits.of(1).boundary[TX].bytes, 70);
    }

    #[test]
    fn what_is_inside_of_a_tunnel_is_in_no_units_totals() {
        let (mut open, mut credits) = (Open::default(), Credits::default());
        for boundary in [network::FIRST, u16::MAX] {
            credits.book(&at(boundary, 0));
            open.add(&at(boundary, 0));
            credits.give(&mut open, 101, Some(HostEnd { pu: 1, is_remote: false }));
        }
        assert_eq!([credits.of(1), credits.of(101)], [Credit::default(); 2]);
    }

    #[test]
    fn the_hosts_end_of_a_containers_flow_sees_it_from_the_other_side() {
        for is_remote in [true, false] {
            let (mut open, mut credits) = (Open::default(), Credits::default());
            open.add(&at(5000, 0));
            credits.give(&mut open, 101, Some(HostEnd { pu: 1, is_remote }));
            let [received, sent] = credits.of(1).local;
            let want = if is_remote { (1, 3) } else { (3, 1) };
            assert_eq!((received.packets, sent.packets), want);
            assert_eq!(credits.of(101), Credit::default(), "it was given that at once");
        }
    }

    #[test]
    fn without_an_end_on_this_host_nobody_is_given_anything() {
        let (mut open, mut credits) = (Open::default(), Credits::default());
        open.add(&at(5000, 0));
        credits.give(&mut open, 101, None);
        assert!(open.is_empty());
        assert_eq!(credits.of(1), Credit::default());
    }
}
