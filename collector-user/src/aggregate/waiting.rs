//! How much of what waits from one drain to the next is whose, by the index of a unit; and who has lost how much of it.

use std::collections::{BTreeMap, HashMap};

use crate::collector::shares::may_have_more;

/// Of a list that is emptied as a whole.
#[derive(Debug)]
pub(super) struct Waiting {
    most: usize,
    all: usize,
    own: HashMap<u16, usize>,
    lost: BTreeMap<u16, u64>,
}

impl Waiting {
    /// There is room for `most`.
    pub(super) fn new(most: usize) -> Self {
        Self { most, all: 0, own: HashMap::new(), lost: BTreeMap::new() }
    }

    /// Whether the unit may add one to the list. If so, it has added it.
    pub(super) fn admit(&mut self, pu: u16) -> bool {
        let left = self.most - self.all;
        let own = self.own.entry(pu).or_default();
        let is_admitted = left != 0 && may_have_more(*own, left);
        *own += usize::from(is_admitted);
        self.all += usize::from(is_admitted);
        is_admitted
    }

    /// So much of the unit's was not admitted.
    pub(super) fn lose(&mut self, pu: u16, count: u64) {
        *self.lost.entry(pu).or_default() += count;
    }

    /// Nothing waits any more.
    pub(super) fn emptied(&mut self) {
        self.own.clear();
        self.all = 0;
    }

    /// What this index has lost since the list was made.
    pub(super) fn lost_of(&self, pu: u16) -> u64 {
        self.lost.get(&pu).copied().unwrap_or_default()
    }

    /// What all have lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::Waiting;

    #[test]
    fn a_flood_leaves_room_to_others() {
        let mut waiting = Waiting::new(100);
        let ask = |waiting: &mut Waiting, pu: u16, times: usize| {
            for _ in 0..times {
                if !waiting.admit(pu) {
                    waiting.lose(pu, 1);
                }
            }
            waiting.all
        };
        assert_eq!(ask(&mut waiting, 7, 1000), 81);
        assert_eq!(ask(&mut waiting, 8, 10), 91);
        assert_eq!((waiting.lost_of(7), waiting.lost_of(8), waiting.lost()), (919, 0, 919));
        for pu in 100..200 {
            ask(&mut waiting, pu, 1);
        }
        assert_eq!((waiting.lost_of(108), waiting.lost_of(109), waiting.lost()), (0, 1, 919 + 91));
        waiting.emptied();
        assert!(waiting.admit(7) && waiting.lost() == 919 + 91);
    }
}
