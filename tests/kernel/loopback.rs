//! Loopback, when it is named: every packet crosses it once out and once in, and is in one flow.

use collector_tests::{
    Result,
    books::Books,
    collector::{Running, declared, options},
    events::{self, Totals},
    frames::{TCP, UDP},
    lab::{End, host},
    talk::{self, talk},
    traffic::{ANSWERS, Datagrams, Host, send_and_settle, transfer},
};
use collector_user::daemon::Options;

use crate::assert_balanced;

const PORT: u16 = 5001;
const COUNT: u64 = 1000;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_packet_on_loopback_is_sent_and_received_and_in_one_flow() -> Result<()> {
    let alone = host()?;
    let lo = End::loopback(alone.place());
    let collector = Running::start(&lo.place, Options { ifaces: vec!["lo".parse()?], ..options() })?;
    let sink = Host::new(&lo, &[PORT])?;
    let both = [4, 6].map(|version| Datagrams { to: sink.address(version, PORT), count: COUNT, size: 100 });
    send_and_settle(&lo, 40_000, &sink, &both)?;
    let connection = transfer(&lo, &lo, 4, 5002, 1_000_000, 500_000)?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let events = &finished.events;
    assert_eq!(
        events::total(events, |flow| events::is_to(flow, UDP, PORT)),
        Totals { packets: 2 * COUNT, bytes: COUNT * (142 + 162), count: 2, ..Totals::default() }
    );
    let tcp = events::total(events, |flow| events::is_to(flow, TCP, 5002));
    assert_eq!(
        (tcp.packets, tcp.reply_packets, tcp.count),
        (connection.client_info.segs_out, connection.server_info.segs_out + 1, 1),
        "{connection:#?}"
    );
    let all = events::total(events, |_| true);
    let once = (all.packets + all.reply_packets, all.bytes + all.reply_bytes);
    // It has crossed no uplink: no part of what is compared with the interfaces there.
    assert_eq!(events::unit(events, "host"), [0; 4]);
    let [rx_packets, rx_bytes, tx_packets, tx_bytes] = events::local(events, "host");
    assert_eq!(((rx_packets, rx_bytes), (tx_packets, tx_bytes)), (once, once));
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn from_service_to_service_is_one_flow_and_each_ones_own() -> Result<()> {
    let alone = host()?;
    let lo = End::loopback(alone.place());
    let service = |last: u8, port| std::net::SocketAddr::new([127, 0, 0, last].into(), port);
    let units = vec![
        declared("one", &[], &["127.0.0.2/32".to_owned()])?,
        declared("two", &[], &["127.0.0.3/32".to_owned()])?,
    ];
    let options = Options { units, ifaces: vec!["lo".parse()?], ..options() };
    let collector = Running::start(&lo.place, options)?;
    let _answering = [Host::at(&lo, &[], service(2, ANSWERS))?, Host::at(&lo, &[], service(3, ANSWERS))?];
    let mut books = Books::new();
    for (from, to) in [(2, 3), (3, 2)] {
        let [asking, asked] = [from, to].map(|last| if last == 2 { "one" } else { "two" });
        let at = service(to, ANSWERS);
        let datagrams = talk(&lo.place, service(from, 40_000), at)?;
        let (connection, _) = talk::transfer(&lo.place, service(from, 0).ip(), at, &lo.place, at)?;
        for talk in [datagrams, connection] {
            // A flow has one unit: it is that of the lesser address.
            books.flow("one", &talk).asked_here(asking, &talk).was_asked_here(asked, &talk);
        }
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    for record in events::flows(&finished.events) {
        let id = |end: &Option<collector_user::event::EndPoint>| end.as_ref().map(|end| end.id.to_string());
        let mut ids = [id(&record.source), id(&record.destination)];
        ids.sort();
        assert_eq!(ids, ["one", "two"].map(|unit| Some(unit.to_owned())), "both ends have their names");
    }
    Ok(())
}
