//! Whole frames: what holds for every one of them, wherever it is cut and whatever is written over it.

use std::{vec, vec::Vec};

use proptest::{collection, prelude::*, sample};

use super::{Addresses, Frame, Link, Packet, ethernet, frames, short, transport::Echo};
use crate::abi::{counter::Unparsed, flow::ports};

const IPV4: u16 = ethernet::ETHERTYPE_IPV4;
const IPV6: u16 = ethernet::ETHERTYPE_IPV6;

/// Reads a frame in both forms; where the short one reads it, both must say the same.
pub(super) fn read(bytes: &[u8], link: Link, frame: Frame) -> Result<Packet, Unparsed> {
    let result = super::parse(&bytes, link, frame);
    if link == Link::Ethernet
        && let Some(short) = read_short(bytes, frame.length)
    {
        assert_eq!(result, Ok(short), "the short form reads {bytes:02x?} otherwise");
    }
    result
}

fn read_short(bytes: &[u8], length: u32) -> Option<Packet> {
    let four = short::ipv4(&bytes, length).map(|ip| Packet {
        vlan: 0,
        addresses: Addresses::V4(ip.source, ip.destination),
        transport: ip.transport,
        jumbo: false,
        piece: ip.piece,
    });
    let six = short::ipv6(&bytes, length).map(|ip| Packet {
        vlan: 0,
        addresses: Addresses::V6(ip.source, ip.destination),
        transport: ip.transport,
        jumbo: ip.jumbo,
        piece: ip.piece,
    });
    assert!(four.is_none() || six.is_none(), "{bytes:02x?} is one or the other");
    four.or(six)
}

fn whole(bytes: &[u8], gso: bool) -> Frame {
    Frame { length: bytes.len() as u32, gso }
}

/// A frame and what it is read as: the protocol, or why not.
struct Sample {
    name: &'static str,
    link: Link,
    gso: bool,
    bytes: Vec<u8>,
    expected: Result<u8, Unparsed>,
}

