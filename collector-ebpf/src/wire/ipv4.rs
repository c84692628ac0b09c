//! IPv4 (RFC 791).

use network_types::ip::Ipv4Hdr;

use super::{
    Frame, UNKNOWN, authentication,
    bytes::Bytes,
    fragment::Piece,
    transport::{self, Segment, Transport},
};
use crate::abi::counter::Unparsed;

const MINIMUM: u32 = Ipv4Hdr::LEN as u32;
/// The fragment offset, in units of 8 octets (RFC 791 section 3.1).
pub(super) const FRAGMENT_OFFSET: u16 = 0x1FFF;
pub(super) const MORE_FRAGMENTS: u16 = 0x2000;

/// An IPv4 packet that was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// The source address.
    pub source: [u8; 4],
    /// The destination address.
    pub destination: [u8; 4],
    /// What follows the header.
    pub transport: Transport,
    /// The packet is a fragment.
    pub piece: Option<Piece>,
}

/// What an IPv4 header says, and the authentication headers behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The source address.
    pub source: [u8; 4],
    /// The destination address.
    pub destination: [u8; 4],
    /// What follows.
    pub protocol: u8,
    /// Where that lies.
    pub segment: Segment,
    /// It is a piece of what another fragment begins.
    pub is_later: bool,
    /// The packet is a fragment.
    pub piece: Option<Piece>,
}

/// Reads the packet that begins at `start`.
///
/// # Errors
///
/// The reason why it is not understood, of this layer or the next.
#[inline(always)]
pub fn parse(bytes: &impl Bytes, start: u32, frame: Frame) -> Result<Ipv4, Unparsed> {
    let Header { source, destination, protocol, segment, is_later, piece } = header(bytes, start, frame)?;
    let transport = if is_later {
        transport::fragment(protocol, segment)
    } else {
        transport::parse(bytes, protocol, segment)?
    };
    Ok(Ipv4 { source, destination, transport, piece })
}

/// Reads the header that begins at `start`.
///
/// # Errors
///
/// The reason why it is not understood.
#[inline(always)]
pub fn header(bytes: &impl Bytes, start: u32, frame: Frame) -> Result<Header, Unparsed> {
    let header = bytes.window::<{ Ipv4Hdr::LEN }>(start).ok_or(Unparsed::Truncated)?;
    let version_length = header.byte::<0>();
    if version_length >> 4 != 4 {
        return Err(Unparsed::IpVersion);
    }
    let header_length = u32::from(version_length & 0x0F) * 4;
    if header_length < MINIMUM {
        return Err(Unparsed::Ipv4HeaderLength);
    }
    let mut total = u32::from(header.number::<2>());
    if total == 0 && frame.gso {
        // A super-packet of more than 65,535 octets: the kernel writes 0 (iph_set_totlen, since Linux 6.3).
        total = frame.length.saturating_sub(start);
    }
    if total < MINIMUM || start + total > frame.length {
        return Err(Unparsed::IpLength);
    }
    if header_length > total {
        return Err(Unparsed::Ipv4HeaderLength);
    }
    let fragment = header.number::<6>();
    let is_later = fragment & FRAGMENT_OFFSET != 0;
    let (outermost, behind) = (header.byte::<9>(), start + header_length);
    let (protocol, behind) =
        if is_later { (outermost, behind) } else { authentication::skip(bytes, outermost, behind)? };
    let segment = Segment {
        start: bytes.forget(behind),
        end: start + total,
        whole: fragment & (FRAGMENT_OFFSET | MORE_FRAGMENTS) == 0,
        gso: frame.gso,
    };
    if segment.start > segment.end {
        // A header that leaves its packet.
        return Err(Unparsed::Truncated);
    }
    let id = u32::from(header.number::<4>());
    let piece = (!segment.whole).then_some(Piece { id, protocol: outermost, first: !is_later });
    let (source, destination) = (header.get::<12, 4>(), header.get::<16, 4>());
    Ok(Header { source, destination, protocol, segment, is_later, piece })
}

