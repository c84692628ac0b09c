//! The machinery of a sink: a bounded queue, a thread that formats and writes, and their counts.
//!
//! [`start`] and [`start_target`] give two handles. [`Queue`] takes events in, from the daemon's task, and does not wait,
//! but at the end and where it is told to ([`Room::wait_for_room`]). [`Writer`] belongs to who ends the sink:
//! [`Writer::close`] lets the thread write all that was accepted, [`Closed::finish`] writes the status as the last line.
//!
//! Every event that is handed over is counted once: `handed over = delivered + queue_full + failed`, at any moment when
//! nothing is under way ([`SinkCounts`]).

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc::Sender,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::{
    mpsc::{self, Receiver},
    watch,
};

use super::{
    Format, Room, SinkError, Target,
    bounded::{Bounded, Refused},
    lines::Lines,
    writer::{OUTCOMES, Outcome, Thread},
};
use crate::{
    collector::{
        EventCollector,
        shares::{Losses, NOBODY, asker},
    },
    event::{
        ContainerRecord, CounterReport, DnsRequestReport, Event, FlowRecord, PacketEvent, PacketReport,
        PingReport, Status, Text, Time, TraceRecord, UserRecord, hash,
    },
};

/// Events that a queue holds unless somebody says otherwise.
pub const DEFAULT_CAPACITY: usize = 65_536;

/// How long an output may take nothing before [`Room::wait_for_room`] no longer waits for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of the events that a sink was handed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkCounts {
    /// Written and flushed.
    pub delivered: u64,
    /// Lost because the queue was full, or had no room for more of the same unit.
    pub queue_full: u64,
    /// Lost because the sink failed or panicked on them, or because its output had ended or was given up.
    pub failed: u64,
}

/// How an output came to its end by itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum End {
    /// Its reader had enough: no error.
    NoReader,
    /// It refused a write.
    Failed(Arc<io::Error>),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::NoReader } else { Self::Failed(Arc::new(error)) }
    }
}

/// Starts a sink that writes to a stream.
///
/// `name` is the sink's in messages and in the ledger, without NUL; `capacity` the events that may wait; `clock` says
/// when an event is emitted. Events show in `out` at once when no more are waiting, else in portions of some 64 KiB. A
/// write to it may block, and must not say that it would: that is a failure like another.
///
/// # Errors
///
/// [`SinkError::Spawn`].
///
/// # Panics
///
/// Where `name` holds a NUL.
pub fn start(
    name: &str,
    capacity: usize,
    clock: fn() -> Time,
    format: impl Format + 'static,
    out: impl io::Write + Send + 'static,
) -> Result<(Queue, Writer), SinkError> {
    start_target(name, capacity, clock, Lines::new(format, out))
}

/// Starts a sink with any target, such as a collector [`Behind`](super::Behind) it.
///
/// # Errors
///
/// [`SinkError::Spawn`].
///
/// # Panics
///
/// As [`start`].
pub fn start_target(
    name: &str,
    capacity: usize,
    clock: fn() -> Time,
    target: impl Target + 'static,
) -> Result<(Queue, Writer), SinkError> {
    let shared = Arc::new(Shared::new(capacity));
    let (last, last_receiver) = std::sync::mpsc::channel();
    let (outcome_sender, outcomes) = mpsc::channel(OUTCOMES);
    let work = Thread {
        name: name.to_owned(),
        shared: Arc::clone(&shared),
        target,
        pending: 0,
        has_complained: false,
    };
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
    /// Events that the target failed on.
    pub(super) malformed: AtomicU64,
    queue_full: AtomicU64,
    /// Whose they were.
    queue_full_of: Mutex<Losses>,
    /// Events that came after the queue's end.
    late: AtomicU64,
    /// How the output ended, once it has.
    pub(super) ended: watch::Sender<Option<End>>,
    /// Whether nobody waits for the thread any more.
    is_given_up: AtomicBool,
}

