//! A second reading of frames, to hold the parser's to: written from the documents that each rule names, over slices that
//! are cut as headers are taken off, and sharing nothing with the parser but the names of what may be wrong.
//!
//! What is a decision of this project and no document's is a constant at the top.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use collector_ebpf::{
    abi::{counter::Unparsed, flow::ports},
    wire::Link,
};

/// VLAN tags that are followed.
const TAGS: usize = 4;
/// MPLS labels that are followed.
const LABELS: usize = 8;
/// IPv6 extension headers that are followed.
const EXTENSIONS: usize = 8;
/// Authentication headers over IPv4 that are followed.
const AUTHENTICATIONS: usize = 4;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The id of the outermost VLAN tag, 0 without one.
    pub vlan: u16,
    /// Source and destination.
    pub ends: (IpAddr, IpAddr),
    /// The protocol behind the extension headers.
    pub protocol: u8,
    /// What the ports hold: one of [`ports`].
    pub kind: u8,
    /// The ports, or what stands in their place.
    pub ports: [u8; 4],
    /// TCP's flags.
    pub tcp_flags: u8,
    /// Where the transport header ends.
    pub headers: u32,
    /// The datagram's identification where this is a fragment, and whether it is the first one.
    pub piece: Option<(u32, bool)>,
}

/// The first octets of what is left, taken off; too few are [`Unparsed::Truncated`].
fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], Unparsed> {
    let (head, tail) = rest.split_at_checked(count).ok_or(Unparsed::Truncated)?;
    *rest = tail;
    Ok(head)
}

fn number(octets: &[u8]) -> u16 {
    u16::from_be_bytes([octets[0], octets[1]])
}

/// Reads a frame that stands for one packet, all of which is there.
///
/// # Errors
///
/// The first thing that is wrong with it.
pub fn read(link: Link, frame: &[u8]) -> Result<Reading, Unparsed> {
    let mut rest = frame;
    let (vlan, version) = match link {
        Link::Ethernet => layer_2(&mut rest)?,
        Link::RawIp => (0, rest.first().ok_or(Unparsed::Truncated)? >> 4),
    };
    let start = frame.len() - rest.len();
    let reading = match version {
        4 => version_4(rest)?,
        6 => version_6(rest)?,
        _ => return Err(Unparsed::IpVersion),
    };
    Ok(Reading { vlan, headers: reading.headers + start as u32, ..reading })
}

/// Takes off what stands before IP: the VLAN, and the version that IP is said to have.
fn layer_2(rest: &mut &[u8]) -> Result<(u16, u8), Unparsed> {
    let mut ethertype = number(&take(rest, 14)?[12..]);
    // IEEE 802.1Q-2022 clause 9.5: the tag protocol of customers and that of providers; and what providers had before.
    let mut tags = vec![];
    while matches!(ethertype, 0x8100 | 0x88A8 | 0x9100) {
        if tags.len() == TAGS {
            return Err(Unparsed::VlanDepth);
        }
        let tag = take(rest, 4)?;
        tags.push(number(tag) & 0x0FFF);
        ethertype = number(&tag[2..]);
    }
    // IEEE 802.3-2022 clause 3.2.6: below 0x0600 it is a length, of LLC; RFC 1042: of which SNAP has an Ethertype.
    if ethertype < 0x0600 {
        if take(rest, 3)? != [0xAA, 0xAA, 3] {
            return Err(Unparsed::Llc);
        }
        let header = take(rest, 5)?;
        ethertype = number(&header[3..]);
        if header[..3] != [0; 3] || ethertype < 0x0600 {
            return Err(Unparsed::Llc);
        }
    }
    let version = match ethertype {
        0x0800 => 4,
        0x86DD => 6,
        0x0806 | 0x8035 => return Err(Unparsed::Arp),
        0x8864 => session(rest)?,
        0x8847 | 0x8848 => labels(rest)?,
        _ => return Err(Unparsed::EtherType),
    };
    Ok((tags.first().copied().unwrap_or(0), version))
}

/// PPPoE of version 1, type 1, and code 0 (RFC 2516 section 4), then PPP's protocol (RFC 1332 section 2, RFC 5072
/// section 2).
fn session(rest: &mut &[u8]) -> Result<u8, Unparsed> {
    let header = take(rest, 8)?;
    match (number(header), number(&header[6..])) {
        (0x1100, 0x0021) => Ok(4),
        (0x1100, 0x0057) => Ok(6),
        _ => Err(Unparsed::PppPayload),
    }
}

