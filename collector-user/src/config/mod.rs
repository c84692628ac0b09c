//! What the collector is told: the configuration file, and the command line's values over it.
//!
//! [`Config`] holds everything with its default; [`Config::load`] reads a file into one, and says where a wrong one is
//! wrong; [`Config::to_toml`] is the way back. The parts: [`OutputConfig`] (where events go), [`PuConfig`] (a declared
//! processing unit), [`TraceConfig`] (whose packets are reported), [`Limits`], [`IfaceGlob`], [`Interval`], [`Socket`]. [`EXAMPLE`] is a file with every key.

mod change;
mod cidr;
mod error;
mod file;
mod glob;
mod interval;
mod limits;
mod network;
mod output;
mod policy;
mod pu;
mod show;
mod socket;
mod trace;

use std::{fs::File, io::Read as _, os::unix::fs::OpenOptionsExt as _, path::Path, sync::Arc};

pub use change::Changes;
pub use cidr::CidrError;
pub(crate) use cidr::parse as parse_cidr;
pub use error::{ConfigError, Fault, Place};
pub use glob::{GlobError, IfaceGlob};
pub use interval::{Interval, IntervalError};
pub use limits::Limits;
pub use network::NetworkFault;
pub use output::{Destination, Form, Output, OutputConfig};
pub use policy::PolicyFault;
pub use pu::PuConfig;
use serde::Deserialize;
pub use socket::{Socket, SocketError};
pub use trace::{TraceConfig, TraceError};

use crate::{
    collector::stash::Aggregate,
    host::pcap::Filter,
    kernel::settings::Transport,
    policy::{networks::ExternalNetwork, rule::Policy},
    pu::{trace::DEFAULT_SNAPLEN, unit_glob::UnitGlob},
    sink::queue::DEFAULT_CAPACITY,
};

/// The bits of `skb->mark` that carry a processing unit's mark unless somebody says otherwise: 18 to 31, as trireme has
/// it.
pub const DEFAULT_MARK_MASK: u32 = 0xFFFC_0000;

/// A file with every key and what it is for. What stands in it is the default; what has none is commented out.
pub const EXAMPLE: &str = include_str!("example.toml");

/// Everything that the collector can be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Only these interfaces are attached; empty: those that serve.
    pub iface: Vec<IfaceGlob>,
    /// Whether containers and services are found by themselves.
    pub discover: Discover,
    /// Of those, which are left out.
    pub ignore: Vec<UnitGlob>,
    /// Whether flows of `forwarded` are reported too, not only its counters.
    pub forwarded: bool,
    /// What of a tunnel's packets is a flow.
    pub tunnels: Tunnels,
    /// Which of the packets that the kernel drops are told.
    pub drops: Drops,
    /// Which flow records become one before they reach the outputs; none: each is told.
    pub aggregate: Option<Aggregate>,
    /// The single packets that are wanted; none: all.
    pub filter: Option<Filter>,
    /// Where events go; one at least.
    pub outputs: Vec<OutputConfig>,
    /// How the programs are attached.
    pub attach: Attach,
    /// Whether a program runs at XDP, too, and where.
    pub xdp: Xdp,
    /// How the programs' records come to user space.
    pub transport: Transport,
    /// How long to run; none: until it is interrupted.
    pub duration: Option<Interval>,
    /// How often a flow that lives is reported.
    pub flow_interval: Interval,
    /// How often counters are reported.
    pub counter_interval: Interval,
    /// Events that may wait for each output that does not say.
    pub queue: usize,
    /// The bits of `skb->mark` that carry a processing unit's mark: contiguous; 0 writes no mark.
    pub mark_mask: u32,
    /// The form of the collector's own log.
    pub log_format: LogFormat,
    /// Where it can be asked while it runs.
    pub socket: Socket,
    /// How much room tables take.
    pub limits: Limits,
    /// Octets of a packet that are reported, from its IP header on.
    pub snaplen: u16,
    /// Of so many packets one is reported, where a trace does not say.
    pub sample: u32,
    /// Whose packets are reported.
    pub trace: Vec<TraceConfig>,
    /// The processing units that are declared.
    pub pu: Vec<PuConfig>,
    /// Whether what the policies reject is dropped.
    pub enforce: bool,
    /// Even where that cuts off somebody who is logged in. The command line alone says so.
    pub enforce_anyway: bool,
    /// Networks that have a name.
    pub network: Vec<Arc<ExternalNetwork>>,
    /// What units may do, in the order in which it is searched.
    pub policy: Vec<Policy>,
}

/// The form of the collector's own log on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