/// One of each kind, none with padding behind its packet.
fn samples() -> Vec<Sample> {
    use frames::{
        AH, C_TAG, ESP, EXPERIMENT, GRE, ICMP, ICMPV6, IGMP, NO_NEXT_HEADER, S_TAG, SCTP, TCP, UDP, UDP_LITE,
        arp, authentication, ethernet, extension, fragment, icmp, ipv4_with, jumbo, mpls, pppoe, sctp, snap,
        tcp, udp, udp_with,
    };
    let four = |protocol, payload: &[u8]| ethernet(&[], IPV4, &frames::ipv4(protocol, payload));
    let six = |next, parts: &[&[u8]]| ethernet(&[], IPV6, &frames::ipv6(next, &frames::join(parts)));
    let tagged = |tags: &[(u16, u16)]| ethernet(tags, IPV4, &frames::ipv4(UDP, &udp(9)));
    let fragment4 = |field, payload: &[u8]| ethernet(&[], IPV4, &ipv4_with(&[], field, UDP, payload));
    let mut no_total = four(TCP, &tcp(0x10, &[]));
    no_total[16..18].fill(0);
    let mut no_payload = six(TCP, &[&tcp(0x10, &[])]);
    no_payload[18..20].fill(0);
    let udp_jumbo = six(0, &[&jumbo(UDP, 70_008), &udp_with(0, 69_992)]);
    let llc = ethernet(&[], 7, &[0x42, 0x42, 0x03, 0, 0, 0, 0]);

    let mut samples = vec![];
    let mut add = |name, link, gso, bytes, expected| {
        samples.push(Sample { name, link, gso, bytes, expected });
    };
    let mut frame = |name, bytes, expected| add(name, Link::Ethernet, false, bytes, expected);
    frame("TCP over IPv4", four(TCP, &tcp(0x10, &[])), Ok(TCP));
    frame("TCP with options over IPv4", four(TCP, &tcp(0x02, &[1; 40])), Ok(TCP));
    frame("UDP over IPv4", four(UDP, &udp(30)), Ok(UDP));
    frame("ICMP", four(ICMP, &icmp(8, 0)), Ok(ICMP));
    frame("SCTP over IPv4", four(SCTP, &sctp()), Ok(SCTP));
    frame("an unknown protocol", four(EXPERIMENT, b"anything"), Ok(EXPERIMENT));
    frame("IPv4 with options", ethernet(&[], IPV4, &ipv4_with(&[1; 12], 0, UDP, &udp(3))), Ok(UDP));
    frame("a first fragment", fragment4(0x2000, &udp_with(3000, 16)), Ok(UDP));
    frame("a later fragment", fragment4(0x2003, &[0x55; 24]), Ok(UDP));
    frame("one tag", tagged(&[(C_TAG, 100)]), Ok(UDP));
    frame("two tags", tagged(&[(S_TAG, 200), (C_TAG, 100)]), Ok(UDP));
    frame("three tags", tagged(&[(S_TAG, 1), (C_TAG, 2), (C_TAG, 3)]), Ok(UDP));
    frame("five tags", tagged(&[(C_TAG, 1); 5]), Err(Unparsed::VlanDepth));
    frame("SNAP", ethernet(&[], 100, &snap(IPV4, &frames::ipv4(UDP, &udp(9)))), Ok(UDP));
    frame("PPPoE", ethernet(&[], 0x8864, &pppoe(0x21, &frames::ipv4(UDP, &udp(9)))), Ok(UDP));
    let six_in_session = pppoe(0x57, &frames::ipv6(UDP, &udp(9)));
    frame("PPPoE of IPv6", ethernet(&[(C_TAG, 7)], 0x8864, &six_in_session), Ok(UDP));
    let link_control = pppoe(0xC021, &[9, 0, 0, 8, 0, 0, 0, 0]);
    frame("PPPoE of LCP", ethernet(&[], 0x8864, &link_control), Err(Unparsed::PppPayload));
    let labelled = |labels, payload: &[u8]| ethernet(&[], 0x8847, &mpls(labels, payload));
    frame("IPv4 behind one label", labelled(1, &frames::ipv4(UDP, &udp(9))), Ok(UDP));
    frame("IPv6 behind three labels", labelled(3, &frames::ipv6(TCP, &tcp(0x10, &[]))), Ok(TCP));
    frame("a pseudowire", labelled(2, &[0; 40]), Err(Unparsed::MplsPayload));
    frame("too many labels", labelled(9, &frames::ipv4(UDP, &udp(9))), Err(Unparsed::MplsDepth));
    let authenticated = frames::join(&[&authentication(UDP, 3), &udp(7)]);
    frame("AH over IPv4", four(AH, &authenticated), Ok(UDP));
    frame("UDP-Lite", four(UDP_LITE, &udp_with(8, 20)), Ok(UDP_LITE));
    frame("UDP-Lite over IPv6", six(UDP_LITE, &[&udp_with(0, 20)]), Ok(UDP_LITE));
    let coverage = four(UDP_LITE, &udp_with(40, 20));
    frame("UDP-Lite with too large a coverage", coverage, Err(Unparsed::ChecksumCoverage));
    frame("GRE", four(GRE, &[0, 0, 0x08, 0x00]), Ok(GRE));
    frame("IGMP", four(IGMP, &[0x16, 0, 0, 0, 224, 0, 0, 251]), Ok(IGMP));
    frame("IPv4 in IPv4", four(4, &frames::ipv4(UDP, &udp(3))), Ok(4));
    frame("IPv6 in IPv4", four(41, &frames::ipv6(UDP, &udp(3))), Ok(41));
    frame("ARP", ethernet(&[], 0x0806, &arp()), Err(Unparsed::Arp));
    frame("LLC", llc, Err(Unparsed::Llc));
    frame("an unknown Ethertype", ethernet(&[], 0x88CC, &[2, 7, 4]), Err(Unparsed::EtherType));
    frame("TCP over IPv6", six(TCP, &[&tcp(0x12, &[1; 12])]), Ok(TCP));
    frame("UDP over IPv6", six(UDP, &[&udp(0)]), Ok(UDP));
    frame("ICMP for IPv6", six(ICMPV6, &[&icmp(135, 0)]), Ok(ICMPV6));
    frame("SCTP over IPv6", six(SCTP, &[&sctp()]), Ok(SCTP));
    frame("ESP", six(ESP, &[b"ciphertext"]), Ok(ESP));
    frame("nothing", six(NO_NEXT_HEADER, &[]), Ok(NO_NEXT_HEADER));
    let chain: [&[u8]; 6] = [
        &extension(60, 0),
        &extension(43, 1),
        &extension(44, 2),
        &fragment(51, 0, true),
        &authentication(UDP, 3),
        &udp_with(3000, 4),
    ];
    frame("a chain", six(0, &chain), Ok(UDP));
    frame("a later fragment over IPv6", six(44, &[&fragment(TCP, 64, false), &[0x55; 9]]), Ok(TCP));
    frame("a jumbogram", udp_jumbo.clone(), Ok(UDP));
    add("raw IPv4", Link::RawIp, false, frames::ipv4(UDP, &udp(5)), Ok(UDP));
    add("raw IPv6", Link::RawIp, false, frames::ipv6(TCP, &tcp(0x18, &[])), Ok(TCP));
    add("raw something", Link::RawIp, false, vec![0x50; 40], Err(Unparsed::IpVersion));
    add("a super-packet over IPv4", Link::Ethernet, true, no_total, Ok(TCP));
    add("a super-packet over IPv6", Link::Ethernet, true, no_payload, Ok(TCP));
    add("a super-packet with the jumbo option", Link::Ethernet, true, udp_jumbo, Ok(UDP));
    samples
}

