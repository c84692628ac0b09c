//! How a run ends: who tells it to, and how long the rest may take.
//!
//! The daemon's task may wait for an output's room while it hands the last events over, and hears no signal then. So a
//! thread of its own hears them: the first begins the end, one more cuts it short.

use std::{
    future::{Future, pending},
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::Errno,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::sink::Room;

/// How long handing the last events over may take, counted from the end's begin; how long then writing them; and how
/// long the last line.
const GRACE: Duration = Duration::from_secs(10);
/// How long outputs may still take after a second signal: one that is sound needs far less.
const MOMENT: Duration = Duration::from_millis(250);

/// How far a run's end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    /// What is left is handed over and written.
    Ending,
    /// Nobody waits any more.
    Hurried,
}

/// What SIGHUP means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hangup {
    /// The terminal has gone: the end.
    Ends,
    /// The configuration is to be read anew, which is somebody else's matter.
    Reloads,
}

/// The end of a run; clones are the same.
#[derive(Clone)]
pub(super) struct Ending {
    stage: watch::Sender<Stage>,
    /// Readable once the end has begun: for who waits for a file.
    begun: Arc<OwnedFd>,
    /// Of the outputs.
    queues: Arc<Mutex<Vec<Box<dyn Room>>>>,
}

impl Ending {
    /// Hears SIGINT and SIGTERM from now on, and SIGHUP where that means the end, on a thread of its own that lives as long as the process.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn on_signals(hangup: Hangup) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let signals = {
            let _context = runtime.enter();
            Signals::new(hangup)?
        };
        let ending = Self::new()?;
        let heard = ending.clone();
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || runtime.block_on(heard.attend(signals)))?;
        Ok(ending)
    }

    fn new() -> io::Result<Self> {
        let begun = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        Ok(Self { stage: watch::Sender::new(Stage::Running), begun, queues: Arc::default() })
    }

    /// The queues of the outputs: when the end begins, they wait for room, and no longer than the grace.
    pub(super) fn watch_over(&self, queues: Vec<Box<dyn Room>>) {
        *self.queues.lock().unwrap_or_else(PoisonError::into_inner) = queues;
    }

    /// Has what is handed to outputs wait for room from now on, however long that takes, until the end begins.
    pub(super) fn wait_for_outputs(&self) {
        self.each_queue(|queue| queue.wait_for_good());
    }

    /// Begins the end, unless it has begun.
    pub(super) fn begin(&self) {
        self.stage.send_if_modified(|stage| {
            let is_first = *stage == Stage::Running;
            if is_first {
                self.each_queue(|queue| queue.wait_for_room());
                *stage = Stage::Ending;
                // It is written once; an event descriptor has room for that.
                let _ = rustix::io::write(&*self.begun, &1_u64.to_ne_bytes());
            }
            is_first
        });
    }

    /// Returns once the end has begun.
    pub(super) async fn begun(&self) {
        self.reached(Stage::Ending).await;
    }

    /// Whether the end has begun.
    pub(super) fn has_begun(&self) -> bool {
        *self.stage.borrow() >= Stage::Ending
    }

    /// Returns once there is something to read, or a file's end; or with an error once the end has begun.
    pub(super) fn wait_to_read(&self, file: impl AsFd) -> io::Result<()> {
        let mut waiting = [PollFd::new(&file, PollFlags::IN), PollFd::new(&*self.begun, PollFlags::IN)];
        loop {
            match poll(&mut waiting, None) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) if !waiting[1].revents().is_empty() => {
                    return Err(io::Error::other("told to end"));
                }
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Returns once nobody should wait for anything any more.
    pub(super) async fn hurried(&self) {
        self.reached(Stage::Hurried).await;
    }

    /// Returns once nobody should wait for an output any more: a moment after a second signal, or after the grace.
    pub(super) async fn give_up(&self) {
        let hurried = async {
            self.hurried().await;
            tokio::time::sleep(MOMENT).await;
        };
        tokio::select! {
            () = hurried => {}
            () = tokio::time::sleep(GRACE) => {}
        }
    }

    async fn reached(&self, wanted: Stage) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.stage.subscribe().wait_for(|stage| *stage >= wanted).await;
    }

    async fn attend(self, mut signals: impl Stop) {
        tokio::select! {
            () = signals.next() => self.begin(),
            () = self.begun() => {}
        }
        tokio::select! {
            () = signals.next() => {}
            () = tokio::time::sleep(GRACE) => {
                self.each_queue(|queue| queue.hurry());
                signals.next().await;
            }
        }
        self.stage.send_replace(Stage::Hurried);
        self.each_queue(|queue| queue.hurry());
    }

    fn each_queue(&self, act: impl Fn(&dyn Room)) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|queue| act(&**queue));
    }
}

