//! SCTP (RFC 9260).

use network_types::ip::IpProto;

use super::{
    bytes::Bytes,
    transport::{Echo, Segment, Transport, within},
};
use crate::abi::{counter::Unparsed, flow::ports};

/// The common header (RFC 9260 section 3.1).
const HEADER: u32 = 12;

/// Reads the ports.
///
/// # Errors
///
/// `Truncated`.
#[inline(always)]
pub fn parse(bytes: &impl Bytes, segment: Segment) -> Result<Transport, Unparsed> {
    within(segment, HEADER)?;
    let ports = bytes.array(segment.start).ok_or(Unparsed::Truncated)?;
    Ok(Transport {
        protocol: IpProto::Sctp as u8,
        ports,
        kind: ports::TRANSPORT,
        tcp_flags: 0,
        echo: Echo::None,
        headers: segment.start + HEADER,
    })
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::{
        abi::{counter::Unparsed, flow::ports},
        wire::{
            frames::{PORTS, SCTP, sctp},
            transport::{Echo, Segment, Transport},
        },
    };

    fn read(packet: &[u8]) -> Result<Transport, Unparsed> {
        parse(&packet, Segment { start: 0, end: packet.len() as u32, whole: true, gso: false })
    }

    #[test]
    fn ports_and_length() {
        let expected = Transport {
            protocol: SCTP,
            ports: PORTS,
            kind: ports::TRANSPORT,
            tcp_flags: 0,
            echo: Echo::None,
            headers: 12,
        };
        assert_eq!(read(&sctp()), Ok(expected));
    }

    #[test]
    fn less_than_a_header() {
        for length in 0..12 {
            assert_eq!(read(&sctp()[..length]), Err(Unparsed::Truncated), "{length}");
        }
        assert!(read(&sctp()[..12]).is_ok());
    }
}