/// The label stack up to the one with the bottom bit (RFC 3032 section 2.1); the first bits tell IP (RFC 4928 section 3).
fn labels(rest: &mut &[u8]) -> Result<u8, Unparsed> {
    for _ in 0..LABELS {
        if take(rest, 4)?[2] & 1 != 0 {
            return match rest.first().ok_or(Unparsed::Truncated)? >> 4 {
                version @ (4 | 6) => Ok(version),
                _ => Err(Unparsed::MplsPayload),
            };
        }
    }
    Err(Unparsed::MplsDepth)
}

/// RFC 791 section 3.1.
fn version_4(frame: &[u8]) -> Result<Reading, Unparsed> {
    let mut rest = frame;
    let header = take(&mut rest, 20)?;
    if header[0] >> 4 != 4 {
        return Err(Unparsed::IpVersion);
    }
    let (words, total) = (usize::from(header[0] & 15), usize::from(number(&header[2..])));
    if words < 5 {
        return Err(Unparsed::Ipv4HeaderLength);
    }
    if total > frame.len() || total < 20 {
        return Err(Unparsed::IpLength);
    }
    if 4 * words > total {
        return Err(Unparsed::Ipv4HeaderLength);
    }
    let packet = &frame[..total];
    let mut rest = &packet[4 * words..];
    let (offset, more) = (number(&header[6..]) & 0x1FFF, header[6] & 0x20 != 0);
    let address =
        |at: usize| IpAddr::V4(Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]));
    let mut protocol = header[9];
    // RFC 4302 section 3.1.1: where IP's payload begins, of which a later fragment has another part.
    let mut followed = 0;
    while protocol == 51 && offset == 0 {
        if followed == AUTHENTICATIONS {
            return Err(Unparsed::ExtensionDepth);
        }
        followed += 1;
        protocol = authentication(&mut rest)?;
    }
    let piece = (offset != 0 || more).then(|| (number(&header[4..]).into(), offset == 0));
    let ends = (address(12), address(16));
    transport(packet, rest, &Kind { protocol, ends, piece, jumbo: false })
}

/// RFC 4302 section 2.2: the length is in words, without two.
fn authentication(rest: &mut &[u8]) -> Result<u8, Unparsed> {
    let words = usize::from(*rest.get(1).ok_or(Unparsed::Truncated)?) + 2;
    Ok(take(rest, 4 * words)?[0])
}

/// RFC 8200 sections 3 and 4.
fn version_6(frame: &[u8]) -> Result<Reading, Unparsed> {
    let mut rest = frame;
    let header = take(&mut rest, 40)?;
    if header[0] >> 4 != 6 {
        return Err(Unparsed::IpVersion);
    }
    let length = usize::from(number(&header[4..]));
    // RFC 2675 section 3: 0, and the length stands in an option of the hop-by-hop header, which comes first.
    let jumbo = if length == 0 && header[6] == 0 { jumbo_length(rest) } else { None };
    if jumbo.is_some_and(|length| length < 65_536) {
        return Err(Unparsed::IpLength);
    }
    let packet = frame.get(..40 + jumbo.unwrap_or(length)).ok_or(Unparsed::IpLength)?;
    rest = &packet[40..];
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let (mut protocol, mut piece, mut followed) = (header[6], None, 0);
    // Hop-by-hop, routing, fragment, authentication, destination options, mobility (RFC 6275 section 6.1).
    while matches!(protocol, 0 | 43 | 44 | 51 | 60 | 135) {
        if followed == EXTENSIONS {
            return Err(Unparsed::ExtensionDepth);
        }
        followed += 1;
        protocol = match protocol {
            51 => authentication(&mut rest)?,
            44 => {
                let header = take(&mut rest, 8)?;
                let (offset, more) = (number(&header[2..]) >> 3, header[3] & 1 != 0);
                let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                // RFC 6946: with neither, it is no fragment. One in another is put together by the outer one's first.
                let is_later = offset != 0;
                if is_later || more {
                    let (id, _) = piece.unwrap_or((id, true));
                    piece = Some((id, !is_later));
                }
                if is_later {
                    protocol = header[0];
                    break;
                }
                header[0]
            }
            _ => {
                let units = usize::from(*rest.get(1).ok_or(Unparsed::Truncated)?) + 1;
                take(&mut rest, 8 * units)?[0]
            }
        };
    }
    let ends = (address(8), address(24));
    transport(packet, rest, &Kind { protocol, ends, piece, jumbo: jumbo.is_some() })
}

