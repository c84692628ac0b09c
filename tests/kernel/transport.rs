//! The same traffic by each transport is the same events and reports; and a CPU that comes later has its reports, too.

use std::fs;

use collector_tests::{
    Result,
    collector::{Finished, Running, all_of_the_host, options},
    events::{self, Totals},
    frames::{self, TCP, UDP},
    lab::{End, Wire},
    traffic::{Datagrams, Host, PacketSocket, headers, pin, send, send_and_settle, sender, settle, transfer},
};
use collector_user::{
    daemon::Options,
    event::{Ended, Event, PacketEvent, PacketReport},
    kernel::{
        cpus,
        settings::{Settings, Transport},
    },
};

use crate::assert_balanced;

const PORT: u16 = 5004;
/// What a rule drops.
const DROPPED: u16 = 6001;

fn reports(finished: &Finished, wanted: impl Fn(&PacketReport) -> bool) -> Vec<&PacketReport> {
    let reports = finished.events.iter().filter_map(|event| match event {
        Event::Packet(report) if wanted(report) => Some(report),
        _ => None,
    });
    reports.collect()
}

/// Sends datagrams to a port at which a rule drops them.
fn send_to_be_dropped(from: &End, to: &End, count: u64) -> Result<()> {
    let mut datagram = frames::udp([0x9C, 0x40, 0x17, 0x71], 60);
    // None.
    datagram[6..8].fill(0);
    let mut packet = frames::ipv4((from.v4, to.v4), &[], 0x4000, UDP, &datagram);
    packet[8] = 64;
    let checksum = frames::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    let frame = frames::ethernet_between(from.mac, to.mac, &[], frames::IPV4, &packet);
    let socket = PacketSocket::new(from)?;
    (0..count).try_for_each(|_| socket.send(&frame))
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn by_each_transport_the_same_is_told() -> Result<()> {
    const COUNT: u64 = 100;
    const DROPS: u64 = 70;
    for transport in [Transport::Auto, Transport::Ring, Transport::Perf] {
        let wire = Wire::new()?;
        wire.b.place.nft(&format!(
            "table inet t {{ chain i {{ type filter hook input priority 0; udp dport {DROPPED} drop; }}; }}"
        ))?;
        // Room for the reports of the whole connection: the reader shares the CPUs with the sender.
        let settings = Settings { transport, packets: 1 << 22, ..Settings::default() };
        let options = Options { traces: vec![all_of_the_host()], settings, ..options() };
        let collector = Running::start(&wire.b.place, options)?;
        let host = Host::new(&wire.b, &[PORT])?;
        let all = [4, 6].map(|version| Datagrams { to: host.address(version, PORT), count: COUNT, size: 30 });
        send_and_settle(&wire.a, 40_000, &host, &all)?;
        let connections = [(4, 5001), (6, 5002)]
            .map(|(version, port)| transfer(&wire.a, &wire.b, version, port, 500_000, 50_000));
        send_to_be_dropped(&wire.a, &wire.b, DROPS)?;
        settle(&wire.a, &host)?;
        let finished = collector.stop()?;
        assert_balanced(&finished);
        let ledger = &finished.status.ledger;
        assert_eq!(&finished.status.transport, transport.name());
        // Flows.
        for datagrams in all {
            let bytes = COUNT * (datagrams.size as u64 + 8 + headers(datagrams.to.ip()));
            let is_its = |flow: &_| {
                events::is_to(flow, UDP, PORT)
                    && events::ip_of(flow.destination.as_ref()) == Some(datagrams.to.ip())
            };
            assert_eq!(
                events::total(&finished.events, is_its),
                Totals { packets: COUNT, bytes, count: 1, ..Totals::default() },
                "{transport:?} to {}",
                datagrams.to
            );
        }
        for (connection, port) in connections.into_iter().zip([5001, 5002]) {
            let connection = connection?;
            let of: Vec<_> =
                events::flows(&finished.events).filter(|flow| events::is_to(flow, TCP, port)).collect();
            let [flow] = &of[..] else { panic!("{transport:?}: one record was expected: {of:?}") };
            assert_eq!((flow.packets, flow.count), (connection.client_info.segs_out, 1), "{transport:?}");
            // That it began and that it ended was told.
            assert_eq!(flow.ended, Ended::Fin, "{transport:?}");
        }
        // Drops: the rows, the reports and the records.
        let rows =
            finished.status.drops.iter().filter(|row| &*row.puid == "host" && &*row.drop_reason == "policy");
        assert_eq!(rows.map(|row| row.packets).sum::<u64>(), DROPS, "{transport:?}");
        let dropped = reports(&finished, |report| {
            report.event == PacketEvent::Dropped && report.destination_port == DROPPED
        });
        assert_eq!(dropped.len() as u64, DROPS, "{transport:?}: {ledger:?}");
        for report in dropped {
            assert_eq!((report.length, report.payload.len(), &*report.drop_reason), (88, 64, "policy"));
        }
        let rejected = events::rejected(&finished.events).filter(|flow| events::is_to(flow, UDP, DROPPED));
        assert_eq!(rejected.map(|flow| flow.dropped_packets).sum::<u64>(), DROPS);
        // Traces: every buffer that crossed.
        let traced = reports(&finished, |report| report.event != PacketEvent::Dropped);
        let [received, _, sent, _] = events::unit(&finished.events, "host");
        let of = |event| {
            let of_event = traced.iter().filter(|report| report.event == event);
            of_event.map(|report| u64::from(report.packets)).sum::<u64>()
        };
        assert_eq!(
            [of(PacketEvent::Received), of(PacketEvent::Transmitted)],
            [received, sent],
            "{transport:?}: {ledger:?}"
        );
        assert_eq!((ledger.traced, ledger.packets), (traced.len() as u64, traced.len() as u64));
        assert_eq!((ledger.reserve_failed, ledger.lost, ledger.skipped, ledger.repeated), (0, 0, 0, 0));
        for version in [4, 6] {
            let to = wire.b.address(version);
            let of_flow: Vec<_> = traced
                .iter()
                .filter(|report| report.destination_port == PORT && report.destination_ip == Some(to))
                .collect();
            assert_eq!(of_flow.len() as u64, COUNT, "{transport:?}");
            // In the order in which they were seen on the one CPU that sends.
            assert!(of_flow.is_sorted_by_key(|report| report.ts), "{transport:?}");
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_finds_no_room_is_counted_by_each_transport() -> Result<()> {
    const FLOWS: u16 = 5000;
    const EACH: u64 = 4;
    for transport in [Transport::Auto, Transport::Ring, Transport::Perf] {
        let wire = Wire::new()?;
        let settings = Settings { transport, packets: 4096, ring: 4096, ..Settings::default() };
        let options = Options { traces: vec![all_of_the_host()], settings, ..options() };
        let collector = Running::start(&wire.a.place, options)?;
        let host = Host::new(&wire.b, &[PORT])?;
        pin(0)?;
        for port in 0..FLOWS {
            let socket = sender(&wire.a, 4, 20_000 + port)?;
            send(&socket, &Datagrams { to: host.address(4, PORT), count: EACH, size: 30 })?;
        }
        settle(&wire.a, &host)?;
        let finished = collector.stop()?;
        let ledger = &finished.status.ledger;
        assert_eq!(ledger.seen, ledger.explained(), "{transport:?}: {ledger:?}");
        // What crossed is in flows, whatever was told of it.
        let sent = events::total(&finished.events, |flow| events::is_to(flow, UDP, PORT));
        assert_eq!(sent.packets, u64::from(FLOWS) * EACH, "{transport:?}");
        // Every packet that was traced was told, or there was no room for it.
        let traced = reports(&finished, |report| report.event != PacketEvent::Dropped).len() as u64;
        assert_eq!(ledger.traced, ledger.traced_explained(), "{transport:?}: {ledger:?}");
        assert_eq!((ledger.packets, ledger.packets_lost), (traced, 0), "{transport:?}: {ledger:?}");
        assert_eq!(ledger.output_failed, ledger.traced - traced, "{transport:?}: {ledger:?}");
        assert_eq!(
            ledger.output_failed,
            ledger.output_failed_of.values().sum::<u64>(),
            "{transport:?}: {ledger:?}"
        );
        // And so was every event, by whose it was; their numbers say the same.
        let lost: u64 = ledger.reserve_failed_of.values().sum();
        assert_eq!(
            (lost, ledger.lost, ledger.undecodable, ledger.repeated),
            (ledger.reserve_failed, 0, 0, 0)
        );
        assert!(ledger.skipped <= ledger.reserve_failed, "{transport:?}: {ledger:?}");
        // How much that is depends on who has the CPU; where nobody reads it is tested to the record.
        assert!(ledger.output_failed + ledger.reserve_failed > 0, "there was room: {ledger:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_a_cpu_sees_that_came_later_is_told_from_then_on_and_a_named_loss_before() -> Result<()> {
    const COUNT: u64 = 100;
    let late = 1;
    assert!(cpus::online()?.contains(&late), "two CPUs are needed");
    let wire = Wire::new()?;
    let settings = Settings { transport: Transport::Perf, buffers_on: Some(vec![0]), ..Settings::default() };
    let options = Options { traces: vec![all_of_the_host()], settings, ..options() };
    let collector = Running::start(&wire.a.place, options)?;
    let missing = &collector.started.missing;
    assert!(!missing.iter().any(|what| what.contains("CPU") || what.contains("transport")), "{missing:?}");
    let host = Host::new(&wire.b, &[PORT, PORT + 1])?;
    let send_on_it = |port, source| -> Result<()> {
        pin(late as usize)?;
        let socket = sender(&wire.a, 4, source)?;
        send(&socket, &Datagrams { to: host.address(4, port), count: COUNT, size: 30 })
    };
    send_on_it(PORT, 40_000)?;
    // The kernel's own message, which it sends whenever somebody asks for it; nothing happens to the CPU.
    fs::write(format!("/sys/devices/system/cpu/cpu{late}/uevent"), "online")?;
    collector.wait_to_say(&format!("CPU {late} has come: what it sees is told from now on"))?;
    send_on_it(PORT + 1, 40_001)?;
    settle(&wire.a, &host)?;
    let finished = collector.stop()?;
    let ledger = &finished.status.ledger;
    assert_eq!(ledger.seen, ledger.explained(), "{ledger:?}");
    for port in [PORT, PORT + 1] {
        assert_eq!(events::total(&finished.events, |flow| events::is_to(flow, UDP, port)).packets, COUNT);
    }
    let of = |port| reports(&finished, |report| report.destination_port == port).len() as u64;
    assert_eq!([of(PORT), of(PORT + 1)], [0, COUNT], "{ledger:?}");
    assert_eq!(ledger.traced, ledger.traced_explained(), "{ledger:?}");
    assert_eq!((ledger.packets_lost, ledger.lost), (0, 0), "{ledger:?}");
    // All of the one port; what answers did on that CPU was before, or is told.
    assert!(ledger.output_failed >= COUNT, "{ledger:?}");
    assert!(ledger.reserve_failed >= 1, "that the flow began: {ledger:?}");
    Ok(())
}
