//! The packet that an ICMP error is about: its beginning stands behind the error's header (RFC 792; RFC 4443 section 2.4).

use network_types::ip::{IpProto, Ipv4Hdr, Ipv6Hdr};

use super::{
    bytes::Bytes,
    icmp,
    ipv4::{FRAGMENT_OFFSET, Ipv4},
    ipv6::{self, Ipv6},
    transport::{self, Echo, Transport},
};
use crate::abi::flow::ports;

const ICMP: u8 = IpProto::Icmp as u8;
const ICMPV6: u8 = IpProto::Ipv6Icmp as u8;

/// Whether an ICMP message of that protocol and type quotes a packet.
#[inline(always)]
pub fn is_error(protocol: u8, kind: u8) -> bool {
    match protocol {
        // Destination unreachable, source quench, redirect, time exceeded, parameter problem (RFC 1122 section 3.2.2).
        ICMP => matches!(kind, 3 | 4 | 5 | 11 | 12),
        // All errors have the high bit clear (RFC 4443 section 2.1); those that are no experiment are 1 to 4.
        ICMPV6 => matches!(kind, 1..=4),
        _ => false,
    }
}

/// Reads the IPv4 packet that is quoted at `at`; `None` where too little of it stands there to tell its flow.
#[inline(always)]
pub fn ipv4(bytes: &impl Bytes, at: u32) -> Option<Ipv4> {
    let header = bytes.window::<{ Ipv4Hdr::LEN }>(at)?;
    let version_length = header.byte::<0>();
    let length = u32::from(version_length & 0x0F) * 4;
    if version_length >> 4 != 4 || length < Ipv4Hdr::LEN as u32 || header.number::<6>() & FRAGMENT_OFFSET != 0
    {
        return None;
    }
    let transport = ports_of(bytes, header.byte::<9>(), bytes.forget(at + length))?;
    Some(Ipv4 { source: header.get::<12, 4>(), destination: header.get::<16, 4>(), transport, piece: None })
}

/// The same for IPv6.
#[inline(always)]
pub fn ipv6(bytes: &impl Bytes, at: u32) -> Option<Ipv6> {
    let header = bytes.window::<{ Ipv6Hdr::LEN }>(at)?;
    if header.byte::<0>() >> 4 != 6 {
        return None;
    }
    let (protocol, behind) = ipv6::transport_of(bytes, header.byte::<6>(), at + Ipv6Hdr::LEN as u32)?;
    let transport = ports_of(bytes, protocol, bytes.forget(behind))?;
    let (source, destination) = (header.get::<8, 16>(), header.get::<24, 16>());
    Some(Ipv6 { source, destination, transport, jumbo: false, piece: None })
}

/// What the first octets of a transport header say of its flow; the rest of it need not be there.
#[inline(always)]
fn ports_of(bytes: &impl Bytes, protocol: u8, at: u32) -> Option<Transport> {
    let (ports, kind) = match protocol {
        ICMP | ICMPV6 => {
            let [kind, code, _, _, i0, i1]: [u8; 6] = bytes.array(at)?;
            let (request, reply) = if protocol == ICMP { icmp::V4 } else { icmp::V6 };
            if kind == request || kind == reply {
                ([i0, i1, i0, i1], ports::ECHO)
            } else {
                ([kind, code, kind, code], ports::ICMP)
            }
        }
        _ if transport::has_ports(protocol) => (bytes.array(at)?, ports::TRANSPORT),
        _ => ([0; 4], ports::TRANSPORT),
    };
    Some(Transport { protocol, ports, kind, tcp_flags: 0, echo: Echo::None, headers: at })
}

#[cfg(test)]
mod tests {
    use super::{ipv4, ipv6, is_error};
    use crate::{
        abi::flow::ports,
        wire::frames::{
            self, DCCP, DESTINATION_4, DESTINATION_6, EXPERIMENT, ICMP, ICMPV6, PORTS, SCTP, SOURCE_4,
            SOURCE_6, TCP, UDP, UDP_LITE, extension, fragment, icmp, ipv4_with, join, udp,
        },
    };

