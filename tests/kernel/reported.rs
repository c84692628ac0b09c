//! Packets over a wire, as they are reported: each that was asked for, with all its fields.

use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use collector_tests::{
    Result,
    collector::{Finished, Running, declared, options},
    events,
    frames::{C_TAG, IPV4, S_TAG, TCP, UDP, ethernet_between, ipv4, udp},
    lab::Wire,
    traffic::{Datagrams, Host, PacketSocket, pin, send_and_settle, settle, transfer},
};
use collector_user::{
    collector::capture::PacketCapture,
    daemon::{Options, trace::TraceError},
    event::{Captured, Event, LinkType, PacketEvent, PacketReport},
    kernel::settings::Transport,
    pu::trace::{Directions, NoSuchUnit, Whose, Wish},
};

use crate::assert_balanced;

const PORT: u16 = 5004;

fn wish(unit: &str, directions: Directions) -> Wish {
    Wish { whose: Whose::Unit(unit.into()), directions, duration: None, every: NonZeroU32::MIN }
}

/// Keeps all packets, and looks whether each comes before all of its time are said to be there.
#[derive(Debug, Default)]
struct Kept {
    packets: Mutex<Vec<Captured>>,
    complete: AtomicU64,
    late: AtomicU64,
}

impl PacketCapture for Kept {
    fn capture(&self, packet: &Captured) {
        self.late.fetch_add(u64::from(packet.boot_ns <= self.complete.load(Relaxed)), Relaxed);
        self.packets.lock().unwrap_or_else(PoisonError::into_inner).push(packet.clone());
    }

    fn complete(&self, boot_ns: u64) {
        self.complete.fetch_max(boot_ns, Relaxed);
    }
}

impl Kept {
    /// Once the collector has ended.
    fn all(&self) -> Vec<Captured> {
        let packets = self.packets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert_eq!(self.late.load(Relaxed), 0, "packets that came too late");
        let newest = packets.iter().map(|packet| packet.boot_ns).max();
        assert!(newest <= Some(self.complete.load(Relaxed)), "all packets are there at the end");
        packets
    }
}

fn reports(finished: &Finished) -> Vec<&PacketReport> {
    let packets = finished.events.iter().filter_map(|event| match event {
        Event::Packet(report) if report.event != PacketEvent::Dropped => Some(report),
        _ => None,
    });
    packets.collect()
}

