//! Packets as a pcapng section: what Wireshark, tshark and tcpdump open.
//!
//! The format is that of draft-ietf-opsawg-pcapng ("PCAP Now Generic (pcapng) Capture File Format"); names in quotation
//! marks are those of its sections. A file is one section of
//!
//! - a Section Header Block ("Section Header Block"): version 1.0, little-endian, of unknown length, with the
//!   program's name and version (`shb_userappl`);
//! - an Interface Description Block ("Interface Description Block") for each interface, before its first packet: link
//!   type `LINKTYPE_ETHERNET` or `LINKTYPE_RAW`, snap length, name (`if_name`), nanoseconds (`if_tsresol` 9), and the
//!   filter's text (`if_filter`). An interface that is renamed, or begins to have packets of the other link type, has
//!   one more;
//! - an Enhanced Packet Block ("Enhanced Packet Block") for each packet: time, octets, the length before they were cut,
//!   the direction (`epb_flags`, "Enhanced Packet Block Flags Word": inbound, outbound, or none where it was dropped), and
//!   a comment;
//! - at the end an Interface Statistics Block ("Interface Statistics Block") for each interface: begin and end of the
//!   capture, packets received (`isb_ifrecv` = `isb_usrdeliv` + `isb_ifdrop` + those beyond `--count`), packets in this
//!   file (`isb_usrdeliv`) and packets of this interface that found the output's queue full (`isb_ifdrop`, which is
//!   where dumpcap puts such losses and where Wireshark looks for them). Losses before that have no interface: they are
//!   in a comment.
//!
//! # Comments
//!
//! What the format has no field for stands in comments (`opt_comment`, "Options"), which people see in Wireshark and
//! programs can take apart. A comment is one line of pairs `name=value`, one space between two, names in this order, and
//! only those that there is something to say of:
//!
//! | block | name | value |
//! | --- | --- | --- |
//! | packet | `dropped` | why the kernel dropped it, or `unknown` |
//! | | `at` | where that was: the function, and how far in it; of one that was dropped |
//! | | `ethertype` | what it is, where it is no IP packet: `arp`, `lldp`, or a number; of one that was dropped |
//! | | `length` | its octets, where `ethertype` stands before |
//! | | `pu` | the id of the processing unit |
//! | | `mark` | the mark of its socket buffer, `0x` and hexadecimal digits; not 0 |
//! | | `packets` | the wire packets that a super-packet stands for; more than 1 |
//! | statistics, first comment | `received`, `transmitted`, `dropped` | packets of this interface in this file, by what happened to them, all three |
//! | statistics, second comment | a name of the ledger | what was lost of all interfaces together, where anything was |
//!
//! In a value white space, control characters, `%` and `=` are written as the octets of their UTF-8, each `%` and two
//! hexadecimal digits in upper case; everything else stands for itself.
//!
//! Not as custom options ("Custom Options"): those need a Private Enterprise Number of IANA's, which this project has
//! not, and one without, or with another's number, would be taken for what it is not. Nor as codes of local use (the most
//! significant bit set, "Options"): two programs may mean different things by one, and no viewer shows them.
//!
//! A reader that is built on libpcap (tcpdump) takes files only whose interfaces are all of one link type; Wireshark takes
//! both.

mod block;
mod comment;

use std::collections::HashMap;

use block::{Direction, Interface, LinkType, Packet, Statistics};
pub(crate) use block::{Whole, whole};

use crate::event::{self, Captured, PacketEvent, Text, Time};

/// Interfaces that have a block of their own; those beyond share one without a name.
const MOST_INTERFACES: usize = 4096;

/// What wrote the file.
const APPLICATION: &str = concat!("collector ", env!("CARGO_PKG_VERSION"));

/// A section under way: makes its blocks. Writes nothing itself.
pub struct Section {
    snap_length: u32,
    filter: String,
    begun: Time,
    ids: HashMap<Key, u32>,
    interfaces: Vec<Counts>,
    comment: String,
}

/// What makes two packets those of one interface of the file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    index: u32,
    name: Text,
    link: LinkType,
}

/// What was written of an interface of the file.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// The interface's index on the host.
    index: u32,
    received: u64,
    transmitted: u64,
    dropped: u64,
}

/// What a section's last blocks say, but for what the section knows itself.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// When the capture ended.
    pub time: Time,
    /// Packets that were lost by the output, by the index of their interface.
    pub lost: HashMap<u32, u64>,
    /// Packets that came after the last one that was wanted, by the index of their interface.
    pub surplus: HashMap<u32, u64>,
    /// What was lost of all interfaces, by name.
    pub losses: Vec<(String, u64)>,
}

