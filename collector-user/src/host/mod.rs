//! What the host says about itself, by netlink and in `/proc`.

mod ethtool;
pub mod links;
pub mod names;
pub mod symbols;
pub mod watch;
