//! What an interface counts and no program sees is named by difference, and spread over nobody.

use std::thread;

use anyhow::Context as _;
use collector_tests::{
    PATIENCE, Result,
    books::assert_explained,
    collector::{Finished, Running, options},
    events,
    frames::{IPV4, UDP, ethernet_between, ipv4, udp},
    lab::{End, Wire},
    program::Dropping,
    talk::listener,
    traffic::{Datagrams, Host, PacketSocket, send_and_settle, sender, settle},
};
use collector_user::{
    daemon::Options,
    event::Unseen,
    kernel::attach::{Choice, Mechanism},
};

use crate::drops::cause::dropped_by_queue;

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

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_a_program_of_anothers_takes_before_ours_is_named_and_nobodys() -> Result<()> {
    taken_before_ours(Dropping::datagrams_to, 0)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_a_program_of_anothers_sends_elsewhere_is_named_where_it_came_and_where_it_went() -> Result<()> {
    taken_before_ours(Dropping::redirecting, TAKEN)
}

const TAKEN: u64 = 300;

/// Another's program takes what comes to a port, and sends so many of it back.
fn taken_before_ours(program: impl Fn(&End, u16) -> Result<Dropping>, sent_back: u64) -> Result<()> {
    const SEEN: u64 = 200;
    const ITS_PORT: u16 = PORT + 1;
    let wire = Wire::silent()?;
    let _program = program(&wire.b, ITS_PORT)?;
    let collector = Running::start_beside(&wire.b.place, options(), Some(&wire.b.dev))?;
    let host = Host::new(&wire.b, &[PORT, ITS_PORT])?;
    let to = |port, count| Datagrams { to: host.address(4, port), count, size: 100 };
    // What is asked at the end comes behind all that was taken.
    send_and_settle(&wire.a, 40_000, &host, &[to(PORT, SEEN), to(ITS_PORT, TAKEN)])?;
    let finished = collector.stop()?;
    assert_explained(&finished);
    let want = Unseen { received: TAKEN, sent: sent_back, ..Unseen::default() };
    assert_eq!(unseen_at(&finished, &wire.b), Some(want));
    let counted = |port| events::total(&finished.events, |flow| events::is_to(flow, UDP, port)).packets;
    assert_eq!([counted(PORT), counted(ITS_PORT)], [SEEN, 0]);
    let [received, _, sent, _] = events::all_units(&finished.events);
    let link = finished.link;
    assert_eq!([received + TAKEN, sent + sent_back], [link.rx_packets, link.tx_packets]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_a_queue_drops_behind_the_programs_is_named_by_as_many_as_it_says() -> Result<()> {
    const COUNT: u64 = 200;
    let wire = Wire::silent()?;
    let dev = &wire.a.dev;
    // Room for a few, each of which leaves some milliseconds after the one before.
    wire.a.place.run(&format!("tc qdisc add dev {dev} root tbf rate 200kbit burst 2kb limit 4kb"))?;
    let at = wire.b.at(4, PORT);
    let receiver = listener(&wire.b.place, at)?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    let collector = Running::start_beside(&wire.a.place, options(), Some(dev))?;
    let socket = sender(&wire.a, 4, 40_000)?;
    for _ in 0..COUNT {
        // That there is no room may be told to the sender.
        let _ = socket.send_to(&[0; 900], at);
    }
    let dropped = dropped_by_queue(&wire.a)?;
    assert!(dropped > COUNT / 2, "the queue is short: {dropped}");
    // What has found room is there, and so none waits in the queue any more.
    for number in dropped..COUNT {
        receiver.recv(&mut [0; 1000]).with_context(|| format!("datagram {number} does not come"))?;
    }
    let finished = collector.stop()?;
    assert_explained(&finished);
    let want = Unseen { dropped_behind: dropped, ..Unseen::default() };
    assert_eq!(unseen_at(&finished, &wire.a), Some(want));
    // They were on their way out, and are in their flow and their unit.
    let counted = events::total(&finished.events, |flow| events::is_to(flow, UDP, PORT));
    let [_, _, sent, _] = events::all_units(&finished.events);
    assert_eq!([counted.packets, sent], [COUNT, COUNT]);
    assert_eq!(finished.link.tx_packets, COUNT - dropped);
    Ok(())
}
