//! Takes out of the kernel what the programs have written: tables once an epoch, events and single packets as they come, by
//! whatever [`transport`].

pub mod decode;
pub mod events;
pub mod faults;
pub mod flow;
pub mod mix;
pub mod order;
pub mod packets;
pub mod perf;
pub mod ring;
pub mod sequence;
pub mod tables;
pub mod transport;
