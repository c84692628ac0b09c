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
    /// The address in the kernel that the dropping call returns to; [`AT_XDP`] where that is not asked.
    pub place: u64,
    /// A number of the running kernel's; 0 where it names none (before Linux 5.17), or is not asked.
    pub reason: u32,
    /// The processing unit; [`ELSEWHERE`] for other network namespaces.
    pub pu: u16,
    /// 1 where it was this collector's own program at TC or XDP that dropped, for a policy; 0 where it was anybody else.
    pub by_policy: u16,
}

layout!(DropKey, 16, { place: 0, reason: 8, pu: 12, by_policy: 14 });

/// In place of a processing unit: the packet was dropped in another network namespace, and nobody declares its addresses.
pub const ELSEWHERE: u16 = 0;

/// In place of an address in the kernel: this collector's own program at XDP has dropped it. No function begins there.
pub const AT_XDP: u64 = 1;

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
    /// 1 where no report is wanted of them.
    pub folded: u32,
    #[doc(hidden)]
    pub _pad: u32,
}

layout!(DropCounts, 32, { more: 0, skbs: 8, bytes: 16, folded: 24, _pad: 28 });

/// A function of the kernel's where some drops are no news: an entry of the array `FOLDED_PLACES`, which is sorted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FoldedPlace {
    /// The function's first address.
    pub begin: u64,
    /// Its octets.
    pub length: u64,
    /// A bit for each of the first 64 reasons, of which the 0th stands for none.
    pub reasons: u64,
}

layout!(FoldedPlace, 24, { begin: 0, length: 8, reasons: 16 });

/// Entries that `FOLDED_PLACES` may have: what [`FoldedPlace`]s are looked for by halves in, as often as there are bits.
pub const MOST_PLACES: u32 = 1 << PLACE_BITS;
/// See [`MOST_PLACES`].
pub const PLACE_BITS: u32 = 11;

impl DropCounts {
    /// Wire packets.
    pub const fn packets(&self) -> u64 {
        self.skbs + self.more
    }
}

/// What became of every run of the drop program, and of every report: an entry of the map `DROP_LEDGER`, one a CPU.
///
/// `seen` = those in [`DropCounts::skbs`] + `no_packet` + `table_full`. Of those that are counted and not [`ELSEWHERE`],
/// each is one of `reported`, `folded`, `filtered`, `output_failed`, or [`DropBudget::held_back`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropLedger {
    /// Socket buffers that the kernel said it drops, and frames that this collector's own program at XDP drops: those may be
    /// socket buffers already, and are counted once all the same.
    pub seen: u64,
    /// Those that no network device and no protocol of the network has anything to do with: messages of netlink, of
    /// sockets of this host, what a program was tried on.
    pub no_packet: u64,
    /// Those whose key found no room in the map.
    pub table_full: u64,
    /// Reports that were handed to user space.
    pub reported: u64,
    /// Those of reasons and places of which no report is wanted.
    pub folded: u64,
    /// Those that the packet filter does not want.
    pub filtered: u64,
    /// Reports for which the buffer had no room.
    pub output_failed: u64,
}

layout!(DropLedger, 56, {
    seen: 0, no_packet: 8, table_full: 16, reported: 24, folded: 32, filtered: 40, output_failed: 48,
});

/// Parts of a tick in which reports are paid for.
pub const PARTS: u64 = 1 << 16;

/// A unit's budget of reports, and what it lost: an entry of the array `DROP_BUDGETS`, by the unit's index. That of
/// [`ELSEWHERE`] has losses alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropBudget {
    /// Up to when reports are paid for, in [parts](PARTS) of a tick of the kernel's `jiffies64`: each costs its interval.
    /// (The generic cell rate algorithm, ITU-T I.371: a token bucket in one number.)
    pub paid_until: u64,
    /// Reports that were held back, ever.
    pub held_back: u64,
    /// Of [`DropLedger::table_full`], those of the unit.
    pub table_full: u64,
    /// Of [`DropLedger::output_failed`], those of the unit.
    pub output_failed: u64,
}

layout!(DropBudget, 32, { paid_until: 0, held_back: 8, table_full: 16, output_failed: 24 });
