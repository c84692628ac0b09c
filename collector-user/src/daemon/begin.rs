//! Making a daemon: what was asked for is looked at, the programs are loaded, and all that there is now is taken in.

use std::{io, sync::Arc, thread};

use collector_ebpf::abi::policy;
use tokio::sync::oneshot;

use super::{
    Daemon, DaemonError, Options,
    cpus::Cpus,
    drops, interfaces,
    interfaces::Watched,
    moment::{moment, nanos},
    reload,
    trace::Tracing,
    users::{self, Users},
    whose::Whose,
    workloads::{Cgroups, Workloads},
    xdp::AtXdp,
};
use crate::{
    aggregate::{counters::Differences, flows::Flows, lives::Lives, record::Scribe},
    clock,
    collector::EventCollector,
    drain::{events::Events, faults::Faults, order::Order, sequence::Sequences},
    error::with_causes,
    host::{links, namespaces::Namespaces, queues, watch::Netlink},
    kernel::{
        attach::Attachments,
        control::Controller,
        object::{self, Loaded},
        requirements,
        settings::{Settings, Transport},
        xdp as kernel_xdp,
    },
    policy::networks::Networks as ExternalNetworks,
    pu::{life::Lives as UnitLives, registry::Registry},
};

/// What a kernel lacks whose softirqs can be preempted: a slot could see two packets at once.
const WITHOUT_CACHES: &str = "the flow caches: this kernel is PREEMPT_RT, so each packet is counted in the shared table, which costs more";

/// A wrong name is told before anything that needs a privilege.
pub(super) async fn prepare(
    options: &Options,
    netlink: &Netlink,
) -> Result<(Registry, Cgroups), DaemonError> {
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

/// What the programs are to be loaded with.
pub(super) fn settings(options: &Options, cgroups: &Cgroups) -> Settings {
    let settings = Settings {
        xdp: options.xdp != kernel_xdp::Choice::Off,
        cgroups: cgroups.tree.is_some(),
        ends: users::ends(options),
        ..drops::reporting(options)
    };
    match options.policies.as_slice() {
        [] => settings,
        // How many pairs of classes they come to is not known before the units are.
        _ => Settings { verdicts: settings.verdicts.max(policy::MOST_VERDICTS), ..settings },
    }
}

/// Loads the programs on a thread of its own: room for millions of flows takes the kernel seconds, and who stops the daemon
/// shall not wait for it. Where nobody takes what was loaded, it goes again.
pub(super) async fn load(settings: Settings) -> Result<Loaded, DaemonError> {
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

impl<'a> Daemon<'a> {
    pub(super) fn new(
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
            packets_read,
            dropped,
            faults,
            super_packets,
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
        let with_buffers = options.settings.with_buffers()?;
        counters.ensure(units.last_index())?;
        let controller = Controller::new(control, hz)?;
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
            tracing: Tracing::new((packets, packets_read), dropped)?,
            cpus: cpus_told,
            faults: Faults::new(faults)?,
            flows: Flows::new(lives, options.most_flows).asking_for_users(users.are_asked),
            units,
            lives: UnitLives::default(),
            cgroups,
            without_cgroups,
            workloads: Workloads::new(Namespaces::open()?),
            policies: Box::default(),
            users: Users::new(users, ports),
            scribe: Scribe::new(ExternalNetworks::new(&options.networks)),
            differences: Differences::default(),
            whose: Whose::default(),
            watched: Watched::new(),
            hz,
            began: moment.boot_ns,
            moment,
            records: [0; 2],
            sequences: Sequences::new(cpus),
            gaps: 0,
            taken_off: 0,
            super_packets,
            drops,
            dropping: None,
            xdp: AtXdp::new(xdp),
        })
    }

    /// Attaches to what there is now; what could not be had is returned in words.
    pub(super) async fn start(&mut self, cgroups: Cgroups) -> Result<Vec<String>, DaemonError> {
        self.renew()?;
        let created = self.lives.begin(&self.units);
        self.tell_lives(&created);
        self.remove_leftovers().await?;
        let mut missing: Vec<_> = self.cpus.missing.take().into_iter().collect();
        missing.extend(self.super_packets.take().map(|error| {
            format!(
                "how the kernel cuts super-packets, whose octets are counted by what they look like: {}",
                with_causes(&*error)
            )
        }));
        missing.extend(self.begin_matchers()?);
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
}
