//! Processing units and interface roles, as the programs see them.

use super::layout::layout;

/// The index of a processing unit in the counters. Where a unit has a mark, it is this number.
pub mod index {
    /// This host itself.
    pub const HOST: u16 = 1;
    /// What passes through this host.
    pub const FORWARDED: u16 = 2;
    /// What cannot be decided.
    pub const UNKNOWN: u16 = 3;
    /// What this host sends and receives inside of tunnels: apart from [`HOST`], which has the tunnels' own packets.
    pub const OVERLAY: u16 = 4;
    /// The first index of a unit that has a name and a mark; as in the original, marks begin here.
    pub const FIRST: u16 = 101;
}

/// What user space found out about an interface: an entry of the map `ROLES`.
///
/// The map is an array indexed by the low bits of the interface index; the entry says whose it is. Interfaces
/// that meet in one entry go to the hash `ROLES_MORE`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// The interface index; 0 where the entry is empty.
    pub ifindex: u32,
    /// The boundary in the key of flows that cross it; 0 at an uplink, whose flows carry their VLAN id.
    pub boundary: u16,
    /// The processing unit that frames without a flow count for, and all packets with [`role::OWN`].
    pub pu: u16,
    /// The number that flow counts name the interface by.
    pub interface: u16,
    /// Bits of [`role`].
    pub flags: u16,
    /// Where it is counted what crosses it as a whole: from 1 on, below [`UPLINKS`](super::control::UPLINKS); 0 where it is
    /// not.
    pub uplink: u32,
}

layout!(Role, 16, { ifindex: 0, boundary: 4, pu: 6, interface: 8, flags: 10, uplink: 12 });

/// The bits of [`Role::flags`].
pub mod role {
    /// The unit is on the far side: the host-side end of a container. What comes in here, the unit sent.
    pub const FAR: u16 = 1;
    /// Everything that crosses it belongs to the interface's own unit.
    pub const OWN: u16 = 1 << 1;
    /// An uplink: VLAN id in the key, and the unit is found by address.
    pub const UPLINK: u16 = 1 << 2;
    /// Frames start with an IP header (tun, wireguard, ipip, ...).
    pub const RAW_IP: u16 = 1 << 3;
    /// The loopback device: every packet crosses it twice, once each way.
    pub const LOOPBACK: u16 = 1 << 4;
    /// Not attached: a device (a bridge, mostly) on whose way into the host lie host-side ends. What is routed to it
    /// or came in by it is counted there.
    pub const INSIDE: u16 = 1 << 5;
    /// An uplink that is a port of such a bridge: frames for others are switched on.
    pub const SWITCHED: u16 = 1 << 6;
    /// Not attached: an ifb, which hands packets back to the interface that they were leaving by.
    pub const IFB: u16 = 1 << 7;
    /// There is such a device on the host: look where packets come from.
    pub const MIRRORED: u16 = 1 << 8;
    /// What lies inside of tunnels is wanted as flows of their own.
    pub const INNER: u16 = 1 << 9;
    /// A program at XDP, anybody's, runs on socket buffers that come in here (generic XDP). Linux 6.9 and newer copy most of
    /// them for it, and TC then sees what begins behind the link layer's header.
    pub const COPIED: u16 = 1 << 10;
    /// What a program at XDP may have to know of a frame stands beside it, where none sees it: a VLAN tag that the device or the
    /// sender has put there (there are VLANs above this uplink), or that a tap's frame is several packets.
    pub const BESIDE: u16 = 1 << 11;
    /// What a program at XDP drops here is a socket buffer, then or soon, which the kernel frees as dropped right afterwards: with
    /// generic XDP, and on a veth.
    pub const FREED: u16 = 1 << 12;
}

/// The key of a tunnel that ends on this host: its IP protocol, and the port that it is sent to, in network byte order
/// (0 for one that has no ports).
pub const fn tunnel(protocol: u8, port: u16) -> u32 {
    (protocol as u32) << 16 | port as u32
}

/// Entries of the array `ROLES`; a power of two.
pub const ROLES: u32 = 4096;

