//! From a link type to where the network layer begins.

use collector_ebpf::{
    abi::counter::Unparsed,
    wire::{
        Link,
        bytes::Bytes as _,
        ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, FIRST_ETHERTYPE, Layer2},
    },
};

use super::container::{Direction, links};

/// Octets of an Ethernet header.
const ETHERNET: u32 = 14;

/// What a frame begins with, before anything that the programs meet, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Octets of a header that its capture put there, and that no wire has seen.
    made: u32,
    /// Octets of the link layer's header that its capture took off.
    taken: u32,
    /// Which way it went, as that header says.
    pub direction: Direction,
}

impl Begin {
    /// Nothing: a frame as it was on the wire.
    pub const WHOLE: Self = Self { made: 0, taken: 0, direction: Direction::Unknown };

    /// Octets of layer 2 that a frame had that was captured with `length`.
    pub const fn on_wire(self, length: u32) -> u32 {
        length.saturating_sub(self.made) + self.taken
    }
}

/// Whether frames of this link type are read.
pub const fn is_read(link: u16) -> bool {
    matches!(
        link,
        links::NULL
            | links::ETHERNET
            | links::RAW_12
            | links::RAW_14
            | links::RAW
            | links::LOOP
            | links::LINUX_SLL
            | links::IPV4
            | links::IPV6
            | links::LINUX_SLL2
    )
}

/// Reads a frame up to its network layer.
///
/// # Errors
///
/// The reason why that is not found, or is none of IP: that of [`ethernet::parse`] and [`ethernet::refuse`], and
/// [`Unparsed::EtherType`] for a link type that is not [read](is_read).
#[inline]
pub fn layer2(octets: &[u8], link: u16) -> (Begin, Result<Layer2, Unparsed>) {
    let (begin, layer2) = match link {
        links::ETHERNET => (Begin::WHOLE, ethernet::parse(&octets, Link::Ethernet)),
        // Of those that name a version the header says it, too.
        links::RAW_12 | links::RAW_14 | links::RAW | links::IPV4 | links::IPV6 => {
            (Begin::WHOLE, ethernet::raw_ip(&octets, 0))
        }
        links::NULL | links::LOOP => (Begin { made: FAMILY, ..Begin::WHOLE }, loopback(octets, link)),
        links::LINUX_SLL => cooked(octets, SLL),
        links::LINUX_SLL2 => cooked(octets, SLL2),
        _ => (Begin::WHOLE, Err(Unparsed::EtherType)),
    };
    let layer2 = layer2.and_then(|layer2| match layer2.ethertype {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => Ok(layer2),
        other => Err(ethernet::refuse(other)),
    });
    (begin, layer2)
}

/// Octets of a loopback frame's protocol family.
const FAMILY: u32 = 4;

/// Protocol families, which systems number in their own ways: IPv4 alike, IPv6 on Linux, on NetBSD and OpenBSD, on FreeBSD, on
/// Darwin.
fn loopback(octets: &[u8], link: u16) -> Result<Layer2, Unparsed> {
    let family = u32::from_be_bytes((&octets).array(0).ok_or(Unparsed::Truncated)?);
    // In the order of a host that nobody knows: small numbers.
    let family = if link == links::NULL && family > 0xFFFF { family.swap_bytes() } else { family };
    let ethertype = match family {
        2 => ETHERTYPE_IPV4,
        10 | 24 | 28 | 30 => ETHERTYPE_IPV6,
        _ => return Err(Unparsed::EtherType),
    };
    Ok(Layer2 { ethertype, vlan: 0, next: FAMILY })
}

/// Where the fields lie of a header that Linux makes where a link layer's own is not had.
#[derive(Clone, Copy)]
struct Cooked {
    protocol: u32,
    hardware: u32,
    /// Its last octet.
    packet_type: u32,
    length: u32,
}

/// `LINKTYPE_LINUX_SLL`.
const SLL: Cooked = Cooked { protocol: 14, hardware: 2, packet_type: 1, length: 16 };
/// `LINKTYPE_LINUX_SLL2`.
const SLL2: Cooked = Cooked { protocol: 0, hardware: 8, packet_type: 10, length: 20 };

fn cooked(octets: &[u8], form: Cooked) -> (Begin, Result<Layer2, Unparsed>) {
    /// `ARPHRD_ETHER` and `ARPHRD_LOOPBACK` (`include/uapi/linux/if_arp.h`): both have an Ethernet header.
    const WITH_ETHERNET: [u16; 2] = [1, 772];
    /// `ARPHRD_IEEE80211` and its two forms with more before, and `ARPHRD_NETLINK`: the protocol is no Ethertype.
    const OTHERS: [u16; 4] = [801, 802, 803, 824];
    /// `PACKET_OUTGOING` (`include/uapi/linux/if_packet.h`).
    const OUTGOING: u8 = 4;
    /// `ETH_P_802_2` (`include/uapi/linux/if_ether.h`): an LLC header follows.
    const LLC: u16 = 4;
    let Cooked { protocol, hardware, packet_type, length } = form;
    let bytes = &octets;
    let made = Begin { made: length, ..Begin::WHOLE };
    let (Some(protocol), Some(hardware), Some([packet_type])) =
        (bytes.number(protocol), bytes.number(hardware), bytes.array(packet_type))
    else {
        return (made, Err(Unparsed::Truncated));
    };
    let taken = if WITH_ETHERNET.contains(&hardware) { ETHERNET } else { 0 };
    let direction = if packet_type == OUTGOING { Direction::Outbound } else { Direction::Inbound };
    let layer2 = match protocol {
        _ if OTHERS.contains(&hardware) => Err(Unparsed::EtherType),
        LLC => ethernet::behind(bytes, protocol, length),
        other if other < FIRST_ETHERTYPE => Err(ethernet::refuse(other)),
        ethertype => ethernet::behind(bytes, ethertype, length),
    };
    (Begin { taken, direction, ..made }, layer2)
}

