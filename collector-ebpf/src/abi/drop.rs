//! What the kernel drops: counted by unit, reason and place; single ones are [packets](super::packet).

use super::{
    counter::{PU_CHUNKS, PUS_PER_CHUNK},
    layout::layout,
};

/// Units that have a budget of reports: as many as can be counted for.
pub const UNITS: u32 = PU_CHUNKS * PUS_PER_CHUNK;

/// Whose drops these are, and why and where they were made: the key of the map `DROPS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DropKey {
    /// The address in the kernel that the dropping call returns to.
    pub place: u64,
    /// A number of the running kernel's; 0 where it names none (before Linux 5.17).
    pub reason: u32,
    /// The processing unit; [`ELSEWHERE`] for other network namespaces.
    pub pu: u16,
    #[doc(hidden)]
    pub _pad: u16,
}

layout!(DropKey, 16, { place: 0, reason: 8, pu: 12, _pad: 14 });

/// In place of a processing unit: the packet was dropped in another network namespace, and nobody declares its addresses.
pub const ELSEWHERE: u16 = 0;

/// How much was dropped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropCounts {
    /// Wire packets beyond the socket buffers: of a super-packet, all but one.
    pub more: u64,
    /// Socket buffers.
    pub skbs: u64,
    /// Octets of the buffers as the kernel held them, from the link layer's header on where there was one.
    pub bytes: u64,
}

layout!(DropCounts, 24, { more: 0, skbs: 8, bytes: 16 });

impl DropCounts {
    /// Wire packets.
    pub const fn packets(&self) -> u64 {
        self.skbs + self.more
    }
}

/// What became of every run of the drop program, and of every report: an entry of the map `DROP_LEDGER`, one a CPU.
///
/// `seen` = those in [`DropCounts::skbs`] + `no_packet` + `table_full`. Of those that are counted and not [`ELSEWHERE`],
/// each is one of `reported`, `folded`, `output_failed`, or [`DropBudget::held_back`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropLedger {
    /// Socket buffers that the kernel said it drops.
    pub seen: u64,
    /// Those that no network device and no protocol of the network has anything to do with: messages of netlink, of
    /// sockets of this host, what a program was tried on.
    pub no_packet: u64,
    /// Those whose key found no room in the map.
    pub table_full: u64,
    /// Reports that were handed to user space.
    pub reported: u64,
    /// Those of reasons of which no report is wanted.
    pub folded: u64,
    /// Reports for which the buffer had no room.
    pub output_failed: u64,
}

layout!(DropLedger, 48, { seen: 0, no_packet: 8, table_full: 16, reported: 24, folded: 32, output_failed: 40 });

/// Parts of a tick in which reports are paid for.
pub const PARTS: u64 = 1 << 16;

/// A unit's budget of reports: an entry of the array `DROP_BUDGETS`, by the unit's index.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropBudget {
    /// Up to when reports are paid for, in [parts](PARTS) of a tick of the kernel's `jiffies64`: each costs its interval.
    /// (The generic cell rate algorithm, ITU-T I.371: a token bucket in one number.)
    pub paid_until: u64,
    /// Reports that were held back, ever.
    pub held_back: u64,
}

layout!(DropBudget, 16, { paid_until: 0, held_back: 8 });
