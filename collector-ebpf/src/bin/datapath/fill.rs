//! How far the tables are filled in the current epoch; a drain before its time is asked for when little room is left.

use collector_ebpf::abi::control::Control;

use crate::{maps::FILL, report};

/// A table that gets another entry.
pub(crate) struct Filling {
    /// The control word of the epoch.
    pub(crate) word: u64,
    /// The index in `FILL`.
    pub(crate) table: u32,
    /// Entries of one CPU at which a drain is due.
    pub(crate) high_water: u32,
}

impl Filling {
    /// Counts the entry, and asks for a drain when this CPU's share of the table is nearly used up.
    #[inline(always)]
    pub(crate) fn count(&self) {
        let Some(fill) = FILL.get_ptr_mut(self.table) else { return };
        // SAFETY: this CPU's own entry.
        unsafe {
            if (*fill).swap != u64::from(Control::swaps(self.word)) {
                (*fill).swap = u64::from(Control::swaps(self.word));
                (*fill).entries = 0;
            }
            (*fill).entries += 1;
            if (*fill).entries == u64::from(self.high_water) {
                report::pressure();
            }
        }
    }
}
