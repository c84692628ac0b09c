//! More flows than anything has room for: the units' totals are exact all the same, and each loss has a name.

use collector_ebpf::abi::flow::TX;
use collector_tests::{
    Result,
    collector::{Running, options},
    events,
    frames::{ENDS_4, IPV4, UDP, ethernet_between, ipv4, udp},
    lab::Wire,
    testrun::{Datapath, Hook, UNIT, explained_without_flow},
    traffic::{Host, PacketSocket, pin, settle},
};
use collector_user::{daemon::Options, kernel::settings::Settings};

const PORT: u16 = 5001;

/// As little room as there can be, and a budget that nobody spends.
fn cramped() -> Settings {
    Settings {
        slots_4: 16,
        slots_6: 16,
        table_4: 64,
        table_6: 64,
        identities_4: 64,
        identities_6: 64,
        ring: 4096,
        new_flows_per_second: 10_000_000,
        new_flows_burst: 10_000_000,
        ..Settings::default()
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_hundred_thousand_flows_in_room_for_sixty_four_are_exact_in_sum() -> Result<()> {
    const FLOWS: u32 = 100_000;
    let wire = Wire::new()?;
    let options = Options { settings: cramped(), most_flows: 256, ..options() };
    let collector = Running::start_beside(&wire.b.place, options, Some(&wire.b.dev))?;
    let host = Host::new(&wire.b, &[PORT])?;
    let socket = PacketSocket::new(&wire.a)?;
    pin(0)?;
    let mut octets = 0;
    for flow in 0..FLOWS {
        let [_, _, high, low] = (flow >> 8).to_be_bytes();
        let source = [10, 99, high, low].into();
        let ports = [(flow as u8) | 0x80, flow as u8, (PORT >> 8) as u8, PORT as u8];
        let packet = ipv4((source, wire.b.v4), &[], 0x4000, UDP, &udp(ports, 60));
        let frame = ethernet_between(wire.a.mac, wire.b.mac, &[], IPV4, &packet);
        octets += frame.len() as u64;
        socket.send(&frame)?;
    }
    settle(&wire.a, &host)?;
    let finished = collector.stop()?;
    let events = &finished.events;
    let ledger = &finished.status.ledger;
    assert_eq!(ledger.seen, ledger.explained(), "{ledger:?}");
    let link = finished.link;
    assert_eq!(
        events::all_units(events),
        [link.rx_packets, link.rx_bytes, link.tx_packets, link.tx_bytes],
        "{ledger:?}"
    );
    // What is in records, and what no flow holds. The other host asked for all that crossed.
    let recorded = events::total(events, |_| true);
    let flowless = |name| events::counter_of_all(events, name);
    assert_eq!(
        [
            recorded.packets + flowless("rx_flowless_packets"),
            recorded.bytes + flowless("rx_flowless_bytes"),
            recorded.reply_packets + flowless("tx_flowless_packets"),
            recorded.reply_bytes + flowless("tx_flowless_bytes"),
        ],
        [link.rx_packets, link.rx_bytes, link.tx_packets, link.tx_bytes],
        "{ledger:?}"
    );
    assert!(link.rx_packets >= u64::from(FLOWS) && link.rx_bytes >= octets);
    assert!(ledger.table_full > 0, "there was room: {ledger:?}");
    let nowhere = flowless("rx_flowless_packets") + flowless("tx_flowless_packets");
    assert_eq!(ledger.table_full, nowhere, "of what no flow holds each has a name: {ledger:?}");
    assert_eq!(
        ledger.table_full_of,
        [("host".to_owned(), ledger.table_full)].into(),
        "the ledger says whose"
    );
    // News: each that was made was read, or is named, by whose it was.
    let news: u64 = ledger.reserve_failed_of.values().sum();
    assert!(news <= ledger.reserve_failed && ledger.skipped <= ledger.reserve_failed, "{ledger:?}");
    assert_eq!((ledger.lost, ledger.undecodable, ledger.repeated), (0, 0, 0), "{ledger:?}");
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn flows_whose_identity_is_evicted_while_they_live_are_counted_on() -> Result<()> {
    const FLOWS: u64 = 2000;
    const ROUNDS: u64 = 4;
    pin(0)?;
    let mut datapath = Datapath::load(&Settings { table_4: 1 << 13, ring: 1 << 20, ..cramped() })?;
    for _ in 0..ROUNDS {
        for port in 1..=FLOWS {
            datapath.run(Hook::Egress, &ENDS_4.from_port(port as u16).udp(10))?;
        }
    }
    let all = datapath.drain()?;
    let unit = datapath.unit(UNIT)?;
    let ledger = datapath.ledger()?;
    assert_eq!(all.len() as u64, FLOWS);
    // None lost a packet. Some were met anew, which is told, and more than once then.
    assert!(all.values().all(|counted| counted.packets == [0, ROUNDS] && counted.begun >= 1));
    let begun: u64 = all.values().map(|counted| counted.begun).sum();
    assert!(begun > FLOWS, "no identity was evicted");
    assert_eq!((unit.flows, unit.flowless[TX].packets), (begun, 0));
    assert_eq!((ledger.seen, explained_without_flow(&ledger)), (FLOWS * ROUNDS, 0), "{ledger:?}");
    assert_eq!(ledger.reported + ledger.reserve_failed, begun, "{ledger:?}");
    assert_eq!(datapath.news()?.len() as u64, ledger.reported);
    Ok(())
}
