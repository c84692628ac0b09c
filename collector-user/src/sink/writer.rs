//! The thread behind a sink's queue.

use std::{
    io,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, atomic::Ordering::Relaxed, mpsc::Receiver},
    thread,
};

use tokio::sync::mpsc::Sender;

use super::{
    Target,
    queue::{End, Shared},
};
use crate::{
    error::with_causes,
    event::{Event, Time},
};

/// Events taken from the queue at once.
const BATCH: usize = 64;

/// What the thread reports: first that the queue is drained, then that the last line is written.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Everything is written and flushed.
    Written,
    /// The target did not take the last line.
    Refused(io::Error),
    /// The output has ended.
    Ended(End),
}

/// Outcomes that the thread reports in its life: room for all of them, so that it never waits for who hears them.
pub(super) const OUTCOMES: usize = 2;

pub(super) struct Thread<T> {
    pub(super) name: String,
    pub(super) shared: Arc<Shared>,
    pub(super) target: T,
    /// Events that the target has taken and not yet settled.
    pub(super) pending: u64,
    /// Whether it was said that the target fails on events.
    pub(super) has_complained: bool,
}

impl<T: Target> Thread<T> {
    pub(super) fn run(mut self, last: &Receiver<(Time, Event)>, outcomes: &Sender<Outcome>) {
        let drained = match self.drain() {
            Ok(()) => Outcome::Written,
            Err(error) => {
                let end = End::from(error);
                self.shared.queue.close();
                // After the last change of a count: who sees the end sees the counts.
                self.shared.ended.send_replace(Some(end.clone()));
                Outcome::Ended(end)
            }
        };
        let may_go_on = matches!(drained, Outcome::Written);
        // Who was to hear of it may have dropped the writer: then there is no last line either.
        let is_heard = outcomes.try_send(drained).is_ok();
        if is_heard
            && may_go_on
            && let Ok((time, event)) = last.recv()
        {
            let put = self.put(time, &event);
            let _ = outcomes.try_send(match (self.settle(), put) {
                (Ok(()), Ok(())) => Outcome::Written,
                (Ok(()), Err(error)) => Outcome::Refused(error),
                (Err(error), _) => Outcome::Ended(error.into()),
            });
        }
    }

    /// Hands events to the target until the queue is closed and empty.
    fn drain(&mut self) -> io::Result<()> {
        let mut batch = Vec::with_capacity(BATCH);
        let shared = Arc::clone(&self.shared);
        loop {
            if !shared.queue.try_take(&mut batch, BATCH) {
                // Who has woken this thread for one event often has more, and where it shares its CPU with this thread it could
                // not hand them over yet.
                thread::yield_now();
            }
            if batch.is_empty() && !shared.queue.try_take(&mut batch, BATCH) {
                // Nothing to do at once: show what there is, then wait.
                self.settle()?;
                if !shared.queue.take(&mut batch, BATCH) {
                    return Ok(());
                }
            }
            for (time, event) in batch.drain(..) {
                match self.put(time, &event) {
                    Ok(()) => self.pending += 1,
                    Err(error) => {
                        shared.malformed.fetch_add(1, Relaxed);
                        self.complain(&event, &error);
                    }
                }
                if self.target.is_full() {
                    self.settle()?;
                }
            }
        }
    }

    fn put(&mut self, time: Time, event: &Event) -> io::Result<()> {
        // A target that panics is asked again with the next event: what it broke in itself shows in its own output only.
        panic::catch_unwind(AssertUnwindSafe(|| self.target.put(time, event)))
            .unwrap_or_else(|_panic| Err(io::Error::other("a panic")))
    }

    /// Has the target settle what it took, and then counts its events.
    fn settle(&mut self) -> io::Result<()> {
        panic::catch_unwind(AssertUnwindSafe(|| self.target.settle()))
            .unwrap_or_else(|_panic| Err(io::Error::other("a panic")))?;
        self.shared.delivered.fetch_add(std::mem::take(&mut self.pending), Relaxed);
        Ok(())
    }

    /// Once: the ledger has the number.
    fn complain(&mut self, event: &Event, error: &io::Error) {
        if !std::mem::replace(&mut self.has_complained, true) {
            tracing::warn!(
                "the {} output cannot take an event ({}): {}; it and all further ones that fail are counted as \
                 sink_failed",
                self.name,
                event.kind(),
                with_causes(error)
            );
        }
    }
}
