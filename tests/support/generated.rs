//! Frames by choice: any that a list of octets leads to, mostly without fault, some with a few octets changed. The same
//! list leads to the same frame, and a shorter one to a simpler frame.

use std::net::{Ipv4Addr, Ipv6Addr};

use collector_ebpf::wire::Link;

use crate::frames::{
    AH, C_TAG, ICMP, ICMPV6, IPV4, IPV6, MPLS, PPPOE, S_TAG, SCTP, TCP, UDP, UDP_LITE, authentication,
    destination_options, ethernet, fragment_6, icmp, ipv4, ipv6, mpls, pppoe, sctp, snap, tcp, udp,
};

/// Hop-by-hop, routing, destination options, mobility: they have one form.
const EXTENSIONS: [u8; 4] = [0, 43, 60, 135];
const FRAGMENT: u8 = 44;
/// What the first octets of frames are changed to, beside any: what headers have at their bounds.
const BOUNDS: [u8; 8] = [0, 1, 4, 0x45, 0x60, 0x7F, 0x80, 0xFF];
/// Ethertypes and lengths of no IP packet, and one of a tag of old: ARP, RARP, PPPoE's discovery, that, LLDP, LLC.
const STRANGERS: [u16; 6] = [0x0806, 0x8035, 0x8863, 0x9100, 0x88CC, 0x0026];
/// How far into a frame headers reach, as a rule.
const HEADERS: usize = 120;

/// Octets that decide.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    /// One of `count`; the first where nothing is left to decide by.
    fn of(&mut self, count: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % count
    }

    /// True once in `count` times.
    fn rarely(&mut self, count: usize) -> bool {
        self.of(count) == count - 1
    }
}

/// What a list of octets leads to.
pub fn frame(choices: &[u8]) -> (Link, Vec<u8>) {
    let mut choices = Choices(choices.iter());
    let choices = &mut choices;
    let (ethertype, (packet, transport)) =
        if choices.of(2) == 0 { (IPV4, packet_4(choices)) } else { (IPV6, packet_6(choices)) };
    let network = packet.len();
    let (link, mut frame) = if choices.rarely(8) {
        (Link::RawIp, packet)
    } else {
        (Link::Ethernet, layer_2(choices, ethertype, &packet))
    };
    let network = frame.len() - network;
    if choices.rarely(3) {
        frame.extend(vec![choices.of(256) as u8; choices.of(20)]);
    }
    if choices.rarely(2) {
        for _ in 0..=choices.of(3) {
            change(choices, &mut frame);
        }
    }
    if link == Link::Ethernet && choices.rarely(8) {
        let ethertype = STRANGERS[choices.of(STRANGERS.len())].to_be_bytes();
        frame.iter_mut().skip(12).zip(ethertype).for_each(|(octet, other)| *octet = other);
    }
    if choices.rarely(3) {
        lie(choices, &mut frame, network, network + transport);
    }
    (link, frame)
}

fn layer_2(choices: &mut Choices<'_>, ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let tags: Vec<_> = (0..if choices.rarely(3) { choices.of(6) } else { 0 })
        .map(|_| (if choices.of(2) == 0 { C_TAG } else { S_TAG }, choices.of(256) as u16 * 0x0101))
        .collect();
    match if choices.rarely(4) { 1 + choices.of(3) } else { 0 } {
        1 => ethernet(&tags, MPLS, &mpls(1 + choices.of(9) as u32, packet)),
        2 => {
            let snapped = snap(ethertype, packet);
            ethernet(&tags, snapped.len().min(1500) as u16, &snapped)
        }
        3 => ethernet(&tags, PPPOE, &pppoe(if ethertype == IPV4 { 0x21 } else { 0x57 }, packet)),
        _ => ethernet(&tags, ethertype, packet),
    }
}

