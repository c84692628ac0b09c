//! What the integration tests share.
//!
//! - [`privilege`]: a test without its privileges fails, in one sentence.
//! - [`netns`]: network namespaces of a test's own; [`lab`]: hosts in them, joined by wires; [`tun`]: a device without a link
//!   layer; [`site`]: a host with containers.
//! - [`traffic`]: what goes over the wires, and what the kernel's sockets say of it; [`talk`]: questions and answers;
//!   [`frames`]: frames made octet by octet; [`generated`]: frames by choice; [`second`]: a second reading of them.
//! - [`collector`]: the daemon, running in a namespace, and what it [says](said) of itself, or [held] still; [`events`]: sums over what it reported, and [`lives`] of units; [`books`]: all that it
//!   has to report, to the last packet.
//! - [`cgroups`]: cgroups of a test's own, this process [inside] of them, and what is told of them ([`follower`]).
//! - [`engine`]: container engines, whose daemons are [`served`]; [`scratch`]: a directory of a test's own.
//! - [`release`]: what the running kernel is too old for.
//! - [`testrun`]: the programs, run on bytes; [`attached`]: the same on interfaces; [`users`], whose sockets they
//!   meet there; [`reading`]: what frames come to by the parser and by them; [`filters`]: expressions for the packet filter.
//! - [`measure`]: what the benchmarks are told, and how they sum up.
//!
//! Nothing here sleeps. What has to be waited for is a descriptor, a channel or an event, with one limit for all
//! ([`PATIENCE`]).

#![expect(clippy::indexing_slicing, reason = "a test that looks where nothing is shall fail there")]

pub mod attached;
pub mod books;
pub mod cgroups;
pub mod collector;
pub mod command;
pub mod engine;
pub mod events;
pub mod filters;
pub mod follower;
pub mod frames;
pub mod generated;
pub mod held;
pub mod inside;
pub mod lab;
pub mod lives;
pub mod measure;
pub mod netns;
pub mod policies;
pub mod privilege;
pub mod program;
pub mod reading;
pub mod release;
pub mod said;
pub mod scratch;
pub mod second;
pub mod served;
pub mod site;
pub mod talk;
pub mod testrun;
pub mod traffic;
pub mod tun;
pub mod users;

use std::time::Duration;

/// Why a test cannot go on.
pub type Result<T> = anyhow::Result<T>;

/// How long anything may take that a test waits for. Long, for the machine may be busy; never reached when all is well.
pub const PATIENCE: Duration = Duration::from_mins(1);