/// What tells a run to stop, again and again.
trait Stop {
    fn next(&mut self) -> impl Future<Output = ()> + Send;
}

/// The signals that end a run.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    fn new(hangup: Hangup) -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: (hangup == Hangup::Ends).then(|| signal(SignalKind::hangup())).transpose()?,
        })
    }
}

impl Stop for Signals {
    async fn next(&mut self) {
        let Self { interrupt, terminate, hangup } = self;
        let hung_up = async {
            match hangup {
                Some(hangup) => hangup.recv().await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hung_up => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::mpsc::{Receiver, Sender, channel},
        thread,
        time::Duration,
    };

    use tokio::sync::mpsc::UnboundedReceiver;

    use super::{Ending, Stop};
    use crate::{
        clock,
        collector::EventCollector as _,
        event::FlowRecord,
        sink::{
            json::Json,
            queue::{self, Queue, Writer},
        },
    };

    impl Stop for UnboundedReceiver<()> {
        async fn next(&mut self) {
            if self.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Takes nothing until it is allowed to.
    struct Held {
        is_reached: Sender<()>,
        may_go_on: Receiver<()>,
    }

    impl io::Write for Held {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let _ = self.is_reached.send(());
            let _ = self.may_go_on.recv();
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// An output with room for one event: what lets it go on, what says that it was reached, and both its ends.
    fn held() -> (Sender<()>, Receiver<()>, Queue, Writer) {
        let (is_reached, reached) = channel();
        let (go_on, may_go_on) = channel();
        let (queue, writer) =
            queue::start("held", 1, clock::wall, Json, Held { is_reached, may_go_on }).unwrap();
        (go_on, reached, queue, writer)
    }

    #[test]
    fn a_second_signal_frees_who_waits_for_an_outputs_room() {
        let (_go_on, reached, queue, writer) = held();
        queue.collect_flow_event(&FlowRecord::default());
        reached.recv().unwrap();

        let ending = Ending::new().unwrap();
        ending.watch_over(vec![Box::new(queue.clone())]);
        let (signals, heard) = tokio::sync::mpsc::unbounded_channel();
        let attending = ending.clone();
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        thread::spawn(move || runtime().block_on(attending.attend(heard)));
        signals.send(()).unwrap();
        runtime().block_on(ending.begun());
        let handing_over = thread::spawn({
            let queue = queue.clone();
            move || (0..3).for_each(|_| queue.collect_flow_event(&FlowRecord::default()))
        });
        signals.send(()).unwrap();
        runtime().block_on(async {
            tokio::time::timeout(Duration::from_secs(30), ending.hurried()).await.unwrap();
        });
        handing_over.join().unwrap();
        let closed = runtime().block_on(writer.close(ending.hurried()));
        assert!(closed.is_err());
        // One was taken out and is held, one waits, two found no room.
        let counts = queue.counts();
        assert_eq!((counts.delivered, counts.queue_full, counts.failed), (0, 2, 2));
    }

    #[test]
    fn who_may_wait_waits_for_an_outputs_room_before_any_end() {
        let (go_on, reached, queue, writer) = held();
        let ending = Ending::new().unwrap();
        ending.watch_over(vec![Box::new(queue.clone())]);
        ending.wait_for_outputs();
        let handing_over = thread::spawn({
            let queue = queue.clone();
            move || (0..20).for_each(|_| queue.collect_flow_event(&FlowRecord::default()))
        });
        reached.recv().unwrap();
        // From here on it takes whatever comes.
        drop(go_on);
        handing_over.join().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(writer.close(std::future::pending())).unwrap();
        let counts = queue.counts();
        assert_eq!((counts.delivered, counts.queue_full, counts.failed), (20, 0, 0));
        assert!(!ending.has_begun());
    }

    #[test]
    fn an_end_without_a_signal_is_an_end() {
        let ending = Ending::new().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        ending.begin();
        ending.begin();
        runtime.block_on(ending.begun());
    }
}
