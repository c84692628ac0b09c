//! Tunnels. Each segment of a super-packet repeats the headers up to the innermost transport header, whether or not anyone
//! looks inside; and what is inside may be wanted as a flow of its own.

use network_types::ip::{IpProto, Ipv4Hdr, Ipv6Hdr};

use super::{
    bytes::Bytes,
    ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    transport::Transport,
};
use crate::abi::{flow::ports, network};

/// VXLAN (RFC 7348 section 5).
const VXLAN_PORT: u16 = 4789;
/// VXLAN, where Linux chooses the port (`drivers/net/vxlan`): older than its registration.
const VXLAN_LINUX_PORT: u16 = 8472;
/// GENEVE (RFC 8926 section 3.3).
const GENEVE_PORT: u16 = 6081;
/// Ethernet inside of GENEVE and GRE (RFC 1701's "Transparent Ethernet Bridging").
const ETHERTYPE_ETHERNET: u16 = 0x6558;
/// Packets that a cache is handed (draft-ietf-wrec-web-pro section 5.1): IPv4, in its second version behind four octets, which
/// do not look like it.
const ETHERTYPE_WCCP: u16 = 0x883E;

const ETHERNET: u32 = 14;
const TAG: u32 = 4;
/// Tags that are followed inside; VXLAN has none, as a rule (RFC 7348 section 6.1).
const TAGS: u32 = 2;

const TCP: u8 = IpProto::Tcp as u8;
const UDP: u8 = IpProto::Udp as u8;
const GRE: u8 = IpProto::Gre as u8;
/// IPv4 in IP.
const IPIP: u8 = IpProto::Ipv4 as u8;
/// IPv6 in IP.
const SIT: u8 = IpProto::Ipv6 as u8;

/// Whether packets lie inside of this one's payload.
#[inline(always)]
pub fn is_tunnel(transport: &Transport) -> bool {
    let [_, _, high, low] = transport.ports;
    transport.kind == ports::TRANSPORT && carries(transport.protocol, u16::from_be_bytes([high, low]))
}

#[inline(always)]
fn carries(protocol: u8, port: u16) -> bool {
    match protocol {
        UDP => matches!(port, VXLAN_PORT | VXLAN_LINUX_PORT | GENEVE_PORT),
        _ => matches!(protocol, GRE | IPIP | SIT),
    }
}

/// What lies inside of a tunnel's packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// The tunnel's kind: one of [`network`].
    pub kind: u8,
    /// Which of its networks, where it tells them apart; else 0.
    pub id: u32,
    /// Where what is carried begins: an Ethernet frame, or the packet itself.
    pub frame: u32,
    /// Where the packet of IP begins, whose version its first octet tells.
    pub packet: u32,
}

/// Where the innermost transport header ends of a super-packet whose outer one ends at `outer`, in octets from the
/// frame's start; `outer` itself where no tunnel is, or what is inside cannot be read.
#[inline(always)]
pub fn innermost(bytes: &impl Bytes, protocol: u8, port: u16, outer: u32) -> u32 {
    if !carries(protocol, port) {
        return outer;
    }
    inside(bytes, protocol, port, outer).and_then(|inside| end(bytes, inside.packet)).unwrap_or(outer)
}

/// What lies behind the header that ends at `outer`, of a packet of `protocol`, sent to `port` where that has ports;
/// `None` where it is no tunnel, or carries no IP.
#[inline(always)]
pub fn inside(bytes: &impl Bytes, protocol: u8, port: u16, outer: u32) -> Option<Inside> {
    let (kind, id, ethertype, at) = if protocol == UDP {
        udp(bytes, port, outer)?
    } else if protocol == GRE {
        gre(bytes, outer)?
    } else if protocol == IPIP {
        (network::IPIP, 0, ETHERTYPE_IPV4, outer)
    } else if protocol == SIT {
        (network::SIT, 0, ETHERTYPE_IPV6, outer)
    } else {
        return None;
    };
    let frame = bytes.forget(at);
    let (ethertype, packet) =
        if ethertype == ETHERTYPE_ETHERNET { behind_ethernet(bytes, frame)? } else { (ethertype, frame) };
    (ethertype == ETHERTYPE_IPV4 || ethertype == ETHERTYPE_IPV6).then_some(Inside { kind, id, frame, packet })
}

/// Kind, identifier, Ethertype, and where that begins.
type Header = (u8, u32, u16, u32);

#[inline(always)]
fn udp(bytes: &impl Bytes, port: u16, at: u32) -> Option<Header> {
    /// The bit that says that there is an identifier (RFC 7348 section 5).
    const HAS_ID: u8 = 0x08;
    let header = bytes.window::<8>(at)?;
    let id = u32::from_be_bytes(header.get::<4, 4>()) >> 8;
    match port {
        GENEVE_PORT => {
            // Version, and the length of its options in units of 4 octets (RFC 8926 section 3.4).
            let version_options = header.byte::<0>();
            let options = u32::from(version_options & 0x3F) * 4;
            (version_options >> 6 == 0).then_some((
                network::GENEVE,
                id,
                header.number::<2>(),
                at + 8 + options,
            ))
        }
        VXLAN_PORT | VXLAN_LINUX_PORT => {
            (header.byte::<0>() & HAS_ID != 0).then_some((network::VXLAN, id, ETHERTYPE_ETHERNET, at + 8))
        }
        _ => None,
    }
}

