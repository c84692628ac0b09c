//! Captures, read as the programs read packets.
//!
//! - [`container`]: pcap and pcapng, plain or compressed, as records.
//! - [`link`]: from a link type to the network layer.
//! - [`frames`]: a frame as a line.
//! - [`replay`]: what the programs and the daemon make of packets that pass, of those that passed.
//! - [`seen`]: all that the parser sees in one frame.
pub mod backwards;
pub mod container;
pub mod frames;
pub mod link;
pub mod replay;
pub mod seen;
