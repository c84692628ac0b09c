//! What was dropped of units that are no more. The programs count by index, and an index that is given back will be another
//! unit's: before that its rows are taken out of their table, and kept here under the name of who had it.

use std::collections::{BTreeMap, VecDeque};

use collector_ebpf::abi::drop::{DropCounts, DropKey};

use super::{Names, OfUnit};
use crate::event::{Dropped, Text};

/// Rows that are kept by the name of their unit. Beyond that, those of the unit that ended first become `unknown`'s.
const MOST: usize = 4096;

/// Whose rows are then whose they were.
const NAMELESS: &str = "unknown";

/// What is left of rows that were taken out.
#[derive(Debug, Default)]
pub struct Ended {
    /// The rows of units, those first that were taken out first.
    units: VecDeque<Vec<Dropped>>,
    /// How many rows those are.
    rows: usize,
    /// Those of units whose names were forgotten: by reason, place, and what to do about it.
    nameless: BTreeMap<(Text, Text, Text), Dropped>,
    /// Of each index, whosever it was.
    by_index: BTreeMap<u16, OfUnit>,
    skbs: u64,
}

impl Ended {
    /// Takes in the rows of an index, which was a unit's of this id and namespace.
    pub fn take_in(&mut self, unit: (&Text, &Text), rows: &BTreeMap<DropKey, DropCounts>, names: &Names) {
        let taken: Vec<_> = rows.iter().map(|(key, counts)| names.told(Some(unit), key, counts)).collect();
        for (key, counts) in rows {
            self.by_index.entry(key.pu).or_default().add(key, counts, names);
            self.skbs += counts.skbs;
        }
        self.rows += taken.len();
        self.units.push_back(taken);
        while self.rows > MOST
            && let Some(oldest) = self.units.pop_front()
        {
            self.rows -= oldest.len();
            for row in oldest {
                let key = (row.kernel_reason.clone(), row.place.clone(), row.advice.clone());
                let nameless = Dropped { puid: NAMELESS.into(), namespace: "".into(), ..row };
                add(&mut self.nameless, key, &nameless);
            }
        }
    }

    /// The rows.
    pub fn rows(&self) -> impl Iterator<Item = &Dropped> {
        self.units.iter().flatten().chain(self.nameless.values())
    }

    /// The sums of each index.
    #[must_use]
    pub const fn by_index(&self) -> &BTreeMap<u16, OfUnit> {
        &self.by_index
    }

    /// The socket buffers of all rows.
    #[must_use]
    pub const fn skbs(&self) -> u64 {
        self.skbs
    }
}

/// Adds a row to that of the same key.
pub(super) fn add<K: Ord>(rows: &mut BTreeMap<K, Dropped>, key: K, row: &Dropped) {
    let sum = rows.entry(key).or_insert_with(|| Dropped { packets: 0, skbs: 0, bytes: 0, ..row.clone() });
    sum.packets += row.packets;
    sum.skbs += row.skbs;
    sum.bytes += row.bytes;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use collector_ebpf::abi::drop::{DropCounts, DropKey};

    use super::{Ended, MOST};
    use crate::{
        aggregate::drops::{Names, by_unit, rows},
        event::Dropped,
        pu::registry::{Found, Kind, Registry},
    };

    fn counted(pu: u16, place: u64, skbs: u64) -> BTreeMap<DropKey, DropCounts> {
        let counts = DropCounts { skbs, more: skbs, bytes: skbs * 100, ..DropCounts::default() };
        [(DropKey { place, reason: 3, pu, by_policy: 0 }, counts)].into()
    }

    fn told(rows: &[Dropped]) -> Vec<(&str, u64)> {
        rows.iter().map(|row| (&*row.puid, row.skbs)).collect()
    }

    #[test]
    fn what_was_dropped_of_who_had_an_index_before_stays_theirs() {
        let (names, mut units, mut ended) = (Names::default(), Registry::new(&[]).unwrap(), Ended::default());
        let found = |id: &str| Found { id: id.into(), kind: Kind::Container, tags: Vec::new() };
        let first = units.add(&found("first"), 1).unwrap();
        let live = counted(first, 0x10, 1000);
        assert_eq!(told(&rows(&live, &names, &units, &ended)), [("first", 1000)]);
        units.end(first, 2);
        for index in units.forgettable(3) {
            let unit = units.get(index).map(|unit| (unit.id.clone(), unit.namespace.clone())).unwrap();
            ended.take_in((&unit.0, &unit.1), &live, &names);
        }
        assert_eq!(units.forget(3), [first]);
        // The index comes again when others have rested.
        let others: Vec<u16> = (0..20).map(|_| units.add(&found("other"), 4).unwrap()).collect();
        for other in others {
            units.end(other, 5);
        }
        units.forget(6);
        assert_eq!(units.add(&found("second"), 7), Some(first));
        let live = counted(first, 0x10, 7);
        assert_eq!(told(&rows(&live, &names, &units, &ended)), [("first", 1000), ("second", 7)]);
        let sums = by_unit(&live, &names, &ended);
        assert_eq!(sums[&first].packets, 2014, "what is told by index never goes back");
    }

    #[test]
    fn names_have_an_end_and_sums_have_none() {
        let (names, units, mut ended) = (Names::default(), Registry::new(&[]).unwrap(), Ended::default());
        for round in 0..MOST as u64 + 10 {
            let id = format!("{round}").into();
            ended.take_in((&id, &"".into()), &counted(101, 0x10, 1), &names);
        }
        let told = rows(&BTreeMap::new(), &names, &units, &ended);
        assert_eq!(told.len(), MOST + 1);
        assert_eq!((&*told[0].puid, told[0].skbs), ("unknown", 10));
        assert_eq!(ended.skbs(), MOST as u64 + 10);
        assert_eq!(ended.by_index()[&101].bytes, (MOST as u64 + 10) * 100);
    }
}
