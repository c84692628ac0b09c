//! The only module that knows all stages: load, attach, drain, aggregate, report, until told to stop.
//!
//! Everything runs on one task. It waits for: the end, the drain's tick, the counters' tick, events, single packets, a capture's
//! tick, wishes for such packets, questions, and changes of interfaces and of CPUs; it never sleeps and never polls.

mod complete;
mod cpus;
mod described;
mod device_drops;
mod drops;
mod ends;
pub mod inquiry;
mod interfaces;
mod marks;
mod meanwhile;
mod missing;
mod news;
mod numbers;
mod options;
mod policies;
pub mod reload;
mod reports;
mod reserved;
mod restore;
mod running;
mod surroundings;
pub mod trace;
mod unseen;
mod users;
mod workloads;
mod xdp;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    sync::Arc,
    thread,
    time::Duration,
};

use collector_ebpf::abi::policy;
use futures_util::StreamExt as _;
use tokio::{
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval_at},
};

use crate::{
    aggregate::{counters::Differences, flows::Flows, lives::Lives, record::Scribe},
    clock::{self, Moment},
    collector::EventCollector,
    drain::{events::Events, faults::Faults, order::Order, sequence::Sequences},
    error::with_causes,
    event::{ContainerRecord, Status},
    host::{
        links,
        namespaces::Namespaces,
        queues,
        watch::{self, Change, Netlink},
    },
    kernel::{
        attach::Attachments,
        cgroups::Cgroups as KernelCgroups,
        control::{Controller, LEASE_SECONDS},
        cpus as kernel_cpus,
        drops::Drops,
        error::KernelError,
        networks::Networks,
        object::{self, CounterMaps, FlowMaps, Ledgers, Loaded},
        programs::Programs,
        requirements,
        settings::{Settings, Transport},
        xdp as kernel_xdp,
    },
    policy::networks::Networks as ExternalNetworks,
    pu::{life::Lives as UnitLives, registry::Registry},
};
use cpus::Cpus;
use drops::Dropping;
use inquiry::Inquiries;
use interfaces::Watched;
pub use options::{DaemonError, Options, Started};
use policies::Policies;
use reload::Reloads;
use reports::Teller;
use trace::{Tracing, Wishes};
use users::Users;
use workloads::{Cgroups, Whose, Workloads};
use xdp::AtXdp;

/// What a kernel lacks whose softirqs can be preempted: a slot could see two packets at once.
const WITHOUT_CACHES: &str = "the flow caches: this kernel is PREEMPT_RT, so each packet is counted in the shared table, which costs more";

/// Pairs of classes that there is room for where there are policies.
const MOST_VERDICTS: u32 = policy::MOST_VERDICTS;

/// Between two looks for identities that nobody ages.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);

/// Between two looks for what no message tells of units that are found.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often both clocks are read at most until that was done within [`CLOSE_NS`].
const READINGS: u32 = 8;

/// Two readings of clocks that are no further apart are of one moment.
const CLOSE_NS: u64 = 200_000;

/// Whether what was asked for can be had on this host, as far as that is seen without a privilege: for who would rather
/// know before something else is begun.
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
    prepare(options, &netlink).await.map(drop)
}

