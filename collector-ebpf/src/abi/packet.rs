//! Single packets: what a program says of one, and its octets behind it.

use super::layout::layout;

/// What a [`PacketRecord`] is about.
pub mod event {
    /// A packet came in.
    pub const RECEIVED: u8 = 1;
    /// A packet was handed to an interface.
    pub const TRANSMITTED: u8 = 2;
    /// The kernel dropped a packet.
    pub const DROPPED: u8 = 3;
}

/// What the octets of a packet begin with.
pub mod link {
    /// An Ethernet header.
    pub const ETHERNET: u8 = 0;
    /// An IP header.
    pub const RAW_IP: u8 = 1;
    /// Nothing is known of it: it has no octets that are a packet's, or they were not to be had.
    pub const NONE: u8 = 2;
}

/// Which end of a dropped packet is its unit's.
pub mod end {
    /// Neither: it passed through, or it has no ends that are known.
    pub const NEITHER: u8 = 0;
    /// Its source.
    pub const SOURCE: u8 = 1;
    /// Its destination.
    pub const DESTINATION: u8 = 2;
}

/// Octets of a packet that follow its record at most: with its header of 8 octets, the length of 4, the record and padding
/// to 8, a record of a perf buffer stays below the 64 KiB that its own length field can say.
pub const MOST_CAPTURED: u32 = u16::MAX as u32 - 7 - 8 - 4 - size_of::<PacketRecord>() as u32;

/// One packet. [`captured`](Self::captured) octets of it follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketRecord {
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub boot_ns: u64,
    /// Where it was dropped: the address in the kernel that the dropping call returns to, or
    /// [`AT_XDP`](super::drop::AT_XDP); 0 otherwise.
    pub place: u64,
    /// The interface index; 0 where there is none.
    pub ifindex: u32,
    /// The mark of its socket buffer, as it was found.
    pub mark: u32,
    /// Why it was dropped: a number of the running kernel's; 0 where it names none, and otherwise.
    pub reason: u32,
    /// Reports of drops of this unit that were held back, ever; low 32 bits.
    pub suppressed: u32,
    /// Octets of the buffer from where those that follow begin.
    pub length: u32,
    /// Octets that follow.
    pub captured: u32,
    /// The wire packets that it stands for.
    pub packets: u32,
    /// The inode of the network namespace of its device; 0 where it is not known, which at TC is the collector's own.
    pub namespace: u32,
    /// The CPU.
    pub cpu: u32,
    /// The processing unit.
    pub pu: u16,
    /// The VLAN tag that the kernel keeps beside the frame, if `vlan_protocol` is not 0.
    pub vlan_tci: u16,
    /// Its Ethertype, network byte order.
    pub vlan_protocol: u16,
    /// One of [`event`].
    pub event: u8,
    /// One of [`link`].
    pub link: u8,
    /// Of a drop: which end of the packet is the processing unit's. One of [`end`].
    pub end: u8,
    /// Of a drop: 1 where the packet filter, if there is one, has been asked.
    pub filtered: u8,
    /// Of a drop: the [number](super::policy::verdict::NUMBER) of the verdict by which this collector's own program at TC or XDP
    /// has dropped it; 0 where it was anybody else.
    pub policy: u16,
}

layout!(PacketRecord, 64, {
    boot_ns: 0, place: 8, ifindex: 16, mark: 20, reason: 24, suppressed: 28, length: 32, captured: 36, packets: 40,
    namespace: 44, cpu: 48, pu: 52, vlan_tci: 54, vlan_protocol: 56, event: 58, link: 59, end: 60, filtered: 61,
    policy: 62,
});

impl PacketRecord {
    /// Nothing but zeros.
    pub const EMPTY: Self = Self {
        boot_ns: 0,
        place: 0,
        ifindex: 0,
        mark: 0,
        reason: 0,
        suppressed: 0,
        length: 0,
        captured: 0,
        packets: 0,
        namespace: 0,
        cpu: 0,
        pu: 0,
        vlan_tci: 0,
        vlan_protocol: 0,
        event: 0,
        link: 0,
        end: 0,
        filtered: 0,
        policy: 0,
    };
}
