//! What the parser sees in one frame, in full: what flows are made of, and what else stands in the headers that it went through.
//!
//! The parser of the programs ([`collector_ebpf::wire`]) decides what is where, and whether it is sound. Fields that no flow is
//! made of are read here, from the places that it found.

use std::net::IpAddr;

use collector_ebpf::{
    abi::{counter::Unparsed, flow::ports, network},
    wire::{
        Frame,
        bytes::Bytes as _,
        ethernet::{self, ETHERTYPE_IPV4, Layer2},
        ipv4, ipv6, llc, mpls, quote,
        transport::{self, Segment, Transport},
        tunnel::{self, Inside},
    },
};

use super::{
    container::{Record, links},
    link,
};
use crate::policy::protocol::{TCP, has_ports};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// A frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Ids of the VLAN tags, the outermost first.
    pub vlans: Vec<u16>,
    /// MPLS labels, the outermost first.
    pub labels: Vec<u32>,
    /// The first IP header.
    pub ip: Option<Ip>,
    /// What lies behind that.
    pub layer4: Option<Layer4>,
    /// What a tunnel carries.
    pub inner: Option<Inner>,
    /// What an ICMP error is about.
    pub quoted: Option<Ends>,
    /// Why the frame is not understood, or its part behind the IP header.
    pub unparsed: Option<Unparsed>,
    /// It stands for several packets, by a length of 0.
    pub is_super: bool,
}

/// An IP header, and the extension headers behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// 4 or 6.
    pub version: u8,
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The protocol, or next header, that the IP header itself names.
    pub names: u8,
    /// Extension headers in their order, IPv4's authentication headers among them.
    pub extensions: Vec<u8>,
    /// What follows them.
    pub protocol: u8,
    /// The length field: in IPv4 of all, in IPv6 of what follows the fixed header. Octets.
    pub length: u16,
    /// The length in a jumbo option. Octets.
    pub jumbo: Option<u32>,
    /// What makes it a fragment, of the first fragment header.
    pub fragment: Option<Fragment>,
    /// Where it begins, in octets from the frame's start.
    pub at: u32,
    /// Where begins what follows it.
    pub next: u32,
}

/// The fields of a fragment, and of what could be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The identification.
    pub id: u32,
    /// Octets of the datagram before it.
    pub offset: u32,
    /// More follow.
    pub more: bool,
}

/// What a transport header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer4 {
    /// Source and destination port, where the protocol has them.
    pub ports: Option<(u16, u16)>,
    /// TCP's flags, twelve bits (RFC 9293 section 3.1, the reserved ones among them).
    pub tcp_flags: Option<u16>,
    /// Type and code of an ICMP message.
    pub icmp: Option<(u8, u8)>,
}

/// A packet in a tunnel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inner {
    /// The tunnel's kind: one of [`network`].
    pub kind: u8,
    /// Which of its networks.
    pub id: u32,
    /// Ids of VLAN tags inside.
    pub vlans: Vec<u16>,
    /// The IP header.
    pub ip: Option<Ip>,
    /// What lies behind that.
    pub layer4: Option<Layer4>,
    /// Why it is not understood.
    pub unparsed: Option<Unparsed>,
}

/// The ends of a quoted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The protocol, behind extension headers.
    pub protocol: u8,
    /// Source and destination port, where the protocol has them.
    pub ports: Option<(u16, u16)>,
}

impl Inner {
    /// What the tunnel is called.
    pub const fn name(&self) -> &'static str {
        match self.kind {
            network::VXLAN => "vxlan",
            network::GENEVE => "geneve",
            network::GRE => "gre",
            network::IPIP => "ipip",
            network::SIT => "sit",
            _ => "unknown",
        }
    }
}

/// What a packet is to be read by, and what was found.
struct Packet {
    ip: Ip,
    segment: Segment,
    transport: Result<Transport, Unparsed>,
}

impl Seen {
    /// Reads a frame.
    pub fn of(record: &Record<'_>) -> Self {
        let bytes = record.octets;
        let mut seen = Self::default();
        (seen.vlans, seen.labels) = between(bytes, record.link);
        let (_, layer2) = link::layer2(bytes, record.link);
        let layer2 = match layer2 {
            Ok(layer2) => layer2,
            Err(reason) => {
                seen.unparsed = Some(reason);
                return seen;
            }
        };
        let frame = frame(record, layer2);
        seen.is_super = frame.gso;
        let packet = match packet(bytes, layer2.ethertype, layer2.next, frame) {
            Ok(packet) => packet,
            Err(reason) => {
                seen.unparsed = Some(reason);
                return seen;
            }
        };
        match packet.transport {
            Err(reason) => seen.unparsed = Some(reason),
            Ok(transport) => {
                seen.layer4 = layer4(bytes, &packet, &transport);
                seen.inner = inner(bytes, &transport, frame);
                seen.quoted = quoted(bytes, &transport);
            }
        }
        seen.ip = Some(packet.ip);
        seen
    }
}

