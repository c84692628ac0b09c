//! A bounded queue between one task that must not wait and one thread that may.
//!
//! Not a channel of the standard library: those set their whole capacity aside at once (tens of megabytes for flow
//! records), and give out one item a lock.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::{collector::shares::Shares, event::Text};

/// Who can wait for room lets the taker go first each time that so many items more wait. Where both share a CPU it would otherwise
/// go on until its time is up, and then the items are many, and in no cache any more.
const CROWD: usize = 512;

/// The queue. Holds at most its capacity, in items and in what they weigh; a batch that was taken out no longer counts.
pub(crate) struct Bounded<T> {
    state: Mutex<State<T>>,
    /// An item came, or none will come.
    ready: Condvar,
    /// Items were taken out, or it is no use waiting for that.
    room: Condvar,
    capacity: usize,
    /// What the items may weigh together.
    most_weight: usize,
    weigh: fn(&T) -> usize,
}

struct State<T> {
    items: VecDeque<T>,
    /// None where all items are one's.
    shares: Option<Shares<T>>,
    weight: usize,
    accepted: u64,
    is_open: bool,
    is_awaited: bool,
    /// How long a full queue may go without an item being taken out while one waits for room; none: nobody waits.
    patience: Option<Duration>,
}

/// Why an item was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no room, or none for one more of the same unit.
    Full,
    /// The queue was closed.
    Closed,
}

impl<T> Bounded<T> {
    /// One whose items weigh nothing.
    pub(crate) const fn new(capacity: usize) -> Self {
        Self::weighing(capacity, usize::MAX, |_| 0)
    }

    /// One of many units' items, each of which leaves room to others: `whose` says which one's an item is.
    pub(super) fn shared(capacity: usize, whose: fn(&T) -> &Text) -> Self {
        let mut queue = Self::new(capacity);
        queue.state.get_mut().unwrap_or_else(PoisonError::into_inner).shares = Some(Shares::new(whose));
        queue
    }

    /// One that holds at most `most_weight` as well, by what `weigh` says of each item.
    pub(crate) const fn weighing(capacity: usize, most_weight: usize, weigh: fn(&T) -> usize) -> Self {
        let state = State {
            items: VecDeque::new(),
            shares: None,
            weight: 0,
            accepted: 0,
            is_open: true,
            is_awaited: false,
            patience: None,
        };
        Self {
            state: Mutex::new(state),
            ready: Condvar::new(),
            room: Condvar::new(),
            capacity,
            most_weight,
            weigh,
        }
    }

    /// Adds an item, or says why not. Waits for room only after [`be_patient`](Self::be_patient). `item` is made only
    /// where there is room for it.
    pub(crate) fn push(&self, item: impl FnOnce() -> T) -> Result<(), Refused> {
        self.push_within(self.capacity, 0, None, item)
    }

    /// The same for an item of one unit among many.
    pub(crate) fn push_of(&self, whose: &Text, item: impl FnOnce() -> T) -> Result<(), Refused> {
        self.push_within(self.capacity, 0, Some(whose), item)
    }

    /// The same for an item of which it is known what it weighs.
    pub(crate) fn push_weighing(&self, weight: usize, item: impl FnOnce() -> T) -> Result<(), Refused> {
        self.push_within(self.capacity, weight, None, item)
    }

    /// The same for one of a kind that is many, which leave a quarter of the room to others.
    pub(crate) fn push_one_of_many(&self, whose: &Text, item: impl FnOnce() -> T) -> Result<(), Refused> {
        self.push_within(self.capacity - self.capacity / 4, 0, Some(whose), item)
    }

    fn push_within(
        &self,
        capacity: usize,
        weight: usize,
        whose: Option<&Text>,
        item: impl FnOnce() -> T,
    ) -> Result<(), Refused> {
        let is_full = |state: &mut State<T>| {
            let State { items, shares, .. } = state;
            items.len() >= capacity
                || state.weight.saturating_add(weight) > self.most_weight
                || whose.zip(shares.as_mut()).is_some_and(|(who, shares)| !shares.allow(who, items, capacity))
        };
        let mut state = self.lock();
        while state.is_open && is_full(&mut state) {
            let Some(patience) = state.patience else { return Err(Refused::Full) };
            let (after, outcome) =
                self.room.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
            state = after;
            if outcome.timed_out() && is_full(&mut state) {
                // Whoever takes nothing for so long is waited for once, not once an item.
                state.patience = None;
            }
        }
        if !state.is_open {
            return Err(Refused::Closed);
        }
        let is_crowd = state.patience.is_some() && (state.items.len() + 1).is_multiple_of(CROWD);
        self.add(state, item());
        if is_crowd {
            thread::yield_now();
        }
        Ok(())
    }

