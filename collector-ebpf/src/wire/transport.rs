//! What follows the network layer: ports, and where the headers end that every segment of a super-packet
//! repeats.

use network_types::ip::IpProto;

use super::{bytes::Bytes, dccp, icmp, sctp, tcp, udp};
use crate::abi::{counter::Unparsed, flow::ports};

/// Where a transport header lies, and what is known about its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins, in octets from the frame's start.
    pub start: u32,
    /// Where its packet ends.
    pub end: u32,
    /// The packet is not a fragment.
    pub whole: bool,
    /// The frame stands for several packets.
    pub gso: bool,
}

/// An ICMP echo tells who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// Not an echo.
    None,
    /// The sender asks.
    Request,
    /// The receiver asked.
    Reply,
}

/// What a transport header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// The IP protocol number.
    pub protocol: u8,
    /// Source and destination port, as they lie on the wire.
    pub ports: [u8; 4],
    /// What the ports hold: one of [`ports`].
    pub kind: u8,
    /// TCP's flags, 0 for others.
    pub tcp_flags: u8,
    /// Who asked, where it is an ICMP echo.
    pub echo: Echo,
    /// Where the transport header ends, in octets from the frame's start; for a first fragment that may lie
    /// in the next.
    pub headers: u32,
}

const TCP: u8 = IpProto::Tcp as u8;
const UDP: u8 = IpProto::Udp as u8;
const ICMP: u8 = IpProto::Icmp as u8;
const ICMPV6: u8 = IpProto::Ipv6Icmp as u8;
const SCTP: u8 = IpProto::Sctp as u8;
const IGMP: u8 = IpProto::Igmp as u8;
const GRE: u8 = IpProto::Gre as u8;
const ESP: u8 = IpProto::Esp as u8;

/// Whether the header of `protocol` begins with a source and a destination port.
#[inline(always)]
pub(super) fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | SCTP | udp::UDP_LITE | dccp::DCCP)
}

/// Reads the transport header of `protocol`. A protocol without ports is a flow without ports, which must have room for
/// its fixed header all the same, where it is one that is known.
///
/// # Errors
///
/// The reason why the header is not understood.
#[inline(always)]
pub fn parse(bytes: &impl Bytes, protocol: u8, segment: Segment) -> Result<Transport, Unparsed> {
    match protocol {
        TCP => tcp::parse(bytes, segment),
        UDP => udp::parse(bytes, segment),
        ICMP => icmp::parse(bytes, protocol, segment, icmp::V4),
        ICMPV6 => icmp::parse(bytes, protocol, segment, icmp::V6),
        SCTP => sctp::parse(bytes, segment),
        udp::UDP_LITE => udp::parse_lite(bytes, segment),
        dccp::DCCP => dccp::parse(bytes, segment),
        // RFC 2236 section 2; RFC 2784 section 2.1; SPI and sequence number (RFC 4303 section 2).
        IGMP | ESP => bare(protocol, segment, 8),
        GRE => bare(protocol, segment, 4),
        _ => Ok(portless(protocol, segment, ports::TRANSPORT)),
    }
}

/// A fragment behind the first of its packet: its protocol is known, its ports are not in it.
#[inline(always)]
pub fn fragment(protocol: u8, segment: Segment) -> Transport {
    portless(protocol, segment, ports::FRAGMENT)
}

/// A protocol whose header of at least `length` octets holds no ports.
#[inline(always)]
fn bare(protocol: u8, segment: Segment, length: u32) -> Result<Transport, Unparsed> {
    within(segment, length)?;
    Ok(portless(protocol, segment, ports::TRANSPORT))
}

#[inline(always)]
fn portless(protocol: u8, segment: Segment, kind: u8) -> Transport {
    Transport { protocol, ports: [0; 4], kind, tcp_flags: 0, echo: Echo::None, headers: segment.start }
}

