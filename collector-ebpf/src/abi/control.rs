//! What user space tells every run of the programs, and what a run tells user space about its clock.

use super::{counter::Ledger, layout::layout, xdp::XdpLedger};

/// A CPU's entry of the map `CONTROL`: what user space tells its programs, and the ledger that they keep. One look-up
/// serves for both, and what the steady state touches is one cache line.
///
/// All but the ledgers is written by user space through shared memory, each word by one aligned store, and read once, at
/// a program's entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Bit 0 is the count epoch (0 or 1) that indexes every epoch-bound map, bits 1-31 are the configuration
    /// generation, bits 32-63 count the swaps of the epoch. One word, so that no run can see the one without the
    /// other, and no two epochs have the same.
    pub word: u64,
    /// The value of the kernel's `jiffies64` from which the programs only let packets pass. User space moves
    /// it forward as long as it lives; filters of a process that was killed go silent by themselves.
    pub lease: u64,
    /// The index of this CPU's first slot in the IPv4 cache, by epoch; [`NO_SLOTS`](Self::NO_SLOTS) where it has none.
    pub first_slot_4: [u32; 2],
    /// The same of the IPv6 cache.
    pub first_slot_6: [u32; 2],
    /// Octets that are reported of a packet that is traced, at most [`MOST_CAPTURED`](super::packet::MOST_CAPTURED); 0 as
    /// long as nothing is traced.
    pub captured: u64,
    /// What became of every buffer and record: written by this CPU's programs only.
    pub ledger: Ledger,
    /// What crossed each uplink, by [`Role::uplink`](super::pu::Role::uplink): written likewise. The first entry is of all
    /// other interfaces.
    pub crossed: [Crossed; UPLINKS],
    /// What became of frames at XDP: written likewise.
    pub xdp: XdpLedger,
    /// Records that user space has read from this CPU's buffer of events, where they go by one.
    pub events_read: u64,
    /// How many entries of its part of `FREE_UNITS` this CPU's programs have used up: written by them only.
    pub units_taken: u64,
    /// 0 as long as no unit has a policy. Else the time from which on the programs have looked for long enough to believe
    /// that a flow's first packet is the first one that they see: `CLOCK_BOOTTIME` in nanoseconds, at least 1. Who opened a
    /// flow which began before, and by no better evidence than its first packet, is a guess.
    pub policies_from: u64,
    /// Not 0 as long as policies reject, and what they reject is dropped: then the program at XDP looks for it, too.
    pub enforced: u64,
    /// Octets that this CPU's programs have written to its buffer of packets that are traced, with what the kernel puts around
    /// each record: written by them only, where packets go by such.
    pub packets_written: u64,
    /// Of these, those that user space has read.
    pub packets_read: u64,
    #[doc(hidden)]
    pub _pad: [u64; 29],
}

// A power of two spares the programs a multiplication.
layout!(Control, 1024, {
    word: 0, lease: 8, first_slot_4: 16, first_slot_6: 24, captured: 32, ledger: 40, crossed: 312, xdp: 568, events_read: 744,
    units_taken: 752, policies_from: 760, enforced: 768, packets_written: 776,
    packets_read: 784, _pad: 792,
});

/// Uplinks of which it is counted what crossed them, and one entry for all other interfaces. A power of two.
pub const UPLINKS: usize = 8;

/// What the programs saw cross an interface, in and out. Its own counters lie between the two where it hands packets on in
/// super-packets, whose segments some drivers count; what is more than both was never seen by the programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crossed {
    /// Socket buffers.
    pub skbs: [u64; 2],
    /// The wire packets that they stand for.
    pub packets: [u64; 2],
}

layout!(Crossed, 32, { skbs: 0, packets: 16 });

impl Control {
    /// The first slot of a CPU that has none: an index beyond any cache, and so is what a hash adds to it.
    pub const NO_SLOTS: u32 = 1 << 31;

    /// The count epoch, 0 or 1.
    #[inline(always)]
    pub const fn epoch(word: u64) -> u32 {
        (word & 1) as u32
    }

    /// The configuration generation, 31 bits.
    #[inline(always)]
    pub const fn generation(word: u64) -> u32 {
        word as u32 >> 1
    }

    /// How many swaps came before, 32 bits: no two epochs in memory have the same number.
    #[inline(always)]
    pub const fn swaps(word: u64) -> u32 {
        (word >> 32) as u32
    }

    /// The word of an epoch: the parity of the swaps is the epoch's number.
    #[inline(always)]
    pub const fn word(swaps: u32, generation: u32) -> u64 {
        (swaps as u64) << 32 | (generation << 1) as u64 | (swaps & 1) as u64
    }
}

/// One moment on both of the kernel's clocks, taken by the program `anchor`: ties the ticks that a flow's
/// slot keeps to the boot clock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Anchor {
    /// `jiffies64`: ticks of the kernel's own HZ; stands still in suspend.
    pub jiffies: u64,
    /// `CLOCK_BOOTTIME` in nanoseconds, suspend included.
    pub boot_ns: u64,
}

layout!(Anchor, 16, { jiffies: 0, boot_ns: 8 });

#[cfg(test)]
mod tests {
    use super::Control;

    #[test]
    fn one_word_carries_all_numbers() {
        let word = Control::word(7, 0x7EAD_BEEF);
        assert_eq!((Control::epoch(word), Control::generation(word)), (1, 0x7EAD_BEEF));
        let word = Control::word(u32::MAX - 1, u32::MAX);
        assert_eq!((Control::epoch(word), Control::generation(word)), (0, u32::MAX >> 1));
        assert_ne!(Control::word(2, 5), Control::word(4, 5));
    }
}
