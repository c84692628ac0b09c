//! What `collector read` is told.

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use ipnet::IpNet;

use crate::{
    collector::stash::Aggregate,
    config::{CidrError, LogFormat, Output, Tunnels, parse_cidr},
};

/// What follows the options in its help.
pub(super) const HELP: &str = "\
Captures are pcap (microseconds or nanoseconds, either byte order) and pcapng, plain or compressed by gzip or zstd. Link types:
Ethernet, raw IP, BSD loopback, Linux cooked 1 and 2.
With --frames the first line names the columns, which have tabs between them; an empty one is not there or not known. They are
those of the first IP header, then what a tunnel carries (tunnel, in_*), then what an ICMP error quotes (q_*). unparsed says why a
frame is not understood, by the names that the ledger has.
A file that cannot be read to its end is read as far as that goes: what is wrong is said with the octet at which it shows.
Exit codes: 0 done (also where the reader has gone), 1 a file is not read to its end or an output failed, 2 bad usage.";

/// What `collector read` is told.
#[derive(Clone, Debug, Args)]
pub struct ReadArgs {
    /// Read these captures, one after another; - is standard input.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// Print a line for each frame, and no flows: what the parser sees in it.
    #[arg(long, conflicts_with_all = ["config", "output", "aggregate", "local", "tunnels"])]
    pub frames: bool,

    /// Read this configuration (TOML): units by their addresses, networks, outputs, intervals. What is about interfaces, sockets
    /// and programs has no say here.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Write events to standard output only, for people or for programs. [default: text]
    #[arg(long, value_name = "FORM")]
    pub output: Option<Output>,

    /// Make one record of those of a connection, or of a service. [default: each record as it comes]
    #[arg(long, value_name = "HOW")]
    pub aggregate: Option<Aggregate>,

    /// Addresses here are the host's that captured; may be given more than once.
    ///
    /// They say which end of a flow is the local one, as the addresses of units do; where both are, or none is, the direction
    /// does that the capture says. [default: that direction; without one all flows are forwarded's]
    #[arg(long, value_name = "CIDR")]
    pub local: Vec<Local>,

    /// Count what tunnels carry (VXLAN, GENEVE, GRE, IP in IP) as flows of their own, too. [default: outer]
    #[arg(long, value_name = "WHICH")]
    pub tunnels: Option<Tunnels>,

    /// Write what is wrong, on standard error, for people or for programs. [default: text]
    #[arg(long, value_name = "FORM")]
    pub log_format: Option<LogFormat>,
}

/// A network of the host that captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local(pub IpNet);

impl FromStr for Local {
    type Err = CidrError;

    fn from_str(given: &str) -> Result<Self, CidrError> {
        parse_cidr(given.to_owned()).map(Self)
    }
}
