//! Captures, read as the programs read packets.
//!
//! - [`container`]: pcap and pcapng, plain or compressed, as records.
pub mod container;
