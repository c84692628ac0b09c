//! IPv6 and its extension headers (RFC 8200), jumbograms (RFC 2675).

use network_types::ip::Ipv6Hdr;

use super::{
    Frame, UNKNOWN, authentication,
    bytes::Bytes,
    fragment::Piece,
    transport::{self, Segment, Transport},
};
use crate::abi::counter::Unparsed;

const HEADER: u32 = Ipv6Hdr::LEN as u32;
/// Extension headers followed; the kernel's own flow dissector has no bound, a packet in the wild has at most
/// three.
const DEPTH: u32 = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;

/// The option that makes a packet a jumbogram (RFC 2675 section 2).
const JUMBO_OPTION: u8 = 0xC2;

/// An IPv6 packet that was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    /// The source address.
    pub source: [u8; 16],
    /// The destination address.
    pub destination: [u8; 16],
    /// What follows the extension headers.
    pub transport: Transport,
    /// The packet begins with the hop-by-hop header of a jumbogram, which the kernel puts before
    /// super-packets and takes off again before the wire.
    pub jumbo: bool,
    /// The packet is a fragment.
    pub piece: Option<Piece>,
}

/// What an IPv6 header says, and the extension headers behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The source address.
    pub source: [u8; 16],
    /// The destination address.
    pub destination: [u8; 16],
    /// What follows.
    pub protocol: u8,
    /// Where that lies.
    pub segment: Segment,
    /// It is a piece of what another fragment begins.
    pub is_later: bool,
    /// As in [`Ipv6`].
    pub jumbo: bool,
    /// The packet is a fragment.
    pub piece: Option<Piece>,
}

/// Reads the packet that begins at `start`.
///
/// # Errors
///
/// The reason why it is not understood, of this layer or the next.
#[inline(always)]
pub fn parse(bytes: &impl Bytes, start: u32, frame: Frame) -> Result<Ipv6, Unparsed> {
    let Header { source, destination, protocol, segment, is_later, jumbo, piece } =
        header(bytes, start, frame)?;
    let transport = if is_later {
        transport::fragment(protocol, segment)
    } else {
        transport::parse(bytes, protocol, segment)?
    };
    Ok(Ipv6 { source, destination, transport, jumbo, piece })
}

/// Reads the headers that begin at `start`.
///
/// # Errors
///
/// The reason why they are not understood.
#[inline(always)]
pub fn header(bytes: &impl Bytes, start: u32, frame: Frame) -> Result<Header, Unparsed> {
    let header = bytes.window::<{ Ipv6Hdr::LEN }>(start).ok_or(Unparsed::Truncated)?;
    if header.byte::<0>() >> 4 != 6 {
        return Err(Unparsed::IpVersion);
    }
    let next_header = header.byte::<6>();
    // Before anything else is asked: the verifier follows the chain again for all that was known before it.
    let chain = follow(bytes, Chain { protocol: next_header, at: start + HEADER, part: part::WHOLE, id: 0 })?;
    let payload = u32::from(header.number::<4>());
    let mut total = HEADER + payload;
    let mut jumbo = false;
    if payload == 0 {
        let option = if next_header == HOP_BY_HOP { jumbo_payload(bytes, start + HEADER) } else { None };
        jumbo = option.is_some();
        if frame.gso {
            total = frame.length.saturating_sub(start);
        } else if let Some(length) = option {
            // RFC 2675 section 3: a length that the fixed header could hold is an error.
            if length <= 0xFFFF || length > frame.length {
                return Err(Unparsed::IpLength);
            }
            total = HEADER + length;
        }
    }
    if start + total > frame.length {
        return Err(Unparsed::IpLength);
    }
    let segment = Segment {
        start: bytes.forget(chain.at),
        end: start + total,
        whole: chain.part == part::WHOLE,
        gso: frame.gso,
    };
    if segment.start > segment.end {
        // The chain left its packet: what it met there is padding, or beyond the frame.
        return Err(Unparsed::Truncated);
    }
    let (source, destination) = (header.get::<8, 16>(), header.get::<24, 16>());
    let is_later = chain.part == part::LATER;
    let piece =
        (!segment.whole).then_some(Piece { id: chain.id, protocol: 0, first: chain.part == part::FIRST });
    Ok(Header { source, destination, protocol: chain.protocol, segment, is_later, jumbo, piece })
}

/// Whether the packet at `start` begins as [`Ipv6::jumbo`] says, whatever comes behind that.
#[inline(always)]
pub fn is_jumbo(bytes: &impl Bytes, start: u32) -> bool {
    bytes.window::<{ Ipv6Hdr::LEN }>(start).is_some_and(|header| {
        header.number::<4>() == 0
            && header.byte::<6>() == HOP_BY_HOP
            && jumbo_payload(bytes, start + HEADER).is_some()
    })
}