/// A header of `length` octets must lie within its packet; what the packet's own length cuts off is not
/// there.
#[inline(always)]
pub(super) fn within(segment: Segment, length: u32) -> Result<(), Unparsed> {
    if segment.start + length <= segment.end { Ok(()) } else { Err(Unparsed::Truncated) }
}

#[cfg(test)]
mod tests {
    use super::{Echo, Segment, Transport, fragment, parse, within};
    use crate::{
        abi::{counter::Unparsed, flow::ports},
        wire::frames::{
            DCCP, ESP, EXPERIMENT, GRE, ICMP, ICMPV6, IGMP, SCTP, TCP, UDP, UDP_LITE, dccp, icmp, sctp, tcp,
            udp,
        },
    };

    fn whole(end: usize) -> Segment {
        Segment { start: 0, end: end as u32, whole: true, gso: false }
    }

    #[test]
    fn each_protocol_goes_to_its_reader() {
        for (protocol, header, kind, echo) in [
            (TCP, tcp(0x10, &[]), ports::TRANSPORT, Echo::None),
            (UDP, udp(3), ports::TRANSPORT, Echo::None),
            (ICMP, icmp(8, 0), ports::ECHO, Echo::Request),
            (ICMP, icmp(128, 0), ports::ICMP, Echo::None),
            (ICMPV6, icmp(129, 0), ports::ECHO, Echo::Reply),
            (ICMPV6, icmp(0, 0), ports::ICMP, Echo::None),
            (SCTP, sctp(), ports::TRANSPORT, Echo::None),
            (UDP_LITE, udp(3), ports::TRANSPORT, Echo::None),
            (DCCP, dccp(), ports::TRANSPORT, Echo::None),
        ] {
            let transport =
                parse(&header.as_slice(), protocol, whole(header.len())).expect("a header without fault");
            assert_eq!((transport.protocol, transport.kind, transport.echo), (protocol, kind, echo));
        }
    }

    #[test]
    fn an_unknown_protocol_needs_no_header() {
        let nothing: &[u8] = &[];
        let known = [TCP, UDP, ICMP, ICMPV6, SCTP, UDP_LITE, DCCP, IGMP, GRE, ESP];
        for protocol in (0..=u8::MAX).filter(|it| !known.contains(it)) {
            let expected = Transport {
                protocol,
                ports: [0; 4],
                kind: ports::TRANSPORT,
                tcp_flags: 0,
                echo: Echo::None,
                headers: 0,
            };
            assert_eq!(parse(&nothing, protocol, whole(0)), Ok(expected));
        }
    }

    #[test]
    fn a_known_protocol_without_ports_needs_its_header() {
        for (protocol, header) in [(IGMP, 8), (GRE, 4), (ESP, 8)] {
            for end in 0..header {
                let cut = parse(&[0; 20].as_slice(), protocol, whole(end));
                assert_eq!(cut, Err(Unparsed::Truncated), "{protocol}, {end} octets");
            }
            let read = parse(&[0; 20].as_slice(), protocol, whole(header)).expect("a header without fault");
            assert_eq!((read.protocol, read.ports, read.kind), (protocol, [0; 4], ports::TRANSPORT));
        }
    }

    #[test]
    fn a_fragment_is_told_from_a_packet_without_ports() {
        let segment = Segment { start: 34, end: 42, whole: false, gso: false };
        let transport = fragment(EXPERIMENT, segment);
        assert_eq!((transport.kind, transport.ports, transport.headers), (ports::FRAGMENT, [0; 4], 34));
    }

    #[test]
    fn a_header_ends_with_its_packet_at_the_latest() {
        let segment = Segment { start: 34, end: 42, whole: true, gso: false };
        assert_eq!(within(segment, 8), Ok(()));
        assert_eq!(within(segment, 9), Err(Unparsed::Truncated));
        // A chain that left its packet starts behind the end.
        assert_eq!(within(Segment { start: 43, ..segment }, 0), Err(Unparsed::Truncated));
    }
}
