//! A bounded queue between one task that must not wait and one thread that may.
//!
//! Not a channel of the standard library: those set their whole capacity aside at once (tens of megabytes for flow
//! records), and give out one item a lock.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// The queue. Holds at most its capacity; a batch that was taken out no longer counts.
pub(super) struct Bounded<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
    capacity: usize,
}

struct State<T> {
    items: VecDeque<T>,
    accepted: u64,
    is_open: bool,
    is_awaited: bool,
}

/// Why an item was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no room.
    Full,
    /// The queue was closed.
    Closed,
}

impl<T> Bounded<T> {
    pub(super) const fn new(capacity: usize) -> Self {
        let state = State { items: VecDeque::new(), accepted: 0, is_open: true, is_awaited: false };
        Self { state: Mutex::new(state), ready: Condvar::new(), capacity }
    }

    /// Adds an item, or says why not; never waits for room. `item` is made only where there is room for it.
    pub(super) fn try_push(&self, item: impl FnOnce() -> T) -> Result<(), Refused> {
        let mut state = self.lock();
        if !state.is_open {
            return Err(Refused::Closed);
        }
        if state.items.len() >= self.capacity {
            return Err(Refused::Full);
        }
        state.items.push_back(item());
        state.accepted += 1;
        let wake = std::mem::take(&mut state.is_awaited);
        drop(state);
        if wake {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Moves up to `most` items to `batch`; waits for the first one. False when there are none and none will come.
    pub(super) fn take(&self, batch: &mut Vec<T>, most: usize) -> bool {
        let mut state = self.lock();
        while state.items.is_empty() && state.is_open {
            state.is_awaited = true;
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Self::move_out(&mut state, batch, most)
    }

    /// Moves up to `most` items to `batch`; does not wait. False when there are none at the moment.
    pub(super) fn try_take(&self, batch: &mut Vec<T>, most: usize) -> bool {
        Self::move_out(&mut self.lock(), batch, most)
    }

    fn move_out(state: &mut State<T>, batch: &mut Vec<T>, most: usize) -> bool {
        let count = state.items.len().min(most);
        batch.extend(state.items.drain(..count));
        count > 0
    }

    /// Takes no more items, and wakes who waits for one; those within can still be taken out.
    pub(super) fn close(&self) {
        self.lock().is_open = false;
        self.ready.notify_all();
    }

    /// How many items were ever taken in.
    pub(super) fn accepted(&self) -> u64 {
        self.lock().accepted
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // The only foreign code under the lock makes an item, before anything is changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::{Bounded, Refused};

    #[test]
    fn order_and_capacity() {
        let queue = Bounded::new(3);
        assert_eq!(
            [1, 2, 3, 4].map(|item| queue.try_push(|| item)),
            [Ok(()), Ok(()), Ok(()), Err(Refused::Full)]
        );
        let mut batch = Vec::new();
        assert!(queue.try_take(&mut batch, 2));
        assert_eq!(queue.try_push(|| 5), Ok(()));
        assert!(queue.take(&mut batch, 9));
        assert_eq!(batch, [1, 2, 3, 5]);
        assert!(!queue.try_take(&mut batch, 9));
        assert_eq!(queue.accepted(), 4);
    }

    #[test]
    fn a_closed_queue_gives_what_it_has() {
        let queue = Bounded::new(3);
        assert_eq!(queue.try_push(|| 1), Ok(()));
        queue.close();
        assert_eq!(queue.try_push(|| 2), Err(Refused::Closed));
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
                queue.try_push(|| item).unwrap();
            }
            queue.close();
            taker.join().unwrap()
        });
        assert_eq!(taken, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_panic_while_an_item_is_made_leaves_the_queue_whole() {
        let queue = Bounded::new(1);
        let push = || queue.try_push(|| std::panic::resume_unwind(Box::new(())));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(push)).is_err());
        assert_eq!(queue.try_push(|| 1), Ok(()));
    }
}
