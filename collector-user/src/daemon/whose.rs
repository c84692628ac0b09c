//! Whose it was that was lost, in the kernel and in the daemon: by unit, as far as the unit is remembered. What nobody remembers
//! is in the sums.

use std::collections::BTreeMap;

use super::Daemon;
use crate::event::{Ledger, Text};

/// What was lost by an index or by a unit, and where the ledger says it.
macro_rules! lost {
    ($($lost:ident: $of:ident),* $(,)?) => {
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        struct Lost {
            $($lost: u64,)*
        }

        impl Lost {
            fn since(self, before: Self) -> Self {
                Self { $($lost: self.$lost.saturating_sub(before.$lost),)* }
            }

            fn add(&mut self, more: Self) {
                $(self.$lost += more.$lost;)*
            }

            /// Says in the ledger that it was this unit's.
            fn enter(self, id: &Text, ledger: &mut Ledger) {
                $(if self.$lost != 0 {
                    ledger.$of.insert(id.to_string(), self.$lost);
                })*
            }
        }
    };
}

lost! {
    table_full: table_full_of,
    rate_limited: rate_limited_of,
    inner_lost: inner_lost_of,
    reserve_failed: reserve_failed_of,
    output_failed: output_failed_of,
    users_unasked: users_unasked_of,
    drops_table_full: drops_table_full_of,
    drop_reports_held_back: drop_reports_held_back_of,
    drop_reports_failed: drop_reports_failed_of,
    drop_flows_lost: drop_flows_lost_of,
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
                self.whose.given_back.entry(owner.id.clone()).or_default().add(lost.since(before));
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
                all.entry(unit.id.clone()).or_default().add(lost.since(before));
            }
        }
        for (id, lost) in all {
            lost.enter(&id, ledger);
        }
    }

    /// What was lost by an index since the programs were loaded; `None` where that cannot be read.
    fn lost_by(&self, index: u16) -> Option<Lost> {
        let counters = self.counters.unit(index).ok()??;
        let (budget, flows_lost) =
            self.dropping.as_ref().map(|dropping| dropping.lost_by(index)).unwrap_or_default();
        Some(Lost {
            table_full: counters.table_full,
            rate_limited: counters.rate_limited,
            inner_lost: counters.inner_lost,
            reserve_failed: counters.reserve_failed,
            output_failed: counters.output_failed,
            users_unasked: self.flows.unasked_of(index),
            drops_table_full: budget.table_full,
            drop_reports_held_back: budget.held_back,
            drop_reports_failed: budget.output_failed,
            drop_flows_lost: flows_lost,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Lost;
    use crate::event::Ledger;

    #[test]
    fn what_is_not_read_again_takes_nothing_back() {
        let before = Lost { table_full: 3, output_failed: 7, drop_reports_held_back: 1, ..Lost::default() };
        let now = Lost { table_full: 5, drop_flows_lost: 4, ..before };
        let read_in_part = Lost { drop_reports_held_back: 0, ..now };
        let since = Lost { table_full: 2, drop_flows_lost: 4, ..Lost::default() };
        assert_eq!(read_in_part.since(before), since);
        let mut sum = before;
        sum.add(since);
        assert_eq!(sum, now);
    }

    #[test]
    fn each_loss_has_its_place_in_the_ledger() {
        let mut ledger = Ledger::default();
        let lost = Lost {
            table_full: 1,
            rate_limited: 2,
            inner_lost: 3,
            reserve_failed: 4,
            output_failed: 5,
            users_unasked: 6,
            drops_table_full: 7,
            drop_reports_held_back: 8,
            drop_reports_failed: 9,
            drop_flows_lost: 10,
        };
        lost.enter(&"web".into(), &mut ledger);
        Lost { table_full: 11, ..Lost::default() }.enter(&"db".into(), &mut ledger);
        let told = serde_json::to_value(&ledger).unwrap();
        for (name, count) in [
            ("table_full", 1),
            ("rate_limited", 2),
            ("inner_lost", 3),
            ("reserve_failed", 4),
            ("output_failed", 5),
            ("users_unasked", 6),
            ("drops_table_full", 7),
            ("drop_reports_held_back", 8),
            ("drop_reports_failed", 9),
            ("drop_flows_lost", 10),
        ] {
            assert_eq!(told[format!("{name}_of")]["web"], count, "{name}");
        }
        assert_eq!((ledger.table_full_of["db"], ledger.rate_limited_of.len()), (11, 1));
    }
}
