//! From what a program says of a packet, and the packet's first octets, to its report, and to a packet for a file.

use std::net::IpAddr;

use bytes::{BufMut as _, Bytes, BytesMut};
use collector_ebpf::{
    abi::{
        flow::ports,
        packet::{PacketRecord, event, link},
    },
    wire::{
        Frame, Link,
        ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
        ipv4, ipv6,
        transport::Transport,
    },
};

use crate::{
    clock::Moment,
    drain::decode::Packet,
    event::{Captured, DropClass, LinkType, PacketEvent, PacketReport, Text, ethertype, reason},
    pu::registry::{Registry, is_named},
};

/// The report of a packet, with at most `snaplen` octets of it, from the IP header on; of a frame that is no IP packet,
/// from behind the link layer's header on.
///
/// Its octets are read by the same parser that the programs have. Where they end too early for that, or make no sense,
/// what the IP header says is told all the same.
pub fn report(
    packet: &Packet,
    snaplen: usize,
    interface: Text,
    units: &Registry,
    moment: &Moment,
) -> PacketReport {
    let Packet { record, octets } = packet;
    let read = Read::of(record, octets);
    let unit = units.get(record.pu);
    let payload = octets.slice(read.start.min(octets.len())..);
    let payload = payload.slice(..snaplen.min(payload.len()).min(read.payload(record)));
    PacketReport {
        tcp_flags: read.tcp_flags.into(),
        claims: unit.map(|unit| unit.tags.as_slice().to_vec()).unwrap_or_default(),
        destination_ip: read.destination,
        destination_port: read.destination_port,
        drop_reason: drop_reason(record),
        encrypt: false,
        event: what_happened(record),
        ethertype: ethertype::word(read.ethertype).into(),
        length: if read.length == 0 { record.length } else { read.length },
        mark: record.mark,
        namespace: unit.map_or_else(|| "".into(), |unit| unit.namespace.clone()),
        packet_id: read.id.into(),
        protocol: read.protocol,
        puid: unit.map_or_else(|| "".into(), |unit| unit.id.clone()),
        source_ip: read.source,
        source_port: read.source_port,
        trireme_packet: is_named(record.pu),
        packets: record.packets,
        interface,
        kernel_reason: "".into(),
        drop_place: "".into(),
        drop_class: DropClass::Unknown,
        advice: "".into(),
        suppressed: 0,
        payload,
        ts: moment.wall_of_boot(record.boot_ns),
    }
}

/// The packet as it was seen, with at most `snaplen` octets, from the link layer's header on. `None` where there are none
/// that are a packet's.
pub fn captured(
    packet: &Packet,
    snaplen: usize,
    interface: Text,
    units: &Registry,
    moment: &Moment,
) -> Option<Captured> {
    let record = &packet.record;
    let link = match record.link {
        link::ETHERNET => LinkType::Ethernet,
        link::RAW_IP => LinkType::RawIp,
        _ => return None,
    };
    let (mut bytes, mut length) = whole(packet);
    let mut link = link;
    if record.event == event::DROPPED && link == LinkType::RawIp {
        // It had no frame yet, or none any more. A file with two kinds of link is one that few programs read.
        (bytes, link) = (framed(&bytes), LinkType::Ethernet);
        length += ETHERNET as u32;
    }
    bytes.truncate(snaplen);
    Some(Captured {
        time: moment.wall_of_boot(record.boot_ns),
        boot_ns: record.boot_ns,
        ifindex: record.ifindex,
        interface,
        event: what_happened(record),
        drop_reason: drop_reason(record),
        drop_place: "".into(),
        ethertype: "".into(),
        puid: units.get(record.pu).map_or_else(|| "".into(), |unit| unit.id.clone()),
        mark: record.mark,
        packets: record.packets,
        length,
        link,
        bytes,
    })
}

/// A packet behind an Ethernet header without addresses.
fn framed(packet: &[u8]) -> Bytes {
    let ethertype =
        if packet.first().is_some_and(|first| first >> 4 == 6) { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
    let mut frame = BytesMut::with_capacity(ETHERNET + packet.len());
    frame.put_bytes(0, ADDRESSES);
    frame.put_u16(ethertype);
    frame.put_slice(packet);
    frame.freeze()
}

/// The octets of a packet with the tag that the kernel kept beside it in its place, and how many there would be of the whole.
pub fn whole(packet: &Packet) -> (Bytes, u32) {
    let Packet { record, octets } = packet;
    if record.vlan_protocol != 0
        && record.link == link::ETHERNET
        && let Some((addresses, rest)) = octets.split_at_checked(ADDRESSES)
    {
        return (with_tag(addresses, record, rest), record.length + TAG);
    }
    (octets.clone(), record.length)
}

/// Octets of both link-layer addresses, behind which a tag stands (IEEE 802.1Q-2022 clause 9.3).
const ADDRESSES: usize = 12;
/// Octets of a tag.
const TAG: u32 = 4;

/// A frame with the tag that the kernel kept beside it.
fn with_tag(addresses: &[u8], record: &PacketRecord, rest: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(addresses.len() + TAG as usize + rest.len());
    frame.put_slice(addresses);
    // Network byte order as it is.
    frame.put_slice(&record.vlan_protocol.to_ne_bytes());
    frame.put_u16(record.vlan_tci);
    frame.put_slice(rest);
    frame.freeze()
}

const fn what_happened(record: &PacketRecord) -> PacketEvent {
    match record.event {
        event::RECEIVED => PacketEvent::Received,
        event::TRANSMITTED => PacketEvent::Transmitted,
        event::DROPPED => PacketEvent::Dropped,
        _ => PacketEvent::Unspecified,
    }
}

/// The word for why it was dropped; empty where it was not.
fn drop_reason(record: &PacketRecord) -> Text {
    if record.event == event::DROPPED { reason::PACKET_DROP.into() } else { "".into() }
}

/// What the octets say.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    /// Where the IP header begins.
    start: usize,
    /// What begins there; that of IPv4 where it is not known.
    ethertype: u16,
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    source_port: u16,
    destination_port: u16,
    protocol: u8,
    tcp_flags: u8,
    /// The IPv4 identification.
    id: u16,
    /// The IP total length; 0 where it is no IP packet.
    length: u32,
}

