//! The machinery of a sink: a bounded queue, a thread that formats and writes, and their counts.
//!
//! [`start`] gives two handles. [`Queue`] takes events in, from the daemon's task, and never waits. [`Writer`] belongs
//! to who ends the sink: [`Writer::close`] lets the thread write all that was accepted, [`Closed::finish`] writes the
//! status as the last line.
//!
//! Every event that is handed over is counted once: `handed over = delivered + queue_full + failed`, at any moment when
//! nothing is under way ([`SinkCounts`]).

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::watch;

use super::{
    Format, SinkError,
    bounded::{Bounded, Refused},
    writer::{Last, Outcome, Thread},
};
use crate::{
    collector::EventCollector,
    event::{
        ContainerRecord, CounterReport, DnsRequestReport, Event, FlowRecord, PacketReport, PingReport,
        Status, Time, TraceRecord, UserRecord, hash,
    },
};

/// Events that a queue holds unless somebody says otherwise.
pub const DEFAULT_CAPACITY: usize = 65_536;

/// What became of the events that a sink was handed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkCounts {
    /// Written and flushed.
    pub delivered: u64,
    /// Lost because the queue was full.
    pub queue_full: u64,
    /// Lost because the format failed or panicked on them, or because the output had ended.
    pub failed: u64,
}

/// Starts a sink.
///
/// `name` is the sink's in messages and in the ledger; `capacity` the events that may wait; `clock` says when an event
/// is emitted. Events show in `out` at once when no more are waiting, else in portions of some 64 KiB.
///
/// # Errors
///
/// [`SinkError::Spawn`].
pub fn start(
    name: &str,
    capacity: usize,
    clock: fn() -> Time,
    format: impl Format + 'static,
    out: impl io::Write + Send + 'static,
) -> Result<(Queue, Writer), SinkError> {
    let shared = Arc::new(Shared::new(capacity));
    let (last, last_receiver) = mpsc::channel();
    let (outcome_sender, outcomes) = mpsc::channel();
    let work = Thread { shared: Arc::clone(&shared), format, out, gathered: Vec::new(), pending: 0 };
    let thread = thread::Builder::new()
        .name(format!("sink {name}"))
        .spawn(move || work.run(&last_receiver, &outcome_sender))
        .map_err(|source| SinkError::Spawn { sink: name.to_owned(), source })?;
    let queue = Queue { shared, clock };
    let writer = Writer { name: name.to_owned(), queue: queue.clone(), last, outcomes, thread: Some(thread) };
    Ok((queue, writer))
}

/// What the handles and the thread share.
pub(super) struct Shared {
    pub(super) queue: Bounded<(Time, Event)>,
    pub(super) delivered: AtomicU64,
    /// Events that the format failed on.
    pub(super) malformed: AtomicU64,
    queue_full: AtomicU64,
    /// Events that came after the queue's end.
    late: AtomicU64,
    /// Whether the output ended, by a write that failed.
    pub(super) ended: watch::Sender<bool>,
}

impl Shared {
    fn new(capacity: usize) -> Self {
        Self {
            queue: Bounded::new(capacity),
            delivered: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            queue_full: AtomicU64::new(0),
            late: AtomicU64::new(0),
            ended: watch::Sender::new(false),
        }
    }

    /// Accepted events that are neither written nor counted as failed.
    fn under_way(&self) -> u64 {
        let settled = self.delivered.load(Relaxed) + self.malformed.load(Relaxed);
        self.queue.accepted().saturating_sub(settled)
    }

    fn counts(&self) -> SinkCounts {
        let stranded = if *self.ended.borrow() { self.under_way() } else { 0 };
        SinkCounts {
            delivered: self.delivered.load(Relaxed),
            queue_full: self.queue_full.load(Relaxed),
            failed: self.malformed.load(Relaxed) + self.late.load(Relaxed) + stranded,
        }
    }
}

/// The end of a sink that takes events in: a collector that copies each and never waits. Clones share the sink.
#[derive(Clone)]
pub struct Queue {
    shared: Arc<Shared>,
    clock: fn() -> Time,
}

impl Queue {
    /// What became of the events so far; those that wait are in none of the counts.
    pub fn counts(&self) -> SinkCounts {
        self.shared.counts()
    }

