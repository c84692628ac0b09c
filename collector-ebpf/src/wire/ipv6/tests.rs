use std::{vec, vec::Vec};

use super::{Ipv6, ends, parse};
use crate::{
    abi::{counter::Unparsed, flow::ports},
    wire::{
        Frame, UNKNOWN,
        frames::{
            DESTINATION_6, ESP, EXPERIMENT, ICMPV6, NO_NEXT_HEADER, PORTS, SOURCE_6, TCP, UDP,
            authentication, extension, fragment, icmp, ipv6, join, jumbo, tcp, udp, udp_with,
        },
    },
};

fn read(packet: &[u8]) -> Result<Ipv6, Unparsed> {
    read_of(packet, Frame { length: packet.len() as u32, gso: false })
}

fn read_of(packet: &[u8], frame: Frame) -> Result<Ipv6, Unparsed> {
    parse(&packet, 0, frame)
}

fn chain(first: u8, headers: &[&[u8]]) -> Result<Ipv6, Unparsed> {
    read(&ipv6(first, &join(headers)))
}

/// Where the transport header ends, of a chain that was read to a UDP header.
fn end(result: Result<Ipv6, Unparsed>) -> Result<u32, Unparsed> {
    result.map(|ip| {
        assert_eq!((ip.source, ip.destination), (SOURCE_6, DESTINATION_6));
        assert_eq!((ip.transport.protocol, ip.transport.ports), (UDP, PORTS));
        ip.transport.headers
    })
}

#[test]
fn no_extension_header() {
    assert_eq!(end(chain(UDP, &[&udp(4)])), Ok(48));
}

#[test]
fn traffic_class_and_flow_label_do_not_matter() {
    let mut packet = ipv6(UDP, &udp(4));
    packet[..4].copy_from_slice(&[0x6F, 0xFF, 0xFF, 0xFF]);
    assert_eq!(end(read(&packet)), Ok(48));
}

#[test]
fn a_version_that_is_not_6() {
    for version in (0..16).filter(|it| *it != 6) {
        let mut packet = ipv6(UDP, &udp(4));
        packet[0] = version << 4;
        assert_eq!(read(&packet), Err(Unparsed::IpVersion), "{version}");
    }
}

#[test]
fn each_extension_header_at_several_lengths() {
    for kind in [0, 43, 60, 135] {
        for more in [0, 1, 31] {
            let result = chain(kind, &[&extension(UDP, more), &udp(4)]);
            assert_eq!(end(result), Ok(48 + 8 + 8 * u32::from(more)), "{kind}");
        }
    }
}

#[test]
fn an_authentication_header_counts_its_length_in_words() {
    for words in [0, 1, 3, 8] {
        let result = chain(51, &[&authentication(UDP, words), &udp(4)]);
        assert_eq!(end(result), Ok(48 + 12 + 4 * u32::from(words)), "{words}");
    }
}

#[test]
fn ends_of_what_is_not_understood() {
    let mut deep = vec![];
    for left in (0..9).rev() {
        deep.extend(extension(if left == 0 { UDP } else { 60 }, 0));
    }
    for (packet, protocol) in [
        (ipv6(UDP, &udp_with(0, 4)), UDP),
        (ipv6(60, &join(&[&deep, &udp(4)])), UNKNOWN),
        (ipv6(44, &join(&[&fragment(TCP, 0, true), &tcp(0x02, &[])[..8]])), UNKNOWN),
    ] {
        assert!(read(&packet).is_err());
        assert_eq!(ends(&packet.as_slice(), 0), Some((SOURCE_6, DESTINATION_6, protocol)));
    }
    assert_eq!(ends(&ipv6(UDP, &[])[..39].as_ref(), 0), None);
}

#[test]
fn a_chain_up_to_the_bound_and_beyond() {
    for depth in 1..=10 {
        let mut headers = vec![];
        for left in (0..depth).rev() {
            headers.extend(extension(if left == 0 { UDP } else { 60 }, 0));
        }
        let expected = if depth <= 8 { Ok(48 + 8 * depth) } else { Err(Unparsed::ExtensionDepth) };
        assert_eq!(end(chain(60, &[&headers, &udp(4)])), expected, "{depth}");
    }
}

#[test]
fn a_first_fragment_has_ports() {
    let ip = chain(44, &[&fragment(UDP, 0, true), &udp_with(4000, 16)]).expect("a first fragment");
    assert_eq!((ip.transport.ports, ip.transport.kind), (PORTS, ports::TRANSPORT));
    let result = chain(44, &[&fragment(60, 0, true), &extension(UDP, 0), &udp_with(4000, 16)]);
    assert_eq!(end(result), Ok(48 + 16));
}