/// What the octets do not say. A frame that was not captured by us does not say that it is a super-packet but by what no other
/// is: a length of 0 in its IPv4 header, or in an IPv6 header with more octets behind it than it can say.
#[inline]
pub(super) fn frame(record: &Record<'_>, layer2: Layer2) -> Frame {
    const MOST: u32 = 0xFFFF;
    let (bytes, at, length) = (&record.octets, layer2.next, record.length);
    let is_unsaid = if layer2.ethertype == ETHERTYPE_IPV4 {
        bytes.number(at + 2) == Some(0)
    } else {
        // One with a jumbo option, which lies in the hop-by-hop header, says it there.
        const HOP_BY_HOP: [u8; 1] = [0];
        length.saturating_sub(at) > MOST + IPV6
            && bytes.number(at + 4) == Some(0)
            && bytes.array(at + 6) != Some(HOP_BY_HOP)
    };
    Frame { length, gso: record.marks.packets > 1 || is_unsaid }
}

/// Octets of an IPv6 header.
const IPV6: u32 = 40;

fn packet(bytes: &[u8], ethertype: u16, at: u32, frame: Frame) -> Result<Packet, Unparsed> {
    let bytes = &bytes;
    let number = |offset: u32| bytes.number(at + offset).unwrap_or(0);
    let octet = |offset: u32| bytes.array::<1>(at + offset).map_or(0, |[octet]| octet);
    let (mut ip, segment, is_later) = if ethertype == ETHERTYPE_IPV4 {
        const MORE: u16 = 0x2000;
        const OFFSET: u16 = 0x1FFF;
        let header = ipv4::header(bytes, at, frame)?;
        let fragment = number(6);
        let offset = u32::from(fragment & OFFSET) * 8;
        let ip = Ip {
            version: 4,
            source: header.source.into(),
            destination: header.destination.into(),
            names: octet(9),
            extensions: Vec::new(),
            protocol: header.protocol,
            length: number(2),
            jumbo: None,
            fragment: Some(Fragment { id: number(4).into(), offset, more: fragment & MORE != 0 }),
            at,
            next: header.segment.start,
        };
        (ip, header.segment, header.is_later)
    } else {
        let header = ipv6::header(bytes, at, frame)?;
        let ip = Ip {
            version: 6,
            source: header.source.into(),
            destination: header.destination.into(),
            names: octet(6),
            extensions: Vec::new(),
            protocol: header.protocol,
            length: number(4),
            jumbo: None,
            fragment: None,
            at,
            next: header.segment.start,
        };
        (ip, header.segment, header.is_later)
    };
    extensions(bytes, &mut ip);
    let transport = if is_later {
        Ok(transport::fragment(ip.protocol, segment))
    } else {
        transport::parse(bytes, ip.protocol, segment)
    };
    Ok(Packet { ip, segment, transport })
}

/// Names the extension headers that the parser went through, and reads what flows do not need of them.
fn extensions(bytes: &[u8], ip: &mut Ip) {
    const HOP_BY_HOP: u8 = 0;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const JUMBO: [u8; 2] = [0xC2, 4];
    let fixed = if ip.version == 4 { 0 } else { IPV6 };
    let header = (&bytes).array::<1>(ip.at).map_or(0, |[octet]| u32::from(octet & 0xF) * 4);
    let mut at = ip.at + if fixed == 0 { header } else { fixed };
    let mut kind = ip.names;
    while at < ip.next {
        let Some([next, length, f0, f1, rest @ ..]) = (&bytes).array::<8>(at) else { return };
        ip.extensions.push(kind);
        match kind {
            FRAGMENT if ip.fragment.is_none() => {
                let field = u16::from_be_bytes([f0, f1]);
                let (offset, more) = (u32::from(field & 0xFFF8), field & 1 != 0);
                ip.fragment = Some(Fragment { id: u32::from_be_bytes(rest), offset, more });
            }
            HOP_BY_HOP if length == 0 && [f0, f1] == JUMBO => ip.jumbo = Some(u32::from_be_bytes(rest)),
            _ => {}
        }
        at += match kind {
            FRAGMENT => 8,
            AUTHENTICATION => (u32::from(length) + 2) * 4,
            _ => (u32::from(length) + 1) * 8,
        };
        kind = next;
    }
}

fn layer4(bytes: &[u8], packet: &Packet, transport: &Transport) -> Option<Layer4> {
    let at = packet.segment.start;
    let bytes = &bytes;
    let [p0, p1, p2, p3] = transport.ports;
    let nothing = Layer4 { ports: None, tcp_flags: None, icmp: None };
    match transport.kind {
        ports::FRAGMENT => None,
        ports::ICMP => Some(Layer4 { icmp: Some((p0, p1)), ..nothing }),
        ports::ECHO => {
            let [kind, code] = bytes.array(at)?;
            Some(Layer4 { icmp: Some((kind, code)), ..nothing })
        }
        _ => {
            // What is no TCP has no flags, and what has no ports has none of another's.
            let flags = (transport.protocol == TCP).then(|| bytes.number(at + 12)).flatten();
            let ports = has_ports(transport.protocol)
                .then_some((u16::from_be_bytes([p0, p1]), u16::from_be_bytes([p2, p3])));
            Some(Layer4 { ports, tcp_flags: flags.map(|it| it & 0xFFF), ..nothing })
        }
    }
}

