//! A swap of the epoch loses nothing, however often it comes and whoever counts meanwhile.

use std::{collections::BTreeMap, panic, thread, time::Duration};

use collector_tests::{
    Result,
    books::assert_sum_at_uplinks,
    collector::{Running, often, options},
    events::{self, Totals},
    frames::{IPV4, UDP, ethernet_between, ipv4, udp},
    lab::Wire,
    traffic::{Datagrams, Host, PacketSocket, pin, send, sender, settle},
};
use collector_user::{
    daemon::Options,
    event::{Event, FlowRecord},
    kernel::cpus,
};

use crate::assert_balanced;

/// Datagrams of each thread's own flow, and as many of one that both send.
const EACH: u64 = 100_000;
const OWN: [u16; 2] = [5001, 5002];
const COMMON: u16 = 5003;
const SIZE: usize = 64;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn swaps_every_three_milliseconds_lose_nothing_under_load_on_both_cpus() -> Result<()> {
    let wire = Wire::new()?;
    let often = || Options { drain_interval: Duration::from_millis(3), ..options() };
    let sent_from = Running::start(&wire.a.place, often())?;
    let sent_to = Running::start(&wire.b.place, often())?;
    let host = Host::new(&wire.b, &[OWN[0], OWN[1], COMMON])?;
    let common = sender(&wire.a, 4, COMMON)?;
    thread::scope(|scope| -> Result<()> {
        let threads = [0, 1].map(|cpu| {
            let (from, host, common) = (&wire.a, &host, &common);
            scope.spawn(move || -> Result<()> {
                pin(cpu)?;
                let own = sender(from, 6, OWN[cpu])?;
                // Turn by turn, so that both flows of a CPU live all the time.
                for _ in 0..EACH / 100 {
                    send(&own, &Datagrams { to: host.address(6, OWN[cpu]), count: 100, size: SIZE })?;
                    send(common, &Datagrams { to: host.address(4, COMMON), count: 100, size: SIZE })?;
                }
                settle(from, host)
            })
        });
        for thread in threads {
            thread.join().unwrap_or_else(|cause| panic::resume_unwind(cause))?;
        }
        Ok(())
    })?;
    for collector in [sent_from, sent_to] {
        let finished = collector.stop()?;
        assert_balanced(&finished);
        for (port, packets, header) in [(OWN[0], EACH, 62), (OWN[1], EACH, 62), (COMMON, 2 * EACH, 42)] {
            assert_eq!(
                events::total(&finished.events, |flow| events::is_to(flow, UDP, port)),
                Totals { packets, bytes: packets * (SIZE as u64 + header), count: 1, ..Totals::default() },
                "port {port}"
            );
        }
        // What the units counted holds the flows, and the questions that ended the load and their answers.
        let units = events::all_units(&finished.events);
        let all = events::total(&finished.events, |_| true);
        assert_eq!(units[0] + units[2], all.packets + all.reply_packets);
        assert_eq!(units[1] + units[3], all.bytes + all.reply_bytes);
    }
    Ok(())
}

/// A new flow with each packet, and a second of each later, by several writers over all CPUs, in tables that are read all the while:
/// all is told that was sent, and no part of what is told by and by is more than that.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn of_flows_that_begin_while_tables_are_read_each_is_told_and_none_twice() -> Result<()> {
    const WRITERS: u16 = 4;
    /// Of each writer.
    const FLOWS: u16 = 7_500;
    /// Behind all ports that are a service's.
    const FIRST: u16 = 30_000;
    let wire = Wire::silent()?;
    let host = Host::new(&wire.b, &[COMMON])?;
    // What a flow and a unit have counted is told in many parts.
    let options = Options {
        drain_interval: Duration::from_millis(3),
        flow_interval: Duration::from_millis(20),
        ..often()
    };
    let collector = Running::start_beside(&wire.a.place, options, Some(&wire.a.dev))?;
    let cpus = cpus::online()?;
    thread::scope(|scope| -> Result<()> {
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let (from, to, host) = (&wire.a, &wire.b, &host);
                let cpu = cpus[usize::from(number) % cpus.len()] as usize;
                let ports = FIRST + number * FLOWS..FIRST + (number + 1) * FLOWS;
                scope.spawn(move || -> Result<()> {
                    pin(cpu)?;
                    let socket = PacketSocket::new(from)?;
                    let [high, low] = COMMON.to_be_bytes();
                    for port in ports.clone().chain(ports) {
                        let [from_high, from_low] = port.to_be_bytes();
                        let datagram = udp([from_high, from_low, high, low], SIZE);
                        let packet = ipv4((from.v4, to.v4), &[], 0x4000, UDP, &datagram);
                        socket.send(&ethernet_between(from.mac, to.mac, &[], IPV4, &packet))?;
                    }
                    settle(from, host)
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap_or_else(|cause| panic::resume_unwind(cause))?;
        }
        Ok(())
    })?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[finished.link]);
    let (flows, each) = (u64::from(WRITERS * FLOWS), SIZE as u64 + 42);
    let is_it = |flow: &FlowRecord| events::is_to(flow, UDP, COMMON);
    assert_eq!(
        events::total(&finished.events, is_it),
        Totals { packets: 2 * flows, bytes: 2 * flows * each, count: flows, ..Totals::default() }
    );
    let mut packets = BTreeMap::new();
    for flow in events::flows(&finished.events).filter(|flow| is_it(flow)) {
        assert!(flow.packets <= 2 && flow.bytes == flow.packets * each, "{flow}");
        *packets.entry(events::port_of(flow.source.as_ref())).or_insert(0) += flow.packets;
    }
    assert!(packets.len() as u64 == flows && packets.values().all(|packets| *packets == 2));
    let reports = finished.events.iter().filter_map(|event| match event {
        Event::Counter(report) if !report.context_id.is_empty() => Some(report),
        _ => None,
    });
    for counter in reports.flat_map(|report| &report.counters) {
        assert!(counter.value <= finished.link.tx_bytes, "{counter:?}");
    }
    Ok(())
}
