//! Which end of a flow is the local one, and whose it is: what the programs are told of interfaces, sockets and addresses, as far
//! as addresses and a capture's directions tell it.

use std::net::IpAddr;

use collector_ebpf::abi::{
    flow::{RX, TX, how},
    pu::index,
};
use ipnet::IpNet;

use super::table::Key;
use crate::{pu::registry::Registry, read::container::Direction};

/// Addresses of the host that captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalNetworks(pub Vec<IpNet>);

/// What is local.
pub(super) struct Locals {
    networks: Vec<IpNet>,
    /// Declared ranges, the longest first, and whose each is.
    ranges: Vec<(IpNet, u16)>,
}

/// Whose a packet's flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whose {
    /// The unit.
    pub(super) pu: u16,
    /// Bits of [`how`]: by what that is known.
    pub(super) how: u8,
    /// The local end sent the packet.
    pub(super) sent: bool,
}

impl Locals {
    pub(super) fn new(LocalNetworks(networks): &LocalNetworks, units: &Registry) -> Self {
        let mut ranges: Vec<_> = units.ranges().collect();
        ranges.sort_by_key(|(range, _)| std::cmp::Reverse(range.prefix_len()));
        Self { networks: networks.clone(), ranges }
    }

    /// Whose the flow of a packet is, whose key is as if its sender were the local end.
    #[inline]
    pub(super) fn of(&self, key: &Key, direction: Direction, opened: u8) -> Whose {
        let by = |method: u8| method << how::ATTRIBUTION_SHIFT;
        let in_order = || match key {
            Key::V4(key) if key.is_symmetric() => opened & how::LOCAL_INITIATED != 0,
            Key::V6(key) if key.is_symmetric() => opened & how::LOCAL_INITIATED != 0,
            Key::V4(key) => key.is_in_order(),
            Key::V6(key) => key.is_in_order(),
        };
        if self.networks.is_empty() && self.ranges.is_empty() {
            return match direction {
                Direction::Unknown => Whose { pu: index::FORWARDED, how: by(how::BY_NONE), sent: in_order() },
                said => {
                    let sent = said == Direction::Outbound;
                    Whose { pu: index::HOST, how: by(how::BY_ADDRESS), sent }
                }
            };
        }
        let (source, destination): (IpAddr, IpAddr) = match key {
            Key::V4(key) => (key.local.into(), key.remote.into()),
            Key::V6(key) => (key.local.into(), key.remote.into()),
        };
        let ends = [self.of_address(source), self.of_address(destination)];
        let sent = match (ends, direction) {
            ([Some(_), None], _) | ([Some(_), Some(_)] | [None, None], Direction::Outbound) => true,
            ([None, Some(_)], _) | ([Some(_), Some(_)] | [None, None], Direction::Inbound) => false,
            ([Some(_), Some(_)] | [None, None], Direction::Unknown) => in_order(),
        };
        let [source, destination] = ends;
        let (pu, how) = match if sent { source } else { destination } {
            Some(found) => found,
            None if direction == Direction::Unknown => (index::FORWARDED, by(how::BY_NONE)),
            None => (index::HOST, by(how::BY_ADDRESS)),
        };
        Whose { pu, how, sent }
    }

    /// Whose the flow of a packet is that lies inside of a tunnel's, which that end `sent`. Only addresses tell, as in the programs.
    pub(super) fn inside(&self, key: &Key, sent: bool) -> Whose {
        let (source, destination): (IpAddr, IpAddr) = match key {
            Key::V4(key) => (key.local.into(), key.remote.into()),
            Key::V6(key) => (key.local.into(), key.remote.into()),
        };
        let (pu, how) = match self.of_address(if sent { source } else { destination }) {
            Some((index::HOST, how)) => (index::OVERLAY, how),
            Some(found) => found,
            None => (index::FORWARDED, how::BY_NONE << how::ATTRIBUTION_SHIFT),
        };
        Whose { pu, how, sent }
    }

