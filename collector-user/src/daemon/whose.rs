//! Whose it was that was lost in the kernel: by unit, as far as the unit is remembered. What nobody remembers is in the sums.

use std::collections::BTreeMap;

use super::Daemon;
use crate::event::{Ledger, Text};

/// What was lost by an index, in the order of [`maps`].
type Lost = [u64; 10];

/// Where the ledger says whose it was.
fn maps(ledger: &mut Ledger) -> [&mut BTreeMap<String, u64>; 10] {
    [
        &mut ledger.table_full_of,
        &mut ledger.rate_limited_of,
        &mut ledger.inner_lost_of,
        &mut ledger.reserve_failed_of,
        &mut ledger.output_failed_of,
        &mut ledger.users_unasked_of,
        &mut ledger.drops_table_full_of,
        &mut ledger.drop_reports_held_back_of,
        &mut ledger.drop_reports_failed_of,
        &mut ledger.drop_flows_lost_of,
    ]
}

/// What had been lost by indexes that were others' before.
#[derive(Default)]
pub(super) struct Whose {
    /// By index: what is not its owner's of now.
    before: BTreeMap<u16, Lost>,
    /// By unit: what was lost by indexes that it has no more. Of those units alone that go on without them.
    given_back: BTreeMap<Text, Lost>,
}

impl Daemon<'_> {
    /// These indexes may be others' from now on.
    pub(super) fn end_losses(&mut self, indexes: &[u16]) {
        for index in indexes {
            let Some(lost) = self.lost_by(*index) else { continue };
            let before = self.whose.before.insert(*index, lost).unwrap_or_default();
            // One that was reserved, and turned out to be nobody's own, was `host`'s or another's that lives on.
            let owner = self.units.get(*index).filter(|unit| !indexes.contains(&unit.index));
            if let Some(owner) = owner.filter(|_| lost != before) {
                add(self.whose.given_back.entry(owner.id.clone()).or_default(), &since(&lost, &before));
            }
        }
        let units = &self.units;
        self.whose.given_back.retain(|id, _| units.iter().any(|unit| unit.id == *id));
    }

    /// Says in the ledger whose it was.
    pub(super) fn book_whose(&self, ledger: &mut Ledger) {
        let mut all = self.whose.given_back.clone();
        for index in self.units.indexes() {
            let (Some(unit), Some(lost)) = (self.units.get(index), self.lost_by(index)) else { continue };
            let before = self.whose.before.get(&index).copied().unwrap_or_default();
            if lost != before {
                add(all.entry(unit.id.clone()).or_default(), &since(&lost, &before));
            }
        }
        for (id, lost) in all {
            for (of, count) in maps(ledger).into_iter().zip(lost).filter(|(_, count)| *count != 0) {
                of.insert(id.to_string(), count);
            }
        }
    }

    /// What was lost by an index since the programs were loaded; `None` where that cannot be read.
    fn lost_by(&self, index: u16) -> Option<Lost> {
        let counters = self.counters.unit(index).ok()??;
        let (budget, flows_lost) =
            self.dropping.as_ref().map(|dropping| dropping.lost_by(index)).unwrap_or_default();
        Some([
            counters.table_full,
            counters.rate_limited,
            counters.inner_lost,
            counters.reserve_failed,
            counters.output_failed,
            self.flows.unasked_of(index),
            budget.table_full,
            budget.held_back,
            budget.output_failed,
            flows_lost,
        ])
    }
}

fn since(now: &Lost, before: &Lost) -> Lost {
    let mut since = *now;
    for (now, before) in since.iter_mut().zip(before) {
        *now = now.saturating_sub(*before);
    }
    since
}

fn add(into: &mut Lost, lost: &Lost) {
    for (into, lost) in into.iter_mut().zip(lost) {
        *into += lost;
    }
}

#[cfg(test)]
mod tests {
    use super::{add, since};

    #[test]
    fn what_is_not_read_again_takes_nothing_back() {
        let before = [3, 0, 0, 7, 1, 0, 0, 0, 0, 0];
        assert_eq!(since(&[5, 0, 0, 7, 0, 0, 0, 0, 0, 4], &before), [2, 0, 0, 0, 0, 0, 0, 0, 0, 4]);
        let mut sum = before;
        add(&mut sum, &[2, 1, 0, 0, 0, 0, 0, 0, 9, 0]);
        assert_eq!(sum, [5, 1, 0, 7, 1, 0, 0, 0, 9, 0]);
    }
}
