//! Items of several sources, each in its order or nearly so, put into one order by their times.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

/// Holds items back until all that belong before them are there, within bounds.
///
/// An item is due once everything of its time and before is [complete](Self::complete), or once more are held than there is
/// room for. Items of one time leave in the order in which they came. One that comes after a later one has left leaves out of
/// order, and is counted ([`late`](Self::late)). Nothing is lost.
pub(super) struct Merge<T> {
    bounds: Bounds,
    held: BinaryHeap<Reverse<Held<T>>>,
    weight: usize,
    /// Nothing up to this time is to come any more.
    complete: u64,
    /// The latest time that left.
    left: u64,
    arrivals: u64,
    late: u64,
}

/// What is held at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Items.
    pub(super) items: usize,
    /// The sum of their weights.
    pub(super) weight: usize,
}

struct Held<T> {
    time: u64,
    arrival: u64,
    weight: usize,
    item: T,
}

impl<T> Merge<T> {
    pub(super) const fn new(bounds: Bounds) -> Self {
        Self { bounds, held: BinaryHeap::new(), weight: 0, complete: 0, left: 0, arrivals: 0, late: 0 }
    }

    /// Takes an item in; [`due`](Self::due) has to be asked until there is none before the next comes.
    pub(super) fn push(&mut self, time: u64, weight: usize, item: T) {
        self.arrivals += 1;
        self.weight += weight;
        self.held.push(Reverse(Held { time, arrival: self.arrivals, weight, item }));
    }

    /// Nothing of this time or before is to come any more: what is held of it is [due](Self::due).
    pub(super) fn complete(&mut self, until: u64) {
        self.complete = self.complete.max(until);
    }

    /// The next item that need not wait, or for which there is no room.
    pub(super) fn due(&mut self) -> Option<T> {
        let Reverse(first) = self.held.peek()?;
        let is_due = first.time <= self.complete
            || self.held.len() > self.bounds.items
            || self.weight > self.bounds.weight;
        if is_due { self.next() } else { None }
    }

    /// The next item, whether or not others may come before it: for the end.
    pub(super) fn next(&mut self) -> Option<T> {
        let Reverse(Held { time, weight, item, .. }) = self.held.pop()?;
        self.weight -= weight;
        self.late += u64::from(time < self.left);
        self.left = self.left.max(time);
        Some(item)
    }

    /// Items that left behind a later one.
    pub(super) const fn late(&self) -> u64 {
        self.late
    }
}

impl<T> Held<T> {
    const fn key(&self) -> (u64, u64) {
        (self.time, self.arrival)
    }
}

impl<T> PartialEq for Held<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Held<T> {}

impl<T> PartialOrd for Held<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Held<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prop_assert_eq, proptest, strategy::Strategy};

    use super::{Bounds, Merge};

    const ROOMY: Bounds = Bounds { items: usize::MAX, weight: usize::MAX };

    /// What leaves, in its order, and how many behind a later one. An item is its place in `times`; `until` says how far all is
    /// complete behind each.
    fn merged(bounds: Bounds, times: &[u64], until: impl Fn(usize) -> u64) -> (Vec<usize>, u64) {
        let mut merge = Merge::new(bounds);
        let mut left = Vec::new();
        for (item, time) in times.iter().enumerate() {
            merge.push(*time, 1, item);
            left.extend(std::iter::from_fn(|| merge.due()));
            assert!(merge.held.len() <= bounds.items && merge.weight <= bounds.weight, "beyond its bounds");
            merge.complete(until(item));
            left.extend(std::iter::from_fn(|| merge.due()));
        }
        left.extend(std::iter::from_fn(|| merge.next()));
        assert!(merge.held.is_empty() && merge.weight == 0);
        (left, merge.late())
    }

    /// Of several sources, each in its order, read to their ends in turns of some length.
    fn sources() -> impl Strategy<Value = (u64, Vec<u64>)> {
        (1u64..1000, vec(vec(0u64..10_000, 0..50), 1..5)).prop_map(|(turn, mut sources)| {
            for source in &mut sources {
                source.sort_unstable();
            }
            let mut times = Vec::new();
            for round in 0..=10_000 / turn {
                for source in &sources {
                    times.extend(source.iter().filter(|time| **time / turn == round));
                }
            }
            (turn, times)
        })
    }

    proptest! {
        #[test]
        fn what_is_complete_leaves_sorted_and_at_once((turn, times) in sources()) {
            // Behind the last of a turn, all of it is there.
            let complete = |item: usize| {
                let is_last = times.get(item + 1).is_none_or(|next| next / turn > times[item] / turn);
                if is_last { (times[item] / turn + 1) * turn - 1 } else { 0 }
            };
            let (left, late) = merged(ROOMY, &times, complete);
            let mut want: Vec<usize> = (0..times.len()).collect();
            want.sort_by_key(|item| times[*item]);
            prop_assert_eq!((left, late), (want, 0));
        }

        #[test]
        fn nothing_is_lost_or_comes_twice_and_what_is_out_of_order_is_counted(
            items in 1usize..40, weight in 1usize..40, times in vec(0u64..3000, 0..200), step in 0u64..50,
        ) {
            // What is said of completeness need not be true.
            let (left, late) = merged(Bounds { items, weight }, &times, |item| item as u64 * step);
            let (mut newest, mut behind) = (0, 0);
            for item in &left {
                behind += u64::from(times[*item] < newest);
                newest = newest.max(times[*item]);
            }
            prop_assert_eq!(behind, late);
            let mut sorted = left;
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..times.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_complete_waits_for_nothing_and_the_rest_for_its_time_however_late_others_are() {
        let mut merge = Merge::new(ROOMY);
        merge.push(100, 1, 'a');
        merge.push(1_000_000_000_000, 1, 'd');
        assert_eq!(merge.due(), None);
        merge.push(99, 1, 'b');
        merge.complete(100);
        assert_eq!((merge.due(), merge.due(), merge.due()), (Some('b'), Some('a'), None));
        // It does not go back.
        merge.complete(10);
        merge.push(100, 1, 'c');
        assert_eq!((merge.due(), merge.due(), merge.late()), (Some('c'), None, 0));
        assert_eq!((merge.next(), merge.next()), (Some('d'), None));
    }

    #[test]
    fn what_there_is_no_room_for_leaves_and_what_came_before_it_is_late() {
        let mut merge = Merge::new(Bounds { items: 2, weight: 100 });
        for (time, item) in [(7, 'b'), (9, 'd'), (8, 'c')] {
            merge.push(time, 1, item);
        }
        assert_eq!((merge.due(), merge.due(), merge.late()), (Some('b'), None, 0));
        merge.push(6, 99, 'a');
        assert_eq!((merge.due(), merge.due(), merge.late()), (Some('a'), None, 1));
        merge.complete(8);
        assert_eq!((merge.due(), merge.due(), merge.late()), (Some('c'), None, 1));
    }
}