/// The ids of the tags and the labels that lie before the network layer, or before what is not understood.
fn between(bytes: &[u8], kind: u16) -> (Vec<u16>, Vec<u32>) {
    const ENTRY: u32 = 4;
    const LABEL_SHIFT: u32 = 12;
    const BOTTOM_OF_STACK: u32 = 1 << 8;
    let (ethertype_at, mut at) = match kind {
        links::ETHERNET => (12, 14),
        links::LINUX_SLL => (14, 16),
        links::LINUX_SLL2 => (0, 20),
        _ => return (Vec::new(), Vec::new()),
    };
    let bytes = &bytes;
    let mut ethertype = bytes.number(ethertype_at).unwrap_or(0);
    let vlans = tags(bytes, &mut ethertype, &mut at);
    if ethertype < ethernet::FIRST_ETHERTYPE
        && let Ok((behind, next)) = llc::ethertype(bytes, at)
    {
        (ethertype, at) = (behind, next);
    }
    let mut labels = Vec::new();
    while mpls::is_mpls(ethertype)
        && let Some(entry) = bytes.array(at).map(u32::from_be_bytes)
    {
        labels.push(entry >> LABEL_SHIFT);
        at += ENTRY;
        if entry & BOTTOM_OF_STACK != 0 {
            break;
        }
    }
    (vlans, labels)
}

/// The ids of the tags that begin at `at`; that and the Ethertype become what comes behind them.
fn tags(bytes: &[u8], ethertype: &mut u16, at: &mut u32) -> Vec<u16> {
    let mut ids = Vec::new();
    while ethernet::is_tag(*ethertype)
        && let Some([control0, control1, next0, next1]) = (&bytes).array(*at)
    {
        ids.push(u16::from_be_bytes([control0, control1]) & ethernet::VLAN_ID);
        *ethertype = u16::from_be_bytes([next0, next1]);
        *at += 4;
    }
    ids
}

/// What a tunnel's packet carries. Of a first fragment, what of it is there.
fn inner(bytes: &[u8], transport: &Transport, frame: Frame) -> Option<Inner> {
    let [_, _, p2, p3] = transport.ports;
    if transport.kind != ports::TRANSPORT {
        return None;
    }
    let port = u16::from_be_bytes([p2, p3]);
    let Inside { kind, id, frame: begin, packet: at } =
        tunnel::inside(&bytes, transport.protocol, port, transport.headers)?;
    let [version_length] = (&bytes).array(at)?;
    let ethertype = if version_length >> 4 == 4 { ETHERTYPE_IPV4 } else { ethernet::ETHERTYPE_IPV6 };
    let vlans = if begin == at {
        Vec::new()
    } else {
        let mut ethertype = (&bytes).number(begin + 12).unwrap_or(0);
        tags(bytes, &mut ethertype, &mut (begin + 14))
    };
    let inner = Inner { kind, id, vlans, ip: None, layer4: None, unparsed: None };
    Some(match packet(bytes, ethertype, at, frame) {
        Err(reason) => Inner { unparsed: Some(reason), ..inner },
        Ok(packet) => {
            let layer4 = packet.transport.ok().and_then(|transport| layer4(bytes, &packet, &transport));
            Inner { unparsed: packet.transport.err(), layer4, ip: Some(packet.ip), ..inner }
        }
    })
}

/// What an ICMP error quotes.
fn quoted(bytes: &[u8], transport: &Transport) -> Option<Ends> {
    let [kind, ..] = transport.ports;
    if transport.kind != ports::ICMP || !quote::is_error(transport.protocol, kind) {
        return None;
    }
    let at = transport.headers;
    let (source, destination, transport): (IpAddr, IpAddr, _) = match transport.protocol {
        ICMP => quote::ipv4(&bytes, at).map(|ip| (ip.source.into(), ip.destination.into(), ip.transport))?,
        ICMPV6 => {
            quote::ipv6(&bytes, at).map(|ip| (ip.source.into(), ip.destination.into(), ip.transport))?
        }
        _ => return None,
    };
    let Transport { protocol, kind, ports: [p0, p1, p2, p3], .. } = transport;
    let has_ports = kind == ports::TRANSPORT && has_ports(protocol);
    let ports = has_ports.then_some((u16::from_be_bytes([p0, p1]), u16::from_be_bytes([p2, p3])));
    Some(Ends { source, destination, protocol, ports })
}

#[cfg(test)]
mod tests;
