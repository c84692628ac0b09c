//! Frames for the tests: built here, octet by octet, after the figures of the documents that each function
//! names.

use std::{vec, vec::Vec};

/// TEST-NET-1 and TEST-NET-2 (RFC 5737 section 3).
pub(super) const SOURCE_4: [u8; 4] = [192, 0, 2, 1];
pub(super) const DESTINATION_4: [u8; 4] = [198, 51, 100, 2];
/// `2001:db8::1` and `2001:db8::2` (RFC 3849 section 2).
pub(super) const SOURCE_6: [u8; 16] = [0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub(super) const DESTINATION_6: [u8; 16] = [0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
/// Source port 0x1234, destination port 443.
pub(super) const PORTS: [u8; 4] = [0x12, 0x34, 0x01, 0xBB];

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
/// IGMP, GRE.
pub(super) const IGMP: u8 = 2;
pub(super) const GRE: u8 = 47;
pub(super) const ESP: u8 = 50;
pub(super) const AH: u8 = 51;
pub(super) const ICMPV6: u8 = 58;
pub(super) const NO_NEXT_HEADER: u8 = 59;
pub(super) const DCCP: u8 = 33;
pub(super) const SCTP: u8 = 132;
pub(super) const UDP_LITE: u8 = 136;
/// For experiments (RFC 3692 section 2.1).
pub(super) const EXPERIMENT: u8 = 253;

pub(super) const C_TAG: u16 = 0x8100;
pub(super) const S_TAG: u16 = 0x88A8;
pub(super) const OLD_TAG: u16 = 0x9100;

/// An Ethernet frame (IEEE 802.3-2022 figure 3-1), with a tag for each pair of tag protocol and tag control
/// (IEEE 802.1Q-2022 clause 9.3). Addresses are locally administered.
pub(super) fn ethernet(tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1];
    for (protocol, control) in tags {
        frame.extend(protocol.to_be_bytes());
        frame.extend(control.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// LLC and SNAP with an Ethertype (RFC 1042, page 3).
pub(super) fn snap(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0xAA, 0xAA, 0x03, 0, 0, 0];
    header.extend(ethertype.to_be_bytes());
    header.extend(payload);
    header
}

/// A packet of PPPoE session 0x1234 with a PPP protocol (RFC 2516 section 4).
pub(super) fn pppoe(protocol: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x11, 0, 0x12, 0x34];
    header.extend(((2 + payload.len()) as u16).to_be_bytes());
    header.extend(protocol.to_be_bytes());
    header.extend(payload);
    header
}

/// A stack of `labels` MPLS entries before `payload` (RFC 3032 figure 1): labels from 100 on, TTL 64.
pub(super) fn mpls(labels: u32, payload: &[u8]) -> Vec<u8> {
    let mut stack = vec![];
    for label in 0..labels {
        let is_bottom = u32::from(label + 1 == labels);
        stack.extend(((100 + label) << 12 | is_bottom << 8 | 64).to_be_bytes());
    }
    stack.extend(payload);
    stack
}

/// An IPv4 packet without options (RFC 791 figure 4), Don't Fragment set.
pub(super) fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_with(&[], 0x4000, protocol, payload)
}

/// An IPv4 packet (RFC 791 figure 4); `options` in whole words, `fragment` as it lies on the wire: flags and
/// offset.
pub(super) fn ipv4_with(options: &[u8], fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend([0xAB, 0xCD]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(SOURCE_4);
    packet.extend(DESTINATION_4);
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// An IPv6 packet (RFC 8200 section 3); a payload that the field cannot hold gets the length 0.
pub(super) fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap_or(0).to_be_bytes());
    packet.extend([next_header, 64]);
    packet.extend(SOURCE_6);
    packet.extend(DESTINATION_6);
    packet.extend(payload);
    packet
}

/// An extension header of the general form (RFC 8200 sections 4.3, 4.4, 4.6; RFC 6275 section 6.1.1) of `8 +
/// 8 * more` octets, padded by `PadN`.
pub(super) fn extension(next_header: u8, more: u8) -> Vec<u8> {
    let octets = 8 + 8 * usize::from(more);
    let mut header = vec![next_header, more, 1, (octets - 4) as u8];
    header.resize(octets, 0);
    header
}

/// A fragment header (RFC 8200 section 4.5); `offset` in octets.
pub(super) fn fragment(next_header: u8, offset: u16, more: bool) -> Vec<u8> {
    let [o0, o1] = (offset | u16::from(more)).to_be_bytes();
    vec![next_header, 0, o0, o1, 0xDE, 0xAD, 0xBE, 0xEF]
}

/// An authentication header (RFC 4302 figure 1) with a check value of `words` 32-bit words.
pub(super) fn authentication(next_header: u8, words: u8) -> Vec<u8> {
    // The length in words, less 2; three words are fixed.
    let mut header = vec![next_header, 1 + words, 0, 0];
    header.resize(12 + 4 * usize::from(words), 0xA5);
    header
}

/// A hop-by-hop header with the jumbo option alone (RFC 2675 section 2).
pub(super) fn jumbo(next_header: u8, length: u32) -> Vec<u8> {
    let mut header = vec![next_header, 0, 0xC2, 4];
    header.extend(length.to_be_bytes());
    header
}

/// A TCP segment (RFC 9293 figure 1) with `options` in whole words and 5 octets of data.
pub(super) fn tcp(flags: u8, options: &[u8]) -> Vec<u8> {
    let mut segment = PORTS.to_vec();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 2]);
    segment.extend([((5 + options.len() / 4) << 4) as u8, flags, 0xFF, 0xFF, 0, 0, 0, 0]);
    segment.extend(options);
    segment.extend(*b"data!");
    segment
}

/// A UDP datagram (RFC 768) with `data` octets of data.
pub(super) fn udp(data: usize) -> Vec<u8> {
    udp_with((8 + data) as u16, data)
}

/// A UDP datagram that states another length.
pub(super) fn udp_with(length: u16, data: usize) -> Vec<u8> {
    let mut datagram = PORTS.to_vec();
    datagram.extend(length.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.resize(8 + data, 0x55);
    datagram
}

/// An ICMP message of either version (RFC 792 page 14, RFC 4443 section 4.1): identifier 0xCAFE, sequence
/// number 7.
pub(super) fn icmp(kind: u8, code: u8) -> Vec<u8> {
    vec![kind, code, 0, 0, 0xCA, 0xFE, 0, 7, b'p', b'i', b'n', b'g']
}

/// An SCTP packet with a COOKIE-ACK chunk (RFC 9260 figures 1, 2 and section 3.3.12).
pub(super) fn sctp() -> Vec<u8> {
    let mut packet = PORTS.to_vec();
    packet.extend([0, 0, 0, 9, 0, 0, 0, 0, 11, 0, 0, 4]);
    packet
}

/// A DCCP Reset with a short sequence number (RFC 4340 sections 5.1 and 5.6), as far as the generic header.
pub(super) fn dccp() -> Vec<u8> {
    let mut packet = PORTS.to_vec();
    packet.extend([4, 0, 0, 0, 7 << 1, 0, 0, 1, 0, 0, 0, 0]);
    packet
}

/// An ARP request (RFC 826) for Ethernet and IPv4.
pub(super) fn arp() -> Vec<u8> {
    let mut request = vec![0, 1, 0x08, 0x00, 6, 4, 0, 1, 0x02, 0, 0, 0, 0, 1];
    request.extend(SOURCE_4);
    request.extend([0; 6]);
    request.extend(DESTINATION_4);
    request
}

/// Headers one behind the other.
pub(super) fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}