#[test]
fn a_tcp_header_may_go_on_in_the_next_fragment() {
    let segment = &tcp(0x02, &[1; 20])[..24];
    let ip = chain(44, &[&fragment(TCP, 0, true), segment]).expect("a first fragment");
    assert_eq!((ip.transport.ports, ip.transport.tcp_flags), (PORTS, 0x02));
    assert_eq!(chain(44, &[&fragment(TCP, 0, false), segment]), Err(Unparsed::TcpDataOffset));
}

#[test]
fn an_atomic_fragment_is_whole() {
    assert_eq!(end(chain(44, &[&fragment(UDP, 0, false), &udp(4)])), Ok(56));
    let lying = chain(44, &[&fragment(UDP, 0, false), &udp_with(4000, 16)]);
    assert_eq!(lying, Err(Unparsed::UdpLength));
}

#[test]
fn a_fragment_in_a_fragment_is_the_outer_ones() {
    let numbered = |next, offset, more, id: u8| {
        let mut header = fragment(next, offset, more);
        header[4..].copy_from_slice(&[0, 0, 0, id]);
        header
    };
    for (inner_offset, inner_more) in [(0, false), (0, true), (8, true), (8, false)] {
        let inner = numbered(UDP, inner_offset, inner_more, 2);
        let ip = chain(44, &[&numbered(44, 0, true, 1), &inner, &udp(4)]).expect("a fragment");
        let piece = ip.piece.expect("a fragment");
        assert_eq!((piece.id, piece.first), (1, inner_offset == 0), "{inner_offset} {inner_more}");
    }
    // An atomic fragment is none (RFC 6946), whichever side of one it is on.
    for ids in [[(1, true), (2, false)], [(2, false), (1, true)]] {
        let [outer, inner] = ids.map(|(id, more)| numbered(44, 0, more, id));
        let last = extension(UDP, 0);
        let mut inner = inner;
        inner[0] = 60;
        let ip = chain(44, &[&outer, &inner, &last, &udp(4)]).expect("a fragment");
        assert_eq!(ip.piece.map(|it| (it.id, it.first)), Some((1, true)));
    }
}

#[test]
fn reserved_bits_make_no_fragment() {
    let mut header = fragment(UDP, 0, false);
    header[1] = 0xFF;
    header[3] |= 0x06;
    assert_eq!(end(chain(44, &[&header, &udp(4)])), Ok(56));
}

#[test]
fn later_fragments_have_a_protocol_only() {
    for more in [false, true] {
        for next in [TCP, UDP, 60, EXPERIMENT] {
            let ip = chain(0, &[&extension(44, 0), &fragment(next, 8, more), &[0xFF; 3]])
                .expect("a later fragment");
            assert_eq!((ip.transport.protocol, ip.transport.kind), (next, ports::FRAGMENT));
            assert_eq!((ip.transport.ports, ip.transport.headers), ([0; 4], 56));
        }
    }
}

#[test]
fn what_ends_a_chain() {
    for last in [NO_NEXT_HEADER, ESP, EXPERIMENT, 41, 47] {
        let ip = chain(0, &[&extension(last, 0), &[0xFF; 8]]).expect("a packet without ports");
        assert_eq!((ip.transport.protocol, ip.transport.kind), (last, ports::TRANSPORT));
        assert_eq!((ip.transport.ports, ip.transport.headers), ([0; 4], 48));
    }
    // Nothing behind it is what it says (RFC 8200 section 4.7).
    assert_eq!(chain(0, &[&extension(NO_NEXT_HEADER, 0)]).map(|it| it.transport.headers), Ok(48));
    assert_eq!(chain(NO_NEXT_HEADER, &[]).map(|it| it.transport.headers), Ok(40));
}

#[test]
fn icmp_behind_a_router_alert() {
    // A listener report (RFC 2710 section 3): the common case of a hop-by-hop header.
    let alert = [ICMPV6, 0, 5, 2, 0, 0, 1, 0];
    let ip = chain(0, &[&alert, &icmp(131, 0)]).expect("a packet without fault");
    assert_eq!((ip.transport.protocol, ip.transport.kind), (ICMPV6, ports::ICMP));
}

