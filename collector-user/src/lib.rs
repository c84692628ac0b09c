//! The user side of the datapath collector, as a library.
//!
//! The rooms, in the order in which data passes through them; each uses only what lies before it:
//!
//! - [`event`]: the eight kinds of record, and the status; [`clock`]: the only place that reads clocks;
//!   [`error`]: causes in words.
//! - [`collector`]: the trait [`EventCollector`](collector::EventCollector), the seam to whoever wants the events.
//! - [`host`]: interfaces and addresses, by netlink; cgroups; who is logged in by SSH; packet filters, by libpcap.
//! - [`kernel`]: loads and attaches the eBPF programs, and talks to their maps.
//! - [`drain`]: takes out what the programs counted and reported.
//! - [`pu`]: processing units, and what an interface or a cgroup is to them.
//! - [`policy`]: what processing units may do.
//! - [`aggregate`]: flows over their life, counters between two reports, records.
//! - [`sink`]: outputs, each behind a bounded queue of its own.
//! - [`config`]: the configuration file.
//! - [`read`]: captures, read as the programs read packets.
//! - [`daemon`]: the only module that knows all stages.
//! - [`selftest`]: known traffic through hosts of its own, and what is counted of it.
//! - [`cli`]: the command line.
#![deny(unsafe_code)]

pub mod aggregate;
pub mod cli;
pub mod clock;
pub mod collector;
pub mod config;
pub mod daemon;
pub mod drain;
pub mod error;
pub mod event;
pub mod host;
pub mod kernel;
pub mod policy;
pub mod pu;
pub mod read;
pub mod selftest;
pub mod sink;
