//! Which packets are reported one by one.

use super::layout::layout;

/// Whose packets are reported: an entry of the map `TRACED`, by the unit's index. Where a unit has none that applies, the
/// entry [`ALL`] does.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Until when those of a direction (`RX`, `TX`, as the unit has it) are: `CLOCK_BOOTTIME` in nanoseconds; 0 where they
    /// are not, [`FOR_EVER`] without an end.
    pub until_ns: [u64; 2],
    /// Of so many one is reported, each CPU counting for itself; 1 for each.
    pub every: u32,
    #[doc(hidden)]
    pub _pad: u32,
}

layout!(Trace, 24, { until_ns: 0, every: 16, _pad: 20 });

/// The entry of all units.
pub const ALL: u32 = 0;

/// A time that never comes.
pub const FOR_EVER: u64 = u64::MAX;

/// Entries of the map: one for each unit that there can be, and [`ALL`].
pub const MOST: u32 = super::counter::PU_CHUNKS * super::counter::PUS_PER_CHUNK;

#[cfg(test)]
mod tests {
    use super::{super::pu::index, ALL};

    #[test]
    fn the_entry_of_all_is_no_units() {
        assert!(ALL < u32::from(index::HOST));
    }
}
