//! A packet as it was seen, for those who keep packets and not reports of them.

use bytes::Bytes;

use super::{PacketEvent, Text, Time};

/// What the octets of a captured packet begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// An Ethernet header (`LINKTYPE_ETHERNET`).
    #[default]
    Ethernet,
    /// An IPv4 or IPv6 header (`LINKTYPE_RAW`).
    RawIp,
}

/// One packet, before it becomes a [`PacketReport`](super::PacketReport).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// When the program saw it, by the wall clock.
    pub time: Time,
    /// The same moment on the boot clock, in nanoseconds: that tells which of two packets came first, though the wall clock
    /// is set meanwhile.
    pub boot_ns: u64,
    /// The interface index; 0 where there is none.
    pub ifindex: u32,
    /// The interface's name; empty where it is not known.
    pub interface: Text,
    /// What happened to it: came in by the interface, was handed to it, or was dropped.
    pub event: PacketEvent,
    /// Why it was dropped, in the kernel's words; empty where it was not, or where they are not known.
    pub drop_reason: Text,
    /// The function that dropped it, and how far in it.
    pub drop_place: Text,
    /// What the frame carries, where that is no IP packet and it was dropped: as in a [report](super::PacketReport).
    pub ethertype: Text,
    /// The id of the processing unit; empty where it is none's.
    pub puid: Text,
    /// The mark of its socket buffer, as it was found.
    pub mark: u32,
    /// The wire packets that it stands for: more than one for a super-packet.
    pub packets: u32,
    /// Octets that the packet had, a tag that the kernel kept beside it included.
    pub length: u32,
    /// What `bytes` begin with.
    pub link: LinkType,
    /// The first octets of it, at most the snap length, without padding. A VLAN tag that the kernel kept beside the frame
    /// stands where it was on the wire, as tcpdump shows it.
    pub bytes: Bytes,
}
