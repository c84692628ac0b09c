//! Frames made octet by octet, after the figures of the documents.

use collector_ebpf::abi::counter::Unparsed;

use super::{Ends, Fragment, Seen};
use crate::read::container::{Direction, Marks, Record, links};

const SOURCE: [u8; 4] = [192, 0, 2, 1];
const DESTINATION: [u8; 4] = [198, 51, 100, 2];

/// RFC 791 figure 4; `length` as the field says it.
fn ipv4(protocol: u8, length: u16, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let ([l0, l1], [f0, f1]) = (length.to_be_bytes(), fragment.to_be_bytes());
    let header = [0x45, 0, l0, l1, 0xAB, 0xCD, f0, f1, 64, protocol, 0, 0];
    [&header[..], &SOURCE, &DESTINATION, payload].concat()
}

/// RFC 768 and RFC 9293 figure 1, as far as ports go.
fn udp(ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
    let [source, destination] = ports.map(u16::to_be_bytes);
    let length = (8 + payload.len() as u16).to_be_bytes();
    [&source[..], &destination, &length, &[0, 0], payload].concat()
}

/// RFC 8200 section 3, from `2001:db8::1` to `::2`.
fn ipv6(next: u8, length: u16, payload: &[u8]) -> Vec<u8> {
    let [l0, l1] = length.to_be_bytes();
    let address = |last| [0x20, 1, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    [&[0x60, 0, 0, 0, l0, l1, next, 64][..], &address(1), &address(2), payload].concat()
}

fn ethernet(types: &[u8], payload: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1][..], types, payload].concat()
}

fn seen_of(link: u16, octets: &[u8], length: usize) -> Seen {
    Seen::of(&Record {
        offset: 0,
        interface: 0,
        link,
        time: None,
        octets,
        length: length as u32,
        direction: Direction::Unknown,
        marks: Marks::NONE,
    })
}

fn seen(frame: &[u8]) -> Seen {
    seen_of(links::ETHERNET, frame, frame.len())
}

#[test]
fn all_tags_and_labels_whatever_lies_behind_them() {
    let packet = ipv4(17, 32, 0, &udp([1, 2], &[0; 4]));
    // 802.1ad, what was before it, 802.1Q; then two labels (RFC 3032 figure 1).
    let tags = [0x88, 0xA8, 0, 7, 0x91, 0, 0x20, 8, 0x81, 0, 0, 9];
    let labels = [0x88, 0x47, 0, 0x06, 0x40, 64, 0, 0x06, 0x51, 64];
    let read = seen(&ethernet(&[&tags[..], &labels].concat(), &packet));
    assert_eq!((read.vlans, read.labels, read.unparsed), (vec![7, 8, 9], vec![100, 101], None));
    assert_eq!(read.ip.map(|ip| (ip.at, ip.next)), Some((34, 54)));
    let strange = seen(&ethernet(&[&tags[..], &[8, 6]].concat(), &[0; 28]));
    assert_eq!((strange.vlans, strange.unparsed), (vec![7, 8, 9], Some(Unparsed::Arp)));
    let control_word = seen(&ethernet(&labels, &[0, 0, 0, 1]));
    assert_eq!((control_word.labels, control_word.unparsed), (vec![100, 101], Some(Unparsed::MplsPayload)));
}

#[test]
fn a_chain_of_extension_headers_with_a_fragment() {
    // Hop-by-hop options, then a fragment of 1,448 octets into its datagram, more to follow (RFC 8200 sections 4.3, 4.5).
    let chain = [[44, 0, 1, 4, 0, 0, 0, 0], [17, 0, 0x05, 0xA9, 0xDE, 0xAD, 0xBE, 0xEF]].concat();
    let read = seen(&ethernet(&[0x86, 0xDD], &ipv6(0, 24, &[&chain[..], &[0x55; 8]].concat())));
    let ip = read.ip.expect("it is read");
    assert_eq!((ip.names, ip.extensions, ip.protocol, ip.next), (0, vec![0, 44], 17, 70));
    assert_eq!(ip.fragment, Some(Fragment { id: 0xDEAD_BEEF, offset: 1448, more: true }));
    assert_eq!(read.layer4, None, "ports are in the first one");
}

#[test]
fn a_length_of_0_is_a_super_packets() {
    let packet = ipv4(17, 0, 0, &udp([1, 2], &[0; 4]));
    let read = seen(&ethernet(&[8, 0], &packet));
    assert!(read.is_super && read.unparsed.is_none());
    assert_eq!(read.layer4.and_then(|it| it.ports), Some((1, 2)));
    // In IPv6 it is nothing's, where the packet is no longer than it could say.
    let small = seen(&ethernet(&[0x86, 0xDD], &ipv6(17, 0, &udp([1, 2], &[]))));
    assert_eq!((small.is_super, small.unparsed), (false, Some(Unparsed::Truncated)));
    let segment = [0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0];
    let cut = ethernet(&[0x86, 0xDD], &ipv6(6, 0, &segment));
    let large = seen_of(links::ETHERNET, &cut, 80_000);
    assert_eq!((large.is_super, large.layer4.and_then(|it| it.ports)), (true, Some((1, 2))));
}

#[test]
fn what_a_tunnel_carries_and_what_an_error_quotes() {
    let inside = ethernet(&[0x81, 0, 0, 5, 8, 0], &ipv4(17, 32, 0, &udp([7, 8], &[0; 4])));
    let vxlan = [&[8, 0, 0, 0, 0, 0, 42, 0][..], &inside].concat();
    let outer = udp([50_000, 4789], &vxlan);
    let read = seen(&ethernet(&[8, 0], &ipv4(17, 20 + outer.len() as u16, 0, &outer)));
    let inner = read.inner.expect("a tunnel's");
    assert_eq!((inner.name(), inner.id, &*inner.vlans, inner.unparsed), ("vxlan", 42, &[5][..], None));
    assert_eq!(inner.layer4.and_then(|it| it.ports), Some((7, 8)));
    // Port unreachable (RFC 792, page 4): the header and eight octets more.
    let message = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &ipv4(17, 500, 0, &udp([7, 8], &[]))].concat();
    let read = seen(&ethernet(&[8, 0], &ipv4(1, 20 + message.len() as u16, 0, &message)));
    assert_eq!(read.layer4.and_then(|it| it.icmp), Some((3, 3)));
    let (source, destination) = (SOURCE.into(), DESTINATION.into());
    assert_eq!(read.quoted, Some(Ends { source, destination, protocol: 17, ports: Some((7, 8)) }));
}

#[test]
fn a_packet_that_is_refused_further_in_shows_its_ip_header() {
    let frame = ethernet(&[8, 0], &ipv4(17, 28, 0, &[0, 1, 0, 2, 0, 7, 0, 0]));
    let read = seen(&frame);
    assert_eq!((read.unparsed, read.layer4), (Some(Unparsed::UdpLength), None));
    assert_eq!(read.ip.map(|ip| ip.protocol), Some(17));
    assert_eq!(seen(&frame[..20]).unparsed, Some(Unparsed::Truncated));
}
