//! Tagged frames: the tag is counted, and tells flows apart.

use collector_tests::{
    Result,
    collector::{Running, options},
    events::{self, Totals},
    frames::{C_TAG, IPV4, IPV6, S_TAG, UDP, ethernet_between, ipv4, ipv6, udp},
    lab::Wire,
    traffic::{Host, PacketSocket, pin, settle},
};

use crate::assert_balanced;

const COUNT: u64 = 500;
const DATA: usize = 60;
const PORTS: [u8; 4] = [0x9C, 0x40, 0x13, 0x89];
const PORT: u16 = 5001;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_tag_is_counted_and_tells_flows_apart_at_both_ends() -> Result<()> {
    let wire = Wire::new()?;
    let sent_from = Running::start(&wire.a.place, options())?;
    let sent_to = Running::start(&wire.b.place, options())?;
    let host = Host::new(&wire.b, &[PORT])?;
    let datagram = udp(PORTS, DATA);
    let four = ipv4((wire.a.v4, wire.b.v4), &[], 0x4000, UDP, &datagram);
    let six = ipv6((wire.a.v6, wire.b.v6), UDP, &datagram);
    let frame = |tags: &[(u16, u16)], ethertype, packet: &[u8]| {
        ethernet_between(wire.a.mac, wire.b.mac, tags, ethertype, packet)
    };
    // VLAN 29, priority 2.
    let tag = (C_TAG, 0x401D);
    let frames = [
        (29, 4, frame(&[tag], IPV4, &four)),
        (29, 6, frame(&[tag], IPV6, &six)),
        (100, 4, frame(&[(S_TAG, 100), tag], IPV4, &four)),
        (0, 4, frame(&[], IPV4, &four)),
        (0, 6, frame(&[], IPV6, &six)),
    ];
    pin(0)?;
    let socket = PacketSocket::new(&wire.a)?;
    for _ in 0..COUNT {
        for (_, _, frame) in &frames {
            socket.send(frame)?;
        }
    }
    settle(&wire.a, &host)?;
    for collector in [sent_from, sent_to] {
        let finished = collector.stop()?;
        assert_balanced(&finished);
        for (vlan, version, frame) in &frames {
            let total = events::total(&finished.events, |flow| {
                events::is_to(flow, UDP, PORT)
                    && flow.vlan == *vlan
                    && events::ip_of(flow.source.as_ref()) == Some(wire.a.address(*version))
            });
            let bytes = COUNT * frame.len() as u64;
            assert_eq!(
                total,
                Totals { packets: COUNT, bytes, count: 1, ..Totals::default() },
                "VLAN {vlan}, IPv{version}"
            );
        }
        let records = events::flows(&finished.events).filter(|flow| events::is_to(flow, UDP, PORT)).count();
        assert_eq!(records, frames.len());
    }
    Ok(())
}
