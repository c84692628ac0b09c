//! Who is who: processing units, and what an interface or a cgroup is to them.

pub mod cgroup_glob;
mod indexes;
pub mod life;
pub mod mark;
pub mod overlaps;
pub(crate) mod pattern;
pub mod port;
pub mod registry;
pub mod role;
pub mod trace;
pub mod unit_glob;
pub mod user;
pub mod vlans;
pub mod workload;
