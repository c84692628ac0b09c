//! Tunnels, as far as the segments of a super-packet need them: each segment repeats the headers up to the innermost
//! transport header, whether or not anyone looks inside.

use network_types::ip::{IpProto, Ipv4Hdr, Ipv6Hdr};

use super::{
    bytes::Bytes,
    ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    transport::Transport,
};

/// VXLAN (RFC 7348 section 5).
const VXLAN_PORT: u16 = 4789;
/// VXLAN, where Linux chooses the port (`drivers/net/vxlan`): older than its registration.
const VXLAN_LINUX_PORT: u16 = 8472;
/// GENEVE (RFC 8926 section 3.3).
const GENEVE_PORT: u16 = 6081;
/// Ethernet inside of GENEVE and GRE (RFC 1701's "Transparent Ethernet Bridging").
const ETHERTYPE_ETHERNET: u16 = 0x6558;
const ETHERTYPE_8021Q: u16 = 0x8100;

const ETHERNET: u32 = 14;
const TAG: u32 = 4;

/// Whether packets lie inside of this one's payload.
#[inline(always)]
pub fn is_tunnel(transport: &Transport) -> bool {
    let [_, _, high, low] = transport.ports;
    carries(transport.protocol, u16::from_be_bytes([high, low]))
}

#[inline(always)]
fn carries(protocol: u8, port: u16) -> bool {
    match protocol {
        protocol if protocol == IpProto::Udp as u8 => {
            matches!(port, VXLAN_PORT | VXLAN_LINUX_PORT | GENEVE_PORT)
        }
        protocol => {
            protocol == IpProto::Gre as u8
                || protocol == IpProto::Ipv4 as u8
                || protocol == IpProto::Ipv6 as u8
        }
    }
}

/// Where the innermost transport header ends of a super-packet whose outer one ends at `outer`, in octets from the
/// frame's start; `outer` itself where no tunnel is, or what is inside cannot be read.
#[inline(always)]
pub fn innermost(bytes: &impl Bytes, protocol: u8, port: u16, outer: u32) -> u32 {
    if !carries(protocol, port) {
        return outer;
    }
    inside(bytes, protocol, port, outer).unwrap_or(outer)
}

#[inline(always)]
fn inside(bytes: &impl Bytes, protocol: u8, port: u16, outer: u32) -> Option<u32> {
    let (ethertype, at) = if protocol == IpProto::Udp as u8 {
        let header = bytes.window::<8>(outer)?;
        if port == GENEVE_PORT {
            // The length of its options, in units of 4 octets (RFC 8926 section 3.4).
            let options = u32::from(header.byte::<0>() & 0x3F) * 4;
            (header.number::<2>(), outer + 8 + options)
        } else {
            (ETHERTYPE_ETHERNET, outer + 8)
        }
    } else if protocol == IpProto::Gre as u8 {
        let header = bytes.window::<4>(outer)?;
        let flags = u32::from(header.number::<0>());
        // Checksum, key and sequence number, 4 octets each (RFC 2784 section 2.1, RFC 2890 section 2).
        let fields = (flags >> 15 & 1) + (flags >> 13 & 1) + (flags >> 12 & 1);
        (header.number::<2>(), outer + 4 + fields * 4)
    } else {
        (ETHERTYPE_IPV4, outer)
    };
    let mut at = bytes.forget(at);
    if ethertype == ETHERTYPE_ETHERNET {
        let tagged = bytes.number(at + ETHERNET - 2)? == ETHERTYPE_8021Q;
        at = bytes.forget(at + ETHERNET + if tagged { TAG } else { 0 });
    } else if ethertype != ETHERTYPE_IPV4 && ethertype != ETHERTYPE_IPV6 {
        return None;
    }
    let header = bytes.window::<{ Ipv4Hdr::LEN }>(at)?;
    let (protocol, length) = match header.byte::<0>() >> 4 {
        4 => (header.byte::<9>(), u32::from(header.byte::<0>() & 0x0F) * 4),
        6 => (header.byte::<6>(), Ipv6Hdr::LEN as u32),
        _ => return None,
    };
    let at = bytes.forget(at + length);
    let length = match protocol {
        protocol if protocol == IpProto::Tcp as u8 => {
            let [offset] = bytes.array(at + 12)?;
            u32::from(offset >> 4) * 4
        }
        protocol if protocol == IpProto::Udp as u8 => 8,
        _ => 0,
    };
    Some(at + length)
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::innermost;

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
        assert_eq!(end(UDP, 4789, &[&[0; 8][..], &tagged].concat()), 42 + 8 + 18 + 40);
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

    #[test]
    fn what_cannot_be_read_has_no_inner_headers() {
        let frame = [&[0; 8][..], &ethernet(0x0800, &tcp4(0))].concat();
        for cut in 0..frame.len() - 20 {
            let found = end(UDP, 4789, &frame[..cut]);
            assert!(found == 42 || found == 42 + 8 + 14 + 20, "{cut}: {found}");
        }
    }
}