/// Source, destination and protocol of a packet that begins at `start` and is not understood; the protocol is `UNKNOWN` where
/// what follows the header may be of another. Nothing but the version is known to be right.
#[inline(always)]
pub fn ends(bytes: &impl Bytes, start: u32) -> Option<([u8; 4], [u8; 4], u8)> {
    let header = bytes.window::<{ Ipv4Hdr::LEN }>(start)?;
    if header.byte::<0>() >> 4 != 4 {
        return None;
    }
    let protocol = header.byte::<9>();
    let protocol = if protocol == authentication::AUTHENTICATION { UNKNOWN } else { protocol };
    Some((header.get::<12, 4>(), header.get::<16, 4>(), protocol))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{Ipv4, ends, parse};
    use crate::{
        abi::{counter::Unparsed, flow::ports},
        wire::{
            Frame, UNKNOWN,
            frames::{
                AH, DESTINATION_4, EXPERIMENT, PORTS, SOURCE_4, TCP, UDP, authentication, ipv4, ipv4_with,
                join, tcp, udp, udp_with,
            },
        },
    };

    fn read(packet: &[u8]) -> Result<Ipv4, Unparsed> {
        read_of(packet, Frame { length: packet.len() as u32, gso: false })
    }

    fn read_of(packet: &[u8], frame: Frame) -> Result<Ipv4, Unparsed> {
        parse(&packet, 0, frame)
    }

    fn with_total(mut packet: Vec<u8>, total: u16) -> Vec<u8> {
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet
    }

    #[test]
    fn addresses_and_ports() {
        let ip = read(&ipv4(UDP, &udp(4))).expect("a packet without fault");
        assert_eq!((ip.source, ip.destination), (SOURCE_4, DESTINATION_4));
        assert_eq!((ip.transport.protocol, ip.transport.ports), (UDP, PORTS));
        assert_eq!(ip.transport.headers, 28);
    }

    #[test]
    fn every_length_of_options() {
        for words in 0..=10 {
            // No Operation (RFC 791 section 3.1).
            let packet = ipv4_with(&[1; 40][..4 * words], 0, UDP, &udp(4));
            let ip = read(&packet).expect("a packet without fault");
            assert_eq!(ip.transport.headers, 28 + 4 * words as u32);
            assert_eq!(ip.transport.ports, PORTS);
        }
    }

    #[test]
    fn a_header_length_below_the_minimum() {
        for words in 0..5 {
            let mut packet = ipv4(UDP, &udp(40));
            packet[0] = 0x40 | words;
            assert_eq!(read(&packet), Err(Unparsed::Ipv4HeaderLength), "{words} words");
        }
    }

    #[test]
    fn a_header_longer_than_its_packet() {
        let mut packet = ipv4(UDP, &udp(4));
        packet[0] = 0x4F;
        // 60 octets of header in a packet of 32, in a frame that is long enough.
        packet.resize(80, 0);
        assert_eq!(read(&packet), Err(Unparsed::Ipv4HeaderLength));
    }

    #[test]
    fn a_version_that_is_not_4() {
        for version in (0..16).filter(|it| *it != 4) {
            let mut packet = ipv4(UDP, &udp(4));
            packet[0] = version << 4 | 5;
            assert_eq!(read(&packet), Err(Unparsed::IpVersion), "{version}");
        }
    }

    #[test]
    fn a_total_length_that_lies() {
        let packet = ipv4(UDP, &udp(4));
        for total in 0..20 {
            assert_eq!(read(&with_total(packet.clone(), total)), Err(Unparsed::IpLength), "{total}");
        }
        for total in 20..28 {
            assert_eq!(read(&with_total(packet.clone(), total)), Err(Unparsed::Truncated), "{total}");
        }
        for total in 28..32 {
            assert_eq!(read(&with_total(packet.clone(), total)), Err(Unparsed::UdpLength), "{total}");
        }
        for total in [33, 100, u16::MAX] {
            assert_eq!(read(&with_total(packet.clone(), total)), Err(Unparsed::IpLength), "{total}");
        }
    }

    #[test]
    fn a_super_packet_without_a_total_length_reaches_to_the_end() {
        let packet = with_total(ipv4(TCP, &tcp(0x10, &[1; 12])), 0);
        let frame = Frame { length: packet.len() as u32, gso: true };
        assert_eq!(read_of(&packet, frame).map(|it| it.transport.headers), Ok(52));
        assert_eq!(read_of(&packet, Frame { gso: false, ..frame }), Err(Unparsed::IpLength));
        // A length that is there still counts.
        assert_eq!(read_of(&with_total(packet, 39), frame), Err(Unparsed::Truncated));
    }

    #[test]
    fn padding_is_no_part_of_the_packet() {
        let mut packet = ipv4(UDP, &udp(1));
        packet.resize(46, 0);
        assert_eq!(read(&packet).map(|it| it.transport.headers), Ok(28));
        // Its length reaches into the padding.
        let mut packet = ipv4(UDP, &udp_with(20, 1));
        packet.resize(46, 0);
        assert_eq!(read(&packet), Err(Unparsed::UdpLength));
        // Ports that would be read from the padding.
        let mut packet = ipv4(UDP, &[]);
        packet.resize(46, 0);
        assert_eq!(read(&packet), Err(Unparsed::Truncated));
    }

    #[test]
    fn behind_an_authentication_header() {
        let packet = ipv4(AH, &join(&[&authentication(UDP, 3), &udp(4)]));
        let ip = read(&packet).expect("a packet without fault");
        assert_eq!(
            (ip.transport.protocol, ip.transport.ports, ip.transport.headers),
            (UDP, PORTS, 20 + 24 + 8)
        );
        // One that leaves its packet, in a frame that goes on.
        let mut packet = ipv4(AH, &authentication(UDP, 3)[..12]);
        packet.resize(80, 0);
        assert_eq!(read(&packet), Err(Unparsed::Truncated));
    }

    #[test]
    fn fragments_are_named_by_what_all_of_them_show() {
        let first = ipv4_with(&[], 0x2000, AH, &join(&[&authentication(UDP, 3), &udp_with(4000, 16)]));
        let later = ipv4_with(&[], 0x0005, AH, &[0; 16]);
        let [first, later] = [first, later].map(|it| read(&it).expect("a packet without fault"));
        assert_eq!((first.transport.protocol, later.transport.protocol), (UDP, AH));
        let [first, later] = [first, later].map(|it| it.piece.expect("a fragment"));
        assert_eq!((first.id, first.protocol), (later.id, later.protocol));
        assert!(first.first && !later.first);
    }

    #[test]
    fn flags_that_make_no_fragment() {
        // Don't Fragment, and the bit that RFC 3514 names.
        for flags in [0, 0x4000, 0x8000, 0xC000] {
            let ip = read(&ipv4_with(&[], flags, UDP, &udp(4))).expect("a packet without fault");
            assert_eq!(ip.transport.kind, ports::TRANSPORT);
        }
    }

    #[test]
    fn a_first_fragment_has_ports() {
        let ip = read(&ipv4_with(&[], 0x2000, UDP, &udp_with(4000, 16))).expect("a first fragment");
        assert_eq!((ip.transport.ports, ip.transport.kind), (PORTS, ports::TRANSPORT));
        // What is no fragment must hold the datagram.
        assert_eq!(read(&ipv4_with(&[], 0, UDP, &udp_with(4000, 16))), Err(Unparsed::UdpLength));
    }

    #[test]
    fn a_tcp_header_may_go_on_in_the_next_fragment() {
        let segment = &tcp(0x02, &[1; 20])[..24];
        let ip = read(&ipv4_with(&[], 0x2000, TCP, segment)).expect("a first fragment");
        assert_eq!((ip.transport.ports, ip.transport.tcp_flags), (PORTS, 0x02));
        assert_eq!(read(&ipv4_with(&[], 0, TCP, segment)), Err(Unparsed::TcpDataOffset));
        // Too short for the flags (RFC 1858 section 3).
        assert_eq!(read(&ipv4_with(&[], 0x2000, TCP, &segment[..8])), Err(Unparsed::Truncated));
    }

    #[test]
    fn later_fragments_have_a_protocol_only() {
        for field in [0x2001, 0x0001, 0x1FFF, 0x3FFF] {
            for protocol in [TCP, UDP, EXPERIMENT] {
                let ip = read(&ipv4_with(&[1; 4], field, protocol, &[0xFF; 3])).expect("a later fragment");
                assert_eq!((ip.transport.protocol, ip.transport.kind), (protocol, ports::FRAGMENT));
                assert_eq!((ip.transport.ports, ip.transport.headers), ([0; 4], 24));
            }
        }
    }

    #[test]
    fn ends_of_what_is_not_understood() {
        // A UDP header whose length lies, one that is cut, one behind an authentication header.
        for (packet, protocol) in [
            (ipv4(UDP, &udp_with(4000, 16)), UDP),
            (ipv4(TCP, &tcp(0x02, &[])[..8]), TCP),
            (ipv4(AH, &authentication(UDP, 3)[..12]), UNKNOWN),
        ] {
            assert!(read(&packet).is_err());
            assert_eq!(ends(&packet.as_slice(), 0), Some((SOURCE_4, DESTINATION_4, protocol)));
        }
        assert_eq!(ends(&ipv4(UDP, &[])[..19].as_ref(), 0), None);
        let mut packet = ipv4(UDP, &udp(4));
        packet[0] = 0x65;
        assert_eq!(ends(&packet.as_slice(), 0), None);
    }

    #[test]
    fn a_packet_behind_other_headers() {
        let mut frame = [0xEE; 18].to_vec();
        frame.extend(ipv4(UDP, &udp(4)));
        let whole = Frame { length: frame.len() as u32, gso: false };
        assert_eq!(parse(&frame.as_slice(), 18, whole).map(|it| it.transport.headers), Ok(18 + 28));
    }
}