/// The protocol behind the extension headers of a packet that is quoted, and where it begins; `None` where the chain does
/// not get there, or only in another fragment.
#[inline(always)]
pub(super) fn transport_of(bytes: &impl Bytes, next_header: u8, at: u32) -> Option<(u8, u32)> {
    let chain = follow(bytes, Chain { protocol: next_header, at, part: part::WHOLE, id: 0 }).ok()?;
    (chain.part != part::LATER).then_some((chain.protocol, chain.at))
}

/// Which part of a datagram a packet is. A number, not an enumeration: what is read back as one has to be one of its values.
mod part {
    /// All of it.
    pub(super) const WHOLE: u32 = 0;
    /// Its beginning.
    pub(super) const FIRST: u32 = 1;
    /// What comes after that.
    pub(super) const LATER: u32 = 2;
}

#[derive(Clone, Copy)]
struct Chain {
    protocol: u8,
    at: u32,
    /// One of those of [`part`].
    part: u32,
    /// The identification of the datagram, where it is a fragment.
    id: u32,
}

impl Chain {
    /// The same, as [`Bytes::forget`] has it.
    #[inline(always)]
    fn forget(&mut self, bytes: &impl Bytes) {
        self.protocol = bytes.forget(self.protocol.into()) as u8;
        self.at = bytes.forget(self.at);
        self.part = bytes.forget(self.part);
        self.id = bytes.forget(self.id);
    }
}

/// Follows the extension headers from `chain.at` on; ends at a later fragment, whose next header is not
/// there.
///
/// Not inlined: in the programs the loop has a stack frame of its own.
#[inline(never)]
fn follow(bytes: &impl Bytes, mut chain: Chain) -> Result<Chain, Unparsed> {
    for _ in 0..DEPTH {
        if !is_extension(chain.protocol) {
            return Ok(chain);
        }
        // None of them is shorter than 8 octets.
        let header = bytes.window::<8>(chain.at).ok_or(Unparsed::Truncated)?;
        let [next, length, f0, f1] = header.get::<0, 4>();
        chain.at += match chain.protocol {
            FRAGMENT => 8,
            AUTHENTICATION => authentication::length(length),
            _ => (u32::from(length) + 1) * 8,
        };
        if chain.protocol == FRAGMENT {
            let offset_and_more = u16::from_be_bytes([f0, f1]);
            // A fragment of a datagram that was one itself is put together from the outside in: it is the outer one's.
            if offset_and_more & !0x6 != 0 && chain.part == part::WHOLE {
                chain.id = u32::from_be_bytes(header.get::<4, 4>());
            }
            if offset_and_more >> 3 != 0 {
                return Ok(Chain { protocol: next, part: part::LATER, ..chain });
            }
            // An atomic fragment (RFC 6946) has neither an offset nor a successor: the packet is whole.
            if offset_and_more & 1 != 0 {
                chain.part = part::FIRST;
            }
        }
        chain.protocol = next;
        // All of it, or the verifier would follow the rest of the chain for each kind of header that may come before it.
        chain.forget(bytes);
    }
    if is_extension(chain.protocol) { Err(Unparsed::ExtensionDepth) } else { Ok(chain) }
}

/// Source, destination and protocol of a packet that begins at `start` and is not understood; the protocol is `UNKNOWN` where
/// there are extension headers. Nothing but the version is known to be right.
#[inline(always)]
pub fn ends(bytes: &impl Bytes, start: u32) -> Option<([u8; 16], [u8; 16], u8)> {
    let header = bytes.window::<{ Ipv6Hdr::LEN }>(start)?;
    if header.byte::<0>() >> 4 != 6 {
        return None;
    }
    let next = header.byte::<6>();
    let protocol = if is_extension(next) { UNKNOWN } else { next };
    Some((header.get::<8, 16>(), header.get::<24, 16>(), protocol))
}

#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION | MOBILITY)
}

/// The payload length, in octets, in the jumbo option that the hop-by-hop header at `at` begins with.
#[inline(always)]
fn jumbo_payload(bytes: &impl Bytes, at: u32) -> Option<u32> {
    let header = bytes.window::<8>(at)?;
    let [_, length, option, option_length] = header.get::<0, 4>();
    (length == 0 && option == JUMBO_OPTION && option_length == 4)
        .then(|| u32::from_be_bytes(header.get::<4, 4>()))
}

#[cfg(test)]
mod tests;
