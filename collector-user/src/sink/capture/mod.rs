//! Packets into a pcapng file, by a thread of its own behind a bounded queue.
//!
//! [`start`] gives two handles. [`Intake`] takes packets in, from the daemon's task, and does not wait; [`Capture`]
//! belongs to who ends it. On the thread packets of several CPUs are put into the order of their times: each waits until
//! the daemon says that all of its time are [there](PacketCapture::complete), however long that takes. Only where more wait
//! than there is room for, the first of them is written before that is known; what is to stand before it then and comes later
//! is written all the same, and counted.
//!
//! Every packet that is handed over is counted once: `handed over = written + queue_full + surplus + failed`, once the
//! capture is [closed](Capture::close) ([`CaptureCounts`]).

mod output;
mod thread;

use std::{
    collections::HashMap,
    future::Future,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Sender, channel},
    },
    thread::Builder,
    time::Duration,
};

use tokio::sync::{oneshot, watch};

pub use output::{Output, Stream};

use super::{
    Room, SinkError,
    bounded::{Bounded, Refused},
    pcapng::Section,
};
use crate::{
    collector::capture::PacketCapture,
    event::{Captured, LinkType, Text, Time},
};
use output::Blocks;
use thread::Thread;

/// The output's name in messages and in the ledger.
pub const NAME: &str = "capture";

/// Packets that wait at most.
const MOST_PACKETS: usize = 65_536;
/// Octets that they take at most, those that wait for their order not among them: those are as many again at most.
const MOST_OCTETS: usize = 32 << 20;
/// How long an output may take nothing before nobody waits for its room any more at the end.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is captured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Octets of each packet that are kept.
    pub snap_length: u32,
    /// What the packets were filtered by, in words; empty: nothing.
    pub filter: String,
    /// Packets after which the capture ends by itself.
    pub count: Option<u64>,
    /// The clock of the file's first and last moment.
    pub clock: fn() -> Time,
}

/// What became of the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureCounts {
    /// In the file.
    pub written: u64,
    /// Lost because the queue was full.
    pub queue_full: u64,
    /// Not wanted any more, because the last of those that were is written.
    pub surplus: u64,
    /// Lost because the file had failed or was given up.
    pub failed: u64,
    /// Of those written, those that stand behind a later one.
    pub late: u64,
    /// Octets in the file.
    pub octets: u64,
}

/// How a capture came to its end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// All packets that were wanted are written.
    Complete,
    /// A write failed.
    Failed,
}

/// Begins a capture: the first block is written when this returns.
///
/// # Errors
///
/// [`SinkError::Write`] where that fails, [`SinkError::Spawn`].
pub fn start(options: Options, out: impl Output + 'static) -> Result<(Intake, Capture), SinkError> {
    let mut blocks = Blocks::new(out);
    Section::begin(&mut blocks.gathered);
    blocks.settle().map_err(failed)?;
    let shared = Arc::new(Shared {
        queue: Bounded::weighing(MOST_PACKETS, MOST_OCTETS, Item::weight),
        handed: AtomicU64::new(0),
        newest: AtomicU64::new(0),
        complete: AtomicU64::new(0),
        fates: Mutex::default(),
        ended: watch::Sender::new(None),
    });
    let (last, last_words) = channel();
    let (done, outcome) = oneshot::channel();
    let work = Thread::new(options, Arc::clone(&shared), blocks);
    Builder::new()
        .name("sink capture".to_owned())
        .spawn(move || {
            // Who was to hear of it may have dropped the handle.
            let _ = done.send(work.run(&last_words));
        })
        .map_err(|source| SinkError::Spawn { sink: NAME.to_owned(), source })?;
    Ok((Intake { shared: Arc::clone(&shared) }, Capture { shared, last, outcome }))
}

fn failed(source: io::Error) -> SinkError {
    SinkError::Write { sink: NAME.to_owned(), source: Arc::new(source) }
}

/// What the handles and the thread share.
struct Shared {
    queue: Bounded<Item>,
    /// Packets that were handed over.
    handed: AtomicU64,
    /// The latest boot time of a packet that was taken in.
    newest: AtomicU64,
    /// Until which boot time the thread was told that all are there.
    complete: AtomicU64,
    fates: Mutex<Fates>,
    /// How it ended by itself, once it has.
    ended: watch::Sender<Option<End>>,
}

/// What waits in the queue.
enum Item {
    /// An interface of which packets may come.
    Interface {
        index: u32,
        name: Text,
        link: LinkType,
    },
    Packet(Captured),
    /// All packets up to this boot time are taken in.
    Complete(u64),
}

impl Item {
    fn weight(&self) -> usize {
        match self {
            Self::Interface { .. } | Self::Complete(_) => 0,
            Self::Packet(packet) => weight(packet),
        }
    }
}