    /// Whose the addresses of a packet are, which its sender is the local end of: its source, and its destination.
    pub(super) fn of_ends(&self, key: &Key) -> [Option<u16>; 2] {
        let ends: [IpAddr; 2] = match key {
            Key::V4(key) => [key.local.into(), key.remote.into()],
            Key::V6(key) => [key.local.into(), key.remote.into()],
        };
        ends.map(|end| self.of_address(end).map(|(pu, _)| pu))
    }

    fn of_address(&self, address: IpAddr) -> Option<(u16, u8)> {
        let declared = self.ranges.iter().find(|(range, _)| range.contains(&address));
        let of_host = || self.networks.iter().any(|network| network.contains(&address));
        match declared {
            Some((_, pu)) => Some((*pu, how::BY_CIDR << how::ATTRIBUTION_SHIFT)),
            None if of_host() => Some((index::HOST, how::BY_ADDRESS << how::ATTRIBUTION_SHIFT)),
            None => None,
        }
    }

    /// The unit and the direction of a frame without addresses.
    pub(super) const fn of_nobody(direction: Direction) -> (u16, usize) {
        match direction {
            Direction::Outbound => (index::HOST, TX),
            Direction::Inbound => (index::HOST, RX),
            Direction::Unknown => (index::UNKNOWN, RX),
        }
    }
}

#[cfg(test)]
mod tests {
    use collector_ebpf::abi::{
        flow::{FlowKey4, how},
        pu::index,
    };

    use super::{Direction, Key, LocalNetworks, Locals, Whose};
    use crate::pu::registry::{Declared, Registry};

    const HERE: [u8; 4] = [10, 0, 0, 1];
    const WEB: [u8; 4] = [10, 1, 0, 1];
    const THERE: [u8; 4] = [192, 0, 2, 1];

    fn of(local: &[&str], ends: [[u8; 4]; 2], direction: Direction) -> (u16, u8, bool) {
        let [local_end, remote] = ends;
        let web = Declared {
            id: "web".into(),
            ranges: vec!["10.1.0.0/16".parse().unwrap()],
            ..Declared::default()
        };
        let units = Registry::new(&[web]).unwrap();
        let networks = LocalNetworks(local.iter().map(|it| it.parse().unwrap()).collect());
        let key = Key::V4(FlowKey4 { local: local_end, remote, local_port: 1, ..FlowKey4::default() });
        let Whose { pu, how: bits, sent } = Locals::new(&networks, &units).of(&key, direction, 0);
        (pu, how::attributed_by(bits), sent)
    }

    #[test]
    fn an_address_says_more_than_a_direction() {
        let web = index::FIRST;
        for direction in [Direction::Unknown, Direction::Inbound, Direction::Outbound] {
            assert_eq!(of(&[], [WEB, THERE], direction), (web, how::BY_CIDR, true));
            assert_eq!(of(&[], [THERE, WEB], direction), (web, how::BY_CIDR, false));
            assert_eq!(of(&["10.0.0.0/24"], [THERE, HERE], direction), (index::HOST, how::BY_ADDRESS, false));
        }
    }

    #[test]
    fn where_both_are_local_or_none_the_direction_says_it() {
        assert_eq!(
            of(&["10.0.0.0/24"], [HERE, WEB], Direction::Outbound),
            (index::HOST, how::BY_ADDRESS, true)
        );
        assert_eq!(
            of(&["10.0.0.0/24"], [HERE, WEB], Direction::Inbound),
            (index::FIRST, how::BY_CIDR, false)
        );
        assert_eq!(of(&[], [THERE, HERE], Direction::Inbound), (index::HOST, how::BY_ADDRESS, false));
    }

    #[test]
    fn without_any_both_directions_are_one_flow() {
        let (one, other) =
            (of(&[], [THERE, HERE], Direction::Unknown), of(&[], [HERE, THERE], Direction::Unknown));
        assert_eq!((one.0, one.1), (index::FORWARDED, how::BY_NONE));
        assert_ne!(one.2, other.2);
    }
}
