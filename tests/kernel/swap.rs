//! A swap of the epoch loses nothing, however often it comes and whoever counts meanwhile.

use std::{collections::BTreeMap, panic, thread, time::Duration};

use collector_tests::{
    Result,
    collector::{Running, options},
    events::{self, Totals},
    frames::{IPV4, UDP, ethernet_between, ipv4, udp},
    lab::Wire,
    traffic::{Datagrams, Host, PacketSocket, pin, send, sender, settle},
};
use collector_user::{daemon::Options, event::FlowRecord};

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

/// A new flow with each packet, and a second of each later, in tables that are read all the while.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn of_flows_that_begin_while_tables_are_read_each_is_told_and_none_twice() -> Result<()> {
    const FLOWS: u16 = 30_000;
    /// Behind all ports that are a service's.
    const FIRST: u16 = 30_000;
    let wire = Wire::new()?;
    let host = Host::new(&wire.b, &[COMMON])?;
    let options = Options { drain_interval: Duration::from_millis(3), ..options() };
    let collector = Running::start(&wire.a.place, options)?;
    pin(0)?;
    let socket = PacketSocket::new(&wire.a)?;
    let [high, low] = COMMON.to_be_bytes();
    for _ in 0..2 {
        for from in FIRST..FIRST + FLOWS {
            let [from_high, from_low] = from.to_be_bytes();
            let datagram = udp([from_high, from_low, high, low], SIZE);
            let packet = ipv4((wire.a.v4, wire.b.v4), &[], 0x4000, UDP, &datagram);
            socket.send(&ethernet_between(wire.a.mac, wire.b.mac, &[], IPV4, &packet))?;
        }
    }
    settle(&wire.a, &host)?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let flows = u64::from(FLOWS);
    let is_it = |flow: &FlowRecord| events::is_to(flow, UDP, COMMON);
    assert_eq!(
        events::total(&finished.events, is_it),
        Totals {
            packets: 2 * flows,
            bytes: 2 * flows * (SIZE as u64 + 42),
            count: flows,
            ..Totals::default()
        }
    );
    let told = events::flows(&finished.events).filter(|flow| is_it(flow));
    let mut packets = BTreeMap::new();
    for flow in told {
        *packets.entry(events::port_of(flow.source.as_ref())).or_insert(0) += flow.packets;
    }
    assert!(packets.len() == usize::from(FLOWS) && packets.values().all(|packets| *packets == 2));
    Ok(())
}
