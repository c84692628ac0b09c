//! Tagged frames: the tag is counted, and tells flows apart.

use std::{cell::RefCell, net::SocketAddr};

use collector_tests::{
    Result,
    books::{Books, assert_sum_at_uplinks},
    collector::{Running, options},
    events::{self, Totals},
    frames::{C_TAG, IPV4, IPV6, S_TAG, UDP, ethernet_between, ipv4, ipv6, udp},
    lab::{Addressed, End, Wire, join, silent_host},
    talk::{self, Amount, Talk, ask, asker},
    traffic::{Host, PacketSocket, headers, pin, settle},
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

/// Datagrams from one end's port 40,000 to the other's port 5,001 and back, in a VLAN over both families. No socket takes
/// them: what is answered, and how often, is the test's to say.
fn talk_in_vlan(
    a: &End,
    b: &End,
    vlan: u16,
    counts: [u64; 2],
    has_come: impl Fn() -> Result<()>,
) -> Result<[Talk; 2]> {
    let [p0, p1, p2, p3] = PORTS;
    let ways = [(a, b, PORTS), (b, a, [p2, p3, p0, p1])];
    for ((from, to, ports), count) in ways.into_iter().zip(counts) {
        let datagram = udp(ports, DATA);
        let socket = PacketSocket::new(from)?;
        for (ethertype, packet) in [
            (IPV4, ipv4((from.v4, to.v4), &[], 0x4000, UDP, &datagram)),
            (IPV6, ipv6((from.v6, to.v6), UDP, &datagram)),
        ] {
            let frame = ethernet_between(from.mac, to.mac, &[(C_TAG, vlan)], ethertype, &packet);
            for _ in 0..count {
                socket.send(&frame)?;
            }
        }
        // Who sends first has opened the flow.
        has_come()?;
    }
    Ok([4, 6].map(|version| {
        let amount = |packets| {
            let each = headers(a.address(version)) + 4 + 8 + DATA as u64;
            Amount { packets, bytes: packets * each }
        };
        let [source, destination] =
            [(a, 40_000), (b, PORT)].map(|(end, port)| SocketAddr::new(end.address(version), port));
        let [forth, back] = counts.map(amount);
        Talk { vlan, forth, back, ..Talk::one_way(source, destination, 0, 0) }
    }))
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn the_same_ends_in_two_vlans_are_two_flows() -> Result<()> {
    let hosts = [silent_host()?, silent_host()?];
    let (a, b) = join(&hosts[0], &hosts[1], 0, Addressed::Both)?;
    for end in [&a, &b] {
        end.without_offloads()?;
    }
    let answering = Host::new(&b, &[])?;
    let collectors = [
        Running::start_beside(&a.place, options(), Some(&a.dev))?,
        Running::start_beside(&b.place, options(), Some(&b.dev))?,
    ];
    // A CPU hands packets on in their order: when an answer has come, all that was sent before has.
    pin(0)?;
    let questions = RefCell::new(Vec::new());
    let question = || -> Result<()> {
        let from = (a.v4, 41_000 + questions.borrow().len() as u16).into();
        let asked = ask(&asker(&a.place, from, talk::answers(&answering, 4))?, 1, DATA)?;
        questions.borrow_mut().push(asked);
        Ok(())
    };
    let mut talks = Vec::new();
    for (vlan, counts) in [(29, [300, 200]), (30, [40, 50])] {
        talks.extend(talk_in_vlan(&a, &b, vlan, counts, question)?);
    }
    talks.extend(questions.into_inner());
    for (collector, is_source) in collectors.into_iter().zip([true, false]) {
        let finished = collector.stop()?;
        assert_balanced(&finished);
        let mut books = Books::new();
        for talk in &talks {
            if is_source {
                books.asked("host", talk)
            } else {
                books.was_asked("host", talk)
            };
        }
        books.assert_kept(&finished);
        assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[finished.link]);
    }
    Ok(())
}
