//! Processing units at their boundaries: what each received and sent, and that their sums are the interfaces' own.

use collector_tests::{
    Result,
    collector::{Running, declared, options},
    events::{self, Totals},
    frames::UDP,
    lab::{Addressed, End, Wire, host, join},
    netns::NetNs,
    traffic::{Datagrams, Host, send_and_settle, transfer},
};
use collector_user::{
    daemon::Options,
    event::{AttributedBy, EndPointType},
};

use crate::assert_balanced;

const PORT: u16 = 5001;
const COUNT: u64 = 1000;
const SIZE: usize = 100;
/// Octets of a datagram's frame over IPv4 and over IPv6.
const FRAME_4: u64 = SIZE as u64 + 42;
const FRAME_6: u64 = SIZE as u64 + 62;

fn both(host: &Host) -> [Datagrams; 2] {
    [4, 6].map(|version| Datagrams { to: host.address(version, PORT), count: COUNT, size: SIZE })
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn declared_addresses_are_their_units_and_the_rest_of_an_uplink_is_the_hosts() -> Result<()> {
    let wire = Wire::new()?;
    wire.a.without_offloads()?;
    wire.b.without_offloads()?;
    // A second address of the same host, which nobody declares.
    let other = "10.77.0.9";
    wire.b.place.ip(&format!("addr add {other}/24 dev {}", wire.b.dev))?;
    wire.a.knows_address(other, &wire.b)?;
    let ranges = [format!("{}/32", wire.b.v4), format!("{}/128", wire.b.v6)];
    let options = Options { units: vec![declared("web", &[], &ranges)?], ..options() };
    let collector = Running::start_beside(&wire.b.place, options, Some(&wire.b.dev))?;
    let host = Host::new(&wire.b, &[PORT])?;
    let to_other = Datagrams { to: format!("{other}:{PORT}").parse()?, count: COUNT / 2, size: SIZE };
    send_and_settle(&wire.a, 40_000, &host, &[&both(&host)[..], &[to_other]].concat())?;
    transfer(&wire.a, &wire.b, 4, 5002, 1_000_000, 1_000_000)?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let events = &finished.events;
    for (to, frame, unit, count) in [
        (wire.b.address(4), FRAME_4, "web", COUNT),
        (wire.b.address(6), FRAME_6, "web", COUNT),
        (other.parse()?, FRAME_4, "host", COUNT / 2),
    ] {
        let records: Vec<_> = events::flows(events)
            .filter(|flow| {
                events::is_to(flow, UDP, PORT) && events::ip_of(flow.destination.as_ref()) == Some(to)
            })
            .collect();
        let [record] = records[..] else { panic!("one record to {to} was expected: {records:#?}") };
        assert_eq!((record.packets, record.bytes), (count, count * frame), "{to}");
        assert_eq!(&*record.context_id, unit, "{to}");
        let destination = record.destination.clone().unwrap_or_default();
        assert_eq!((&*destination.id, destination.r#type), (unit, EndPointType::Pu), "{to}");
        let by = if unit == "web" { AttributedBy::Declared } else { AttributedBy::Socket };
        assert_eq!(record.attributed_by, by, "{to}");
        if unit == "web" {
            assert_eq!(&*record.namespace, "/lab", "{to}");
            assert_eq!(*record.tags, ["app=lab"].into_iter().collect(), "{to}");
        }
    }
    // The unit's counters are the sums over its flows, and what the units counted is what crossed the interface.
    for unit in ["web", "host"] {
        let total = events::total(events, |flow| &*flow.context_id == unit);
        let counted = events::unit(events, unit);
        assert_eq!(counted, [total.packets, total.bytes, total.reply_packets, total.reply_bytes], "{unit}");
    }
    let link = finished.link;
    assert_eq!(
        events::all_units(events),
        [link.rx_packets, link.rx_bytes, link.tx_packets, link.tx_bytes],
        "received packets and octets, sent packets and octets"
    );
    Ok(())
}

/// A host with a bridge, whose one port is the host-side end of what is in the second namespace.
fn bridged() -> Result<([NetNs; 2], End, End)> {
    let hosts = [host()?, host()?];
    let (outside, inside) = join(&hosts[0], &hosts[1], 0, Addressed::Second)?;
    let place = outside.place.clone();
    place.ip("link add br0 type bridge mcast_snooping 0")?;
    place.ip(&format!("link set {} master br0", outside.dev))?;
    place.ip("link set br0 up")?;
    place.ip(&format!("addr add {}/24 dev br0", outside.v4))?;
    place.ip(&format!("addr add {}/64 dev br0 nodad", outside.v6))?;
    let bridge = End { dev: "br0".to_owned(), ..outside.clone() };
    bridge.knows(&inside)?;
    bridge.wait_for_carrier()?;
    Ok((hosts, outside, inside))
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn behind_a_host_side_end_the_directions_are_the_units() -> Result<()> {
    for unit in ["web", "unknown"] {
        let (_hosts, outside, inside) = bridged()?;
        let units = if unit == "web" { vec![declared(unit, &[&outside.dev], &[])?] } else { Vec::new() };
        let collector = Running::start(&outside.place, Options { units, ..options() })?;
        let status = &collector.started.interfaces;
        let roles: Vec<_> = status.iter().map(|it| (&*it.name, &*it.role)).collect();
        let role = if unit == "web" { "declared" } else { "unknown" };
        assert!(roles.contains(&(&outside.dev, role)) && roles.contains(&("br0", "stacked")), "{roles:?}");
        let sinks = [Host::new(&outside, &[PORT])?, Host::new(&inside, &[PORT + 1])?];
        // Out of the unit.
        send_and_settle(&inside, 40_000, &sinks[0], &both(&sinks[0]))?;
        // Into it, half as many.
        let into = [4, 6].map(|version| Datagrams {
            to: sinks[1].address(version, PORT + 1),
            count: COUNT / 2,
            size: SIZE,
        });
        let bridge = End { dev: "br0".to_owned(), ..outside.clone() };
        send_and_settle(&bridge, 40_000, &sinks[1], &into)?;
        let finished = collector.stop()?;
        assert_balanced(&finished);
        let events = &finished.events;
        let total = |port| events::total(events, move |flow| events::is_to(flow, UDP, port));
        let bytes = |count: u64| count * (FRAME_4 + FRAME_6);
        assert_eq!(
            total(PORT),
            Totals { packets: 2 * COUNT, bytes: bytes(COUNT), count: 2, ..Totals::default() }
        );
        assert_eq!(
            total(PORT + 1),
            Totals { packets: COUNT, bytes: bytes(COUNT / 2), count: 2, ..Totals::default() }
        );
        assert!(events::flows(events).all(|flow| &*flow.context_id == unit));
        // All flows are the unit's: what it sent is what those from inside carried there, and those from outside back.
        let from_inside = |from: bool| {
            events::total(events, |flow| {
                let source = events::ip_of(flow.source.as_ref());
                (source == Some(inside.address(4)) || source == Some(inside.address(6))) == from
            })
        };
        let (out, into) = (from_inside(true), from_inside(false));
        let [rx_packets, rx_bytes, tx_packets, tx_bytes] = events::unit(events, unit);
        // Reports to multicast routers have no address of the unit's for source.
        let flowless = events::counter(events, unit, "rx_flowless_packets");
        assert_eq!(rx_packets - flowless, into.packets + out.reply_packets, "{events:#?}");
        assert_eq!(tx_packets, out.packets + into.reply_packets);
        assert_eq!((rx_bytes, tx_bytes), (into.bytes + out.reply_bytes, out.bytes + into.reply_bytes));
        assert_eq!(events::unit(events, "host"), [0; 4]);
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_passes_through_is_forwarded_in_and_out() -> Result<()> {
    for reported in [false, true] {
        let hosts = [host()?, host()?, host()?];
        let router = hosts[1].place();
        let (left, left_router) = join(&hosts[0], &hosts[1], 0, Addressed::Both)?;
        let (right_router, right) = join(&hosts[1], &hosts[2], 1, Addressed::Both)?;
        router.sysctl(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
        for (end, gateway) in [(&left, &left_router), (&right, &right_router)] {
            for version in [4, 6] {
                let gateway = gateway.address(version);
                end.place.ip(&format!("-{version} route add default via {gateway} dev {}", end.dev))?;
            }
        }
        let collector = Running::start(router, Options { forwarded: reported, ..options() })?;
        let sink = Host::new(&right, &[PORT])?;
        send_and_settle(&left, 40_000, &sink, &both(&sink))?;
        let finished = collector.stop()?;
        assert_balanced(&finished);
        let events = &finished.events;
        let [rx_packets, rx_bytes, tx_packets, tx_bytes] = events::unit(events, "forwarded");
        // The question that ends the sending passes through, and so does its answer: each is received and sent.
        assert_eq!((rx_packets, rx_bytes), (tx_packets, tx_bytes));
        assert!(rx_packets >= 2 * COUNT + 2);
        let questions = (rx_packets - 2 * COUNT, rx_bytes - COUNT * (FRAME_4 + FRAME_6));
        assert_eq!(
            questions.1,
            questions.0 * (42 + 8),
            "beside the datagrams there are questions and answers only"
        );
        assert_eq!(events::unit(events, "host"), [0; 4], "{events:#?}");
        let datagrams = |dev: &str| {
            events::total(events, |flow| events::is_to(flow, UDP, PORT) && &*flow.interface == dev)
        };
        let all =
            Totals { packets: 2 * COUNT, bytes: COUNT * (FRAME_4 + FRAME_6), count: 2, ..Totals::default() };
        let want = if reported { all } else { Totals::default() };
        // Once in, once out.
        assert_eq!(datagrams(&left_router.dev), want);
        assert_eq!(datagrams(&right_router.dev), want);
        assert!(events::flows(events).all(|flow| &*flow.context_id == "forwarded"));
    }
    Ok(())
}