/// Control groups whose unit is known at a time: as many as there are indexes.
pub const CGROUPS: u32 = 1 << 14;

/// The id of the root of the control groups' hierarchy (cgroup v2), whose processes are this host's own. Linux 5.5 and newer
/// number it so.
pub const ROOT_CGROUP: u64 = 1;

/// Beside the index in a value of the map `CGROUPS`: the unit is declared, and goes before the one that declares the socket's
/// user.
pub const DECLARED: u32 = 1 << 16;

/// Users that units declare, at most.
pub const USERS: u32 = 4096;

/// IP protocols whose ports units may declare: TCP, UDP, SCTP.
pub const PORT_PROTOCOLS: [u8; 3] = [6, 17, 132];

/// Entries of the array `PORTS`.
pub const PORTS: u32 = (PORT_PROTOCOLS.len() as u32) << 16;

/// The entry of `PORTS` for a port, in host byte order. `None` where units may not declare that protocol's.
#[inline(always)]
pub const fn port(protocol: u8, port: u16) -> Option<u32> {
    let [tcp, udp, sctp] = PORT_PROTOCOLS;
    let third = if protocol == tcp {
        0
    } else if protocol == udp {
        1
    } else if protocol == sctp {
        2
    } else {
        return None;
    };
    Some(third << 16 | port as u32)
}

/// An index that a program may give to a control group which it is the first to meet: an entry of the map `FREE_UNITS`.
///
/// The entry is whose [`unit`](Self::unit) says: the programs' as long as there is one, user space's while it is 0. Who hands
/// it over writes that word last, so that the other side never sees half of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FreeUnit {
    /// The id of the control group (cgroup v2) that the index was given to; 0 as long as it is free.
    pub cgroup: u64,
    /// The index; 0 once it was given away, or where there is none.
    pub unit: u64,
}

layout!(FreeUnit, 16, { cgroup: 0, unit: 8 });

/// Entries of `FREE_UNITS` for each CPU, which are used in turn; a power of two.
pub const FREE_UNITS: u32 = 64;

#[cfg(test)]
mod tests {
    use super::{DECLARED, FREE_UNITS, PORT_PROTOCOLS, PORTS, ROLES, index, port, role};

    #[test]
    fn flags_are_bits_of_their_own() {
        let flags = [
            role::FAR,
            role::OWN,
            role::UPLINK,
            role::RAW_IP,
            role::LOOPBACK,
            role::INSIDE,
            role::SWITCHED,
            role::IFB,
            role::MIRRORED,
            role::INNER,
            role::COPIED,
            role::BESIDE,
            role::FREED,
        ];
        assert!(flags.iter().all(|it| it.is_power_of_two()));
        assert_eq!(flags.iter().sum::<u16>(), flags.iter().fold(0, |all, it| all | it));
    }

    #[test]
    fn the_low_bits_of_an_interface_index_are_an_entry() {
        assert!(ROLES.is_power_of_two());
    }

    #[test]
    fn the_low_bits_of_a_number_are_an_entry_of_the_free_list() {
        assert!(FREE_UNITS.is_power_of_two());
    }

    #[test]
    fn every_port_of_every_protocol_has_an_entry_of_its_own() {
        let all = PORT_PROTOCOLS.iter().flat_map(|protocol| [0, 443, u16::MAX].map(|it| port(*protocol, it)));
        let mut before = None;
        for entry in all {
            assert!(entry > before && entry.is_some_and(|entry| entry < PORTS), "{before:?} {entry:?}");
            before = entry;
        }
        assert_eq!(port(1, 443), None);
    }

    #[test]
    fn what_stands_beside_an_index_is_not_part_of_it() {
        assert_eq!(DECLARED as u16, 0);
    }

    #[test]
    fn units_without_a_mark_come_first() {
        let indices = [0, index::HOST, index::FORWARDED, index::UNKNOWN, index::FIRST];
        assert!(indices.is_sorted_by(|one, two| one < two), "0 is no unit's");
    }
}
