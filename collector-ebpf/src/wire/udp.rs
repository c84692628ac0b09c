//! UDP (RFC 768) and UDP-Lite (RFC 3828).

use network_types::{ip::IpProto, udp::UdpHdr};

use super::{
    bytes::Bytes,
    transport::{Echo, Segment, Transport, within},
};
use crate::abi::{counter::Unparsed, flow::ports};

const HEADER: u32 = UdpHdr::LEN as u32;
/// The protocol number of UDP-Lite (RFC 3828 section 8).
pub(super) const UDP_LITE: u8 = 136;

/// Reads the ports.
///
/// # Errors
///
/// `Truncated`, `UdpLength`.
#[inline(always)]
pub fn parse(bytes: &impl Bytes, segment: Segment) -> Result<Transport, Unparsed> {
    within(segment, HEADER)?;
    let header = bytes.window::<6>(segment.start).ok_or(Unparsed::Truncated)?;
    let length = u32::from(header.number::<4>());
    // 0 means "to the packet's end" in a super-packet and in a jumbogram (RFC 2675 section 4), which is never in pieces; a
    // first fragment holds the length of the whole datagram.
    let is_told_by_packet = segment.gso || segment.whole && segment.end - segment.start > 0xFFFF;
    let is_too_long = segment.whole && segment.start + length > segment.end;
    if (length < HEADER && !(length == 0 && is_told_by_packet)) || is_too_long {
        return Err(Unparsed::UdpLength);
    }
    Ok(Transport {
        protocol: IpProto::Udp as u8,
        ports: header.get::<0, 4>(),
        kind: ports::TRANSPORT,
        tcp_flags: 0,
        echo: Echo::None,
        headers: segment.start + HEADER,
    })
}

/// Reads the ports of UDP-Lite.
///
/// # Errors
///
/// `Truncated`, `ChecksumCoverage`.
#[inline(always)]
pub fn parse_lite(bytes: &impl Bytes, segment: Segment) -> Result<Transport, Unparsed> {
    within(segment, HEADER)?;
    let header = bytes.window::<6>(segment.start).ok_or(Unparsed::Truncated)?;
    let coverage = u32::from(header.number::<4>());
    // 0 is all of it; else the header at least, and no more than there is (RFC 3828 section 3.1). That of a datagram in
    // pieces may end in another one.
    if coverage != 0 && (coverage < HEADER || segment.whole && segment.start + coverage > segment.end) {
        return Err(Unparsed::ChecksumCoverage);
    }
    Ok(Transport {
        protocol: UDP_LITE,
        ports: header.get::<0, 4>(),
        kind: ports::TRANSPORT,
        tcp_flags: 0,
        echo: Echo::None,
        headers: segment.start + HEADER,
    })
}

#[cfg(test)]
mod tests {
    use super::{parse, parse_lite};
    use crate::{
        abi::{counter::Unparsed, flow::ports},
        wire::{
            frames::{PORTS, UDP, UDP_LITE, udp, udp_with},
            transport::{Echo, Segment, Transport},
        },
    };

    const WHOLE: Segment = Segment { start: 0, end: 18, whole: true, gso: false };

    /// A datagram of 18 octets that states another length.
    fn stated(length: u16, segment: Segment) -> Result<u32, Unparsed> {
        parse(&udp_with(length, 10).as_slice(), segment).map(|it| it.headers)
    }

    #[test]
    fn ports_and_length() {
        let expected = Transport {
            protocol: UDP,
            ports: PORTS,
            kind: ports::TRANSPORT,
            tcp_flags: 0,
            echo: Echo::None,
            headers: 8,
        };
        assert_eq!(parse(&udp(10).as_slice(), WHOLE), Ok(expected));
    }

    #[test]
    fn every_stated_length() {
        for length in 0..40 {
            // Less than the packet holds is allowed: what follows may be options (RFC 9868).
            let expected = if (8..=18).contains(&length) { Ok(8) } else { Err(Unparsed::UdpLength) };
            assert_eq!(stated(length, WHOLE), expected, "{length}");
        }
        assert_eq!(stated(u16::MAX, WHOLE), Err(Unparsed::UdpLength));
    }

    #[test]
    fn no_length_where_the_packet_says_it() {
        assert_eq!(stated(0, Segment { gso: true, ..WHOLE }), Ok(8));
        assert_eq!(stated(0, Segment { end: 0x1_0000, ..WHOLE }), Ok(8));
        assert_eq!(stated(0, Segment { end: 0xFFFF, ..WHOLE }), Err(Unparsed::UdpLength));
        assert_eq!(stated(7, Segment { gso: true, ..WHOLE }), Err(Unparsed::UdpLength));
    }

    #[test]
    fn a_first_fragment_states_the_whole_datagram() {
        let first = Segment { whole: false, ..WHOLE };
        for length in [8, 18, 4000, u16::MAX] {
            assert_eq!(stated(length, first), Ok(8), "{length}");
        }
        // None is less than its header, in one piece or in several.
        for length in [0, 1, 7] {
            assert_eq!(stated(length, first), Err(Unparsed::UdpLength), "{length}");
            assert_eq!(
                stated(length, Segment { end: 0x1_0000, ..first }),
                Err(Unparsed::UdpLength),
                "{length}"
            );
        }
        assert_eq!(stated(0, Segment { gso: true, ..first }), Ok(8));
    }

    #[test]
    fn every_coverage_of_udp_lite() {
        for coverage in 0..40 {
            let read = parse_lite(&udp_with(coverage, 10).as_slice(), WHOLE);
            let is_allowed = coverage == 0 || (8..=18).contains(&coverage);
            let expected =
                if is_allowed { Ok((UDP_LITE, PORTS, 8)) } else { Err(Unparsed::ChecksumCoverage) };
            assert_eq!(read.map(|it| (it.protocol, it.ports, it.headers)), expected, "{coverage}");
        }
        let first = Segment { whole: false, ..WHOLE };
        assert!(parse_lite(&udp_with(4000, 10).as_slice(), first).is_ok());
        assert_eq!(parse_lite(&udp_with(7, 10).as_slice(), first), Err(Unparsed::ChecksumCoverage));
        for end in 0..8 {
            let cut = Segment { end, ..WHOLE };
            assert_eq!(parse_lite(&udp_with(8, 10).as_slice(), cut), Err(Unparsed::Truncated), "{end}");
        }
    }

    #[test]
    fn less_than_a_header() {
        for end in 0..8 {
            assert_eq!(stated(8, Segment { end, ..WHOLE }), Err(Unparsed::Truncated), "{end}");
        }
    }
}
