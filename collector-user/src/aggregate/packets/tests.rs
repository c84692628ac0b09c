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
    let told =
        of(frame(0x0800, &[ipv4(17, 28), vec![0, 53, 0, 54, 9, 9, 0, 0]].concat()), PacketRecord::default());
    assert_eq!((told.length, told.protocol, told.destination_port), (28, 17, 0));
    let arp = [0, 1, 8, 0, 6, 4, 0, 1];
    let told = of(frame(0x0806, &arp), PacketRecord::default());
    assert_eq!((told.source_ip, told.length, told.protocol), (None, 22, 0));
    assert_eq!((&*told.ethertype, &told.payload[..]), ("arp", &arp[..]));
    for (octets, want) in [
        (frame(0x88CC, &[0; 46]), "lldp"),
        (frame(0x88B5, &[0; 46]), "0x88b5"),
        // To a bridge group, by LLC.
        (frame(38, &[0x42, 0x42, 3]), "llc"),
        (frame(0x8100, &[0, 5, 0x08, 0x06]), "arp"),
        (frame(0x0800, &ipv4(6, 20)), ""),
        (frame(0x86DD, &[0x60]), ""),
    ] {
        let length = octets.len() as u32;
        let told = of(octets, PacketRecord::default());
        assert_eq!(&*told.ethertype, want);
        assert!(told.length == length || want.is_empty(), "{told:?}");
    }
    for octets in [vec![], vec![1, 2, 3], frame(0x0800, &[]), frame(0x86DD, &[0x60]), frame(0x8100, &[])] {
        let told = of(octets, PacketRecord { length: 60, ..PacketRecord::default() });
        assert_eq!((told.source_ip, told.length), (None, 60));
    }
    let unknown = PacketRecord { link: link::NONE, length: 60, ..PacketRecord::default() };
    assert!(of(vec![1, 2, 3], unknown).payload.is_empty());
}

#[test]
fn a_drop_is_told_as_one() {
    let told =
        of(frame(0x0800, &ipv4(6, 20)), PacketRecord { event: event::DROPPED, ..PacketRecord::default() });
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
    let whole = captured(&seen(octets.clone(), PacketRecord::default()), 1000, "".into(), &units(), &MOMENT);
    assert_eq!(whole.map(|it| (it.bytes, it.length)), Some((octets.into(), 34)));
    let raw = PacketRecord { link: link::RAW_IP, vlan_protocol: 0x0081, ..PacketRecord::default() };
    let whole = captured(&seen(ipv4(6, 20), raw), 1000, "".into(), &units(), &MOMENT).unwrap();
    assert_eq!((whole.link, &whole.bytes[..]), (LinkType::RawIp, &ipv4(6, 20)[..]));
    let unknown = PacketRecord { link: link::NONE, ..PacketRecord::default() };
    assert_eq!(captured(&seen(vec![1], unknown), 1000, "".into(), &units(), &MOMENT), None);
}
