//! Connections: one that is rejected never comes to be, and one that was there before is let be.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use anyhow::ensure;
use collector_tests::{
    PATIENCE, Result,
    books::assert_explained,
    collector::Running,
    events, frames,
    frames::TCP,
    lab::Wire,
    traffic::{Host, PacketSocket, pin, settle},
};
use collector_user::event::ActionType;

use super::{CLOSED, OPEN, dropped, enforcing, records, strict, sum};

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_connection_that_is_rejected_never_comes_to_be() -> Result<()> {
    const COUNT: u64 = 100;
    let wire = Wire::new()?;
    pin(0)?;
    let answering = Host::new(&wire.a, &[])?;
    let listen = |port| wire.a.place.within(|| Ok(TcpListener::bind((wire.a.v4, port))?));
    let closed = listen(CLOSED)?;
    let open = listen(OPEN)?;
    let collector = Running::start(&wire.a.place, enforcing(strict("host")?))?;
    let [high, low] = CLOSED.to_be_bytes();
    let segment = frames::tcp([0x9C, 0x40, high, low], frames::SYN, &[], 0);
    let packet = frames::with_checksums(&frames::ipv4((wire.b.v4, wire.a.v4), &[], 0x4000, TCP, &segment));
    let frame = frames::ethernet_between(wire.b.mac, wire.a.mac, &[], frames::IPV4, &packet);
    let socket = PacketSocket::new(&wire.b)?;
    (0..COUNT).try_for_each(|_| socket.send(&frame))?;
    // One that is accepted goes through whole.
    let mut client =
        wire.b.place.within(|| Ok(TcpStream::connect_timeout(&open.local_addr()?, PATIENCE)?))?;
    let (mut server, _) = open.accept()?;
    client.write_all(b"question")?;
    server.read_exact(&mut [0; 8])?;
    settle(&wire.b, &answering)?;
    closed.set_nonblocking(true)?;
    ensure!(closed.accept().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "nobody came");
    drop((client, server));
    let finished = collector.stop()?;
    assert_explained(&finished);
    let closed = records(&finished, TCP, CLOSED);
    assert_eq!(sum(&closed, |record| record.rejected_packets), COUNT);
    assert_eq!(sum(&closed, |record| record.packets), COUNT);
    assert_eq!(sum(&closed, |record| record.reply_packets), 0, "no answer");
    let open = records(&finished, TCP, OPEN);
    assert!(
        open.iter().all(|record| &*record.policy_id == "web" && record.rejected_packets == 0),
        "{open:#?}"
    );
    assert_eq!(dropped(&finished, "host"), (COUNT, 0));
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_connection_that_was_there_before_is_not_cut_by_a_guess() -> Result<()> {
    let wire = Wire::new()?;
    // Nobody listens any more that could say who was called.
    let listener = wire.a.place.within(|| Ok(TcpListener::bind((wire.a.v4, CLOSED))?))?;
    let mut client =
        wire.b.place.within(|| Ok(TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE)?))?;
    let (mut server, _) = listener.accept()?;
    drop(listener);
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    let collector = Running::start(&wire.a.place, enforcing(strict("host")?))?;
    let mut chunk = [7; 3000];
    for _ in 0..5 {
        client.write_all(&chunk)?;
        server.read_exact(&mut chunk)?;
        server.write_all(&chunk)?;
        client.read_exact(&mut chunk)?;
    }
    let finished = collector.stop()?;
    assert_explained(&finished);
    assert_eq!(dropped(&finished, "host"), (0, 0));
    let all: Vec<_> = events::flows(&finished.events).filter(|flow| flow.l4_protocol == TCP).collect();
    assert!(!all.is_empty());
    for record in all {
        assert_eq!((record.action, &*record.policy_id), (ActionType::ACCEPT, "default"), "{record:?}");
    }
    Ok(())
}
