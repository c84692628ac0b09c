//! What the daemon is asked to do, where it stands once it counts, and why it does not.

use std::{io, sync::Arc, time::Duration};

use super::{inquiry::Inquirer, reload::Reloader, trace::Tracer};
use crate::{
    collector::capture::PacketCapture,
    config::{Discover, IfaceGlob},
    event::InterfaceStatus,
    host::links::HostError,
    kernel::{
        attach::{AttachError, Choice},
        error::KernelError,
        settings::Settings,
        xdp,
    },
    policy::{
        explosion::Explosion,
        lockout::{Enforcement, LockOut},
        networks::ExternalNetwork,
        rule::Policy,
    },
    pu::{
        registry::{Declared, TooMany},
        trace::{DEFAULT_SNAPLEN, NoSuchUnit, Wish},
        unit_glob::UnitGlob,
    },
};
/// What the daemon is asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Interfaces to attach to; none: all that the roles say.
    pub ifaces: Vec<IfaceGlob>,
    /// Declared processing units.
    pub units: Vec<Declared>,
    /// Whether containers and services are found by themselves.
    pub discover: Discover,
    /// Of those found, which are left out: patterns of their ids.
    pub ignore: Vec<UnitGlob>,
    /// Report flows that only pass through this host, too.
    pub forwarded: bool,
    /// Look inside of tunnels: what they carry is a flow as well.
    pub inner: bool,
    /// Between two records of a flow that lives.
    pub flow_interval: Duration,
    /// Between two counter reports.
    pub counter_interval: Duration,
    /// Between two drains of what the programs count.
    pub drain_interval: Duration,
    /// How to attach.
    pub attach: Choice,
    /// Where a program at XDP runs as well, before TC's.
    pub xdp: xdp::Choice,
    /// Flows remembered at most.
    pub most_flows: usize,
    /// Report single drops also of those reasons that a network has on a good day.
    pub benign_drops: bool,
    /// Whose packets are reported one by one, from the start; [`Started::tracer`] takes more wishes later.
    pub traces: Vec<Wish>,
    /// Octets of a packet in its report, from the IP header on, and for `capture`, from the link layer's on.
    pub snaplen: u16,
    /// Who gets these packets as they were seen, before the collector gets their reports.
    pub capture: Option<Arc<dyn PacketCapture>>,
    /// What units may do; [`Started::reloader`] takes other policies later.
    pub policies: Vec<Policy>,
    /// Networks that have a name: ends of flows that are there, and no unit's, have it.
    pub networks: Vec<Arc<ExternalNetwork>>,
    /// Whether what the policies reject is dropped.
    pub enforcement: Enforcement,
    /// For how long after its beginning the daemon does not believe that the first packet which it sees of a flow is the
    /// first one that there was: a flow other than TCP that is met so is accepted whatever the policies say.
    pub guess_time: Duration,
    /// Sizes and budgets of the programs' maps.
    pub settings: Settings,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ifaces: Vec::new(),
            units: Vec::new(),
            discover: Discover::default(),
            ignore: Vec::new(),
            forwarded: false,
            inner: false,
            flow_interval: Duration::from_secs(5),
            counter_interval: Duration::from_secs(30),
            drain_interval: Duration::from_secs(1),
            attach: Choice::Auto,
            xdp: xdp::Choice::Off,
            most_flows: 1 << 20,
            benign_drops: false,
            traces: Vec::new(),
            snaplen: DEFAULT_SNAPLEN,
            capture: None,
            policies: Vec::new(),
            networks: Vec::new(),
            enforcement: Enforcement::Off,
            // As long as flows may be silent that are not TCP's before they are forgotten.
            guess_time: Duration::from_mins(1),
            settings: Settings::default(),
        }
    }
}

impl Options {
    /// Whether a unit that was found is left out.
    pub(super) fn is_ignored(&self, id: &str) -> bool {
        self.ignore.iter().any(|glob| glob.matches(id))
    }
}

/// Why the daemon does not start, or stops.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The kernel refuses something.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The host does not answer.
    #[error(transparent)]
    Host(#[from] HostError),
    /// More units than can be counted.
    #[error(transparent)]
    Units(#[from] TooMany),
    /// A unit whose packets were asked for does not exist.
    #[error("trace: {0}")]
    Trace(NoSuchUnit),
    /// An interface that was named does not exist.
    #[error(
        "there is no interface {name}: `ip link` lists those there are; a pattern with * may match later"
    )]
    NoSuchInterface {
        /// The name.
        name: String,
    },
    /// Nothing could be attached.
    #[error("cannot attach to any of {tried} interfaces")]
    NothingAttached {
        /// How many were tried.
        tried: usize,
        /// Why the last one failed.
        source: AttachError,
    },
    /// The policies are too many.
    #[error(transparent)]
    Policies(#[from] Explosion),
    /// The policies would cut off who is logged in.
    #[error(transparent)]
    LockOut(#[from] LockOut),
    /// There is no thread to load the programs.
    #[error("cannot load the programs")]
    Load(#[source] io::Error),
    /// Events cannot be waited for.
    #[error("cannot wait for events of the datapath")]
    Events(#[from] io::Error),
}

// Said as part of the sentence: as its source it would be said twice.
impl From<NoSuchUnit> for DaemonError {
    fn from(error: NoSuchUnit) -> Self {
        Self::Trace(error)
    }
}

impl DaemonError {
    /// Whether something was asked for that is not there, or that cannot be: whoever asks otherwise may be served.
    pub const fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::NoSuchInterface { .. }
                | Self::Units(_)
                | Self::Trace(_)
                | Self::Policies(_)
                | Self::LockOut(_)
        )
    }
}

/// Where the daemon stands once it counts.
#[derive(Clone, Debug)]
pub struct Started {
    /// The interfaces, and what they are.
    pub interfaces: Vec<InterfaceStatus>,
    /// What it could not have, each a sentence.
    pub missing: Vec<String>,
    /// Takes wishes for reports of packets as long as it runs.
    pub tracer: Tracer,
    /// Answers what is asked of it as long as it runs.
    pub inquirer: Inquirer,
    /// Gives it another configuration as long as it runs.
    pub reloader: Reloader,
}
