//! Frames, built octet by octet after the figures of the documents that each function names. Checksums are zero: the
//! programs do not look at them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// TEST-NET-1 (RFC 5737 section 3).
pub const ONE_4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// TEST-NET-2 (RFC 5737 section 3).
pub const TWO_4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// RFC 3849 section 2.
pub const ONE_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xDB8, 0, 0, 0, 0, 0, 1);
/// RFC 3849 section 2.
pub const TWO_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xDB8, 0, 0, 0, 0, 0, 2);

/// IP protocol number.
pub const ICMP: u8 = 1;
/// IP protocol number.
pub const TCP: u8 = 6;
/// IP protocol number.
pub const UDP: u8 = 17;
/// IP protocol number.
pub const GRE: u8 = 47;
/// IP protocol number.
pub const AH: u8 = 51;
/// IP protocol number.
pub const UDP_LITE: u8 = 136;
/// IP protocol number.
pub const ICMPV6: u8 = 58;
/// IP protocol number.
pub const SCTP: u8 = 132;

/// TCP flag.
pub const FIN: u8 = 0x01;
/// TCP flag.
pub const SYN: u8 = 0x02;
/// TCP flag.
pub const RST: u8 = 0x04;
/// TCP flag.
pub const PSH: u8 = 0x08;
/// TCP flag.
pub const ACK: u8 = 0x10;

/// Ethertype.
pub const IPV4: u16 = 0x0800;
/// Ethertype.
pub const ARP: u16 = 0x0806;
/// Ethertype.
pub const IPV6: u16 = 0x86DD;
/// Ethertype of a PPPoE session.
pub const PPPOE: u16 = 0x8864;
/// Ethertype.
pub const MPLS: u16 = 0x8847;
/// Ethertype of an 802.1Q tag.
pub const C_TAG: u16 = 0x8100;
/// Ethertype of an 802.1ad tag.
pub const S_TAG: u16 = 0x88A8;
/// Ethertype of a tag, of before there was 802.1ad.
pub const OLD_TAG: u16 = 0x9100;

/// Who sends a frame to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The sender.
    pub source: IpAddr,
    /// The receiver.
    pub destination: IpAddr,
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
}

/// Port 40000 of the first to port 443 of the second, over IPv4.
pub const ENDS_4: Ends = Ends {
    source: IpAddr::V4(ONE_4),
    destination: IpAddr::V4(TWO_4),
    source_port: 40000,
    destination_port: 443,
};

/// The same over IPv6.
pub const ENDS_6: Ends = Ends {
    source: IpAddr::V6(ONE_6),
    destination: IpAddr::V6(TWO_6),
    source_port: 40000,
    destination_port: 443,
};

impl Ends {
    /// The other way.
    #[must_use]
    pub const fn back(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }

    /// From another port.
    #[must_use]
    pub const fn from_port(self, source_port: u16) -> Self {
        Self { source_port, ..self }
    }

    /// A frame with this payload of IP, without options or extension headers.
    pub fn frame(self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ethernet(&[], IPV4, &ipv4((source, destination), &[], 0x4000, protocol, payload))
            }
            (source, destination) => {
                let six = |address| match address {
                    IpAddr::V4(four) => Ipv4Addr::to_ipv6_mapped(&four),
                    IpAddr::V6(six) => six,
                };
                ethernet(&[], IPV6, &ipv6((six(source), six(destination)), protocol, payload))
            }
        }
    }

    /// A frame with a TCP segment of `data` octets.
    pub fn tcp(self, flags: u8, data: usize) -> Vec<u8> {
        self.frame(TCP, &tcp(self.ports(), flags, &[], data))
    }

    /// A frame with a UDP datagram of `data` octets.
    pub fn udp(self, data: usize) -> Vec<u8> {
        self.frame(UDP, &udp(self.ports(), data))
    }

    /// Both ports as they stand on the wire.
    pub fn ports(self) -> [u8; 4] {
        let [s0, s1] = self.source_port.to_be_bytes();
        let [d0, d1] = self.destination_port.to_be_bytes();
        [s0, s1, d0, d1]
    }
}

/// An Ethernet frame (IEEE 802.3-2022 figure 3-1) between locally administered addresses, with a tag for each pair of tag
/// protocol and tag control (IEEE 802.1Q-2022 clause 9.3).
pub fn ethernet(tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    ethernet_between([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], tags, ethertype, payload)
}

