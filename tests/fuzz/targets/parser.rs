//! The parser on any octets: as a frame, and as the choices that lead to a frame that is nearly right.

#![no_main]

use collector_ebpf::wire::{self, Frame, Link, quote, short, tunnel};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let Some((how, octets)) = octets.split_first() else { return };
    let (link, bytes) = match how & 3 {
        0 => (Link::Ethernet, octets.to_vec()),
        1 => (Link::RawIp, octets.to_vec()),
        _ => collector_tests::generated::frame(octets),
    };
    let frame = Frame { length: bytes.len() as u32 + u32::from(how >> 3), gso: how & 4 != 0 };
    let bytes = bytes.as_slice();
    let read = wire::parse(&bytes, link, frame);
    if link == Link::Ethernet && !frame.gso {
        // Where the short form reads a frame, it says the same.
        let four = short::ipv4(&bytes, frame.length).map(|ip| ip.transport);
        let six = short::ipv6(&bytes, frame.length).map(|ip| ip.transport);
        if let Some(short) = four.or(six) {
            assert_eq!(read.map(|packet| packet.transport), Ok(short));
        }
    }
    if let Ok(packet) = read {
        let transport = packet.transport;
        let [_, _, high, low] = transport.ports;
        let port = u16::from_be_bytes([high, low]);
        let inside = tunnel::inside(&bytes, transport.protocol, port, transport.headers);
        // Both may lie behind what is shown of the frame: whoever reads there finds nothing.
        assert!(
            inside.is_none_or(|inside| transport.headers <= inside.frame && inside.frame <= inside.packet)
        );
        let _ = tunnel::innermost(&bytes, transport.protocol, port, transport.headers);
        let _ = quote::ipv4(&bytes, transport.headers);
        let _ = quote::ipv6(&bytes, transport.headers);
    }
});
