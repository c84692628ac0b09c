//! What the host says about itself, by netlink and in `/proc`; and what its libpcap makes of an expression.

mod ethtool;
pub mod links;
pub mod names;
pub mod pcap;
pub mod queues;
pub mod symbols;
pub mod uevents;
pub mod watch;