/// What became of packets. Those lost and those not wanted by the index of their interface.
#[derive(Clone, Debug, Default)]
struct Fates {
    written: u64,
    octets: u64,
    late: u64,
    queue_full: HashMap<u32, u64>,
    surplus: HashMap<u32, u64>,
}

impl Shared {
    fn fates(&self) -> MutexGuard<'_, Fates> {
        // Nothing under the lock can panic half way.
        self.fates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_complete(&self) -> bool {
        *self.ended.borrow() == Some(End::Complete)
    }

    fn counts(&self) -> CaptureCounts {
        let Fates { written, octets, late, queue_full, surplus } = self.fates().clone();
        let [queue_full, surplus] = [queue_full, surplus].map(|counts| counts.values().sum());
        let handed = self.handed.load(Relaxed);
        let failed = handed.saturating_sub(written + queue_full + surplus);
        CaptureCounts { written, queue_full, surplus, failed, late, octets }
    }
}

/// What a packet takes while it waits.
fn weight(packet: &Captured) -> usize {
    size_of::<Captured>() + packet.bytes.len()
}

/// The end that takes packets in. Clones take in for the same file.
#[derive(Clone)]
pub struct Intake {
    shared: Arc<Shared>,
}

impl Room for Intake {
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

impl PacketCapture for Intake {
    /// A file without any interface is none for libpcap: it learns of each before its first packet.
    fn watch(&self, index: u32, interface: &Text, link: LinkType) {
        // Where there is no room, its first packet tells.
        let _ = self.shared.queue.push(|| Item::Interface { index, name: interface.clone(), link });
    }

    fn capture(&self, packet: &Captured) {
        let Self { shared } = self;
        shared.handed.fetch_add(1, Relaxed);
        let Err(refused) = shared.queue.push_weighing(weight(packet), || Item::Packet(packet.clone())) else {
            shared.newest.fetch_max(packet.boot_ns, Relaxed);
            return;
        };
        let mut fates = shared.fates();
        if shared.is_complete() {
            *fates.surplus.entry(packet.ifindex).or_default() += 1;
        } else if refused == Refused::Full {
            *fates.queue_full.entry(packet.ifindex).or_default() += 1;
        }
    }

    /// It goes through the queue, behind the packets that it speaks of. Where none waits for it, nothing does; so there are no
    /// more of them in the queue than there were packets, even though nobody takes them out.
    fn complete(&self, boot_ns: u64) {
        let Self { shared } = self;
        let before = shared.complete.fetch_max(boot_ns, Relaxed);
        if before < boot_ns && before < shared.newest.load(Relaxed) {
            shared.queue.push_beyond(Item::Complete(boot_ns));
        }
    }
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("counts", &self.shared.counts()).finish_non_exhaustive()
    }
}

/// The end that ends it. Dropped instead, it lets the thread write what it has, and does not wait for it.
pub struct Capture {
    shared: Arc<Shared>,
    last: Sender<Vec<(String, u64)>>,
    outcome: oneshot::Receiver<io::Result<()>>,
}

impl Capture {
    /// Returns once it has ended by itself: all packets that were wanted are written, or a write failed, which is
    /// noticed at a write only.
    pub async fn ended(&self) -> End {
        let mut ended = self.shared.ended.subscribe();
        let end = ended.wait_for(Option::is_some).await;
        // The sender lives in `self`, so the wait cannot fail.
        end.ok().and_then(|end| *end).unwrap_or(End::Failed)
    }

    /// What became of the packets so far; those that wait count as failed.
    pub fn counts(&self) -> CaptureCounts {
        self.shared.counts()
    }

    /// Takes no more packets, and waits until all that were taken in are written, and behind them the statistics, with
    /// `losses` before this output in them.
    ///
    /// # Errors
    ///
    /// [`SinkError::Write`] for what ended it, now or earlier: then the file has no statistics. [`SinkError::Stuck`] when
    /// `give_up` is ready first, and then the thread is left to itself.
    pub async fn close(
        mut self,
        losses: Vec<(String, u64)>,
        give_up: impl Future<Output = ()>,
    ) -> (CaptureCounts, Result<(), SinkError>) {
        let sink = || NAME.to_owned();
        // A thread that has ended hears nothing, and has told why.
        let _ = self.last.send(losses);
        self.shared.queue.close();
        let outcome = tokio::select! {
            biased;
            outcome = &mut self.outcome => match outcome {
                Ok(outcome) => outcome.map_err(failed),
                Err(_gone) => Err(SinkError::Gone { sink: sink() }),
            },
            () = give_up => Err(SinkError::Stuck { sink: sink(), unwritten: self.shared.counts().failed }),
        };
        (self.shared.counts(), outcome)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

#[cfg(test)]
mod tests;
