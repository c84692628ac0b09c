//! Another configuration for a daemon that runs: all of it or nothing.
//!
//! What was counted so far is told first, under the names of before. Then what is wished for is looked at, with nothing
//! changed: whatever is wrong with it leaves all as it was. Then the maps are written; and once no program runs any more that
//! may have read some of them before, the generation changes, by which every flow is attributed anew, each at its next miss. No
//! counter goes back and none is counted twice: a unit that stays has its index, and what it counts goes on.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use super::{Options, policies::PolicyError};
use crate::{
    event::Text,
    host::pcap::Filter,
    kernel::error::KernelError,
    policy::{
        explosion::Explosion,
        lockout::{Enforcement, LockOut},
        networks::ExternalNetwork,
        rule::Policy,
    },
    pu::{
        registry::{Declared, RedeclareError},
        trace::{NoSuchUnit, Wish},
        unit_glob::UnitGlob,
    },
};

/// Reloads that may wait for the daemon's task.
const WAITING: usize = 1;

/// What of its [`Options`] a running daemon takes over. All the others hold from its start to its end.
///
/// What is to change in life is a field here: the daemon looks at it in `prepare_reload`, where whatever is wrong with it is
/// told and nothing has changed yet, and does it in `take_over`, which ends with the barrier and the new generation.
#[derive(Clone, Debug)]
pub struct Reload {
    /// Declared processing units.
    pub units: Vec<Declared>,
    /// Of what is found, what is left out: patterns of ids.
    pub ignore: Vec<UnitGlob>,
    /// What units may do.
    pub policies: Vec<Policy>,
    /// Whether what the policies reject is dropped.
    pub enforcement: Enforcement,
    /// Networks outside of all units that have a name.
    pub networks: Vec<Arc<ExternalNetwork>>,
    /// Whose packets are reported one by one.
    pub traces: Vec<Wish>,
    /// Of single packets, those that are wanted: another filter in the place of one, or as before none.
    pub filter: Option<Filter>,
    /// Report flows that only pass through this host, too.
    pub forwarded: bool,
    /// Between two records of a flow that lives.
    pub flow_interval: Duration,
    /// Between two counter reports.
    pub counter_interval: Duration,
    /// Between two drains of what the programs count.
    pub drain_interval: Duration,
}

impl From<Options> for Reload {
    fn from(options: Options) -> Self {
        let Options { units, ignore, policies, enforcement, networks, traces, forwarded, .. } = options;
        let Options { flow_interval, counter_interval, drain_interval, settings, .. } = options;
        Self {
            units,
            ignore,
            filter: settings.filter,
            policies,
            enforcement,
            networks,
            traces,
            forwarded,
            flow_interval,
            counter_interval,
            drain_interval,
        }
    }
}

/// Why everything stays as it was.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The daemon has ended.
    #[error("the collector has ended: it takes nothing over any more")]
    Ended,
    /// The units cannot be declared so.
    #[error(transparent)]
    Units(#[from] RedeclareError),
    /// What lies in which cgroup is not known any more.
    #[error(
        "cgroups are not followed any more, so what is declared by `cgroup`, and what is ignored, stays: start the collector anew"
    )]
    NotFollowed,
    /// The programs were loaded without that, or this kernel does not tell.
    #[error(
        "the processing unit {id:?} has `{matcher}`, which the programs do not look for: start the collector anew"
    )]
    NotLookedFor {
        /// Its id.
        id: Text,
        /// The key.
        matcher: &'static str,
    },
    /// The programs were loaded with a filter, or without one.
    #[error(
        "the programs ask a packet filter from their start to their end, or never: to have one, or none, start the collector anew; \
         one that wants every packet is `greater 0`"
    )]
    Filter,
    /// Packets are wished for of a unit that is not there.
    #[error("trace: {0}")]
    Trace(NoSuchUnit),
    /// The policies are too many.
    #[error("the policies stay as they were: {0}")]
    TooMany(Explosion),
    /// The policies would cut off who is logged in.
    #[error("the policies stay as they were: {0}")]
    LockOut(LockOut),
    /// The kernel refuses the policies.
    #[error("the policies stay as they were")]
    Policies(#[source] Arc<KernelError>),
    /// The kernel refuses something else.
    #[error(transparent)]
    Kernel(Arc<KernelError>),
}

// Said as part of the sentence: as its source it would be said twice.
impl From<NoSuchUnit> for ReloadError {
    fn from(error: NoSuchUnit) -> Self {
        Self::Trace(error)
    }
}

impl From<KernelError> for ReloadError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(Arc::new(error))
    }
}

impl From<PolicyError> for ReloadError {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::TooMany(explosion) => Self::TooMany(explosion),
            PolicyError::LockOut(lockout) => Self::LockOut(lockout),
            PolicyError::Kernel(error) => Self::Policies(Arc::new(error)),
        }
    }
}

/// How often a configuration was taken over, or not.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) done: AtomicU64,
    pub(super) refused: AtomicU64,
}

impl Tally {
    /// Those that were taken over, and those that were not.
    pub(super) fn numbers(&self) -> (u64, u64) {
        (self.done.load(Relaxed), self.refused.load(Relaxed))
    }
}

/// Gives a running daemon another configuration.
#[derive(Clone, Debug)]
pub struct Reloader {
    asked: mpsc::Sender<Asked>,
    tally: Arc<Tally>,
}

impl Reloader {
    /// Returns once all of it holds, or nothing.
    ///
    /// # Errors
    ///
    /// [`ReloadError`]: all is as it was.
    pub async fn reload(&self, wanted: Reload) -> Result<(), ReloadError> {
        let (answer, answered) = oneshot::channel();
        let asked = Asked { wanted, answer };
        self.asked.send(asked).await.map_err(|_unsent| ReloadError::Ended)?;
        answered.await.map_err(|_unanswered| ReloadError::Ended)?
    }

    /// Counts a configuration that was refused before it came to the daemon.
    pub fn count_refused(&self) {
        self.tally.refused.fetch_add(1, Relaxed);
    }
}

impl Default for Reloader {
    /// Of no daemon: it has ended.
    fn default() -> Self {
        channel().0
    }
}

/// What is wished for, and who waits for what comes of it.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) wanted: Reload,
    pub(super) answer: oneshot::Sender<Result<(), ReloadError>>,
}

/// The wishes, as they come to the daemon.
pub(super) struct Reloads {
    asked: mpsc::Receiver<Asked>,
    tally: Arc<Tally>,
}

impl Reloads {
    /// The next one; waits for ever where nobody can have any.
    pub(super) async fn next(&mut self) -> Asked {
        match self.asked.recv().await {
            Some(asked) => asked,
            None => pending().await,
        }
    }

    /// What becomes of them.
    pub(super) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }
}

pub(super) fn channel() -> (Reloader, Reloads) {
    let (wishes, asked) = mpsc::channel(WAITING);
    let tally = Arc::<Tally>::default();
    (Reloader { asked: wishes, tally: Arc::clone(&tally) }, Reloads { asked, tally })
}