impl Shared {
    fn new(capacity: usize) -> Self {
        Self {
            queue: Bounded::shared(capacity, |(_, event)| whose(event)),
            delivered: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            queue_full: AtomicU64::new(0),
            queue_full_of: Mutex::default(),
            late: AtomicU64::new(0),
            ended: watch::Sender::new(None),
            is_given_up: AtomicBool::new(false),
        }
    }

    /// Accepted events that are neither written nor counted as failed.
    fn under_way(&self) -> u64 {
        let settled = self.delivered.load(Relaxed) + self.malformed.load(Relaxed);
        self.queue.accepted().saturating_sub(settled)
    }

    fn counts(&self) -> SinkCounts {
        let delivered = self.delivered.load(Relaxed);
        let is_over = self.ended.borrow().is_some() || self.is_given_up.load(SeqCst);
        let malformed = self.malformed.load(Relaxed);
        // A thread that was given up may still write: what it does after the first line here is told as failed.
        let stranded = if is_over { self.queue.accepted().saturating_sub(delivered + malformed) } else { 0 };
        SinkCounts {
            delivered,
            queue_full: self.queue_full.load(Relaxed),
            failed: malformed + self.late.load(Relaxed) + stranded,
        }
    }
}

/// The end of a sink that takes events in: a collector that copies each and does not wait. Clones share the sink.
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

    /// Whether the output has ended by itself: nothing is written any more.
    pub fn has_ended(&self) -> bool {
        self.shared.ended.borrow().is_some()
    }

    /// Whose events were lost because the queue was full, or had no room for more of them; in no unit's row those of units
    /// beyond so many that nobody runs.
    pub fn queue_full_of(&self) -> BTreeMap<Text, u64> {
        self.shared.queue_full_of.lock().unwrap_or_else(PoisonError::into_inner).rows()
    }

    /// Hands an event over that is of no unit; it counts as emitted now.
    pub fn push(&self, event: impl FnOnce() -> Event) {
        self.push_of(&NOBODY, event);
    }

    /// Hands an event of a unit over; it counts as emitted now.
    fn push_of(&self, whose: &Text, event: impl FnOnce() -> Event) {
        self.count(whose, self.shared.queue.push_of(whose, || ((self.clock)(), event())));
    }

    fn count(&self, whose: &Text, taken: Result<(), Refused>) {
        match taken {
            Ok(()) => {}
            Err(Refused::Full) => {
                self.shared.queue_full.fetch_add(1, Relaxed);
                self.shared.queue_full_of.lock().unwrap_or_else(PoisonError::into_inner).add(whose);
            }
            Err(Refused::Closed) => {
                self.shared.late.fetch_add(1, Relaxed);
            }
        }
    }
}

/// The unit that an event is of, by its id; empty where it is none's.
fn whose(event: &Event) -> &Text {
    match event {
        Event::Flow(record) => &record.context_id,
        Event::Container(record) => &record.context_id,
        Event::Packet(report) => &report.puid,
        Event::Counter(report) => &report.context_id,
        Event::Dns(request) => asker(request),
        _ => &NOBODY,
    }
}

impl Room for Queue {
    fn wait_for_room(&self) {
        self.shared.queue.be_patient(PATIENCE);
    }

    fn wait_for_good(&self) {
        self.shared.queue.be_patient(Duration::MAX);
    }

    fn hurry(&self) {
        self.shared.queue.hurry();
    }
}

impl EventCollector for Queue {
    fn collect_flow_event(&self, record: &FlowRecord) {
        self.push_of(&record.context_id, || Event::Flow(record.clone()));
    }

    fn collect_container_event(&self, record: &ContainerRecord) {
        self.push_of(&record.context_id, || Event::Container(record.clone()));
    }

    fn collect_user_event(&self, record: &mut UserRecord) {
        hash::stats_user_hash(record);
        self.push(|| Event::User(record.clone()));
    }

