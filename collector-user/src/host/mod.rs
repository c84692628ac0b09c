//! What the host says about itself: interfaces by netlink, cgroups by their file system, users by theirs, and what is in
//! `/proc`, such as who is logged in by SSH; and what its libpcap makes of an expression.

pub mod cgroups;
mod ethtool;
pub mod followed;
pub mod links;
pub mod modules;
pub mod names;
pub mod namespaces;
pub mod pcap;
pub mod queues;
pub mod rules;
pub mod ssh;
pub mod symbols;
pub mod uevents;
pub mod users;
pub mod watch;