/// A packet, and where in it the transport header begins.
fn packet_4(choices: &mut Choices<'_>) -> (Vec<u8>, usize) {
    let (mut protocol, mut payload) = transport(choices);
    let length = payload.len();
    if choices.rarely(8) {
        for _ in 0..=choices.of(5) {
            payload = [authentication(protocol), payload].concat();
            protocol = AH;
        }
    }
    let options = vec![1; 4 * if choices.rarely(3) { choices.of(11) } else { 0 }];
    let fragment = [0x4000, 0x4000, 0x4000, 0, 0x2000, 0x2005, 0x0005, 0x1FFF][choices.of(8)];
    let ends = (Ipv4Addr::new(10, 0, 0, 1 + choices.of(3) as u8), Ipv4Addr::new(192, 0, 2, 1));
    let packet = ipv4(ends, &options, fragment, protocol, &payload);
    let transport = packet.len() - length;
    (packet, transport)
}

/// A packet, and where in it the transport header begins.
fn packet_6(choices: &mut Choices<'_>) -> (Vec<u8>, usize) {
    let (mut next, mut payload) = transport(choices);
    let length = payload.len();
    if choices.rarely(3) {
        for nth in 0..choices.of(10) {
            let (header, protocol) = match choices.of(7) {
                0 => (authentication(next), AH),
                1 => {
                    let mut header = fragment_6(next, 8 * choices.of(3) as u16, choices.of(2) == 0);
                    // Each is a piece of a datagram of its own.
                    header[7] = nth as u8;
                    (header, FRAGMENT)
                }
                other => (destination_options(next), EXTENSIONS[other % EXTENSIONS.len()]),
            };
            payload = [header, payload].concat();
            next = protocol;
        }
    }
    let ends = (Ipv6Addr::new(0xFD00, 0, 0, 0, 0, 0, 0, 1 + choices.of(3) as u16), Ipv6Addr::LOCALHOST);
    let packet = ipv6(ends, next, &payload);
    let transport = packet.len() - length;
    (packet, transport)
}

/// A protocol and its header, with some data behind it.
fn transport(choices: &mut Choices<'_>) -> (u8, Vec<u8>) {
    let ports = [choices.of(256) as u8, 1, 2, choices.of(256) as u8];
    let data = choices.of(40);
    match choices.of(12) {
        0..=2 => (TCP, tcp(ports, choices.of(256) as u8, &[1].repeat(4 * choices.of(11)), data)),
        3..=5 => (UDP, udp(ports, data)),
        6 => (UDP_LITE, udp(ports, data)),
        7 => (ICMP, icmp(choices.of(20) as u8, choices.of(16) as u8)),
        8 => (ICMPV6, icmp(choices.of(256) as u8, choices.of(8) as u8)),
        9 => (SCTP, sctp(ports)),
        // IGMP, IP in IP, GRE, ESP, mobility of old, nothing, anything, DCCP.
        _ => ([2, 4, 41, 47, 50, 62, 59, 253, 33][choices.of(9)], vec![choices.of(256) as u8; data]),
    }
}

/// Makes a length untrue, by a little or to a bound.
fn lie(choices: &mut Choices<'_>, frame: &mut [u8], network: usize, transport: usize) {
    let at = [
        // The header length and total length of IPv4, the payload length of IPv6, the length of an extension header or
        // option, the length of UDP or the coverage of UDP-Lite, the data offset of TCP.
        network,
        network + 3,
        network + 5,
        network + 41,
        transport + 4,
        transport + 5,
        transport + 5,
        transport + 12,
    ][choices.of(8)];
    let (by, bound) = (choices.of(17) as u8, choices.of(2 * BOUNDS.len()));
    if let Some(octet) = frame.get_mut(at) {
        *octet = BOUNDS.get(bound).copied().unwrap_or(octet.wrapping_add(by).wrapping_sub(8));
    }
}

/// Changes an octet, cuts the frame, or puts octets into it.
fn change(choices: &mut Choices<'_>, frame: &mut Vec<u8>) {
    let at = choices.of(HEADERS).min(frame.len().saturating_sub(1));
    match choices.of(8) {
        0 => frame.truncate(at),
        1 => {
            let more = vec![choices.of(256) as u8; choices.of(9)];
            drop(frame.splice(at..at, more));
        }
        2..=4 => {
            if let Some(octet) = frame.get_mut(at) {
                *octet = BOUNDS[choices.of(BOUNDS.len())];
            }
        }
        _ => {
            if let Some(octet) = frame.get_mut(at) {
                *octet = choices.of(256) as u8;
            }
        }
    }
}