#[cfg(test)]
mod tests {
    use collector_ebpf::{
        abi::counter::Unparsed,
        wire::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Layer2},
    };

    use super::{is_read, layer2};
    use crate::read::container::{Direction, links};

    fn of(link: u16, octets: &[u8]) -> Result<(u16, u32, u16), Unparsed> {
        layer2(octets, link).1.map(|Layer2 { ethertype, next, vlan }| (ethertype, next, vlan))
    }

    #[test]
    fn loopback_names_its_family_in_an_order_that_nobody_knows() {
        for family in [2_u32, 10, 24, 28, 30] {
            let ethertype = if family == 2 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
            for octets in [family.to_le_bytes(), family.to_be_bytes()] {
                assert_eq!(of(links::NULL, &octets), Ok((ethertype, 4, 0)));
            }
            assert_eq!(of(links::LOOP, &family.to_be_bytes()), Ok((ethertype, 4, 0)));
            assert_eq!(of(links::LOOP, &family.to_le_bytes()), Err(Unparsed::EtherType));
        }
        assert_eq!(of(links::NULL, &[7, 0, 0, 0]), Err(Unparsed::EtherType));
        assert_eq!(of(links::NULL, &[2, 0, 0]), Err(Unparsed::Truncated));
        assert_eq!(layer2(&[2, 0, 0, 0], links::NULL).0.on_wire(104), 100);
    }

    /// Packet type, kind of hardware and protocol, as both versions have them, and what follows.
    fn cooked(kind: u8, hardware: u16, protocol: u16, rest: &[u8]) -> [(u16, Vec<u8>); 2] {
        let ([h0, h1], [p0, p1]) = (hardware.to_be_bytes(), protocol.to_be_bytes());
        let one = [0, kind, h0, h1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, p0, p1];
        let two = [p0, p1, 0, 0, 0, 0, 0, 2, h0, h1, kind, 6, 2, 0, 0, 0, 0, 1, 0, 0];
        [(links::LINUX_SLL, [&one[..], rest].concat()), (links::LINUX_SLL2, [&two[..], rest].concat())]
    }

    #[test]
    fn cooked_headers_say_protocol_direction_and_what_was_taken_off() {
        for (link, octets) in cooked(4, 1, 0x8100, &[0, 7, 8, 0, 0x45]) {
            let (begin, _) = layer2(&octets, link);
            let header = octets.len() as u32 - 5;
            assert_eq!(of(link, &octets), Ok((ETHERTYPE_IPV4, header + 4, 7)));
            // Ethernet was there instead.
            assert_eq!((begin.direction, begin.on_wire(header + 100)), (Direction::Outbound, 114));
            for length in 0..header as usize {
                assert_eq!(of(link, &octets[..length]), Err(Unparsed::Truncated), "{length}");
            }
        }
        for (link, octets) in cooked(0, 65_534, 0x86DD, &[0x60]) {
            let (begin, _) = layer2(&octets, link);
            let header = octets.len() as u32 - 1;
            assert_eq!(of(link, &octets), Ok((ETHERTYPE_IPV6, header, 0)));
            assert_eq!((begin.direction, begin.on_wire(header + 100)), (Direction::Inbound, 100));
        }
    }

    #[test]
    fn what_is_no_ethertype_there_is_refused() {
        let snap = [0xAA, 0xAA, 3, 0, 0, 0, 8, 0, 0x45];
        for (link, octets) in cooked(0, 1, 4, &snap) {
            assert_eq!(of(link, &octets).map(|it| it.0), Ok(ETHERTYPE_IPV4), "LLC");
        }
        for (hardware, protocol, reason) in [
            (1, 1, Unparsed::Llc),
            (1, 12, Unparsed::Llc),
            (824, 0x0800, Unparsed::EtherType),
            (1, 0x0806, Unparsed::Arp),
        ] {
            for (link, octets) in cooked(0, hardware, protocol, &snap) {
                assert_eq!(of(link, &octets), Err(reason), "{hardware} {protocol}");
            }
        }
    }

    #[test]
    fn raw_packets_go_by_their_version_whatever_their_number_says() {
        for link in [links::RAW_12, links::RAW_14, links::RAW, links::IPV4, links::IPV6] {
            assert_eq!(of(link, &[0x45]), Ok((ETHERTYPE_IPV4, 0, 0)));
            assert_eq!(of(link, &[0x60]), Ok((ETHERTYPE_IPV6, 0, 0)));
            assert_eq!(of(link, &[0x00]), Err(Unparsed::IpVersion));
        }
        assert!(is_read(links::RAW) && !is_read(127));
        assert_eq!(of(127, &[0x45]), Err(Unparsed::EtherType));
    }
}
