//! Records that nobody understands are counted, and the rest goes on.

use collector_ebpf::abi::{packet::PacketRecord, report::FlowEvent};
use collector_tests::{
    Result,
    collector::{Running, all_of_the_host, options},
    events::{self, Totals},
    frames::UDP,
    lab::Wire,
    program::{Records, write_record},
    traffic::{Datagrams, Host, headers, send_and_settle},
};
use collector_user::{
    daemon::Options,
    event::{Event, PacketEvent},
    kernel::settings::Transport,
};

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn records_of_a_wrong_length_or_kind_in_a_ring_are_counted_and_the_rest_goes_on() -> Result<()> {
    are_counted_and_the_rest_goes_on(Transport::Ring, Records::Ring, ["EVENTS", "REPORTS", "DROP_REPORTS"])
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn records_of_a_wrong_length_or_kind_in_a_perf_buffer_are_counted_and_the_rest_goes_on() -> Result<()> {
    are_counted_and_the_rest_goes_on(Transport::Perf, Records::Perf, ["NEWS", "PACKETS", "DROP_PACKETS"])
}

/// Writes wrong records to what events, packets that are traced, and packets that are dropped come by.
fn are_counted_and_the_rest_goes_on(transport: Transport, by: Records, maps: [&str; 3]) -> Result<()> {
    const COUNT: u64 = 500;
    let wire = Wire::new()?;
    let host = Host::new(&wire.b, &[5004])?;
    let mut options = Options { traces: vec![all_of_the_host()], ..options() };
    options.settings.transport = transport;
    let collector = Running::start(&wire.b.place, options)?;
    let datagrams = |port| Datagrams { to: host.address(4, port), count: COUNT, size: 100 };
    send_and_settle(&wire.a, 40_000, &host, &[datagrams(5004)])?;
    let mut written = 0;
    let sizes = [size_of::<FlowEvent>(), size_of::<PacketRecord>(), size_of::<PacketRecord>()];
    for (map, right) in maps.into_iter().zip(sizes.map(|size| size as u16)) {
        // One too short, one of nothing that is known, one that is too long or says that more octets follow than do.
        for (octets, octet) in [(1, 0), (right - 8, 0), (right, 0xFF), (right + 8, 0xFF), (480, 0xFF)] {
            write_record(by, map, octets, octet)?;
            written += 1;
        }
    }
    send_and_settle(&wire.a, 40_000, &host, &[datagrams(5004)])?;
    let finished = collector.stop()?;
    let ledger = &finished.status.ledger;
    assert_eq!(ledger.seen, ledger.explained(), "{ledger:?}");
    assert_eq!(ledger.undecodable, written, "{ledger:?}");
    assert_eq!(ledger.losses(), [("undecodable".into(), written)], "{ledger:?}");
    let bytes = 100 + 8 + headers(host.address(4, 5004).ip());
    assert_eq!(
        events::total(&finished.events, |flow| events::is_to(flow, UDP, 5004)),
        Totals { packets: 2 * COUNT, bytes: 2 * COUNT * bytes, count: 1, ..Totals::default() }
    );
    let is_datagram = |event: &&Event| matches!(event, Event::Packet(packet) if packet.event != PacketEvent::Dropped && packet.destination_port == 5004);
    assert_eq!(finished.events.iter().filter(is_datagram).count() as u64, 2 * COUNT);
    Ok(())
}