impl Default for Read {
    /// Of nothing that is known.
    fn default() -> Self {
        Self {
            start: 0,
            ethertype: ETHERTYPE_IPV4,
            source: None,
            destination: None,
            source_port: 0,
            destination_port: 0,
            protocol: 0,
            tcp_flags: 0,
            id: 0,
            length: 0,
        }
    }
}

/// An Ethernet header without a tag.
const ETHERNET: usize = 14;
const IPV6_HEADER: u32 = 40;
/// The number of the hop-by-hop options header (RFC 8200 section 4.3).
const HOP_BY_HOP: u8 = 0;

impl Read {
    fn of(record: &PacketRecord, octets: &[u8]) -> Self {
        let link = match record.link {
            link::ETHERNET => Link::Ethernet,
            link::RAW_IP => Link::RawIp,
            _ => return Self { start: octets.len(), ..Self::default() },
        };
        let header = if link == Link::Ethernet { ETHERNET } else { 0 };
        let Ok(layer2) = ethernet::parse(&octets, link) else {
            return Self { start: header, ethertype: outermost(octets, link), ..Self::default() };
        };
        let start = layer2.next as usize;
        let packet = octets.get(start..).unwrap_or_default();
        let frame = Frame { length: record.length.saturating_sub(layer2.next), gso: record.packets > 1 };
        let read = match layer2.ethertype {
            ETHERTYPE_IPV4 => Self::ipv4(packet, frame).map(|read| {
                let transport = ipv4::parse(&packet, 0, frame).ok().map(|ip| ip.transport);
                read.with(transport.as_ref())
            }),
            ETHERTYPE_IPV6 => Self::ipv6(packet, frame).map(|read| {
                let transport = ipv6::parse(&packet, 0, frame).ok().map(|ip| ip.transport);
                read.with(transport.as_ref())
            }),
            _ => None,
        };
        let ethertype = layer2.ethertype;
        Self { start, ethertype, ..read.unwrap_or_default() }
    }

    /// What the header of RFC 791 says. A super-packet that is longer than it can say has a length of 0.
    fn ipv4(packet: &[u8], frame: Frame) -> Option<Self> {
        let [
            version,
            _,
            length_0,
            length_1,
            id_0,
            id_1,
            _,
            _,
            _,
            protocol,
            _,
            _,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
            ..,
        ] = packet
        else {
            return None;
        };
        (version >> 4 == 4).then(|| Self {
            source: Some([*s0, *s1, *s2, *s3].into()),
            destination: Some([*d0, *d1, *d2, *d3].into()),
            protocol: *protocol,
            id: u16::from_be_bytes([*id_0, *id_1]),
            length: match u16::from_be_bytes([*length_0, *length_1]) {
                0 if frame.gso => frame.length,
                length => length.into(),
            },
            ..Self::default()
        })
    }

    /// What the header of RFC 8200 says. A super-packet that is longer than it can say has a length of 0, and so has a
    /// jumbogram (RFC 2675 section 3), which begins with hop-by-hop options.
    fn ipv6(packet: &[u8], frame: Frame) -> Option<Self> {
        let (header, rest) = packet.split_first_chunk::<8>()?;
        let (source, rest) = rest.split_first_chunk::<16>()?;
        let destination = rest.first_chunk::<16>()?;
        let [version, _, _, _, length_0, length_1, protocol, _] = *header;
        (version >> 4 == 6).then(|| Self {
            source: Some((*source).into()),
            destination: Some((*destination).into()),
            protocol,
            length: match u16::from_be_bytes([length_0, length_1]) {
                0 if frame.gso || protocol == HOP_BY_HOP => frame.length,
                payload => u32::from(payload) + IPV6_HEADER,
            },
            ..Self::default()
        })
    }

    /// With what the transport header says, where it is understood.
    fn with(self, transport: Option<&Transport>) -> Self {
        let Some(transport) = transport else { return self };
        let [s0, s1, d0, d1] = transport.ports;
        // In other kinds the two numbers are no ports.
        let has_ports = transport.kind == ports::TRANSPORT;
        let port = |octets| if has_ports { u16::from_be_bytes(octets) } else { 0 };
        Self {
            protocol: transport.protocol,
            tcp_flags: transport.tcp_flags,
            source_port: port([s0, s1]),
            destination_port: port([d0, d1]),
            ..self
        }
    }

    /// Octets that may be payload of the report: what pads a short frame is none of the packet.
    fn payload(&self, record: &PacketRecord) -> usize {
        if self.length == 0 { record.length as usize } else { self.length as usize }
    }
}

/// The Ethertype of the header, or what stands in its place; that of IPv4 where there is none.
fn outermost(octets: &[u8], link: Link) -> u16 {
    match (link, octets.get(ADDRESSES..).and_then(<[u8]>::first_chunk)) {
        (Link::Ethernet, Some(ethertype)) => u16::from_be_bytes(*ethertype),
        _ => ETHERTYPE_IPV4,
    }
}

#[cfg(test)]
mod tests;
