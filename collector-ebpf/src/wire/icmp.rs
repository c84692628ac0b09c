//! ICMP for IPv4 (RFC 792) and for IPv6 (RFC 4443).

use super::{
    bytes::Bytes,
    transport::{Echo, Segment, Transport, within},
};
use crate::abi::{counter::Unparsed, flow::ports};

/// Type numbers of an echo: request, reply.
pub type EchoTypes = (u8, u8);
/// RFC 792, page 14.
pub const V4: EchoTypes = (8, 0);
/// RFC 4443 section 4.
pub const V6: EchoTypes = (128, 129);

const HEADER: u32 = 8;

/// Reads type, code and, of an echo, the identifier: both directions of an echo are one flow, as in the
/// kernel's connection tracking; every other type and code is a flow of its own.
///
/// # Errors
///
/// `Truncated`.
#[inline(always)]
pub fn parse(
    bytes: &impl Bytes,
    protocol: u8,
    segment: Segment,
    types: EchoTypes,
) -> Result<Transport, Unparsed> {
    within(segment, HEADER)?;
    let [kind, code, _, _, i0, i1]: [u8; 6] = bytes.array(segment.start).ok_or(Unparsed::Truncated)?;
    let (request, reply) = types;
    let echo = match kind {
        it if it == request => Echo::Request,
        it if it == reply => Echo::Reply,
        _ => Echo::None,
    };
    let (ports, kind) = if echo == Echo::None {
        ([kind, code, kind, code], ports::ICMP)
    } else {
        ([i0, i1, i0, i1], ports::ECHO)
    };
    Ok(Transport { protocol, ports, kind, tcp_flags: 0, echo, headers: segment.start + HEADER })
}

#[cfg(test)]
mod tests {
    use super::{EchoTypes, V4, V6, parse};
    use crate::{
        abi::{counter::Unparsed, flow::ports},
        wire::{
            frames::{ICMP, ICMPV6, icmp},
            transport::{Echo, Segment, Transport},
        },
    };

    fn read(message: &[u8], protocol: u8, types: EchoTypes) -> Result<Transport, Unparsed> {
        let segment = Segment { start: 0, end: message.len() as u32, whole: true, gso: false };
        parse(&message, protocol, segment, types)
    }

    #[test]
    fn both_directions_of_an_echo_are_one_flow() {
        for (protocol, types) in [(ICMP, V4), (ICMPV6, V6)] {
            let (request, reply) = types;
            for (kind, echo) in [(request, Echo::Request), (reply, Echo::Reply)] {
                let expected = Transport {
                    protocol,
                    ports: [0xCA, 0xFE, 0xCA, 0xFE],
                    kind: ports::ECHO,
                    tcp_flags: 0,
                    echo,
                    headers: 8,
                };
                assert_eq!(read(&icmp(kind, 0), protocol, types), Ok(expected));
            }
        }
    }

    #[test]
    fn every_other_type_is_a_flow_of_its_own() {
        for (protocol, types) in [(ICMP, V4), (ICMPV6, V6)] {
            for kind in (0..=u8::MAX).filter(|it| *it != types.0 && *it != types.1) {
                let message = read(&icmp(kind, 3), protocol, types).expect("a message without fault");
                assert_eq!((message.kind, message.echo), (ports::ICMP, Echo::None));
                assert_eq!(message.ports, [kind, 3, kind, 3]);
            }
        }
    }

    #[test]
    fn less_than_a_header() {
        for length in 0..8 {
            assert_eq!(read(&icmp(8, 0)[..length], ICMP, V4), Err(Unparsed::Truncated), "{length}");
        }
        assert!(read(&icmp(8, 0)[..8], ICMP, V4).is_ok());
    }
}
