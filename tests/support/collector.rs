//! The daemon, running on a host of the lab.

use std::{
    num::NonZeroU32,
    panic,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use collector_user::{
    collector::memory::Recorder,
    config::Discover,
    daemon::{self, Options, Started, inquiry::Inquirer, reload::Reloader, trace::Tracer},
    event::{Event, Status},
    pu::{
        registry::Declared,
        trace::{Directions, Whose, Wish},
    },
};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use crate::{
    PATIENCE, Result,
    held::{Gate, Gated, Held},
    lab::LinkCounters,
    netns::Place,
    said::Ear,
};

/// Far longer than any test: nothing falls due by time.
pub const NEVER: Duration = Duration::from_hours(1);

/// A daemon that counts.
#[derive(Debug)]
pub struct Running {
    /// What it said when it began to count.
    pub started: Started,
    /// What it hands over, as it comes.
    pub recorder: Arc<Recorder>,
    said: mpsc::Receiver<String>,
    gate: Arc<Gate>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<Finished>>>,
}

/// What a daemon has left behind.
#[derive(Debug)]
pub struct Finished {
    /// Its last word.
    pub status: Status,
    /// All that it handed over.
    pub events: Vec<Event>,
    /// What the interface that was asked for counted while the daemon did.
    pub link: LinkCounters,
    /// The time that its thread had of a CPU.
    pub cpu: Duration,
}

/// Options under which nothing falls due by time: one record for each flow, when it ends or is cut off. Nothing is found by
/// itself: other tests have cgroups on the same host.
pub fn options() -> Options {
    Options { flow_interval: NEVER, counter_interval: NEVER, discover: Discover::Off, ..Options::default() }
}

/// The same, and units are found by themselves.
pub fn discovering() -> Options {
    Options { discover: Discover::On, ..options() }
}

/// As [`options`], but counters are reported all the time, at which a daemon can be [held](Running::hold).
pub fn often() -> Options {
    Options { counter_interval: Duration::from_millis(20), ..options() }
}

/// A wish for a report of each packet of the host, as long as the collector runs.
pub fn all_of_the_host() -> Wish {
    Wish {
        whose: Whose::Unit("host".into()),
        directions: Directions::Both,
        duration: None,
        every: NonZeroU32::MIN,
    }
}

/// A unit of the configuration, in the namespace `/lab`.
pub fn declared(id: &str, interfaces: &[&str], ranges: &[String]) -> Result<Declared> {
    Ok(Declared {
        id: id.to_owned(),
        namespace: "/lab".to_owned(),
        tags: vec!["app=lab".to_owned()],
        interfaces: interfaces.iter().map(ToString::to_string).collect(),
        side: None,
        ranges: ranges.iter().map(|range| Ok(range.parse()?)).collect::<Result<_>>()?,
        ..Declared::default()
    })
}

impl Running {
    /// Starts a daemon on a host and returns once it counts every packet.
    pub fn start(place: &Place, options: Options) -> Result<Self> {
        Self::start_beside(place, options, None)
    }

    /// The same; the counters of interface `dev` are read when the daemon begins to count, and when it has stopped.
    pub fn start_beside(place: &Place, options: Options, dev: Option<&str>) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (say, hear) = mpsc::channel();
        let recorder = Arc::new(Recorder::new());
        let gate = Arc::new(Gate::default());
        let (place, dev, events) = (place.clone(), dev.map(str::to_owned), Arc::clone(&recorder));
        let passed = Arc::clone(&gate);
        let (ear, said) = Ear::new();
        let work = move || {
            let _guard = place.enter()?;
            ear.hear(|| run(&options, Gated(&events, &passed), dev.as_deref(), stopped, &say))
        };
        let thread = thread::Builder::new().name("collector".to_owned()).spawn(work)?;
        let mut running = Self {
            started: Started {
                interfaces: Vec::new(),
                missing: Vec::new(),
                tracer: Tracer::default(),
                inquirer: Inquirer::default(),
                reloader: Reloader::default(),
            },
            recorder,
            said,
            gate,
            stop: Some(stop),
            thread: Some(thread),
        };
        match hear.recv_timeout(PATIENCE) {
            Ok(started) => {
                running.started = started;
                // On a busy machine it does not wait for the last of several interfaces.
                if running.started.missing.iter().any(|it| it.contains("so far, which are being attached")) {
                    running.wait_to_say("all interfaces are attached by now")?;
                }
                Ok(running)
            }
            Err(_) => Err(running.join().err().unwrap_or_else(|| anyhow!("the daemon ended at once"))),
        }
    }

    /// Waits until it says a sentence of itself; what it has said before since it was last heard.
    pub fn wait_to_say(&self, sentence: &str) -> Result<Vec<String>> {
        let mut others = Vec::new();
        loop {
            match self.said.recv_timeout(PATIENCE) {
                Ok(said) if said == sentence => return Ok(others),
                Ok(said) => others.push(said),
                Err(_) => bail!("it does not say `{sentence}`, but {others:#?}"),
            }
        }
    }

    /// Lets it come to its next report of counters, and stand still there: its options have to be [`often`].
    pub fn hold(&self) -> Result<Held> {
        self.gate.hold()
    }

    /// Gives it another configuration; returns once it holds.
    ///
    /// # Errors
    ///
    /// [`ReloadError`](daemon::reload::ReloadError), with which all is as it was.
    pub fn reload(&self, options: Options) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        Ok(runtime.block_on(self.started.reloader.reload(options.into()))?)
    }

    /// Stops it, and returns all it said.
    pub fn stop(mut self) -> Result<Finished> {
        self.join()
    }

    fn join(&mut self) -> Result<Finished> {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let thread = self.thread.take().context("the daemon was stopped before")?;
        thread.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // The test that fails says why.
            let _ = thread.join();
        }
    }
}

fn run(
    options: &Options,
    collector: Gated<'_>,
    dev: Option<&str>,
    stopped: oneshot::Receiver<()>,
    say: &mpsc::Sender<Started>,
) -> Result<Finished> {
    let read = || dev.map_or(Ok(LinkCounters::default()), LinkCounters::read);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut before = Ok(LinkCounters::default());
    let shutdown = async {
        // A sender that is dropped means the same.
        let _ = stopped.await;
    };
    let status = runtime.block_on(daemon::run(options, &collector, shutdown, |started| {
        before = read();
        let _ = say.send(started.clone());
    }))?;
    let link = read()?.since(&before?);
    let Gated(recorder, _) = collector;
    let cpu = Duration::try_from(clock_gettime(ClockId::ThreadCPUTime))?;
    Ok(Finished { status, events: recorder.events(), link, cpu })
}
