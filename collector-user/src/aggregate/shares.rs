//! Whose is how much of what waits from one drain to the next, by the index of a unit; and who has lost how much of it.
//!
//! A unit may have four times as much as there is room left, as in the ring and in the queues of outputs: its flood leaves
//! room to others.

use std::collections::{BTreeMap, HashMap};

/// How much more than what is left one may have.
const TIMES: usize = 4;

/// The shares of a list that is emptied as a whole.
#[derive(Debug)]
pub(super) struct Shares {
    most: usize,
    own: HashMap<u16, usize>,
    lost: BTreeMap<u16, u64>,
}

impl Shares {
    /// There is room for `most`.
    pub(super) fn new(most: usize) -> Self {
        Self { most, own: HashMap::new(), lost: BTreeMap::new() }
    }

    /// Whether the unit may add one to so many that wait. If so, it has added it.
    pub(super) fn admit(&mut self, pu: u16, waiting: usize) -> bool {
        let left = self.most.saturating_sub(waiting);
        let own = self.own.entry(pu).or_default();
        let is_admitted = left != 0 && *own <= TIMES * left;
        *own += usize::from(is_admitted);
        is_admitted
    }

    /// So much of the unit's was not admitted.
    pub(super) fn lose(&mut self, pu: u16, count: u64) {
        *self.lost.entry(pu).or_default() += count;
    }

    /// Nothing waits any more.
    pub(super) fn emptied(&mut self) {
        self.own.clear();
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
    use super::Shares;

    #[test]
    fn a_flood_leaves_room_to_others() {
        let mut shares = Shares::new(100);
        let mut waiting = 0;
        let mut ask = |shares: &mut Shares, pu: u16, times: usize| {
            for _ in 0..times {
                if shares.admit(pu, waiting) {
                    waiting += 1;
                } else {
                    shares.lose(pu, 1);
                }
            }
            waiting
        };
        assert_eq!(ask(&mut shares, 7, 1000), 81);
        assert_eq!(ask(&mut shares, 8, 10), 91);
        assert_eq!((shares.lost_of(7), shares.lost_of(8), shares.lost()), (919, 0, 919));
        for pu in 100..200 {
            ask(&mut shares, pu, 1);
        }
        assert_eq!((shares.lost_of(108), shares.lost_of(109), shares.lost()), (0, 1, 919 + 91));
        shares.emptied();
        assert!(shares.admit(7, 0) && shares.lost() == 919 + 91);
    }
}