/// The same between the addresses given.
pub fn ethernet_between(
    source: [u8; 6],
    destination: [u8; 6],
    tags: &[(u16, u16)],
    ethertype: u16,
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = [destination, source].concat();
    for (protocol, control) in tags {
        frame.extend(protocol.to_be_bytes());
        frame.extend(control.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet (RFC 791 figure 4); `options` in whole words, `fragment` as it lies on the wire: flags and offset in
/// units of 8 octets. A length that the field cannot hold is 0.
pub fn ipv4(
    ends: (Ipv4Addr, Ipv4Addr),
    options: &[u8],
    fragment: u16,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(u16::try_from(header + payload.len()).unwrap_or(0).to_be_bytes());
    packet.extend([0xAB, 0xCD]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(ends.0.octets());
    packet.extend(ends.1.octets());
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// An IPv6 packet (RFC 8200 section 3). A length that the field cannot hold is 0.
pub fn ipv6(ends: (Ipv6Addr, Ipv6Addr), next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap_or(0).to_be_bytes());
    packet.extend([next_header, 64]);
    packet.extend(ends.0.octets());
    packet.extend(ends.1.octets());
    packet.extend(payload);
    packet
}

/// A destination options header of 8 octets (RFC 8200 section 4.6), padded by `PadN`.
pub fn destination_options(next_header: u8) -> Vec<u8> {
    vec![next_header, 0, 1, 4, 0, 0, 0, 0]
}

/// A fragment header (RFC 8200 section 4.5); `offset` in octets.
pub fn fragment_6(next_header: u8, offset: u16, more: bool) -> Vec<u8> {
    let [o0, o1] = (offset | u16::from(more)).to_be_bytes();
    vec![next_header, 0, o0, o1, 0xDE, 0xAD, 0xBE, 0xEF]
}

/// A TCP segment (RFC 9293 figure 1); `options` in whole words.
pub fn tcp(ports: [u8; 4], flags: u8, options: &[u8], data: usize) -> Vec<u8> {
    let mut segment = ports.to_vec();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 2]);
    segment.extend([((5 + options.len() / 4) << 4) as u8, flags, 0xFF, 0xFF, 0, 0, 0, 0]);
    segment.extend(options);
    segment.resize(20 + options.len() + data, 0x55);
    segment
}

/// The timestamp option, padded to three words (RFC 7323 appendix A).
pub const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];

/// A UDP datagram (RFC 768). A length that the field cannot hold is 0.
pub fn udp(ports: [u8; 4], data: usize) -> Vec<u8> {
    let mut datagram = ports.to_vec();
    datagram.extend(u16::try_from(8 + data).unwrap_or(0).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.resize(8 + data, 0x55);
    datagram
}

/// An ICMP message of either version (RFC 792 page 14, RFC 4443 section 4.1): identifier 0xCAFE, sequence number 7.
pub fn icmp(kind: u8, code: u8) -> Vec<u8> {
    vec![kind, code, 0, 0, 0xCA, 0xFE, 0, 7, b'p', b'i', b'n', b'g']
}

/// An ICMP error of either version about a packet (RFC 792 page 4, RFC 4443 section 3.1), which is `quoted` as far as it
/// is given.
pub fn icmp_error(kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend(quoted);
    message
}

/// LLC and SNAP with an Ethertype before a packet (RFC 1042, page 3).
pub fn snap(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut header = vec![0xAA, 0xAA, 0x03, 0, 0, 0];
    header.extend(ethertype.to_be_bytes());
    header.extend(packet);
    header
}

/// A packet of a PPPoE session (RFC 2516 section 4).
pub fn pppoe(protocol: u16, packet: &[u8]) -> Vec<u8> {
    let mut header = vec![0x11, 0, 0x12, 0x34];
    header.extend(u16::try_from(2 + packet.len()).unwrap_or(0).to_be_bytes());
    header.extend(protocol.to_be_bytes());
    header.extend(packet);
    header
}

/// A stack of MPLS labels before a packet (RFC 3032 figure 1): from 100 on, TTL 64.
pub fn mpls(labels: u32, packet: &[u8]) -> Vec<u8> {
    let mut stack = vec![];
    for label in 0..labels {
        let is_bottom = u32::from(label + 1 == labels);
        stack.extend(((100 + label) << 12 | is_bottom << 8 | 64).to_be_bytes());
    }
    stack.extend(packet);
    stack
}

/// An authentication header with a check value of 12 octets (RFC 4302 figure 1).
pub fn authentication(next_header: u8) -> Vec<u8> {
    let mut header = vec![next_header, 4, 0, 0];
    header.resize(24, 0xA5);
    header
}

/// An SCTP packet with a COOKIE-ACK chunk (RFC 9260 figures 1, 2 and section 3.3.12).
pub fn sctp(ports: [u8; 4]) -> Vec<u8> {
    let mut packet = ports.to_vec();
    packet.extend([0, 0, 0, 9, 0, 0, 0, 0, 11, 0, 0, 4]);
    packet
}

/// An ARP request (RFC 826) for Ethernet and IPv4.
pub fn arp() -> Vec<u8> {
    let mut request = vec![0, 1, 0x08, 0x00, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1];
    request.extend(ONE_4.octets());
    request.extend([0; 6]);
    request.extend(TWO_4.octets());
    request
}

/// The Internet checksum (RFC 1071) of octets in which that field is 0.
pub fn checksum(octets: &[u8]) -> u16 {
    let word = |pair: &[u8]| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    };
    let mut sum: u32 = octets.chunks(2).map(word).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}

/// An IPv4 packet without options and with a TCP segment, with both checksums as they must be (RFC 9293 section 3.1).
pub fn with_checksums(packet: &[u8]) -> Vec<u8> {
    let (header, segment) = packet.split_at(20);
    let pseudo = [&header[12..20], &[0, TCP], &(segment.len() as u16).to_be_bytes(), segment].concat();
    let (of_header, of_segment) = (checksum(header).to_be_bytes(), checksum(&pseudo).to_be_bytes());
    let mut packet = packet.to_vec();
    packet[10..12].copy_from_slice(&of_header);
    packet[36..38].copy_from_slice(&of_segment);
    packet
}
