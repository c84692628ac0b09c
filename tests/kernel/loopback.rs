//! Loopback, when it is named: every packet crosses it once out and once in, and is in one flow.

use collector_tests::{
    Result,
    collector::{Running, options},
    events::{self, Totals},
    frames::{TCP, UDP},
    lab::{End, host},
    traffic::{Datagrams, Host, send_and_settle, transfer},
};
use collector_user::daemon::Options;

use crate::assert_balanced;

const PORT: u16 = 5001;
const COUNT: u64 = 1000;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_packet_on_loopback_is_sent_and_received_and_in_one_flow() -> Result<()> {
    let alone = host()?;
    let lo = End {
        place: alone.place().clone(),
        dev: "lo".to_owned(),
        ifindex: 1,
        mac: [0; 6],
        v4: [127, 0, 0, 1].into(),
        v6: std::net::Ipv6Addr::LOCALHOST,
    };
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