#[test]
fn a_chain_that_leaves_its_packet() {
    for last in [UDP, NO_NEXT_HEADER, ESP, EXPERIMENT] {
        // The header says 16 octets, the packet has 8; the frame would have them.
        let mut packet = ipv6(60, &extension(last, 0));
        packet[41] = 1;
        packet.resize(100, 0);
        assert_eq!(read(&packet), Err(Unparsed::Truncated), "{last}");
    }
    // A packet without payload, and a header in the padding.
    for kind in [0, 43, 44, 51, 60, 135] {
        let mut packet = ipv6(kind, &[]);
        packet.extend(extension(NO_NEXT_HEADER, 0));
        packet.resize(100, 0);
        assert_eq!(read(&packet), Err(Unparsed::Truncated), "{kind}");
    }
    let mut later = ipv6(44, &[]);
    later.extend(fragment(UDP, 8, true));
    assert_eq!(read(&later), Err(Unparsed::Truncated));
}

#[test]
fn a_chain_whose_end_is_not_shown() {
    let packet = ipv6(0, &join(&[&extension(60, 0), &extension(UDP, 1), &udp(4)]));
    let frame = Frame { length: packet.len() as u32, gso: false };
    for shown in 0..70 {
        assert_eq!(read_of(&packet[..shown], frame), Err(Unparsed::Truncated), "{shown}");
    }
    // The checksum is not read.
    assert_eq!(end(read_of(&packet[..70], frame)), Ok(72));
}

#[test]
fn a_header_that_is_shown_in_part() {
    let packet = ipv6(0, &extension(NO_NEXT_HEADER, 0));
    for shown in 40..48 {
        let frame = Frame { length: packet.len() as u32, gso: false };
        assert_eq!(read_of(&packet[..shown], frame), Err(Unparsed::Truncated), "{shown}");
    }
}

#[test]
fn a_payload_length_that_lies() {
    let mut packet = ipv6(UDP, &udp(4));
    packet[5] = 13;
    assert_eq!(read(&packet), Err(Unparsed::IpLength));
    packet[5] = 7;
    assert_eq!(read(&packet), Err(Unparsed::Truncated));
    packet[5] = 11;
    assert_eq!(read(&packet), Err(Unparsed::UdpLength));
    // 0 and no jumbo option: there is no payload.
    packet[5] = 0;
    assert_eq!(read(&packet), Err(Unparsed::Truncated));
}

#[test]
fn a_super_packet_without_a_payload_length_reaches_to_the_end() {
    let mut packet = ipv6(TCP, &tcp(0x10, &[1; 12]));
    packet[5] = 0;
    let frame = Frame { length: packet.len() as u32, gso: true };
    assert_eq!(read_of(&packet, frame).map(|it| (it.transport.headers, it.jumbo)), Ok((72, false)));
}

#[test]
fn a_super_packet_with_the_kernels_jumbo_option() {
    let payload = join(&[&jumbo(TCP, 70_000), &tcp(0x10, &[]), &vec![0; 70_000 - 8 - 25]]);
    let packet = ipv6(0, &payload);
    for gso in [false, true] {
        let ip = read_of(&packet, Frame { length: packet.len() as u32, gso }).expect("a jumbogram");
        assert_eq!((ip.transport.headers, ip.transport.ports, ip.jumbo), (68, PORTS, true));
    }
    // One that the fixed header's length covers is an option like others.
    let small = chain(0, &[&jumbo(UDP, 20), &udp(4)]);
    assert_eq!(small.map(|it| (it.transport.headers, it.jumbo)), Ok((56, false)));
}

/// A jumbogram of 8 octets of options, a UDP header that states `length`, and `data`.
fn jumbogram(stated: u32, length: u16, data: usize) -> Vec<u8> {
    let mut packet = ipv6(0, &join(&[&jumbo(UDP, stated), &udp_with(length, data)]));
    packet[4..6].fill(0);
    packet
}

#[test]
fn a_datagram_in_a_jumbogram_may_have_no_length() {
    assert_eq!(end(read(&jumbogram(8 + 8 + 65_528, 0, 65_528))), Ok(56));
    // One octet less, and its length could be stated (RFC 2675 section 4); what pads the frame is not its
    // own.
    let mut packet = jumbogram(8 + 8 + 65_527, 0, 65_527);
    packet.extend([0; 100]);
    assert_eq!(read(&packet), Err(Unparsed::UdpLength));
}

#[test]
fn a_jumbo_length_that_lies() {
    for stated in [0, 16, 65_535, 65_545, 1 << 31, u32::MAX] {
        assert_eq!(read(&jumbogram(stated, 0, 65_528)), Err(Unparsed::IpLength), "{stated}");
    }
    // An option that is not the first, or not of 4 octets, is not looked for.
    for option in [[1, 0, 0xC2, 4], [0xC2, 5, 0, 0]] {
        let mut packet = jumbogram(8 + 8 + 65_528, 0, 65_528);
        packet[42..46].copy_from_slice(&option);
        assert_eq!(read(&packet), Err(Unparsed::Truncated));
    }
}