impl LogFormat {
    /// The name in the file and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Whether containers and services are found by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Discover {
    /// Only what is declared is a unit.
    Off,
    /// Each is a unit.
    #[default]
    On,
}

impl Discover {
    /// The name in the file and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
        }
    }
}

/// What of a tunnel's packets is a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Tunnels {
    /// The tunnel.
    #[default]
    Outer,
    /// The tunnel, and what it carries as another one.
    Inner,
}

impl Tunnels {
    /// The name in the file and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Outer => "outer",
            Self::Inner => "inner",
        }
    }
}

/// Which of the packets that the kernel drops are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Drops {
    /// None: they are not looked at.
    Off,
    /// All are counted; single ones are reported, but for those of reasons that a network has on a good day.
    #[default]
    On,
    /// Single ones of whatever reason are reported.
    All,
}

impl Drops {
    /// The name in the file and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
            Self::All => "all",
        }
    }
}

/// How programs are attached to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Attach {
    /// By TCX, or by a clsact qdisc where the kernel has none.
    #[default]
    Auto,
    /// By TCX (Linux 6.6 and newer) or not at all.
    Tcx,
    /// By a clsact qdisc.
    Clsact,
}

impl Attach {
    /// The name in the file and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// Whether a program runs at XDP, before those at TC, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Xdp {
    /// None does.
    #[default]
    Off,
    /// In the driver of physical devices that can, behind the driver elsewhere.
    Auto,
    /// In the driver or not at all.
    Native,
    /// Behind the driver.
    Generic,
}

impl Xdp {
    /// The name in the file and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            iface: Vec::new(),
            discover: Discover::default(),
            ignore: Vec::new(),
            forwarded: false,
            tunnels: Tunnels::default(),
            drops: Drops::default(),
            aggregate: None,
            filter: None,
            outputs: vec![OutputConfig::stdout(Output::default(), DEFAULT_CAPACITY)],
            attach: Attach::default(),
            xdp: Xdp::default(),
            transport: Transport::default(),
            duration: None,
            flow_interval: Interval::from_seconds(5),
            counter_interval: Interval::from_seconds(30),
            queue: DEFAULT_CAPACITY,
            mark_mask: DEFAULT_MARK_MASK,
            log_format: LogFormat::default(),
            socket: Socket::default(),
            limits: Limits::default(),
            snaplen: DEFAULT_SNAPLEN,
            sample: 1,
            trace: Vec::new(),
            pu: Vec::new(),
            enforce: false,
            enforce_anyway: false,
            network: Vec::new(),
            policy: Vec::new(),
        }
    }
}

impl Config {
    /// The longest file that is read: some hundred thousand declared units.
    pub const MOST_OCTETS: u64 = 16 << 20;

    /// Reads a file of TOML. What it does not name has its default.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read) and [`parse`](Self::parse).
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&Self::read(path)?, path)
    }

    /// Reads a file's text.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Read`] where the file cannot be read, [`ConfigError::TooLong`] where it does not end within
    /// [`MOST_OCTETS`](Self::MOST_OCTETS), [`ConfigError::Wrong`] where it is no text.
    pub fn read(path: &Path) -> Result<String, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        Self::text(File::open(path).map_err(failed)?, path)
    }

    /// Reads a file's text once more; `None` where it is no regular file. Waits for nobody but the file system: a pipe that has
    /// no writer is not opened for long.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_again(path: &Path) -> Result<Option<String>, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
        // What was opened is asked, not its name: another may have it by now.
        if file.metadata().map_err(failed)?.is_file() { Self::text(file, path).map(Some) } else { Ok(None) }
    }

    fn text(file: File, path: &Path) -> Result<String, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        let mut octets = Vec::new();
        // A device, or a pipe that somebody goes on writing to, has no end.
        file.take(Self::MOST_OCTETS + 1).read_to_end(&mut octets).map_err(failed)?;
        if octets.len() as u64 > Self::MOST_OCTETS {
            return Err(ConfigError::TooLong { path: path.to_owned(), most: Self::MOST_OCTETS });
        }
        String::from_utf8(octets)
            .map_err(|error| ConfigError::not_utf8(path, error.as_bytes(), error.utf8_error()))
    }

    /// Reads TOML; `path` is what messages call it.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Wrong`] for the first thing in it that is wrong, with its place and with what was expected.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        file::read(text).map_err(|wrong| ConfigError::Wrong {
            place: Place::of(path, text, wrong.span.start),
            fault: Box::new(wrong.fault),
        })
    }
}

#[cfg(test)]
mod tests;
