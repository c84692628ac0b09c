//! Who is who: processing units, and what an interface is to them.

pub mod life;
pub mod registry;
pub mod role;
pub mod trace;
