//! The thread behind a sink's queue.

use std::{
    io,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, Sender},
    },
};

use super::{Format, queue::Shared};
use crate::event::{Event, Time};

/// Events taken from the queue at once.
const BATCH: usize = 64;
/// Octets that are gathered before they are written, where events come faster than they are written.
const GATHERED: usize = 64 * 1024;

/// What the thread reports: first that the queue is drained, then that the last line is written.
pub(super) type Outcome = io::Result<Last>;

/// What became of the step that was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// Everything is written and flushed.
    Written,
    /// The format has no form for the last line.
    Formless,
}

pub(super) struct Thread<F, W> {
    pub(super) shared: Arc<Shared>,
    pub(super) format: F,
    pub(super) out: W,
    pub(super) gathered: Vec<u8>,
    /// Events in `gathered`.
    pub(super) pending: u64,
}

impl<F: Format, W: io::Write> Thread<F, W> {
    pub(super) fn run(mut self, last: &Receiver<(Time, Event)>, outcomes: &Sender<Outcome>) {
        let drained = self.drain();
        if drained.is_err() {
            self.shared.queue.close();
            // After the last change of a count: who sees the end sees the counts.
            self.shared.ended.send_replace(true);
        }
        let may_go_on = drained.is_ok();
        // Who was to hear of it may have dropped the writer: then there is no last line either.
        let heard = outcomes.send(drained.map(|()| Last::Written)).is_ok();
        if heard
            && may_go_on
            && let Ok((time, event)) = last.recv()
        {
            let formed = self.gather(time, &event);
            let _ =
                outcomes.send(self.deliver().map(|()| if formed { Last::Written } else { Last::Formless }));
        }
    }

    /// Writes events until the queue is closed and empty.
    fn drain(&mut self) -> io::Result<()> {
        let mut batch = Vec::with_capacity(BATCH);
        let shared = Arc::clone(&self.shared);
        loop {
            if !shared.queue.try_take(&mut batch, BATCH) {
                // Nothing to do at once: show what there is, then wait.
                self.deliver()?;
                if !shared.queue.take(&mut batch, BATCH) {
                    return Ok(());
                }
            }
            for (time, event) in batch.drain(..) {
                if self.gather(time, &event) {
                    self.pending += 1;
                } else {
                    shared.malformed.fetch_add(1, Relaxed);
                }
                if self.gathered.len() >= GATHERED {
                    self.deliver()?;
                }
            }
        }
    }

    /// Appends the event's lines to what is gathered; false, and nothing appended, when the format fails on it.
    fn gather(&mut self, time: Time, event: &Event) -> bool {
        let before = self.gathered.len();
        let (format, out) = (&mut self.format, &mut self.gathered);
        // A format that panics is asked again with the next event: what it broke in itself shows in its own lines only.
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| format.write(time, event, out)));
        let formed = matches!(outcome, Ok(Ok(())));
        if !formed {
            self.gathered.truncate(before);
        }
        formed
    }

    /// Writes what is gathered, and then counts its events.
    fn deliver(&mut self) -> io::Result<()> {
        if !self.gathered.is_empty() {
            self.out.write_all(&self.gathered)?;
            self.out.flush()?;
            self.gathered.clear();
        }
        self.shared.delivered.fetch_add(std::mem::take(&mut self.pending), Relaxed);
        Ok(())
    }
}