#[test]
fn every_sample_is_read() {
    for Sample { name, link, gso, bytes, expected } in samples() {
        let packet = read(&bytes, link, whole(&bytes, gso));
        assert_eq!(packet.map(|it| it.transport.protocol), expected, "{name}");
    }
}

#[test]
fn the_short_form_reads_what_it_is_for() {
    for (name, short) in [
        ("TCP over IPv4", true),
        ("TCP with options over IPv4", true),
        ("UDP over IPv4", true),
        ("TCP over IPv6", true),
        ("UDP over IPv6", true),
        ("ICMP", false),
        ("SCTP over IPv6", false),
        ("IPv4 with options", false),
        ("a first fragment", false),
        ("a chain", false),
        ("one tag", false),
        ("a super-packet over IPv4", false),
        ("a super-packet over IPv6", false),
    ] {
        let sample = samples().into_iter().find(|it| it.name == name).expect("the name of a sample");
        let result = read_short(&sample.bytes, sample.bytes.len() as u32);
        assert_eq!(result.is_some(), short, "{name}: {result:?}");
    }
}

/// Every octet of the headers with every value, and every length that a capture may end at.
#[test]
fn the_short_form_says_what_the_long_one_says_whatever_stands_in_a_header() {
    let mut read_by_both = 0u32;
    for Sample { bytes, .. } in samples().into_iter().filter(|it| it.link == Link::Ethernet && !it.gso) {
        let length = bytes.len() as u32;
        for at in 12..bytes.len().min(100) {
            let mut bytes = bytes.clone();
            for value in 0..=u8::MAX {
                bytes[at] = value;
                for frame in [length, length - 1, length + 1] {
                    let _ = read(&bytes, Link::Ethernet, Frame { length: frame, gso: false });
                    read_by_both += u32::from(read_short(&bytes, frame).is_some());
                }
            }
        }
        for shown in 0..bytes.len().min(100) {
            let _ = read(&bytes[..shown], Link::Ethernet, Frame { length, gso: false });
        }
    }
    assert!(read_by_both > 100_000, "{read_by_both} frames were compared");
}

#[test]
fn a_frame_that_ends_early_is_refused_by_name() {
    for Sample { name, link, gso, bytes, expected } in samples() {
        for length in 0..bytes.len().min(400) {
            let cut = &bytes[..length];
            let result = read(cut, link, whole(cut, gso));
            match (result, expected) {
                (Err(Unparsed::Truncated | Unparsed::IpLength), _) => {}
                // A super-packet's length is the frame's.
                (Ok(packet), Ok(protocol)) if gso => {
                    assert_eq!(packet.transport.protocol, protocol, "{name}");
                }
                _ => assert_eq!(result.map(|it| it.transport.protocol), expected, "{name}, {length} octets"),
            }
            if expected.is_ok() && !gso {
                assert!(result.is_err(), "{name} was read from {length} octets of {}", bytes.len());
            }
        }
    }
}