#[inline(always)]
fn gre(bytes: &impl Bytes, at: u32) -> Option<Header> {
    /// Routing (RFC 1701) and the version, of which 1 is PPTP's (RFC 2637).
    const OTHERS: u32 = 0x4007;
    let header = bytes.window::<4>(at)?;
    let flags = u32::from(header.number::<0>());
    if flags & OTHERS != 0 {
        return None;
    }
    // Checksum, key and sequence number, in this order, 4 octets each (RFC 2784 section 2.1, RFC 2890 section 2).
    let (checksum, key, sequence) = (flags >> 15 & 1, flags >> 13 & 1, flags >> 12 & 1);
    let id = if key == 0 { 0 } else { u32::from_be_bytes(bytes.array(bytes.forget(at + 4 + checksum * 4))?) };
    let (ethertype, next) = (header.number::<2>(), at + 4 + (checksum + key + sequence) * 4);
    if ethertype == ETHERTYPE_WCCP {
        let [first] = bytes.array(bytes.forget(next))?;
        let redirect = if first >> 4 == 4 { 0 } else { 4 };
        return Some((network::GRE, id, ETHERTYPE_IPV4, next + redirect));
    }
    Some((network::GRE, id, ethertype, next))
}

/// The Ethertype behind an Ethernet header and its tags, and where that begins.
#[inline(always)]
fn behind_ethernet(bytes: &impl Bytes, at: u32) -> Option<(u16, u32)> {
    let mut ethertype = bytes.number(at + ETHERNET - 2)?;
    let mut at = at + ETHERNET;
    for _ in 0..TAGS {
        if ethernet::is_tag(ethertype) {
            ethertype = bytes.number(at + 2)?;
            at = bytes.forget(at + TAG);
        }
    }
    Some((ethertype, at))
}