    #[test]
    fn errors_by_their_numbers() {
        let errors =
            |protocol| (0..=u8::MAX).filter(|it| is_error(protocol, *it)).collect::<std::vec::Vec<_>>();
        assert_eq!(errors(ICMP), [3, 4, 5, 11, 12]);
        assert_eq!(errors(ICMPV6), [1, 2, 3, 4]);
        assert_eq!(errors(UDP), []);
    }

    #[test]
    fn eight_octets_of_a_transport_header_are_enough() {
        for protocol in [TCP, UDP, UDP_LITE, DCCP, SCTP] {
            let quoted = ipv4_with(&[1; 8], 0x4000, protocol, &udp(0)[..8]);
            let ip = ipv4(&quoted.as_slice(), 0).expect("a quote");
            assert_eq!((ip.source, ip.destination), (SOURCE_4, DESTINATION_4));
            assert_eq!((ip.transport.protocol, ip.transport.ports), (protocol, PORTS));
            let quoted = frames::ipv6(protocol, &udp(0)[..8]);
            let ip = ipv6(&quoted.as_slice(), 0).expect("a quote");
            assert_eq!((ip.source, ip.destination), (SOURCE_6, DESTINATION_6));
            assert_eq!((ip.transport.protocol, ip.transport.ports), (protocol, PORTS));
        }
    }

    #[test]
    fn an_echo_is_quoted_with_its_identifier() {
        let ip = ipv4(&frames::ipv4(ICMP, &icmp(8, 0)[..8]).as_slice(), 0).expect("a quote");
        assert_eq!((ip.transport.kind, ip.transport.ports), (ports::ECHO, [0xCA, 0xFE, 0xCA, 0xFE]));
        let ip = ipv6(&frames::ipv6(ICMPV6, &icmp(128, 0)[..8]).as_slice(), 0).expect("a quote");
        assert_eq!((ip.transport.kind, ip.transport.ports), (ports::ECHO, [0xCA, 0xFE, 0xCA, 0xFE]));
        let ip = ipv4(&frames::ipv4(ICMP, &icmp(13, 0)[..8]).as_slice(), 0).expect("a quote");
        assert_eq!((ip.transport.kind, ip.transport.ports), (ports::ICMP, [13, 0, 13, 0]));
    }

    #[test]
    fn a_protocol_without_ports() {
        let ip = ipv4(&frames::ipv4(EXPERIMENT, &[]).as_slice(), 0).expect("a quote");
        assert_eq!((ip.transport.protocol, ip.transport.ports), (EXPERIMENT, [0; 4]));
    }

    #[test]
    fn behind_extension_headers() {
        let parts: [&[u8]; 4] = [&extension(60, 0), &extension(44, 1), &fragment(UDP, 0, true), &udp(0)];
        let quoted = frames::ipv6(0, &join(&parts));
        assert_eq!(ipv6(&quoted.as_slice(), 0).map(|it| it.transport.ports), Some(PORTS));
    }

    #[test]
    fn what_tells_no_flow() {
        assert_eq!(ipv4(&ipv4_with(&[], 0x0001, UDP, &udp(0)).as_slice(), 0), None, "a later fragment");
        let later = frames::ipv6(44, &join(&[&fragment(UDP, 8, false), &udp(0)]));
        assert_eq!(ipv6(&later.as_slice(), 0), None, "a later fragment");
        assert_eq!(ipv4(&frames::ipv6(UDP, &udp(0)).as_slice(), 0), None, "the other version");
        assert_eq!(ipv6(&frames::ipv4(UDP, &[0; 60]).as_slice(), 0), None, "the other version");
        let mut short = frames::ipv4(UDP, &udp(0));
        short[0] = 0x44;
        assert_eq!(ipv4(&short.as_slice(), 0), None, "a header of 16 octets");
        let whole = frames::ipv4(UDP, &udp(0));
        for length in 0..24 {
            assert_eq!(ipv4(&&whole[..length], 0), None, "{length} octets");
        }
        let whole = frames::ipv6(UDP, &udp(0));
        for length in 0..44 {
            assert_eq!(ipv6(&&whole[..length], 0), None, "{length} octets");
        }
    }
}