impl Section {
    /// A section of packets of at most `snap_length` octets that a `filter` (empty: none) let through.
    pub fn new(snap_length: u32, filter: String, begun: Time) -> Self {
        Self {
            snap_length,
            filter,
            begun,
            ids: HashMap::new(),
            interfaces: Vec::new(),
            comment: String::new(),
        }
    }

    /// Appends the section's first block.
    pub fn begin(out: &mut Vec<u8>) {
        block::section_header(out, APPLICATION);
    }

    /// Appends the block of an interface, unless it has one.
    pub fn interface(&mut self, index: u32, name: &Text, link: event::LinkType, out: &mut Vec<u8>) {
        self.id(Key { index, name: name.clone(), link: link.into() }, out);
    }

    /// Appends a packet, behind the block of its interface where that is new.
    pub fn packet(&mut self, packet: &Captured, out: &mut Vec<u8>) {
        let key = Key { index: packet.ifindex, name: packet.interface.clone(), link: packet.link.into() };
        let id = self.id(key, out);
        let direction = match packet.event {
            PacketEvent::Received => Direction::Inbound,
            PacketEvent::Transmitted => Direction::Outbound,
            _ => Direction::Unknown,
        };
        if let Some(counts) = self.interfaces.get_mut(id as usize) {
            *match direction {
                Direction::Inbound => &mut counts.received,
                Direction::Outbound => &mut counts.transmitted,
                Direction::Unknown => &mut counts.dropped,
            } += 1;
        }
        self.comment.clear();
        comment::of_packet(&mut self.comment, packet);
        let octets = packet.bytes.get(..self.snap_length as usize).unwrap_or(&packet.bytes);
        let (time, length, comment) = (nanos(packet.time), packet.length, self.comment.as_str());
        block::packet(out, &Packet { interface: id, time, octets, length, direction, comment });
    }

    /// Appends the statistics of every interface. A section that has none has a nameless one then: to libpcap a file
    /// without any is no capture.
    pub fn end(&mut self, ending: &Ending, out: &mut Vec<u8>) {
        if self.interfaces.is_empty() {
            self.interface(0, &Text::default(), event::LinkType::Ethernet, out);
        }
        let losses = comment::of_counts(ending.losses.iter().map(|(name, count)| (name.as_str(), *count)));
        let mut lost = ending.lost.clone();
        let mut surplus = ending.surplus.clone();
        for (id, counts) in self.interfaces.iter().enumerate() {
            let Counts { index, received, transmitted, dropped } = *counts;
            let events = [("received", received), ("transmitted", transmitted), ("dropped", dropped)];
            let events = comment::of_counts(events);
            let comments = [events.as_str(), losses.as_str()];
            let delivered = received + transmitted + dropped;
            // Of two blocks of one interface the first has what cannot be told apart.
            let [lost, surplus] = [&mut lost, &mut surplus].map(|of| of.remove(&index).unwrap_or(0));
            let statistics = Statistics {
                interface: id as u32,
                times: [self.begun, ending.time].map(nanos),
                received: delivered + lost + surplus,
                lost,
                delivered,
                comments: comments.get(..if losses.is_empty() { 1 } else { 2 }).unwrap_or_default(),
            };
            block::statistics(out, &statistics);
        }
    }

    fn id(&mut self, key: Key, out: &mut Vec<u8>) -> u32 {
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        let shared = Key { index: 0, name: Text::default(), link: key.link };
        if self.ids.len() >= MOST_INTERFACES && key != shared {
            return self.id(shared, out);
        }
        let Key { index, ref name, link } = key;
        block::interface(out, &Interface { link, snap_length: self.snap_length, name, filter: &self.filter });
        let id = self.interfaces.len() as u32;
        self.interfaces.push(Counts { index, ..Counts::default() });
        self.ids.insert(key, id);
        id
    }
}

impl From<event::LinkType> for LinkType {
    fn from(link: event::LinkType) -> Self {
        match link {
            event::LinkType::Ethernet => Self::Ethernet,
            event::LinkType::RawIp => Self::RawIp,
        }
    }
}

/// Times before 1970 have no place in the format.
fn nanos(time: Time) -> u64 {
    u64::try_from(time.as_unix_nanos()).unwrap_or(0)
}

#[cfg(test)]
pub(super) mod tests;