    /// Adds an item, however full the queue is, without waiting; nothing once it is closed. For what says something of the
    /// items before it, and is not lost with others: who adds it sees to it that there are few.
    pub(crate) fn push_beyond(&self, item: T) {
        let state = self.lock();
        if state.is_open {
            self.add(state, item);
        }
    }

    fn add(&self, mut state: MutexGuard<'_, State<T>>, item: T) {
        state.weight += (self.weigh)(&item);
        if let Some(shares) = &mut state.shares {
            shares.added(&item);
        }
        state.items.push_back(item);
        state.accepted += 1;
        let wake = std::mem::take(&mut state.is_awaited);
        drop(state);
        if wake {
            self.ready.notify_one();
        }
    }

    /// From now on who adds to a full queue waits for room, for as long as items are taken out: `patience` passes
    /// between one and the next at most, then it is as if [`hurry`](Self::hurry) had been called.
    pub(crate) fn be_patient(&self, patience: Duration) {
        self.lock().patience = Some(patience);
    }

    /// Nobody waits for room any more.
    pub(crate) fn hurry(&self) {
        self.lock().patience = None;
        self.room.notify_all();
    }

    /// Moves up to `most` items to `batch`; waits for the first one. False when there are none and none will come.
    pub(crate) fn take(&self, batch: &mut Vec<T>, most: usize) -> bool {
        let mut state = self.lock();
        while state.items.is_empty() && state.is_open {
            state.is_awaited = true;
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.move_out(state, batch, most)
    }

    /// Moves up to `most` items to `batch`; does not wait. False when there are none at the moment.
    pub(crate) fn try_take(&self, batch: &mut Vec<T>, most: usize) -> bool {
        self.move_out(self.lock(), batch, most)
    }

    fn move_out(&self, mut state: MutexGuard<'_, State<T>>, batch: &mut Vec<T>, most: usize) -> bool {
        let count = state.items.len().min(most);
        let State { items, weight, shares, .. } = &mut *state;
        batch.extend(items.drain(..count).inspect(|item| {
            *weight -= (self.weigh)(item);
            if let Some(shares) = shares.as_mut() {
                shares.taken(item);
            }
        }));
        if let Some(shares) = shares {
            shares.left(items.len(), self.capacity);
        }
        let may_be_waited_for = state.patience.is_some();
        drop(state);
        if may_be_waited_for {
            self.room.notify_all();
        }
        count > 0
    }

    /// Takes no more items, and wakes who waits for one or for room; those within can still be taken out.
    pub(crate) fn close(&self) {
        self.lock().is_open = false;
        self.ready.notify_all();
        self.room.notify_all();
    }

    /// How many items were ever taken in.
    pub(crate) fn accepted(&self) -> u64 {
        self.lock().accepted
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // The only foreign code under the lock makes an item, before anything is changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::{Bounded, Refused};
    use crate::event::Text;

    /// Longer than any test takes that passes.
    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn order_and_capacity() {
        let queue = Bounded::new(3);
        assert_eq!(
            [1, 2, 3, 4].map(|item| queue.push(|| item)),
            [Ok(()), Ok(()), Ok(()), Err(Refused::Full)]
        );
        let mut batch = Vec::new();
        assert!(queue.try_take(&mut batch, 2));
        assert_eq!(queue.push(|| 5), Ok(()));
        assert!(queue.take(&mut batch, 9));
        assert_eq!(batch, [1, 2, 3, 5]);
        assert!(!queue.try_take(&mut batch, 9));
        assert_eq!(queue.accepted(), 4);
    }

    #[test]
    fn one_of_many_leaves_room_for_others() {
        let nobody = Text::default();
        let queue = Bounded::new(8);
        assert!((0..6).all(|item| queue.push_one_of_many(&nobody, || item) == Ok(())));
        assert_eq!(queue.push_one_of_many(&nobody, || 6), Err(Refused::Full));
        assert_eq!([7, 8, 9].map(|item| queue.push(|| item)), [Ok(()), Ok(()), Err(Refused::Full)]);
        // One that holds next to nothing has nothing to leave.
        let queue = Bounded::new(1);
        assert_eq!(queue.push_one_of_many(&nobody, || 1), Ok(()));
    }

    #[test]
    fn a_flood_of_one_leaves_room_to_others() {
        let queue = Bounded::shared(100, |item: &(Text, u32)| &item.0);
        let push = |who: &str, count: u32| {
            let who = Text::from(who);
            (0..count).filter(|nth| queue.push_of(&who, || (who.clone(), *nth)) == Ok(())).count()
        };
        // Four fifths, four fifths of the rest, and so on; who has little always finds room.
        assert_eq!(["one", "one", "two", "three", "four"].map(|who| push(who, 1000)), [81, 0, 16, 3, 0]);
        let mut batch = Vec::new();
        assert!(queue.try_take(&mut batch, 30));
        // `one` has 51 of 75 then, and ten more are the last that leave a fourth of what it has.
        assert_eq!([push("two", 5), push("one", 1000), push("five", 3)], [5, 10, 3]);
        while queue.try_take(&mut batch, 1000) {}
        assert_eq!(push("one", 1000), 81, "nobody has anything any more");
        assert_eq!(queue.accepted() as usize, 81 + 16 + 3 + 5 + 10 + 3 + 81);
    }

    #[test]
    fn of_one_of_many_the_share_is_of_what_they_may_have() {
        let queue = Bounded::shared(100, |item: &Text| item);
        let push = |who: &str, count: u32| {
            let who = Text::from(who);
            (0..count).filter(|_| queue.push_one_of_many(&who, || who.clone()) == Ok(())).count()
        };
        assert_eq!(["one", "two"].map(|who| push(who, 1000)), [61, 12]);
        let other = Text::from("three");
        assert_eq!(queue.push_of(&other, || other.clone()), Ok(()));
    }

    #[test]
    fn heavy_items_fill_it_before_they_are_many() {
        let queue = Bounded::weighing(9, 10, |item: &usize| *item);
        let push = |item: usize| queue.push_weighing(item, || item);
        assert_eq!([6, 5, 4, 1].map(push), [Ok(()), Err(Refused::Full), Ok(()), Err(Refused::Full)]);
        let mut batch = Vec::new();
        assert!(queue.try_take(&mut batch, 1));
        assert_eq!([7, 6].map(push), [Err(Refused::Full), Ok(())]);
    }

    #[test]
    fn a_full_queue_takes_what_goes_beyond_and_a_closed_one_does_not() {
        let queue = Bounded::new(1);
        assert_eq!([1, 2].map(|item| queue.push(|| item)), [Ok(()), Err(Refused::Full)]);
        queue.push_beyond(3);
        queue.close();
        queue.push_beyond(4);
        let mut batch = Vec::new();
        assert!(queue.take(&mut batch, 9));
        assert_eq!(batch, [1, 3]);
        assert!(!queue.take(&mut batch, 9));
    }

    #[test]
    fn a_closed_queue_gives_what_it_has() {
        let queue = Bounded::new(3);
        assert_eq!(queue.push(|| 1), Ok(()));
        queue.close();
        assert_eq!(queue.push(|| 2), Err(Refused::Closed));
        let mut batch = Vec::new();
        assert!(queue.take(&mut batch, 9));
        assert!(!queue.take(&mut batch, 9));
        assert_eq!(batch, [1]);
    }

    #[test]
    fn a_waiter_is_woken_by_an_item_and_by_the_end() {
        let queue = Bounded::new(1000);
        let taken = thread::scope(|scope| {
            let taker = scope.spawn(|| {
                let mut batch = Vec::new();
                while queue.take(&mut batch, 7) {}
                batch
            });
            for item in 0..1000 {
                queue.push(|| item).unwrap();
            }
            queue.close();
            taker.join().unwrap()
        });
        assert_eq!(taken, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_patient_queue_takes_more_than_it_holds() {
        let queue = Bounded::new(3);
        queue.be_patient(PATIENCE);
        let taken = thread::scope(|scope| {
            let taker = scope.spawn(|| {
                let mut batch = Vec::new();
                while queue.take(&mut batch, 2) {}
                batch
            });
            for item in 0..1000 {
                queue.push(|| item).unwrap();
            }
            queue.close();
            taker.join().unwrap()
        });
        assert_eq!(taken, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn patience_with_who_takes_nothing_ends_once_for_all() {
        let queue = Bounded::new(1);
        queue.be_patient(Duration::from_millis(1));
        queue.push(|| 1).unwrap();
        assert_eq!(queue.push(|| 2), Err(Refused::Full));
        assert!(queue.lock().patience.is_none());
    }

    /// Somebody waits for room; `act` ends the wait.
    fn wait_until(act: impl FnOnce(&Bounded<u32>)) -> Result<(), Refused> {
        let queue = Bounded::new(1);
        queue.push(|| 1).unwrap();
        queue.be_patient(PATIENCE);
        thread::scope(|scope| {
            let pusher = scope.spawn(|| queue.push(|| 2));
            // Before the wait or in it: both end.
            act(&queue);
            pusher.join().unwrap()
        })
    }

    #[test]
    fn who_waits_for_room_is_woken_by_haste_and_by_the_end() {
        assert_eq!(wait_until(Bounded::hurry), Err(Refused::Full));
        assert_eq!(wait_until(Bounded::close), Err(Refused::Closed));
    }

    #[test]
    fn a_panic_while_an_item_is_made_leaves_the_queue_whole() {
        let queue = Bounded::new(1);
        let push = || queue.push(|| std::panic::resume_unwind(Box::new(())));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(push)).is_err());
        assert_eq!(queue.push(|| 1), Ok(()));
    }
}
