//! What an interface counts and no program sees is named by difference, and spread over nobody.

use std::thread;

use collector_tests::{
    Result,
    collector::{Finished, Running, options},
    events,
    frames::{IPV4, UDP, ethernet_between, ipv4, udp},
    lab::{End, Wire},
    traffic::{Datagrams, Host, PacketSocket, send_and_settle, settle},
};
use collector_user::{
    daemon::Options,
    event::Unseen,
    kernel::attach::{Choice, Mechanism},
};

const PORT: u16 = 5001;

fn unseen_at(finished: &Finished, end: &End) -> Option<Unseen> {
    finished.status.interfaces.iter().find(|it| it.name == end.dev).and_then(|it| it.unseen)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_sent_past_the_queue_is_named_and_nobodys() -> Result<()> {
    const PAST: u64 = 300;
    const SEEN: u64 = 200;
    let wire = Wire::new()?;
    let collector = Running::start_beside(&wire.a.place, options(), Some(&wire.a.dev))?;
    let host = Host::new(&wire.b, &[PORT])?;
    let datagram = udp([0x9C, 0x40, 0x13, 0x89], 60);
    let packet = ipv4((wire.a.v4, wire.b.v4), &[], 0x4000, UDP, &datagram);
    let frame = ethernet_between(wire.a.mac, wire.b.mac, &[], IPV4, &packet);
    let (through, past) = (PacketSocket::new(&wire.a)?, PacketSocket::past_the_queue(&wire.a)?);
    for (socket, count) in [(&through, SEEN), (&past, PAST)] {
        for _ in 0..count {
            socket.send(&frame)?;
        }
    }
    settle(&wire.a, &host)?;
    let finished = collector.stop()?;
    assert_eq!(unseen_at(&finished, &wire.a), Some(Unseen { sent: PAST, ..Unseen::default() }));
    let counted = events::total(&finished.events, |flow| events::is_to(flow, UDP, PORT));
    assert_eq!(counted.packets, SEEN);
    // In no unit: they and what was not seen are what the interface has counted.
    let [received, _, sent, _] = events::all_units(&finished.events);
    assert_eq!([received, sent + PAST], [finished.link.rx_packets, finished.link.tx_packets]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_crosses_while_somebody_has_taken_the_filters_away_is_named() -> Result<()> {
    const COUNT: u64 = 30_000;
    let wire = Wire::new()?;
    let clsact = Options { attach: Choice::Only(Mechanism::Clsact), ..options() };
    let collector = Running::start_beside(&wire.b.place, clsact, Some(&wire.b.dev))?;
    let host = Host::new(&wire.b, &[PORT])?;
    let datagrams = Datagrams { to: host.address(4, PORT), count: COUNT, size: 100 };
    let dev = &wire.b.dev;
    let again = format!(
        "{dev}: somebody had taken our programs away, and they are there again; packets in between were not counted"
    );
    thread::scope(|scope| {
        let sender = scope.spawn(|| send_and_settle(&wire.a, 40_000, &host, &[datagrams]));
        for _ in 0..3 {
            wire.b.place.run(&format!("tc qdisc del dev {dev} clsact"))?;
            collector.wait_to_say(&again)?;
        }
        sender.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))
    })?;
    let finished = collector.stop()?;
    assert_eq!(finished.status.ledger.taken_off, 3);
    let unseen = unseen_at(&finished, &wire.b).unwrap_or_default();
    let [received, _, sent, _] = events::all_units(&finished.events);
    assert_eq!(
        [received + unseen.received, sent + unseen.sent],
        [finished.link.rx_packets, finished.link.tx_packets],
        "{unseen:?}"
    );
    Ok(())
}