    fn collect_trace_event(&self, records: &[String]) {
        self.push(|| Event::Trace(TraceRecord { records: records.to_vec() }));
    }

    fn collect_packet_event(&self, report: &PacketReport) {
        let event = || Event::Packet(report.clone());
        if report.event == PacketEvent::Dropped {
            // No more than the unit's budget pays for.
            return self.push_of(&report.puid, event);
        }
        // A trace tells of all the packets that there are.
        let taken = self.shared.queue.push_one_of_many(&report.puid, || ((self.clock)(), event()));
        self.count(&report.puid, taken);
    }

    fn collect_counter_event(&self, report: &CounterReport) {
        self.push_of(&report.context_id, || Event::Counter(report.clone()));
    }

    fn collect_dns_requests(&self, request: &DnsRequestReport) {
        self.push_of(asker(request), || Event::Dns(request.clone()));
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
    /// Returns once the output has ended by itself: a write failed. Noticed at a write only.
    pub async fn ended(&self) -> End {
        let mut ended = self.queue.shared.ended.subscribe();
        let end = ended.wait_for(Option::is_some).await;
        // The sender lives in `self`, so the wait cannot fail.
        end.ok().and_then(|end| end.clone()).unwrap_or(End::NoReader)
    }

    /// Takes no more events, and waits until the thread has written all that were accepted. An output whose reader is
    /// gone is no error.
    ///
    /// # Errors
    ///
    /// [`SinkError::Write`] for what ended the output, now or earlier; [`SinkError::Stuck`] when `give_up` is ready
    /// first, and then the thread is left to itself, and what it has not written counts as failed.
    pub async fn close(mut self, give_up: impl Future<Output = ()>) -> Result<Closed, SinkError> {
        self.queue.shared.queue.close();
        let is_open = match self.outcome(give_up).await? {
            Outcome::Written | Outcome::Refused(_) => true,
            Outcome::Ended(End::NoReader) => false,
            Outcome::Ended(End::Failed(source)) => {
                return Err(SinkError::Write { sink: self.name.clone(), source });
            }
        };
        Ok(Closed { writer: self, is_open })
    }

    /// What the thread reports next.
    async fn outcome(&mut self, give_up: impl Future<Output = ()>) -> Result<Outcome, SinkError> {
        tokio::select! {
            biased;
            outcome = self.outcomes.recv() => outcome.ok_or_else(|| SinkError::Gone { sink: self.name.clone() }),
            () = give_up => {
                let shared = &self.queue.shared;
                let unwritten = shared.under_way();
                shared.is_given_up.store(true, SeqCst);
                Err(SinkError::Stuck { sink: self.name.clone(), unwritten })
            }
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

    /// Writes the status as the last line, waits until it is flushed or `give_up` is ready, and ends the thread. Where
    /// the reader is gone there is no last line, and that is no error.
    ///
    /// # Errors
    ///
    /// As [`Writer::close`], and [`SinkError::Status`].
    pub async fn finish(self, status: Status, give_up: impl Future<Output = ()>) -> Result<(), SinkError> {
        let mut writer = self.writer;
        let sink = writer.name.clone();
        if self.is_open {
            let time = (writer.queue.clock)();
            let unsent = writer.last.send((time, Event::Status(Box::new(status))));
            unsent.map_err(|_unsent| SinkError::Gone { sink: sink.clone() })?;
            match writer.outcome(give_up).await? {
                Outcome::Written | Outcome::Ended(End::NoReader) => {}
                Outcome::Refused(source) => return Err(SinkError::Status { sink, source }),
                Outcome::Ended(End::Failed(source)) => return Err(SinkError::Write { sink, source }),
            }
        }
        // The thread has reported and is about to return.
        writer.thread.take().map_or(Ok(()), JoinHandle::join).map_err(|_panic| SinkError::Gone { sink })
    }
}

#[cfg(test)]
mod tests;