/// A wrong name is told before anything that needs a privilege.
async fn prepare(options: &Options, netlink: &Netlink) -> Result<(Registry, Cgroups), DaemonError> {
    interfaces::check_names(&options.ifaces, &links::list(&netlink.handle).await?)?;
    let units = Registry::new(&options.units)?;
    let cgroups = Cgroups::of(options);
    for wish in &options.traces {
        match wish.entry(&units) {
            Err(error) if !cgroups.have(&error.id) => return Err(error.into()),
            _ => {}
        }
    }
    Ok((units, cgroups))
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
    let settings = Settings {
        xdp: options.xdp != kernel_xdp::Choice::Off,
        cgroups: cgroups.tree.is_some(),
        ends: users::ends(options),
        ..drops::reporting(options)
    };
    let settings = match options.policies.as_slice() {
        [] => settings,
        // What they may come to is not known before the units are.
        _ => Settings { verdicts: settings.verdicts.max(MOST_VERDICTS), ..settings },
    };
    let loaded = tokio::select! {
        biased;
        // Nothing is attached yet, and nothing was counted.
        () = &mut shutdown => return Ok(Status::default()),
        loaded = load(settings) => loaded?,
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
    /// What was loaded for drops, until it is started.
    drops: Option<Result<Drops, KernelError>>,
    dropping: Option<Dropping>,
    xdp: AtXdp,
}

impl<'a> Daemon<'a> {
    fn new(
        options: &Options,
        collector: &'a dyn EventCollector,
        netlink: Netlink,
        units: Registry,
        loaded: Loaded,
        reloads: Arc<reload::Tally>,
    ) -> Result<Self, DaemonError> {
        let hz = requirements::ticks_per_second()?;
        let Loaded {
            programs,
            control,
            flows,
            mut counters,
            ledgers,
            networks,
            events,
            read_counts,
            packets,
            faults,
            drops,
            xdp,
            cgroups,
            users,
            ports,
            ..
        } = loaded;
        let (cgroups, without_cgroups) = match cgroups {
            Some(Ok(cgroups)) => (Some(cgroups), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        // Where programs interrupt one another, two may take one number.
        let cpus = if requirements::is_preempt_rt() { 0 } else { ledgers.cpus() };
        let cpus_told = Cpus::new(options.settings.transport != Transport::Ring);
        let with_buffers = options.settings.buffers_on.clone().map_or_else(kernel_cpus::online, Ok)?;
        counters.ensure(units.last_index())?;
        let mut controller = Controller::new(control, hz)?;
        for (range, index) in units.ranges() {
            controller.add_range(range.network(), range.prefix_len(), index)?;
        }
        let lives = Lives { report: nanos(options.flow_interval), ..Lives::default() };
        let moment = moment(&programs, hz, None)?;
        Ok(Self {
            options: options.clone(),
            reloads,
            collector,
            netlink,
            programs,
            attachments: Attachments::default(),
            controller,
            flow_maps: flows,
            counters,
            ledgers,
            networks,
            events: Events::new(events, read_counts, &with_buffers, clock::boot)?,
            order: Order::default(),
            tracing: Tracing::new(packets)?,
            cpus: cpus_told,
            faults: Faults::new(faults)?,
            flows: Flows::new(lives, options.most_flows),
            units,
            lives: UnitLives::default(),
            cgroups,
            without_cgroups,
            workloads: Workloads::new(Namespaces::open()?),
            policies: Box::default(),
            users: Users::new(users, ports),
            scribe: Scribe::new(ExternalNetworks::new(&options.networks)),
            differences: Differences::default(),
            watched: Watched::new(),
            hz,
            began: moment.boot_ns,
            moment,
            records: [0; 2],
            sequences: Sequences::new(cpus),
            gaps: 0,
            taken_off: 0,
            drops,
            dropping: None,
            xdp: AtXdp::new(xdp),
        })
    }

    /// Attaches to what there is now; what could not be had is returned in words.
    async fn start(&mut self, cgroups: Cgroups) -> Result<Vec<String>, DaemonError> {
        self.renew()?;
        let created = self.lives.begin(&self.units);
        self.tell_lives(&created);
        self.remove_leftovers().await?;
        let mut missing: Vec<_> = self.cpus.missing.take().into_iter().collect();
        missing.extend(self.begin_users()?);
        // Before the interfaces, so that each is known by what lies behind it.
        missing.extend(cgroups.missing);
        missing.extend(self.begin_workloads(cgroups.tree)?);
        // Before the first packet.
        for wish in &self.options.traces.clone() {
            self.trace_configured(wish)?;
        }
        missing.extend(self.reconcile(true).await?);
        missing.extend(self.begin_policies()?);
        missing.extend(self.xdp_unloaded());
        let queues = queues::list(&self.netlink.handle).await;
        let queues = queues.inspect_err(|error| {
            missing.push(format!(
                "what queueing disciplines drop: they are not listed ({})",
                with_causes(error)
            ));
        });
        self.watched.queues.begin(queues.ok());
        self.start_drops(&mut missing)?;
        missing.extend(self.lacking_marks());
        missing.extend(self.contested_marks().await);
        missing.extend(requirements::is_preempt_rt().then(|| WITHOUT_CACHES.to_owned()));
        Ok(missing)
    }

    async fn serve(
        &mut self,
        mut shutdown: impl Future<Output = ()> + Unpin,
        changes: impl futures_util::Stream<Item = Change> + Unpin,
        mut wishes: Wishes,
        mut inquiries: Inquiries,
        mut reloads: Reloads,
    ) -> Result<(), DaemonError> {
        // One answer to a burst of messages: each answer lists everything.
        let mut changes = changes.ready_chunks(1024);
        let mut listening = true;
        let mut drain = ticks(self.options.drain_interval);
        let mut report = ticks(self.options.counter_interval);
        // A collector that was killed a moment ago still has a lease; once that has run out, its leftovers are known.
        let mut second_look = ticks(Duration::from_secs(u64::from(LEASE_SECONDS) + 1));
        let mut looked = false;
        let mut sweep = ticks(SWEEP_INTERVAL);
        let mut is_swept = false;
        let mut look = ticks(LOOK_INTERVAL);
        let mut news = Vec::new();
        let mut packets = Vec::new();
        let mut packets_due = ticks(complete::LOOK_INTERVAL);
        loop {
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                _ = drain.tick() => {
                    self.drain()?;
                }
                _ = look.tick() => self.tick_workloads().await,
                _ = report.tick() => {
                    self.drain()?;
                    self.report_counters()?;
                    // What was counted by an index is told before another has it.
                    if std::mem::take(&mut is_swept) {
                        self.forget_workloads()?;
                    }
                }
                _ = sweep.tick() => {
                    is_swept = true;
                    self.sweep_identities()?;
                    self.rescan_cgroups().await?;
                    self.follow_their_addresses().await;
                    self.restore_all().await;
                }
                _ = second_look.tick(), if !looked => {
                    looked = true;
                    tell(self.remove_leftovers().await);
                }
                change = changes.next(), if listening => self.follow(change, &mut listening).await,
                // At once, but never instead of the others: they are asked in random order.
                () = std::future::ready(()), if self.workloads.is_called => {
                    self.answer_call(Whose::Recent).await;
                }
                () = std::future::ready(()), if self.watched.unfinished => {
                    // Set again where there is more to do, not where nothing can be done.
                    self.watched.unfinished = false;
                    self.look_again().await;
                }
                changes = self.workloads.next() => self.follow_cgroups(changes).await?,
                result = self.events.next(|record| news.push(record)) => {
                    let until = result?;
                    let is_pressed = self.book_all(news.drain(..));
                    for news in self.order.until(until) {
                        self.learn(&news);
                    }
                    if is_pressed {
                        self.drain()?;
                        drain.reset();
                    }
                }
                result = self.tracing.next(|packet| packets.push(packet)) => {
                    result?;
                    for packet in packets.drain(..) {
                        self.tell_packet(packet);
                    }
                    if self.tracing.incomplete.is_pressed() {
                        self.look_at_packets()?;
                        packets_due.reset();
                    }
                }
                _ = packets_due.tick(), if self.options.capture.is_some() => self.look_at_packets()?,
                wish = wishes.next() => {
                    let done = self.trace(&wish.wish);
                    wish.answer(done);
                }
                asked = inquiries.next() => {
                    self.drain()?;
                    drain.reset();
                    self.answer(asked)?;
                }
                () = self.users.changed() => self.follow_users(),
                asked = reloads.next() => {
                    self.reload(asked).await?;
                    drain = ticks(self.options.drain_interval);
                    if report.period() != self.options.counter_interval {
                        report = ticks(self.options.counter_interval);
                    }
                }
                change = self.cpus.next() => self.follow_cpus(change),
                result = self.faults.pass_on() => result?,
            }
        }
    }

    /// Does what changes ask for; none will come any more where there are none.
    async fn follow(&mut self, changes: Option<Vec<Change>>, listening: &mut bool) {
        let Some(changes) = changes else {
            *listening = false;
            tracing::error!(
                "netlink tells no more of changes: interfaces that come or change from now on are not seen. Start the \
                 collector anew"
            );
            return self.look_again().await;
        };
        if changes.contains(&Change::Overrun) {
            tracing::info!(
                "more changes of interfaces than netlink had room for: all of them are looked at anew"
            );
        }
        let is_of_all = |change: &Change| matches!(change, Change::Any | Change::Overrun);
        if changes.iter().any(|change| is_of_all(change) || *change == Change::Links) {
            self.watched.refused.clear();
            self.xdp.hope_again();
            self.look_again().await;
        }
        if changes.iter().any(is_of_all) {
            return self.restore_all().await;
        }
        let of_filters = |change: &Change| match change {
            Change::Filters(index) => Some(*index),
            Change::Links | Change::Any | Change::Overrun => None,
        };
        let interfaces: BTreeSet<u32> = changes.iter().filter_map(of_filters).collect();
        self.restore(interfaces).await;
    }

    /// Detaches, and hands over all that was counted.
    async fn finish(&mut self) -> Result<Status, DaemonError> {
        self.netlink.stop_listening();
        let interfaces = self.compared_status().await;
        self.detach_all().await;
        if let Some(dropping) = &mut self.dropping {
            dropping.stop(&mut self.programs);
        }
        // Twice: a program that was running read the epoch before or after the first swap. And whatever fails, what was
        // drained is told.
        let drained = self.drain().and_then(|()| self.drain());
        let drained = drained.and_then(|()| self.complete_packets(u64::MAX));
        let Self { flows, scribe, units, moment, collector, options, watched, policies, users, .. } = self;
        let verdicts = &policies.sets.verdicts;
        let teller =
            Teller { scribe, units, moment, collector: *collector, options, watched, verdicts, users };
        flows.cut_off(|id, known| teller.host_end(id, known), |id, flow| teller.tell(id, flow));
        let reported = self.report_counters();
        let ended = self.lives.end(&self.units);
        self.tell_lives(&ended);
        let ledger = self.ledger();
        drained.and(reported)?;
        let drops = self.dropped();
        let queues = self.queues_told(&interfaces, &drops);
        let transport = self.options.settings.transport.name().to_owned();
        Ok(Status { interfaces, transport, drops, queues, ledger })
    }

    fn tell_lives(&self, records: &[ContainerRecord]) {
        for record in records {
            self.collector.collect_container_event(record);
        }
    }

    fn renew(&mut self) -> Result<(), DaemonError> {
        self.moment = moment(&self.programs, self.hz, Some(&self.moment))?;
        if self.controller.lease_has_run_out(self.moment.jiffies) {
            self.gaps += 1;
            tracing::warn!(
                "the collector was stopped for more than {LEASE_SECONDS} s: from then until now nothing was counted"
            );
        }
        let anchor = collector_ebpf::abi::control::Anchor {
            jiffies: self.moment.jiffies,
            boot_ns: self.moment.boot_ns,
        };
        self.controller.renew_lease(&anchor);
        Ok(())
    }
}

/// Loads the programs on a thread of its own: room for millions of flows takes the kernel seconds, and who stops the daemon
/// shall not wait for it. Where nobody takes what was loaded, it goes again.
async fn load(settings: Settings) -> Result<Loaded, DaemonError> {
    let (done, loaded) = oneshot::channel();
    let work = move || {
        tracing::debug!("loading the programs");
        // Who asked may be gone.
        let _ = done.send(object::load(&settings));
    };
    thread::Builder::new().name("load".to_owned()).spawn(work).map_err(DaemonError::Load)?;
    let ended = |_| DaemonError::Load(io::Error::other("the thread that loads them panicked"));
    Ok(loaded.await.map_err(ended)??)
}

/// What fails here is no reason to stop counting elsewhere.
fn tell<T>(result: Result<T, DaemonError>) -> Option<T> {
    result
        .map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "interfaces are not followed");
        })
        .ok()
}

fn moment(programs: &Programs, hz: u32, before: Option<&Moment>) -> Result<Moment, KernelError> {
    let mut tries = READINGS;
    loop {
        let anchor = programs.anchor()?;
        let wall_ns = i64::try_from(clock::wall().as_unix_nanos()).unwrap_or(i64::MAX);
        let apart_ns = clock::boot().saturating_sub(anchor.boot_ns);
        tries -= 1;
        // Somebody else ran in between.
        if apart_ns > CLOSE_NS && tries > 0 {
            continue;
        }
        let moment = Moment { jiffies: anchor.jiffies, boot_ns: anchor.boot_ns, wall_ns, hz };
        return Ok(before.map_or(moment, |before| moment.in_step_with(before, apart_ns)));
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Ticks that begin one period from now. A tick that comes late does not bring others after it.
fn ticks(period: Duration) -> tokio::time::Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
