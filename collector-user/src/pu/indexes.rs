//! Indexes of processing units: which are taken, and which come next.

use std::collections::VecDeque;

use collector_ebpf::abi::{
    counter::{PU_CHUNKS, PUS_PER_CHUNK},
    pu::index,
};

/// The indexes that were given, from [`index::FIRST`] on.
///
/// A mark is an index in a few bits of `skb->mark`, so that low ones are worth more, and one that was given back is taken
/// again before a fresh one: the one first that has been free for longest.
#[derive(Clone, Debug, Default)]
pub(super) struct Indexes {
    taken: u16,
    back: VecDeque<u16>,
    reused: bool,
}

/// Indexes below the counters' end.
const MOST: u32 = PU_CHUNKS * PUS_PER_CHUNK - index::FIRST as u32;

/// So many stay free that were given back last: what was counted by one shall be long told before it is another unit's.
const REST: usize = 16;

impl Indexes {
    /// An index that nothing counts by. `None` where there is none left.
    pub(super) fn take(&mut self) -> Option<u16> {
        let is_left = u32::from(self.taken) < MOST;
        if self.back.len() > if is_left { REST } else { 0 } {
            self.reused = true;
            return self.back.pop_front();
        }
        is_left.then(|| {
            self.taken += 1;
            self.last()
        })
    }

    /// Whether one was taken again since this was asked.
    pub(super) const fn take_reused(&mut self) -> bool {
        std::mem::replace(&mut self.reused, false)
    }

    /// Nothing counts by it any more.
    pub(super) fn give_back(&mut self, index: u16) {
        self.back.push_back(index);
    }

    /// The greatest that was ever given; below [`index::FIRST`] where none was.
    pub(super) fn last(&self) -> u16 {
        index::FIRST - 1 + self.taken
    }
}

#[cfg(test)]
mod tests {
    use collector_ebpf::abi::pu::index;

    use super::{Indexes, MOST, REST};

    #[test]
    fn one_that_was_given_back_is_taken_again_when_others_rest() {
        let mut indexes = Indexes::default();
        assert_eq!([indexes.take(), indexes.take()], [Some(101), Some(102)]);
        indexes.give_back(101);
        assert_eq!(indexes.take(), Some(103), "it rests");
        let rest: Vec<u16> = (0..REST).filter_map(|_| indexes.take()).collect();
        for index in rest {
            indexes.give_back(index);
        }
        assert!(!indexes.take_reused());
        assert_eq!(indexes.take(), Some(101));
        assert!(indexes.take_reused() && !indexes.take_reused());
        assert_eq!(indexes.last(), 103 + REST as u16);
    }

    #[test]
    fn there_is_an_end() {
        let mut indexes = Indexes::default();
        assert_eq!(std::iter::from_fn(|| indexes.take()).count(), MOST as usize);
        assert_eq!(u32::from(indexes.last()), MOST + u32::from(index::FIRST) - 1);
        indexes.give_back(200);
        assert_eq!([indexes.take(), indexes.take()], [Some(200), None]);
    }
}
