//! Another configuration for a daemon that runs: all of it or nothing.
//!
//! What is wished for is looked at first, with nothing changed: whatever is wrong with it leaves all as it was. Then what was
//! counted so far is told, under the names of before; then the maps are written; and once no program runs any more that may
//! have read some of them before, the generation changes, by which every flow is attributed anew, each at its next miss. No
//! counter goes back and none is counted twice: a unit that stays has its index, and what it counts goes on.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use collector_ebpf::abi::pu::index;
use tokio::sync::{mpsc, oneshot};

use super::{Daemon, DaemonError, Options, policies::PolicyError};
use crate::{
    clock,
    event::Text,
    kernel::error::KernelError,
    policy::{
        explosion::Explosion,
        lockout::{Enforcement, LockOut},
        networks::{ExternalNetwork, Networks as ExternalNetworks},
        rule::Policy,
    },
    pu::{
        registry::{Declared, RedeclareError, Redeclared, Registry},
        trace::{NoSuchUnit, Whose, Wish},
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
    /// What units may do.
    pub policies: Vec<Policy>,
    /// Whether what the policies reject is dropped.
    pub enforcement: Enforcement,
    /// Networks outside of all units that have a name.
    pub networks: Vec<Arc<ExternalNetwork>>,
    /// Whose packets are reported one by one.
    pub traces: Vec<Wish>,
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
        let Options { units, policies, enforcement, networks, traces, forwarded, .. } = options;
        let Options { flow_interval, counter_interval, drain_interval, .. } = options;
        Self {
            units,
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
    /// A unit that is declared no more has something that runs, and lives as that.
    #[error(
        "the processing unit {id:?} has cgroups that are there, and so it cannot be taken away: start the collector anew"
    )]
    InUse {
        /// Its id.
        id: Text,
    },
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
    /// Packets are wished for of a unit that is not there.
    #[error("trace: {0}")]
    Trace(#[from] NoSuchUnit),
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
    done: AtomicU64,
    refused: AtomicU64,
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
    wanted: Reload,
    answer: oneshot::Sender<Result<(), ReloadError>>,
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

/// What was looked at and can be done.
struct Prepared {
    units: Registry,
    changed: Redeclared,
}

impl Daemon<'_> {
    /// Takes another configuration over, or refuses it as a whole, which is answered.
    pub(super) async fn reload(&mut self, asked: Asked) -> Result<(), DaemonError> {
        let Asked { wanted, answer } = asked;
        // Under the names of before.
        self.drain()?;
        let done = match self.prepare_reload(&wanted) {
            Ok(prepared) => {
                self.take_over(prepared, wanted).await?;
                self.reloads.done.fetch_add(1, Relaxed);
                Ok(())
            }
            Err(error) => {
                self.reloads.refused.fetch_add(1, Relaxed);
                Err(error)
            }
        };
        // Who asked may have stopped waiting.
        let _ = answer.send(done);
        Ok(())
    }

    /// Everything that may fail for what is wished. Nothing that anybody sees has changed where it does.
    fn prepare_reload(&mut self, wanted: &Reload) -> Result<Prepared, ReloadError> {
        self.check_matchers(&wanted.units)?;
        let (units, changed) = self.units.redeclared(&wanted.units, clock::boot())?;
        let is_in_use = |index: &&u16| self.workloads.alive.values().any(|alive| alive.unit == **index);
        if let Some(unit) = changed.removed.iter().find(is_in_use).and_then(|index| self.units.get(*index)) {
            return Err(ReloadError::InUse { id: unit.id.clone() });
        }
        for wish in &wanted.traces {
            // A unit that was found may come again.
            let is_as_before = self.options.traces.contains(wish)
                && !matches!(&wish.whose, Whose::Unit(id) if self.options.units.iter().any(|unit| unit.id == **id));
            match wish.entry(&units) {
                Err(error) if !is_as_before => return Err(error.into()),
                _ => {}
            }
        }
        self.counters.ensure(units.last_index())?;
        if !wanted.traces.is_empty() {
            self.open_tracing()?;
        }
        let units = self.load_policies_of(units, wanted)?;
        let written = self.match_by(self.users.matchers_of(&units)).and_then(|_| self.disown(&changed));
        if let Err(error) = written {
            // What could be written before can be written again.
            self.match_by(self.users.matchers_of(&self.units))?;
            let Options { policies, enforcement, .. } = self.options.clone();
            self.load_policies(&policies, enforcement)?;
            // What was attributed meanwhile is attributed anew.
            self.controller.barrier(&self.flow_maps)?;
            self.controller.next_generation();
            return Err(error.into());
        }
        Ok(Prepared { units, changed })
    }

    /// Refuses matchers that the programs, as they were loaded, do not look for. Those that were there from the start are
    /// missing since then.
    fn check_matchers(&self, wanted: &[Declared]) -> Result<(), ReloadError> {
        let [by_user, by_port] = self.users.are_matched();
        let has_users = |unit: &Declared| !unit.users.is_empty();
        let has_ports = |unit: &Declared| !unit.ports.is_empty();
        let is_new = |has: fn(&Declared) -> bool| !self.options.units.iter().any(has);
        for (matcher, is_looked_for, has) in
            [("uid", by_user, has_users as fn(&Declared) -> bool), ("port", by_port, has_ports)]
        {
            if let Some(unit) = wanted.iter().find(|unit| !is_looked_for && is_new(has) && has(unit)) {
                return Err(ReloadError::NotLookedFor { id: unit.id.as_str().into(), matcher });
            }
        }
        Ok(())
    }

    /// Has it asked anew whose the flows are that sockets of units have which may not be theirs any more.
    fn disown(&mut self, changed: &Redeclared) -> Result<(), KernelError> {
        let losers: Vec<u16> = changed.removed.iter().chain(&changed.changed).copied().collect();
        if losers.is_empty() {
            return Ok(());
        }
        // No program runs any more that has read of them what stood there before.
        self.controller.barrier(&self.flow_maps)?;
        let of = |index| self.units.get(index).is_some_and(|unit| losers.contains(&unit.index));
        self.flow_maps.ask_anew(of)
    }

    /// Has other policies hold, for units that are about to be.
    fn load_policies_of(&mut self, mut units: Registry, wanted: &Reload) -> Result<Registry, ReloadError> {
        let Options { policies, enforcement, .. } = &self.options;
        let is_as_before = *policies == wanted.policies && *enforcement == wanted.enforcement;
        std::mem::swap(&mut self.units, &mut units);
        let loaded = if is_as_before {
            // Other units may have them.
            self.check_lockout(&wanted.policies, wanted.enforcement).map_err(PolicyError::from)
        } else {
            self.load_policies(&wanted.policies, wanted.enforcement)
        };
        std::mem::swap(&mut self.units, &mut units);
        if let Some(unknown) = loaded? {
            tracing::warn!("{unknown}");
        }
        Ok(units)
    }

    async fn take_over(&mut self, prepared: Prepared, wanted: Reload) -> Result<(), DaemonError> {
        let Prepared { units, changed } = prepared;
        let notes = self.users.notes(&self.units).concat();
        self.units = units;
        for said in self.users.notes(&self.units).concat().iter().filter(|said| !notes.contains(said)) {
            tracing::warn!("{said}");
        }
        let Reload { units, policies, enforcement, networks, traces, forwarded, .. } = wanted;
        let Reload { flow_interval, counter_interval, drain_interval, .. } = wanted;
        self.options.units = units;
        self.options.policies = policies;
        self.options.enforcement = enforcement;
        self.scribe.name_networks(ExternalNetworks::new(&networks));
        self.options.networks = networks;
        self.options.forwarded = forwarded;
        self.options.flow_interval = flow_interval;
        self.options.counter_interval = counter_interval;
        self.options.drain_interval = drain_interval;
        self.flows.report_every(super::moment::nanos(flow_interval), self.moment.boot_ns);
        if !changed.is_nothing() {
            self.attribute_anew(&changed).await?;
        }
        self.retrace(traces)?;
        self.follow_policies();
        // Each flow meets what is new at its next packet in another epoch.
        self.drain()
    }

    /// Tells the programs and everybody else of units that are declared otherwise than before.
    async fn attribute_anew(&mut self, changed: &Redeclared) -> Result<(), DaemonError> {
        let of =
            |indexes: &[u16]| indexes.iter().filter_map(|index| self.units.get(*index)).cloned().collect();
        let [removed, changed, added]: [Vec<_>; 3] =
            [of(&changed.removed), of(&changed.changed), of(&changed.added)];
        let mut told = Vec::new();
        told.extend(removed.iter().flat_map(|unit| self.lives.delete(unit)));
        told.extend(changed.iter().filter_map(|unit| self.lives.change(unit)));
        told.extend(added.iter().flat_map(|unit| self.lives.declare(unit)));
        self.tell_lives(&told);
        for address in self.watched.locals.clone() {
            let pu = self.units.of_address(address).map_or(index::HOST, |unit| unit.index);
            self.controller.add_local(address, pu)?;
        }
        // Roles of interfaces, and who starts and stops by that.
        self.look_again().await;
        self.controller.barrier(&self.flow_maps)?;
        self.controller.next_generation();
        Ok(())
    }

    /// Has packets reported as the configuration says now. What it says as before goes on, and does not begin anew.
    fn retrace(&mut self, wanted: Vec<Wish>) -> Result<(), DaemonError> {
        let now = clock::boot();
        let before = std::mem::take(&mut self.tracing.configured);
        let (stay, gone): (Vec<_>, Vec<_>) = before.into_iter().partition(|(wish, _)| wanted.contains(wish));
        for (wish, _) in &gone {
            self.end_wish(wish)?;
        }
        // An entry is that of all wishes for its unit.
        for (wish, since) in &stay {
            let spent = Duration::from_nanos(now.saturating_sub(*since));
            let left = wish.duration.map(|duration| duration.saturating_sub(spent));
            if gone.iter().any(|(other, _)| other.whose == wish.whose) && left != Some(Duration::ZERO) {
                self.trace(&Wish { duration: left, ..wish.clone() })?;
            }
        }
        let new: Vec<_> =
            wanted.iter().filter(|wish| !stay.iter().any(|(other, _)| other == *wish)).cloned().collect();
        self.tracing.configured = stay;
        for wish in &new {
            self.trace_configured(wish)?;
        }
        self.options.traces = wanted;
        Ok(())
    }
}
