//! The only module that knows all stages: load, attach, drain, aggregate, report, until told to stop.
//!
//! Everything runs on one task. It waits for: the end, the drain's tick, the counters' tick, events, single packets, a capture's
//! tick, wishes for such packets, questions, and changes of interfaces and of CPUs; it never sleeps and never polls.

mod alive;
mod attaching;
mod begin;
mod complete;
mod cpus;
mod described;
mod device_drops;
mod drops;
mod encryption;
mod ends;
pub mod inquiry;
mod interfaces;
mod lockout;
mod marks;
mod matchers;
mod meanwhile;
mod missing;
mod moment;
mod news;
mod numbers;
mod options;
mod policies;
mod regroup;
pub mod reload;
mod reports;
mod reserved;
mod restore;
mod running;
mod serve;
mod surroundings;
mod take_over;
pub mod trace;
mod unseen;
mod users;
mod whose;
mod workloads;
mod xdp;

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use crate::{
    aggregate::{counters::Differences, flows::Flows, record::Scribe},
    clock::Moment,
    collector::EventCollector,
    drain::{events::Events, faults::Faults, order::Order, sequence::Sequences},
    event::{ContainerRecord, Status},
    host::watch::{self, Netlink},
    kernel::{
        attach::Attachments,
        btf::BtfError,
        cgroups::Cgroups as KernelCgroups,
        control::Controller,
        drops::Drops,
        error::KernelError,
        networks::Networks,
        object::{CounterMaps, FlowMaps, Ledgers},
        programs::Programs,
        requirements,
    },
    pu::{life::Lives as UnitLives, registry::Registry},
};
use begin::{load, prepare};
use cpus::Cpus;
use drops::Dropping;
use interfaces::Watched;
pub use options::{DaemonError, Options, Started};
use policies::Policies;
use trace::Tracing;
use users::Users;
use whose::Whose;
use workloads::Workloads;
use xdp::AtXdp;

/// Between two looks for identities that nobody ages.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);

/// Whether what was asked for can be had on this host, as far as that is seen before it is tried: for who would rather know
/// before something else is begun.
///
/// # Errors
///
/// [`DaemonError`], as [`run`] would say.
///
/// # Panics
///
/// As [`run`].
pub async fn check(options: &Options) -> Result<(), DaemonError> {
    let (netlink, _changes) = watch::open()?;
    prepare(options, &netlink).await.map(drop)?;
    Ok(requirements::check()?)
}

/// Runs until `shutdown` is ready. `started` is called once, when every packet is counted from then on.
///
/// Events go to `collector`, from this task, one at a time. When it is told to stop, the daemon detaches, hands over all
/// that was counted, and returns the status as it is then.
///
/// # Errors
///
/// [`DaemonError`]. What was counted before is handed over first.
///
/// # Panics
///
/// Outside a tokio runtime with I/O and time.
pub async fn run(
    options: &Options,
    collector: &dyn EventCollector,
    shutdown: impl Future<Output = ()>,
    started: impl FnOnce(&Started),
) -> Result<Status, DaemonError> {
    let (netlink, changes) = watch::open()?;
    let (units, cgroups) = prepare(options, &netlink).await?;
    let (tracer, wishes) = trace::channel();
    let (inquirer, inquiries) = inquiry::channel();
    let (reloader, reloads) = reload::channel();
    let mut shutdown = std::pin::pin!(shutdown);
    let loaded = tokio::select! {
        biased;
        // Nothing is attached yet, and nothing was counted.
        () = &mut shutdown => return Ok(Status::default()),
        loaded = load(begin::settings(options, &cgroups)) => loaded?,
    };
    // What waits here shall be small.
    let mut daemon = Box::new(Daemon::new(options, collector, netlink, units, loaded, reloads.tally())?);
    let start = tokio::select! {
        start = daemon.start(cgroups) => start,
        // Attaching to many interfaces takes its time; what is attached already has counted.
        () = &mut shutdown => return daemon.finish().await,
    };
    let missing = match start {
        Ok(missing) => missing,
        Err(error) => {
            daemon.detach_all().await;
            let ended = daemon.lives.end(&daemon.units);
            daemon.tell_lives(&ended);
            return Err(error);
        }
    };
    let interfaces = daemon.interface_status(&BTreeMap::new());
    started(&Started { interfaces, missing, tracer, inquirer, reloader });
    let result = daemon.serve(&mut shutdown, changes, wishes, inquiries, reloads).await;
    let finished = daemon.finish().await;
    result.and(finished)
}

/// All that it has, from its making ([`begin`]) on, while it [serves](serve), until it is finished.
struct Daemon<'a> {
    options: Options,
    collector: &'a dyn EventCollector,
    netlink: Netlink,
    programs: Programs,
    attachments: Attachments,
    controller: Controller,
    flow_maps: FlowMaps,
    counters: CounterMaps,
    ledgers: Ledgers,
    networks: Networks,
    events: Events,
    order: Order,
    tracing: Tracing,
    cpus: Cpus,
    faults: Faults,
    flows: Flows,
    units: Registry,
    lives: UnitLives,
    cgroups: Option<KernelCgroups>,
    /// Why the programs do not ask for the cgroups of sockets, where they were to.
    without_cgroups: Option<KernelError>,
    workloads: Workloads,
    policies: Box<Policies>,
    users: Box<Users>,
    scribe: Scribe,
    differences: Differences,
    whose: Whose,
    watched: Watched,
    hz: u32,
    moment: Moment,
    /// When it began, on the boot clock in nanoseconds.
    began: u64,
    /// Records of events: read, and those of them that were not understood.
    records: [u64; 2],
    sequences: Sequences,
    /// Times that the lease ran out, and packets passed uncounted.
    gaps: u64,
    /// Times that somebody took the programs off an interface.
    taken_off: u64,
    /// Configurations that were taken over, or not.
    reloads: Arc<reload::Tally>,
    /// Why the programs do not know how the kernel cuts super-packets, until that is told.
    super_packets: Option<Arc<BtfError>>,
    /// What was loaded for drops, until it is started.
    drops: Option<Result<Drops, KernelError>>,
    dropping: Option<Dropping>,
    xdp: AtXdp,
}

impl Daemon<'_> {
    fn tell_lives(&self, records: &[ContainerRecord]) {
        for record in records {
            self.collector.collect_container_event(record);
        }
    }
}
