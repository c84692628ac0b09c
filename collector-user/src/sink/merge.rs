//! Items of several sources, each in its order or nearly so, put into one order by their times.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

/// An item that is this much older than the newest one does not come late: the clock was set back.
const STEP: i128 = 1_000_000_000;

/// Holds items back until none that belongs before them is to be expected, within bounds.
///
/// An item is due once one came that is later by the window, or once more are held than there is room for. Items of one
/// time leave in the order in which they came. One that comes after a later one has left leaves at once, out of order, and
/// is counted ([`late`](Self::late)). Nothing is lost.
pub(super) struct Merge<T> {
    window: i128,
    bounds: Bounds,
    held: BinaryHeap<Reverse<Held<T>>>,
    weight: usize,
    /// How often the clock was set back: what came before is before all that came since.
    era: u64,
    /// The latest time that came in this era.
    newest: Option<i128>,
    /// The latest time that left in this era.
    left: Option<i128>,
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
    era: u64,
    time: i128,
    arrival: u64,
    weight: usize,
    item: T,
}

impl<T> Merge<T> {
    /// `window` in nanoseconds.
    pub(super) fn new(window: i128, bounds: Bounds) -> Self {
        Self {
            window,
            bounds,
            held: BinaryHeap::new(),
            weight: 0,
            era: 0,
            newest: None,
            left: None,
            arrivals: 0,
            late: 0,
        }
    }

    /// Takes an item in; [`due`](Self::due) has to be asked until there is none before the next comes.
    pub(super) fn push(&mut self, time: i128, weight: usize, item: T) {
        if self.newest.is_some_and(|newest| time + STEP < newest) {
            self.era += 1;
            (self.newest, self.left) = (None, None);
        }
        self.newest = self.newest.max(Some(time));
        self.arrivals += 1;
        self.weight += weight;
        self.held.push(Reverse(Held { era: self.era, time, arrival: self.arrivals, weight, item }));
    }

    /// The next item that need not wait.
    pub(super) fn due(&mut self) -> Option<T> {
        let Reverse(first) = self.held.peek()?;
        let is_due = first.era < self.era
            || self.newest.is_some_and(|newest| first.time + self.window <= newest)
            || self.left.is_some_and(|left| first.time < left)
            || self.held.len() > self.bounds.items
            || self.weight > self.bounds.weight;
        if is_due { self.next() } else { None }
    }

    /// The next item, whether or not others may come before it: for when nothing came for a while, and at the end.
    pub(super) fn next(&mut self) -> Option<T> {
        let Reverse(Held { era, time, weight, item, .. }) = self.held.pop()?;
        self.weight -= weight;
        if era == self.era {
            self.late += u64::from(self.left.is_some_and(|left| time < left));
            self.left = self.left.max(Some(time));
        }
        Some(item)
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Items that came too late and left out of order.
    pub(super) const fn late(&self) -> u64 {
        self.late
    }
}

impl<T> Held<T> {
    const fn key(&self) -> (u64, i128, u64) {
        (self.era, self.time, self.arrival)
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

    use super::{Bounds, Merge, STEP};

    const ROOMY: Bounds = Bounds { items: usize::MAX, weight: usize::MAX };

    /// What leaves, in its order, and how many came too late. An item is its place in `times`.
    fn merged(window: i128, bounds: Bounds, times: &[i128]) -> (Vec<usize>, u64) {
        let mut merge = Merge::new(window, bounds);
        let mut left = Vec::new();
        for (item, time) in times.iter().enumerate() {
            merge.push(*time, 1, item);
            left.extend(std::iter::from_fn(|| merge.due()));
            assert!(merge.held.len() <= bounds.items && merge.weight <= bounds.weight, "beyond its bounds");
        }
        left.extend(std::iter::from_fn(|| merge.next()));
        assert!(merge.is_empty() && merge.weight == 0);
        (left, merge.late())
    }

    /// Of several sources, each in its order, read in turns of some length: no item comes later than that.
    fn sources() -> impl Strategy<Value = (i128, Vec<i128>)> {
        (1i128..1000, vec(vec(0i128..10_000, 0..50), 1..5)).prop_map(|(turn, mut sources)| {
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
        fn sources_that_are_read_in_turns_leave_sorted((turn, times) in sources()) {
            let (left, late) = merged(turn, ROOMY, &times);
            let mut want: Vec<usize> = (0..times.len()).collect();
            want.sort_by_key(|item| times[*item]);
            prop_assert_eq!((left, late), (want, 0));
        }

        #[test]
        fn nothing_is_lost_or_comes_twice_and_what_is_out_of_order_is_counted(
            window in 0i128..2000, items in 1usize..40, weight in 1usize..40,
            times in vec(0i128..3000, 0..200),
        ) {
            let (left, late) = merged(window, Bounds { items, weight }, &times);
            let mut newest = i128::MIN;
            let mut behind = 0;
            for item in &left {
                behind += u64::from(times[*item] < newest);
                newest = newest.max(times[*item]);
            }
            prop_assert_eq!(behind, late);
            let mut sorted = left;
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..times.len()).collect::<Vec<_>>());
        }

        #[test]
        fn a_clock_that_is_set_back_begins_anew(
            before in vec(10 * STEP..10 * STEP + 1000, 1..20), after in vec(0i128..1000, 1..20),
        ) {
            let times: Vec<i128> = before.iter().chain(&after).copied().collect();
            let (left, late) = merged(1000, ROOMY, &times);
            let mut want: Vec<usize> = (0..times.len()).collect();
            want.sort_by_key(|item| (*item >= before.len(), times[*item]));
            prop_assert_eq!((left, late), (want, 0));
        }
    }

    #[test]
    fn what_is_due_waits_for_nothing_and_the_rest_for_the_window() {
        let mut merge = Merge::new(10, ROOMY);
        merge.push(100, 1, 'a');
        merge.push(105, 1, 'b');
        assert_eq!(merge.due(), None);
        merge.push(110, 1, 'c');
        assert_eq!((merge.due(), merge.due()), (Some('a'), None));
        merge.push(99, 1, 'd');
        assert_eq!((merge.due(), merge.due(), merge.late()), (Some('d'), None, 1));
        assert_eq!((merge.next(), merge.next(), merge.next()), (Some('b'), Some('c'), None));
    }
}
