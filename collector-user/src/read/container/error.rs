//! Why a capture cannot be read on, with the octet at which that shows.

use std::io;

use super::links;

/// Why a capture cannot be read on. Offsets are in octets from the file's start; of a compressed file, from the start of what it
/// decompresses to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// It begins with none of the numbers that captures begin with.
    #[error(
        "at byte 0: no capture: it begins with {}, expected pcap or pcapng, plain or compressed by gzip or zstd",
        hexadecimal(.begin)
    )]
    NotACapture {
        /// The octets that it begins with: four, unless there are fewer.
        begin: Vec<u8>,
    },
    /// The format is of another version than the one that there is.
    #[error("at byte {offset}: version {major}.{minor} of {format}, expected {expected}")]
    Version {
        /// Where it is said.
        offset: u64,
        /// The format.
        format: &'static str,
        /// Its version.
        major: u16,
        /// Its minor version.
        minor: u16,
        /// What can be read.
        expected: &'static str,
    },
    /// The file ends within something.
    #[error(
        "at byte {offset}: the file ends within {what}: {found} of {expected} octets are there; it was cut off, or is still \
         being written"
    )]
    Truncated {
        /// Where that begins.
        offset: u64,
        /// What it is.
        what: &'static str,
        /// Its octets.
        expected: u64,
        /// Those that are there.
        found: u64,
    },
    /// A length that nothing has.
    #[error(
        "at byte {offset}: {what} says that it has {length} octets, expected {least} to {most}: from here on the file is damaged"
    )]
    Length {
        /// Where it begins.
        offset: u64,
        /// What says so.
        what: &'static str,
        /// What it says.
        length: u64,
        /// The least that there can be.
        least: u64,
        /// The most.
        most: u64,
    },
    /// The two lengths of a pcapng block differ.
    #[error(
        "at byte {offset}: a block of type {kind:#x} says {first} octets at its beginning and {last} at its end: from here on \
         the file is damaged"
    )]
    Lengths {
        /// Where the block begins.
        offset: u64,
        /// Its type.
        kind: u32,
        /// Its length at its beginning.
        first: u32,
        /// And at its end.
        last: u32,
    },
    /// A section says its byte order in no order.
    #[error(
        "at byte {offset}: a section header whose byte-order magic is {magic:#010x}, expected 0x1a2b3c4d"
    )]
    ByteOrder {
        /// Where the section begins.
        offset: u64,
        /// What it says, read as little-endian.
        magic: u32,
    },
    /// A packet of an interface that the section has not described.
    #[error(
        "at byte {offset}: a packet of interface {interface}, of which no interface block came before it: the section has {known}"
    )]
    NoInterface {
        /// Where the packet's block begins.
        offset: u64,
        /// The interface's number.
        interface: u32,
        /// Interfaces that were described.
        known: usize,
    },
    /// More interfaces than anything has.
    #[error("at byte {offset}: more than {most} interfaces in one section")]
    Interfaces {
        /// Where the block of the one too many begins.
        offset: u64,
        /// How many are taken.
        most: usize,
    },
    /// A link type that no reader of frames is here for.
    #[error(
        "at byte {offset}: packets of link type {} ({link}), expected Ethernet (1), raw IP (12, 14, 101, 228, 229), BSD loopback \
         (0, 108) or Linux cooked (113, 276)",
        links::name(*link)
    )]
    Link {
        /// Where it is said, or where the first packet of that kind lies.
        offset: u64,
        /// The number.
        link: u16,
    },
    /// The file, or what decompresses it, failed.
    #[error("at byte {offset}: cannot be read on")]
    Read {
        /// How far it was read.
        offset: u64,
        /// What the system, or the decompressor, said.
        #[source]
        source: io::Error,
    },
}

fn hexadecimal(octets: &[u8]) -> String {
    match octets {
        [] => "nothing".to_owned(),
        _ => octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(" "),
    }
}
