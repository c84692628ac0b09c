//! What the host says about itself, by netlink.

pub mod links;
pub mod watch;
