//! Takes out of the kernel what the programs have written: tables once an epoch, events and single packets as they come.

pub mod decode;
pub mod events;
pub mod faults;
pub mod perf;
pub mod sequence;
pub mod tables;