#[test]
fn a_frame_that_is_shown_in_part_reads_the_same_or_not_at_all() {
    for Sample { name, link, gso, bytes, .. } in samples() {
        let all = read(&bytes, link, whole(&bytes, gso));
        for shown in 0..bytes.len().min(400) {
            let result = read(&bytes[..shown], link, whole(&bytes, gso));
            if result != Err(Unparsed::Truncated) {
                assert_eq!(result, all, "{name}, {shown} octets shown");
            }
        }
    }
}

#[test]
fn a_packet_has_everything_that_its_frame_says() {
    let bytes = frames::ethernet(
        &[(frames::S_TAG, 0x6000 | 0x12C), (frames::C_TAG, 7)],
        IPV6,
        &frames::ipv6(0, &frames::join(&[&frames::extension(frames::TCP, 0), &frames::tcp(0x11, &[1; 4])])),
    );
    let packet = read(&bytes, Link::Ethernet, whole(&bytes, false)).expect("a frame without fault");
    assert_eq!(packet.vlan, 0x12C);
    assert_eq!(packet.addresses, Addresses::V6(frames::SOURCE_6, frames::DESTINATION_6));
    let transport = packet.transport;
    assert_eq!((transport.protocol, transport.kind), (frames::TCP, ports::TRANSPORT));
    assert_eq!((transport.ports, transport.tcp_flags), (frames::PORTS, 0x11));
    assert_eq!((transport.echo, transport.headers), (Echo::None, 14 + 8 + 40 + 8 + 24));
    assert!(!packet.jumbo);
}

#[test]
fn frames_of_one_octet_repeated() {
    for octet in [0x00, 0xFF, 0x45, 0x60] {
        for length in [0, 1, 13, 14, 60, 1514, 65_536] {
            let bytes = vec![octet; length];
            for link in [Link::Ethernet, Link::RawIp] {
                for gso in [false, true] {
                    let _ = read(&bytes, link, whole(&bytes, gso));
                }
            }
        }
    }
    let zeros = [0; 60];
    assert_eq!(read(&zeros, Link::Ethernet, whole(&zeros, false)), Err(Unparsed::Llc));
    let ones = [0xFF; 60];
    assert_eq!(read(&ones, Link::Ethernet, whole(&ones, false)), Err(Unparsed::EtherType));
}

fn link() -> impl Strategy<Value = Link> {
    sample::select(&[Link::Ethernet, Link::RawIp])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn any_octets_are_read_or_refused(
        bytes in collection::vec(any::<u8>(), 0..200),
        hidden in 0u32..100,
        link in link(),
        gso: bool,
    ) {
        let _ = read(&bytes, link, Frame { length: bytes.len() as u32 + hidden, gso });
    }

    /// Octets behind a first one that leads to a parser.
    #[test]
    fn any_packet_is_read_or_refused(
        mut bytes in collection::vec(any::<u8>(), 1..120),
        first in sample::select(&[0x45u8, 0x46, 0x4F, 0x60]),
        gso: bool,
    ) {
        bytes[0] = first;
        let _ = read(&bytes, Link::RawIp, whole(&bytes, gso));
    }

    #[test]
    fn a_sample_that_is_written_over_is_read_or_refused(
        which in any::<sample::Index>(),
        changes in collection::vec((0usize..120, any::<u8>()), 1..5),
        shown in 1usize..200,
        gso: bool,
    ) {
        let samples = samples();
        let Sample { link, bytes, .. } = which.get(&samples);
        let mut bytes = bytes[..shown.min(bytes.len())].to_vec();
        for (at, octet) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = octet;
            }
        }
        if let Ok(packet) = read(&bytes, *link, whole(&bytes, gso)) {
            let transport = packet.transport;
            // Only a first fragment's TCP options may lie behind its end.
            prop_assert!(transport.headers <= bytes.len() as u32 || transport.protocol == frames::TCP);
            prop_assert!((ports::TRANSPORT..=ports::FRAGMENT).contains(&transport.kind));
            prop_assert!(transport.tcp_flags == 0 || transport.protocol == frames::TCP);
        }
    }
}
