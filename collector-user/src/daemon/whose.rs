//! Whose it was that was lost in the kernel: by unit, as far as the unit is remembered. What nobody remembers is in the sums.

use std::collections::BTreeMap;

use super::Daemon;
use crate::event::Ledger;

/// What was lost by an index: of full tables, beyond budgets, of events, of packets that are traced, of reports of drops.
type Lost = [u64; 5];

/// What had been lost by indexes that were others' before.
#[derive(Default)]
pub(super) struct Whose(BTreeMap<u16, Lost>);

impl Daemon<'_> {
    /// These indexes may be others' from now on.
    pub(super) fn end_losses(&mut self, indexes: &[u16]) {
        for index in indexes {
            let lost = self.lost_by(*index);
            if lost != Lost::default() {
                self.whose.0.insert(*index, lost);
            }
        }
    }

    /// Says in the ledger whose it was.
    pub(super) fn book_whose(&self, ledger: &mut Ledger) {
        for index in self.units.indexes() {
            let Some(unit) = self.units.get(index) else { continue };
            let before = self.whose.0.get(&index).copied().unwrap_or_default();
            let of = [
                &mut ledger.table_full_of,
                &mut ledger.rate_limited_of,
                &mut ledger.reserve_failed_of,
                &mut ledger.output_failed_of,
                &mut ledger.drop_reports_held_back_of,
            ];
            for (of, (now, before)) in of.into_iter().zip(self.lost_by(index).into_iter().zip(before)) {
                if now != before {
                    *of.entry(unit.id.to_string()).or_default() += now - before;
                }
            }
        }
    }

    /// What was lost by an index since the programs were loaded. What cannot be read is nobody's.
    fn lost_by(&self, index: u16) -> Lost {
        let counters = self.counters.unit(index).ok().flatten().unwrap_or_default();
        let held_back = self.dropping.as_ref().map_or(0, |dropping| dropping.held_back_of(index));
        [
            counters.table_full,
            counters.rate_limited,
            counters.reserve_failed,
            counters.output_failed,
            held_back,
        ]
    }
}