/// Where the transport header ends of the packet that begins at `at`, or where it begins where that has none that is known.
#[inline(always)]
fn end(bytes: &impl Bytes, at: u32) -> Option<u32> {
    let header = bytes.window::<{ Ipv4Hdr::LEN }>(at)?;
    let (protocol, length) = match header.byte::<0>() >> 4 {
        4 => (header.byte::<9>(), u32::from(header.byte::<0>() & 0x0F) * 4),
        6 => (header.byte::<6>(), Ipv6Hdr::LEN as u32),
        _ => return None,
    };
    let at = bytes.forget(at + length);
    let length = match protocol {
        TCP => {
            let [offset] = bytes.array(at + 12)?;
            u32::from(offset >> 4) * 4
        }
        UDP => 8,
        _ => 0,
    };
    Some(at + length)
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::{Inside, innermost, inside};
    use crate::abi::network;

    const UDP: u8 = 17;
    const GRE: u8 = 47;

    /// IPv4 and TCP with `options` octets of options, as far as they are read.
    fn tcp4(options: usize) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6];
        packet.resize(20 + 12, 0);
        packet.push((((20 + options) / 4) << 4) as u8);
        packet.resize(20 + 20 + options, 0);
        packet
    }

    fn ethernet(ethertype: u16, inner: &[u8]) -> Vec<u8> {
        [&[0; 12][..], &ethertype.to_be_bytes(), inner].concat()
    }

    fn end(protocol: u8, port: u16, payload: &[u8]) -> u32 {
        let frame = [&[0; 42][..], payload].concat();
        innermost(&frame.as_slice(), protocol, port, 42)
    }

    #[test]
    fn vxlan() {
        let frame = [&[8, 0, 0, 0, 0, 0, 42, 0][..], &ethernet(0x0800, &tcp4(12))].concat();
        for port in [4789, 8472] {
            assert_eq!(end(UDP, port, &frame), 42 + 8 + 14 + 20 + 32);
        }
        assert_eq!(end(UDP, 443, &frame), 42, "another port is another payload");
    }

    #[test]
    fn vxlan_with_a_tag_inside() {
        let tagged = ethernet(0x8100, &[&[0, 7, 8, 0][..], &tcp4(0)].concat());
        assert_eq!(end(UDP, 4789, &[&[8, 0, 0, 0, 0, 0, 42, 0][..], &tagged].concat()), 42 + 8 + 18 + 40);
    }

    #[test]
    fn geneve_with_options_and_ipv6() {
        let mut inner = vec![0x60, 0, 0, 0, 0, 0, UDP, 64];
        inner.resize(48, 0);
        let frame = [&[2, 0, 0x86, 0xDD, 0, 0, 7, 0][..], &[0; 8], &inner].concat();
        assert_eq!(end(UDP, 6081, &frame), 42 + 8 + 8 + 40 + 8);
    }

    #[test]
    fn gre_with_key_and_sequence_number() {
        let frame = [&[0x30, 0, 8, 0][..], &[0; 8], &tcp4(0)].concat();
        assert_eq!(end(GRE, 0, &frame), 42 + 4 + 8 + 40);
    }

    #[test]
    fn ip_in_ip() {
        for protocol in [4, 41] {
            assert_eq!(end(protocol, 0, &tcp4(0)), 42 + 40);
        }
    }

    fn read(protocol: u8, port: u16, payload: &[u8]) -> Option<(u8, u32, u32, u32)> {
        let frame = [&[0; 42][..], payload].concat();
        let Inside { kind, id, frame, packet } = inside(&frame.as_slice(), protocol, port, 42)?;
        Some((kind, id, frame - 42, packet - 42))
    }

    #[test]
    fn what_is_inside_and_of_which_network() {
        let inner = ethernet(0x86DD, &[0x60; 40]);
        let vxlan = [&[8, 0, 0, 0, 0x12, 0x34, 0x56, 0][..], &inner].concat();
        assert_eq!(read(UDP, 4789, &vxlan), Some((network::VXLAN, 0x12_3456, 8, 22)));
        let twice = ethernet(0x88A8, &[&[0, 7, 0x81, 0, 0, 8, 8, 0][..], &[0x45; 20]].concat());
        let tagged = [&[8, 0, 0, 0, 0, 0, 9, 0][..], &twice].concat();
        assert_eq!(read(UDP, 4789, &tagged), Some((network::VXLAN, 9, 8, 30)));
        let geneve = [&[1, 0, 0x65, 0x58, 0, 0, 7, 0, 1, 2, 3, 4][..], &inner].concat();
        assert_eq!(read(UDP, 6081, &geneve), Some((network::GENEVE, 7, 12, 26)));
        let plain = [&[0, 0, 8, 0][..], &[0x45; 20]].concat();
        assert_eq!(read(GRE, 0, &plain), Some((network::GRE, 0, 4, 4)));
        let keyed = [&[0xB0, 0, 0x86, 0xDD, 1, 1, 0, 0, 0xDE, 0xAD, 0xBE, 0xEF, 0, 0, 0, 1][..], &[0x60; 40]]
            .concat();
        assert_eq!(read(GRE, 0, &keyed), Some((network::GRE, 0xDEAD_BEEF, 16, 16)));
        let bridged = [&[0x20, 0, 0x65, 0x58, 0, 0, 0, 5][..], &inner].concat();
        assert_eq!(read(GRE, 0, &bridged), Some((network::GRE, 5, 8, 22)));
        // With the redirect header of WCCP version 2, and without.
        let redirected = [&[0, 0, 0x88, 0x3E, 0, 0, 0, 0][..], &[0x45; 20]].concat();
        assert_eq!(read(GRE, 0, &redirected), Some((network::GRE, 0, 8, 8)));
        let bare = [&[0, 0, 0x88, 0x3E][..], &[0x45; 20]].concat();
        assert_eq!(read(GRE, 0, &bare), Some((network::GRE, 0, 4, 4)));
        assert_eq!(read(4, 0, &[0x45; 20]), Some((network::IPIP, 0, 0, 0)));
        assert_eq!(read(41, 0, &[0x60; 40]), Some((network::SIT, 0, 0, 0)));
    }

    #[test]
    fn what_is_no_tunnel_has_nothing_inside() {
        let inner = ethernet(0x0800, &[0x45; 20]);
        for (what, protocol, port, header) in [
            ("VXLAN without its bit", UDP, 4789, &[0, 0, 0, 0, 0, 0, 9, 0][..]),
            ("GENEVE of another version", UDP, 6081, &[0x40, 0, 0x65, 0x58, 0, 0, 7, 0]),
            ("GENEVE with another payload", UDP, 6081, &[0, 0, 0x88, 0x47, 0, 0, 7, 0]),
            ("GRE with routing", GRE, 0, &[0x40, 0, 8, 0]),
            ("PPTP", GRE, 0, &[0x30, 1, 0x88, 0x0B, 0, 4, 0, 9]),
            ("GRE with another payload", GRE, 0, &[0, 0, 0x88, 0xBE]),
            ("another port", UDP, 443, &[8, 0, 0, 0, 0, 0, 9, 0]),
            ("another protocol", 50, 0, &[0; 8]),
        ] {
            assert_eq!(read(protocol, port, &[header, &inner].concat()), None, "{what}");
        }
        let arp = [&[8, 0, 0, 0, 0, 0, 9, 0][..], &ethernet(0x0806, &[0; 28])].concat();
        assert_eq!(read(UDP, 4789, &arp), None);
        assert_eq!(read(UDP, 4789, &arp[..21]), None, "cut");
    }

    #[test]
    fn what_cannot_be_read_has_no_inner_headers() {
        let frame = [&[8, 0, 0, 0, 0, 0, 42, 0][..], &ethernet(0x0800, &tcp4(0))].concat();
        for cut in 0..frame.len() - 20 {
            let found = end(UDP, 4789, &frame[..cut]);
            assert!(found == 42 || found == 42 + 8 + 14 + 20, "{cut}: {found}");
        }
    }
}