    /// Hands an event over; it counts as emitted now.
    pub fn push(&self, event: impl FnOnce() -> Event) {
        let lost = match self.shared.queue.try_push(|| ((self.clock)(), event())) {
            Ok(()) => return,
            Err(Refused::Full) => &self.shared.queue_full,
            Err(Refused::Closed) => &self.shared.late,
        };
        lost.fetch_add(1, Relaxed);
    }
}

impl EventCollector for Queue {
    fn collect_flow_event(&self, record: &FlowRecord) {
        self.push(|| Event::Flow(record.clone()));
    }

    fn collect_container_event(&self, record: &ContainerRecord) {
        self.push(|| Event::Container(record.clone()));
    }

    fn collect_user_event(&self, record: &mut UserRecord) {
        hash::stats_user_hash(record);
        self.push(|| Event::User(record.clone()));
    }

    fn collect_trace_event(&self, records: &[String]) {
        self.push(|| Event::Trace(TraceRecord { records: records.to_vec() }));
    }

    fn collect_packet_event(&self, report: &PacketReport) {
        self.push(|| Event::Packet(report.clone()));
    }

    fn collect_counter_event(&self, report: &CounterReport) {
        self.push(|| Event::Counter(report.clone()));
    }

    fn collect_dns_requests(&self, request: &DnsRequestReport) {
        self.push(|| Event::Dns(request.clone()));
    }

    fn collect_ping_event(&self, report: &PingReport) {
        self.push(|| Event::Ping(report.clone()));
    }
}

/// The end of a sink that ends it. Dropped instead, it lets the thread write what it has, and does not wait for it.
pub struct Writer {
    name: String,
    queue: Queue,
    last: Sender<(Time, Event)>,
    outcomes: Receiver<Outcome>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Returns once the output has ended by itself: a write failed. [`close`](Self::close) says whether that was an
    /// error, or a reader that had enough. Noticed at a write only.
    pub async fn closed(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.queue.shared.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Takes no more events, and waits until the thread has written all that were accepted.
    ///
    /// Blocks for up to `grace`: for a task, run it by `spawn_blocking`. An output whose reader is gone is no error.
    ///
    /// # Errors
    ///
    /// [`SinkError::Write`] for what ended the output, now or earlier; [`SinkError::Stuck`] when the grace is over, and
    /// then the thread is left to itself.
    pub fn close(self, grace: Duration) -> Result<Closed, SinkError> {
        self.queue.shared.queue.close();
        let is_open = self.outcome(grace)?.is_some();
        Ok(Closed { writer: self, is_open })
    }

    /// What the thread reports next; none when the reader is gone.
    fn outcome(&self, grace: Duration) -> Result<Option<Last>, SinkError> {
        let sink = || self.name.clone();
        match self.outcomes.recv_timeout(grace) {
            Ok(Ok(last)) => Ok(Some(last)),
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(None),
            Ok(Err(source)) => Err(SinkError::Write { sink: sink(), source }),
            Err(RecvTimeoutError::Timeout) => {
                Err(SinkError::Stuck { sink: sink(), grace, unwritten: self.queue.shared.under_way() })
            }
            Err(RecvTimeoutError::Disconnected) => Err(SinkError::Gone { sink: sink() }),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.shared.queue.close();
    }
}

/// A sink that has written all it was handed, and can take its last line.
pub struct Closed {
    writer: Writer,
    is_open: bool,
}

impl Closed {
    /// The final counts.
    pub fn counts(&self) -> SinkCounts {
        self.writer.queue.counts()
    }

    /// Whether the output still has a reader.
    pub const fn is_open(&self) -> bool {
        self.is_open
    }

    /// Writes the status as the last line, waits for up to `grace` until it is flushed, and ends the thread. Where the
    /// reader is gone there is no last line, and that is no error.
    ///
    /// # Errors
    ///
    /// As [`Writer::close`], and [`SinkError::Status`].
    pub fn finish(self, status: Status, grace: Duration) -> Result<(), SinkError> {
        let mut writer = self.writer;
        let gone = || SinkError::Gone { sink: writer.name.clone() };
        if self.is_open {
            let time = (writer.queue.clock)();
            writer.last.send((time, Event::Status(status))).map_err(|_unsent| gone())?;
            if writer.outcome(grace)? == Some(Last::Formless) {
                return Err(SinkError::Status { sink: writer.name.clone() });
            }
        }
        // The thread has reported and is about to return.
        writer.thread.take().map_or(Ok(()), JoinHandle::join).map_err(|_panic| gone())
    }
}

#[cfg(test)]
mod tests;
