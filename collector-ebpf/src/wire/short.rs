//! The form that makes up nearly all traffic, read in one look: Ethernet without a tag, IPv4 without options or IPv6
//! without extension headers, a whole TCP or UDP packet. Every offset is a constant.
//!
//! What is anything else, or has a fault, is `None`: "not that, read it with [`parse`](super::parse)". Where these
//! functions read a packet they say the same as that one, which the tests hold them to.

use network_types::{
    eth::EthHdr,
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
};

use super::{
    bytes::Bytes,
    ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    ipv4::{FRAGMENT_OFFSET, Ipv4, MORE_FRAGMENTS},
    ipv6::Ipv6,
    transport::{Echo, Transport},
};
use crate::abi::flow::ports;

/// Where the network layer begins.
const IP: usize = EthHdr::LEN;
/// Where the transport header begins.
const AFTER_4: usize = IP + Ipv4Hdr::LEN;
const AFTER_6: usize = IP + Ipv6Hdr::LEN;
/// Version 4 and a header of five words, as they lie in the first octet.
const VERSION_4: u8 = 0x45;

const TCP: u8 = IpProto::Tcp as u8;
const UDP: u8 = IpProto::Udp as u8;

/// Reads a frame of `length` octets that holds IPv4.
#[inline(always)]
pub fn ipv4(bytes: &impl Bytes, length: u32) -> Option<Ipv4> {
    let head = bytes.window::<{ AFTER_4 + UdpHdr::LEN }>(0)?;
    if head.number::<12>() != ETHERTYPE_IPV4 || head.byte::<IP>() != VERSION_4 {
        return None;
    }
    let end = IP as u32 + u32::from(head.number::<{ IP + 2 }>());
    if end > length || head.number::<{ IP + 6 }>() & (FRAGMENT_OFFSET | MORE_FRAGMENTS) != 0 {
        return None;
    }
    let protocol = head.byte::<{ IP + 9 }>();
    let (tcp_flags, headers) = match protocol {
        TCP => {
            let header = bytes.window::<{ AFTER_4 + 14 }>(0)?;
            (header.byte::<{ AFTER_4 + 13 }>(), tcp(header.byte::<{ AFTER_4 + 12 }>(), AFTER_4, end)?)
        }
        UDP => (0, udp(head.number::<{ AFTER_4 + 4 }>(), AFTER_4, end)?),
        _ => return None,
    };
    Some(Ipv4 {
        source: head.get::<{ IP + 12 }, 4>(),
        destination: head.get::<{ IP + 16 }, 4>(),
        transport: transport(protocol, head.get::<AFTER_4, 4>(), tcp_flags, headers),
        piece: None,
    })
}

/// Reads a frame of `length` octets that holds IPv6.
#[inline(always)]
pub fn ipv6(bytes: &impl Bytes, length: u32) -> Option<Ipv6> {
    let head = bytes.window::<{ AFTER_6 + UdpHdr::LEN }>(0)?;
    if head.number::<12>() != ETHERTYPE_IPV6 || head.byte::<IP>() >> 4 != 6 {
        return None;
    }
    let end = AFTER_6 as u32 + u32::from(head.number::<{ IP + 4 }>());
    if end > length {
        return None;
    }
    let protocol = head.byte::<{ IP + 6 }>();
    let (tcp_flags, headers) = match protocol {
        TCP => {
            let header = bytes.window::<{ AFTER_6 + 14 }>(0)?;
            (header.byte::<{ AFTER_6 + 13 }>(), tcp(header.byte::<{ AFTER_6 + 12 }>(), AFTER_6, end)?)
        }
        UDP => (0, udp(head.number::<{ AFTER_6 + 4 }>(), AFTER_6, end)?),
        _ => return None,
    };
    Some(Ipv6 {
        source: head.get::<{ IP + 8 }, 16>(),
        destination: head.get::<{ IP + 24 }, 16>(),
        transport: transport(protocol, head.get::<AFTER_6, 4>(), tcp_flags, headers),
        jumbo: false,
        piece: None,
    })
}

/// Where the TCP header ends that begins at `start` in a packet that ends at `end`.
#[inline(always)]
fn tcp(offset: u8, start: usize, end: u32) -> Option<u32> {
    // The data offset, in 32-bit words (RFC 9293 section 3.1).
    let length = u32::from(offset >> 4) * 4;
    let headers = start as u32 + length;
    (length >= TcpHdr::LEN as u32 && headers <= end).then_some(headers)
}

/// Where the UDP header ends, of a datagram that states `length` octets.
#[inline(always)]
fn udp(length: u16, start: usize, end: u32) -> Option<u32> {
    let (start, length, header) = (start as u32, u32::from(length), UdpHdr::LEN as u32);
    (length >= header && start + length <= end).then_some(start + header)
}

#[inline(always)]
fn transport(protocol: u8, ports: [u8; 4], tcp_flags: u8, headers: u32) -> Transport {
    Transport { protocol, ports, kind: ports::TRANSPORT, tcp_flags, echo: Echo::None, headers }
}
