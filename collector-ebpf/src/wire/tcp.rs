//! TCP (RFC 9293).

use network_types::{ip::IpProto, tcp::TcpHdr};

use super::{
    bytes::Bytes,
    transport::{Echo, Segment, Transport, within},
};
use crate::abi::{counter::Unparsed, flow::ports};

/// The sender has finished sending.
pub const FIN: u8 = 0x01;
/// Synchronise sequence numbers: a connection begins.
pub const SYN: u8 = 0x02;
/// The connection is reset.
pub const RST: u8 = 0x04;
/// The acknowledgement field is significant.
pub const ACK: u8 = 0x10;

const MINIMUM: u32 = TcpHdr::LEN as u32;

/// Reads ports, flags and length of the header.
///
/// # Errors
///
/// `Truncated`, `TcpDataOffset`.
#[inline(always)]
pub fn parse(bytes: &impl Bytes, segment: Segment) -> Result<Transport, Unparsed> {
    within(segment, MINIMUM)?;
    let header = bytes.window::<14>(segment.start).ok_or(Unparsed::Truncated)?;
    let [offset, tcp_flags] = header.get::<12, 2>();
    // The data offset, in 32-bit words (RFC 9293 section 3.1).
    let length = u32::from(offset >> 4) * 4;
    // The options of a first fragment may go on in the next.
    if length < MINIMUM || segment.whole && segment.start + length > segment.end {
        return Err(Unparsed::TcpDataOffset);
    }
    Ok(Transport {
        protocol: IpProto::Tcp as u8,
        ports: header.get::<0, 4>(),
        kind: ports::TRANSPORT,
        tcp_flags,
        echo: Echo::None,
        headers: segment.start + length,
    })
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::{
        abi::{counter::Unparsed, flow::ports},
        wire::{
            frames::{PORTS, TCP, tcp},
            transport::{Echo, Segment, Transport},
        },
    };

    fn read(segment: &[u8]) -> Result<Transport, Unparsed> {
        parse(&segment, Segment { start: 0, end: segment.len() as u32, whole: true, gso: false })
    }

    #[test]
    fn ports_flags_and_length() {
        for flags in 0..=u8::MAX {
            let expected = Transport {
                protocol: TCP,
                ports: PORTS,
                kind: ports::TRANSPORT,
                tcp_flags: flags,
                echo: Echo::None,
                headers: 32,
            };
            assert_eq!(read(&tcp(flags, &[1; 12])), Ok(expected));
        }
    }

    #[test]
    fn every_data_offset() {
        let mut segment = tcp(0x10, &[1; 40]);
        for words in 0..16u8 {
            // The four bits beside it are reserved, or flags that are not kept (RFC 9293 section 3.1).
            segment[12] = words << 4 | 0x0F;
            let expected = if words < 5 { Err(Unparsed::TcpDataOffset) } else { Ok(4 * u32::from(words)) };
            assert_eq!(read(&segment).map(|it| it.headers), expected, "{words}");
        }
    }

    #[test]
    fn options_beyond_the_packet() {
        let segment = tcp(0x10, &[1; 40]);
        assert_eq!(read(&segment[..60]).map(|it| it.headers), Ok(60));
        for length in 20..60 {
            assert_eq!(read(&segment[..length]), Err(Unparsed::TcpDataOffset), "{length}");
        }
        let first = Segment { start: 0, end: 24, whole: false, gso: false };
        assert_eq!(parse(&&segment[..24], first).map(|it| it.headers), Ok(60));
    }

    #[test]
    fn less_than_a_header() {
        let segment = tcp(0x10, &[]);
        for length in 0..20 {
            assert_eq!(read(&segment[..length]), Err(Unparsed::Truncated), "{length}");
        }
    }
}
