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
    event::{Captured, DropClass, LinkType, PacketEvent, PacketReport, Text, reason},
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
        length: read.length,
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
        ifindex: record.ifindex,
        interface,
        event: what_happened(record),
        drop_reason: drop_reason(record),
        drop_place: "".into(),
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
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    /// Where the IP header begins.
    start: usize,
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
            return Self { start: header, ..Self::default() };
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
        read.map_or(Self { start, ..Self::default() }, |read| Self { start, ..read })
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use collector_ebpf::abi::{
        packet::{PacketRecord, event, link},
        pu::index,
    };

    use super::{captured, report};
    use crate::{
        clock::Moment,
        drain::decode::Packet,
        event::{LinkType, PacketEvent, PacketReport, Time},
        pu::registry::{Declared, Registry},
    };

    const ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    const MOMENT: Moment = Moment { jiffies: 0, boot_ns: 100, wall_ns: 1_000_100, hz: 250 };

    fn units() -> Registry {
        let (id, namespace, tags) = ("web".to_owned(), "/n".to_owned(), vec!["a=b".to_owned()]);
        Registry::new(&[Declared { id, namespace, tags, ..Declared::default() }]).unwrap()
    }

    /// An IPv4 header with this length field (RFC 791 section 3.1).
    fn ipv4(protocol: u8, length: u16) -> Vec<u8> {
        let [high, low] = length.to_be_bytes();
        vec![0x45, 0, high, low, 0xBE, 0xEF, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
    }

    fn ipv6(next: u8, length: u16) -> Vec<u8> {
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(length.to_be_bytes());
        header.extend([next, 64]);
        for last in [1, 2] {
            header.extend([0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        header
    }

    /// Ports 40,000 and 443, SYN and ACK, no options (RFC 9293 section 3.1).
    fn tcp() -> Vec<u8> {
        vec![0x9C, 0x40, 0x01, 0xBB, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x12, 0, 9, 0, 0, 0, 0]
    }

    fn frame(ethertype: u16, packet: &[u8]) -> Vec<u8> {
        [&ADDRESSES[..], &ethertype.to_be_bytes(), packet].concat()
    }

    fn seen(octets: Vec<u8>, record: PacketRecord) -> Packet {
        let length = octets.len() as u32;
        Packet {
            record: PacketRecord {
                length: length.max(record.length),
                captured: length,
                packets: record.packets.max(1),
                event: record.event.max(event::RECEIVED),
                ..record
            },
            octets: octets.into(),
        }
    }

    fn of(octets: Vec<u8>, record: PacketRecord) -> PacketReport {
        report(&seen(octets, record), 64, "eth0".into(), &units(), &MOMENT)
    }

    #[test]
    fn all_that_a_packet_says_stands_in_its_report() {
        let packet = [ipv4(6, 140), tcp(), vec![7; 100]].concat();
        let record = PacketRecord {
            boot_ns: 107,
            mark: 9,
            pu: index::FIRST,
            event: event::TRANSMITTED,
            ..PacketRecord::default()
        };
        let expected = PacketReport {
            tcp_flags: 0x12,
            claims: vec!["a=b".into()],
            destination_ip: Some([10, 0, 0, 2].into()),
            destination_port: 443,
            event: PacketEvent::Transmitted,
            length: 140,
            mark: 9,
            namespace: "/n".into(),
            packet_id: 0xBEEF,
            protocol: 6,
            puid: "web".into(),
            source_ip: Some([10, 0, 0, 1].into()),
            source_port: 40_000,
            trireme_packet: true,
            packets: 1,
            interface: "eth0".into(),
            payload: Bytes::copy_from_slice(&packet[..64]),
            ts: Time::from_unix_nanos(1_000_107),
            ..PacketReport::default()
        };
        assert_eq!(of(frame(0x0800, &packet), record), expected);
        let raw = PacketRecord { link: link::RAW_IP, ..record };
        assert_eq!(of(packet.clone(), raw), expected);
        // Cut behind the ports and flags: no more is needed.
        let cut = PacketReport { payload: Bytes::copy_from_slice(&packet[..34]), ..expected };
        assert_eq!(of(frame(0x0800, &packet[..34]), PacketRecord { length: 154, ..record }), cut);
    }

    #[test]
    fn ipv6_has_no_identification_and_its_header_counts() {
        let packet = [ipv6(6, 20), tcp()].concat();
        let told = of(frame(0x86DD, &packet), PacketRecord { pu: index::HOST, ..PacketRecord::default() });
        assert_eq!((told.length, told.packet_id, told.destination_port), (60, 0, 443));
        assert_eq!((&*told.puid, told.trireme_packet), ("host", false), "nobody declares the host");
        assert_eq!(told.payload, packet);
        let empty = of(frame(0x86DD, &ipv6(59, 0)), PacketRecord::default());
        assert_eq!((empty.length, empty.protocol), (40, 59), "no next header (RFC 8200 section 4.7)");
    }

    #[test]
    fn a_super_packet_that_is_too_long_for_its_header_is_as_long_as_its_buffer() {
        let record = PacketRecord { packets: 100, length: 14 + 100_000, ..PacketRecord::default() };
        for (ethertype, packet) in
            [(0x0800, [ipv4(6, 0), tcp()].concat()), (0x86DD, [ipv6(6, 0), tcp()].concat())]
        {
            let told = of(frame(ethertype, &packet), record);
            assert_eq!((told.length, told.destination_port, told.tcp_flags), (100_000, 443, 0x12));
        }
    }

    #[test]
    fn what_pads_a_short_frame_is_no_payload() {
        let packet = [ipv4(17, 28), vec![0, 53, 0, 54, 0, 8, 0, 0]].concat();
        let padded = [&packet[..], &[0; 18]].concat();
        let told = of(frame(0x0800, &padded), PacketRecord::default());
        assert_eq!((told.source_port, told.destination_port, told.payload.len()), (53, 54, 28));
    }

    #[test]
    fn what_has_no_ports_shows_none() {
        // An echo request, whose identifier stands where the programs keep ports, and a later fragment.
        let mut fragment = ipv4(17, 28);
        fragment[6..8].copy_from_slice(&[0, 9]);
        for (packet, protocol) in [(ipv4(1, 28), 1), (fragment, 17)] {
            let told =
                of(frame(0x0800, &[packet, vec![8, 0, 0, 0, 1, 2, 3, 4]].concat()), PacketRecord::default());
            assert_eq!((told.protocol, told.source_port, told.destination_port), (protocol, 0, 0));
            assert!(told.source_ip.is_some());
        }
    }

    #[test]
    fn what_is_not_understood_is_told_as_far_as_it_is() {
        // A UDP length beyond the packet: the header before it is sound.
        let told = of(
            frame(0x0800, &[ipv4(17, 28), vec![0, 53, 0, 54, 9, 9, 0, 0]].concat()),
            PacketRecord::default(),
        );
        assert_eq!((told.length, told.protocol, told.destination_port), (28, 17, 0));
        let arp = [0, 1, 8, 0, 6, 4, 0, 1];
        let told = of(frame(0x0806, &arp), PacketRecord::default());
        assert_eq!((told.source_ip, told.length, told.protocol), (None, 0, 0));
        assert_eq!(told.payload, arp[..]);
        for octets in [vec![], vec![1, 2, 3], frame(0x0800, &[]), frame(0x86DD, &[0x60]), frame(0x8100, &[])]
        {
            let told = of(octets, PacketRecord { length: 60, ..PacketRecord::default() });
            assert_eq!((told.source_ip, told.length), (None, 0));
        }
        let unknown = PacketRecord { link: link::NONE, length: 60, ..PacketRecord::default() };
        assert!(of(vec![1, 2, 3], unknown).payload.is_empty());
    }

    #[test]
    fn a_drop_is_told_as_one() {
        let told = of(
            frame(0x0800, &ipv4(6, 20)),
            PacketRecord { event: event::DROPPED, ..PacketRecord::default() },
        );
        assert_eq!((told.event, &*told.drop_reason), (PacketEvent::Dropped, "packetdrop"));
    }

    #[test]
    fn the_tag_beside_a_frame_stands_in_the_captured_one() {
        let packet = ipv4(6, 20);
        let record = PacketRecord {
            boot_ns: 107,
            ifindex: 3,
            pu: index::FIRST,
            vlan_tci: 0x2064,
            vlan_protocol: 0x88A8_u16.to_be(),
            ..PacketRecord::default()
        };
        let seen = seen(frame(0x0800, &packet), record);
        let whole = captured(&seen, 1000, "eth0".into(), &units(), &MOMENT).unwrap();
        assert_eq!(whole.bytes, [&ADDRESSES[..], &[0x88, 0xA8, 0x20, 0x64, 8, 0], &packet].concat());
        assert_eq!((whole.length, whole.link, whole.ifindex), (38, LinkType::Ethernet, 3));
        assert_eq!((&*whole.interface, &*whole.puid), ("eth0", "web"));
        assert_eq!(whole.time.as_unix_nanos(), 1_000_107);
        let cut = captured(&seen, 16, "".into(), &units(), &MOMENT).unwrap();
        assert_eq!((&cut.bytes[..], cut.length), (&whole.bytes[..16], 38));
        let told = report(&seen, 64, "".into(), &units(), &MOMENT);
        assert_eq!(told.payload, packet, "the report begins behind it");
    }

    #[test]
    fn a_frame_without_a_tag_is_captured_as_it_is() {
        let octets = frame(0x0800, &ipv4(6, 20));
        let whole =
            captured(&seen(octets.clone(), PacketRecord::default()), 1000, "".into(), &units(), &MOMENT);
        assert_eq!(whole.map(|it| (it.bytes, it.length)), Some((octets.into(), 34)));
        let raw = PacketRecord { link: link::RAW_IP, vlan_protocol: 0x0081, ..PacketRecord::default() };
        let whole = captured(&seen(ipv4(6, 20), raw), 1000, "".into(), &units(), &MOMENT).unwrap();
        assert_eq!((whole.link, &whole.bytes[..]), (LinkType::RawIp, &ipv4(6, 20)[..]));
        let unknown = PacketRecord { link: link::NONE, ..PacketRecord::default() };
        assert_eq!(captured(&seen(vec![1], unknown), 1000, "".into(), &units(), &MOMENT), None);
    }
}
