//! DCCP (RFC 4340).

use network_types::ip::IpProto;

use super::{
    bytes::Bytes,
    transport::{Echo, Segment, Transport, within},
};
use crate::abi::{counter::Unparsed, flow::ports};

/// The protocol number (RFC 4340 section 19).
pub(super) const DCCP: u8 = IpProto::Dccp as u8;
/// The generic header with a short sequence number (RFC 4340 section 5.1): no packet has less.
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
        protocol: DCCP,
        ports,
        kind: ports::TRANSPORT,
        tcp_flags: 0,
        echo: Echo::None,
        headers: segment.start + HEADER,
    })
}

#[cfg(test)]
mod tests {
    use super::{DCCP, parse};
    use crate::{
        abi::{counter::Unparsed, flow::ports},
        wire::{
            frames::{PORTS, dccp},
            transport::{Echo, Segment, Transport},
        },
    };

    fn read(packet: &[u8]) -> Result<Transport, Unparsed> {
        parse(&packet, Segment { start: 0, end: packet.len() as u32, whole: true, gso: false })
    }

    #[test]
    fn ports_and_length() {
        let expected = Transport {
            protocol: DCCP,
            ports: PORTS,
            kind: ports::TRANSPORT,
            tcp_flags: 0,
            echo: Echo::None,
            headers: 12,
        };
        assert_eq!(read(&dccp()), Ok(expected));
    }

    #[test]
    fn less_than_a_header() {
        for length in 0..12 {
            assert_eq!(read(&dccp()[..length]), Err(Unparsed::Truncated), "{length}");
        }
        assert!(read(&dccp()[..12]).is_ok());
    }
}