/// What was traced is explained, and nothing of it lost.
fn assert_all_reported(finished: &Finished) {
    let ledger = &finished.status.ledger;
    assert_balanced(finished);
    assert_eq!(
        (ledger.traced, ledger.output_failed, ledger.packets_lost, ledger.undecodable),
        (ledger.packets, 0, 0, 0),
        "{ledger:?}"
    );
    assert_eq!(ledger.packets, reports(finished).len() as u64);
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_units_packets_are_reported_exactly_in_the_directions_asked_for() -> Result<()> {
    const COUNT: u64 = 300;
    for directions in [Directions::In, Directions::Out, Directions::Both] {
        let wire = Wire::new()?;
        let web = declared("web", &[], &[format!("{}/32", wire.b.v4), format!("{}/128", wire.b.v6)])?;
        let options = Options { units: vec![web], traces: vec![wish("web", directions)], ..options() };
        let collector = Running::start(&wire.b.place, options)?;
        let host = Host::new(&wire.b, &[PORT])?;
        let all = [4, 6].map(|version| Datagrams { to: host.address(version, PORT), count: COUNT, size: 30 });
        send_and_settle(&wire.a, 40_000, &host, &all)?;
        let finished = collector.stop()?;
        assert_all_reported(&finished);
        let reports = reports(&finished);
        // In the order in which they were seen on the one CPU that the other host sends from.
        let come = reports.iter().filter(|report| report.destination_port == PORT);
        assert!(come.is_sorted_by_key(|report| report.ts));
        // The unit's own counters: all that it received and sent, the questions of the end among it.
        let [received, _, sent, _] = events::unit(&finished.events, "web");
        let of = |event| reports.iter().filter(|report| report.event == event).count() as u64;
        let expected = match directions {
            Directions::In => [received, 0],
            Directions::Out => [0, sent],
            Directions::Both => [received, sent],
        };
        assert_eq!([of(PacketEvent::Received), of(PacketEvent::Transmitted)], expected, "{directions:?}");
        assert!(received > 2 * COUNT && sent > 0);
        for (version, length) in [(4, 58), (6, 78)] {
            let of_version: Vec<_> = reports
                .iter()
                .filter(|report| {
                    report.destination_port == PORT && report.destination_ip == Some(wire.b.address(version))
                })
                .collect();
            let expected = if directions == Directions::Out { 0 } else { COUNT };
            assert_eq!(of_version.len() as u64, expected, "IPv{version}");
            for report in of_version {
                let ids = report.packet_id;
                let payload = report.payload.clone();
                assert_eq!(
                    **report,
                    PacketReport {
                        claims: vec!["app=lab".into()],
                        destination_ip: Some(wire.b.address(version)),
                        destination_port: PORT,
                        event: PacketEvent::Received,
                        length,
                        namespace: "/lab".into(),
                        packet_id: ids,
                        protocol: UDP,
                        puid: "web".into(),
                        source_ip: Some(wire.a.address(version)),
                        source_port: 40_000,
                        trireme_packet: true,
                        packets: 1,
                        interface: wire.b.dev.as_str().into(),
                        payload: payload.clone(),
                        ts: report.ts,
                        ..PacketReport::default()
                    }
                );
                // From the IP header on, 64 octets at most; behind the headers only what was sent.
                assert_eq!(payload.len(), 64.min(length as usize));
                let headers = length as usize - 30;
                assert!(payload[headers..].iter().all(|octet| *octet == 0x55), "{payload:02x?}");
                if version == 4 {
                    assert_eq!(ids, u32::from(u16::from_be_bytes([payload[4], payload[5]])));
                } else {
                    assert_eq!(ids, 0);
                }
            }
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn super_packets_are_reported_whole_and_stand_for_all_segments() -> Result<()> {
    for transport in [Transport::Auto, Transport::Ring] {
        super_packets_are_whole(transport)?;
    }
    Ok(())
}

fn super_packets_are_whole(transport: Transport) -> Result<()> {
    let wire = Wire::new()?;
    let kept = Arc::new(Kept::default());
    let capture = Arc::<Kept>::clone(&kept);
    let mut options = Options {
        traces: vec![wish("host", Directions::Out)],
        capture: Some(capture),
        snaplen: u16::MAX,
        ..options()
    };
    // Room for all of it: the reader shares the CPUs with the sender.
    options.settings.packets = 1 << 23;
    options.settings.transport = transport;
    let collector = Running::start(&wire.a.place, options)?;
    let connection = transfer(&wire.a, &wire.b, 4, 5001, 2_000_000, 0)?;
    let finished = collector.stop()?;
    assert_all_reported(&finished);
    let kept = kept.all();
    let segments: u64 = kept.iter().map(|packet| u64::from(packet.packets)).sum();
    assert_eq!(segments, connection.client_info.segs_out);
    assert!(kept.iter().any(|packet| packet.packets > 1), "no super-packet");
    let mut octets = 0;
    for (packet, report) in kept.iter().zip(reports(&finished)) {
        assert_eq!(
            (report.protocol, report.destination_port, report.length + 14),
            (TCP, 5001, packet.length)
        );
        let captured = packet.bytes.len();
        // A record of a perf buffer stays below 64 KiB, and one of a ring is no longer.
        assert_eq!(captured, 65_452.min(packet.length as usize));
        assert_eq!(report.payload, packet.bytes[14..]);
        let header = 14 + 20 + usize::from(packet.bytes[46] >> 4) * 4;
        assert!(packet.bytes[header..].iter().all(|octet| *octet == 0xAA));
        octets += packet.length as usize - header;
    }
    assert_eq!(octets, 2_000_000);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_tagged_frame_is_captured_as_it_was_on_the_wire_at_both_ends() -> Result<()> {
    const COUNT: usize = 50;
    let wire = Wire::new()?;
    let kept = [(); 2].map(|()| Arc::new(Kept::default()));
    let mut collectors = Vec::new();
    for (end, kept) in [&wire.a, &wire.b].into_iter().zip(&kept) {
        let capture = Arc::<Kept>::clone(kept);
        let all = Wish { whose: Whose::All, ..wish("", Directions::Both) };
        let options = Options { traces: vec![all], capture: Some(capture), snaplen: 1000, ..options() };
        collectors.push(Running::start(&end.place, options)?);
    }
    let host = Host::new(&wire.b, &[PORT])?;
    let packet = ipv4((wire.a.v4, wire.b.v4), &[], 0x4000, UDP, &udp([0x9C, 0x40, 0x13, 0x8C], 200));
    let tag = (C_TAG, 0x401D);
    let frames = [
        ethernet_between(wire.a.mac, wire.b.mac, &[tag], IPV4, &packet),
        ethernet_between(wire.a.mac, wire.b.mac, &[(S_TAG, 100), tag], IPV4, &packet),
        ethernet_between(wire.a.mac, wire.b.mac, &[], IPV4, &packet),
    ];
    pin(0)?;
    let socket = PacketSocket::new(&wire.a)?;
    for frame in &frames {
        for _ in 0..COUNT {
            socket.send(frame)?;
        }
    }
    settle(&wire.a, &host)?;
    for (collector, ((end, kept), event)) in collectors
        .into_iter()
        .zip([&wire.a, &wire.b].into_iter().zip(&kept).zip([PacketEvent::Transmitted, PacketEvent::Received]))
    {
        let finished = collector.stop()?;
        assert_all_reported(&finished);
        let kept = kept.all();
        for frame in &frames {
            // That the host drops what no VLAN device takes is told, too: the same octets, once more.
            let crossed = kept.iter().filter(|packet| packet.event != PacketEvent::Dropped);
            let same: Vec<_> = crossed.filter(|packet| packet.bytes == frame).collect();
            assert_eq!(same.len(), COUNT, "at {}", end.dev);
            for packet in same {
                assert_eq!(
                    (packet.length as usize, packet.event, packet.ifindex, &*packet.interface),
                    (frame.len(), event, end.ifindex, &*end.dev)
                );
                assert_eq!((packet.link, packet.packets), (LinkType::Ethernet, 1));
            }
        }
        // Sent on one CPU: those that crossed, and those that were dropped, which have a buffer of their own.
        for is_dropped in [false, true] {
            let of_kind = kept.iter().filter(|packet| (packet.event == PacketEvent::Dropped) == is_dropped);
            assert!(of_kind.is_sorted_by_key(|packet| packet.time), "dropped: {is_dropped}");
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_wished_for_later_is_reported_from_then_on_and_nothing_before() -> Result<()> {
    const COUNT: u64 = 100;
    let wire = Wire::new()?;
    let collector = Running::start(&wire.a.place, options())?;
    let host = Host::new(&wire.b, &[PORT, PORT + 1])?;
    let datagrams = |port| [Datagrams { to: host.address(4, port), count: COUNT, size: 30 }];
    send_and_settle(&wire.a, 40_000, &host, &datagrams(PORT))?;
    let tracer = collector.started.tracer.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let unknown = runtime.block_on(tracer.enable(wish("wbe", Directions::Both)));
    assert_eq!(unknown, Err(TraceError::Unit(NoSuchUnit { id: "wbe".into() })));
    let long = Some(Duration::from_hours(1));
    runtime.block_on(tracer.enable(Wish { duration: long, ..wish("host", Directions::Out) }))?;
    // A shorter one takes nothing back.
    let short = Some(Duration::from_nanos(1));
    runtime.block_on(tracer.enable(Wish { duration: short, ..wish("host", Directions::Both) }))?;
    send_and_settle(&wire.a, 40_000, &host, &datagrams(PORT + 1))?;
    let finished = collector.stop()?;
    assert_all_reported(&finished);
    let reports = reports(&finished);
    let to = |port| reports.iter().filter(|report| report.destination_port == port).count() as u64;
    assert_eq!([to(PORT), to(PORT + 1)], [0, COUNT]);
    assert_eq!(runtime.block_on(tracer.enable(wish("host", Directions::Both))), Err(TraceError::Ended));
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn one_of_so_many_is_reported_and_the_rest_is_in_the_ledger() -> Result<()> {
    let wire = Wire::new()?;
    let tenth = Wish { every: NonZeroU32::try_from(10)?, ..wish("host", Directions::Out) };
    let collector = Running::start(&wire.a.place, Options { traces: vec![tenth], ..options() })?;
    let host = Host::new(&wire.b, &[PORT])?;
    // One thread sends all, on one CPU.
    send_and_settle(
        &wire.a,
        40_000,
        &host,
        &[Datagrams { to: host.address(4, PORT), count: 1000, size: 30 }],
    )?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let ledger = &finished.status.ledger;
    let [_, _, sent, _] = events::unit(&finished.events, "host");
    assert_eq!((ledger.traced, ledger.traced_explained()), (sent, sent), "{ledger:?}");
    let reported = reports(&finished).len() as u64;
    assert_eq!((reported, ledger.sampled), (sent.div_ceil(10), sent - sent.div_ceil(10)), "{ledger:?}");
    Ok(())
}
