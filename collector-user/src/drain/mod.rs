//! Takes out of the kernel what the programs have written: tables once an epoch, events as they come.

pub mod decode;
pub mod events;
pub mod faults;
pub mod sequence;
pub mod tables;