/// The jumbo payload option (RFC 2675 section 2) where it is the first one, as its alignment asks for.
fn jumbo_length(options: &[u8]) -> Option<usize> {
    let option = options.get(2..8)?;
    let length = u32::from_be_bytes([option[2], option[3], option[4], option[5]]);
    (option[..2] == [0xC2, 4]).then_some(length as usize)
}

/// What the network layer said.
struct Kind {
    protocol: u8,
    ends: (IpAddr, IpAddr),
    piece: Option<(u32, bool)>,
    jumbo: bool,
}

fn transport(packet: &[u8], rest: &[u8], kind: &Kind) -> Result<Reading, Unparsed> {
    let &Kind { protocol, ends, piece, jumbo } = kind;
    let at = packet.len() - rest.len();
    let reading = |kind, ports, tcp_flags, header: usize| Reading {
        vlan: 0,
        ends,
        protocol,
        kind,
        ports,
        tcp_flags,
        headers: (at + header) as u32,
        piece,
    };
    // RFC 791 section 3.2, RFC 8200 section 4.5: what follows is somewhere in the middle.
    if piece.is_some_and(|(_, is_first)| !is_first) {
        return Ok(reading(ports::FRAGMENT, [0; 4], 0, 0));
    }
    // Of a first fragment the rest is elsewhere: no length of the datagram's can be held against it.
    let is_whole = piece.is_none();
    let octets = |count: usize| rest.get(..count).ok_or(Unparsed::Truncated);
    let first_four = |header: &[u8]| [header[0], header[1], header[2], header[3]];
    match protocol {
        // RFC 9293 section 3.1.
        6 => {
            let header = octets(20)?;
            let length = 4 * usize::from(header[12] >> 4);
            if length < 20 || (is_whole && length > rest.len()) {
                return Err(Unparsed::TcpDataOffset);
            }
            Ok(reading(ports::TRANSPORT, first_four(header), header[13], length))
        }
        // RFC 768; RFC 2675 section 4: a datagram beyond 65,535 octets has length 0.
        17 => {
            let header = octets(8)?;
            let length = usize::from(number(&header[4..]));
            if !(jumbo && length == 0) && (length < 8 || (is_whole && length > rest.len())) {
                return Err(Unparsed::UdpLength);
            }
            Ok(reading(ports::TRANSPORT, first_four(header), 0, 8))
        }
        // RFC 3828 section 3.1: 0 for all of it.
        136 => {
            let header = octets(8)?;
            let coverage = usize::from(number(&header[4..]));
            if coverage != 0 && (coverage < 8 || (is_whole && coverage > rest.len())) {
                return Err(Unparsed::ChecksumCoverage);
            }
            Ok(reading(ports::TRANSPORT, first_four(header), 0, 8))
        }
        // RFC 9260 section 3.1, RFC 4340 section 5.1.
        132 | 33 => Ok(reading(ports::TRANSPORT, first_four(octets(12)?), 0, 12)),
        // RFC 792 pages 14 and 15, RFC 4443 section 4: an echo has an identifier.
        1 | 58 => {
            let header = octets(8)?;
            let is_echo = if protocol == 1 { [0, 8] } else { [129, 128] }.contains(&header[0]);
            let [one, two] = if is_echo { [header[4], header[5]] } else { [header[0], header[1]] };
            let kind = if is_echo { ports::ECHO } else { ports::ICMP };
            Ok(reading(kind, [one, two, one, two], 0, 8))
        }
        // IGMP (RFC 9776 section 4), GRE (RFC 2784 section 2.1), ESP (RFC 4303 section 2): theirs is no transport header.
        2 | 47 | 50 => {
            octets(if protocol == 47 { 4 } else { 8 })?;
            Ok(reading(ports::TRANSPORT, [0; 4], 0, 0))
        }
        _ => Ok(reading(ports::TRANSPORT, [0; 4], 0, 0)),
    }
}
