//! What comes in for an address of the host's, and whose it is: by an answer, by a socket, or by neither.

use std::net::{IpAddr, SocketAddr};

use anyhow::ensure;
use collector_tests::{
    Result,
    books::{Books, assert_sum_at_uplinks},
    collector::{Finished, Running, options},
    events,
    frames::{TCP, UDP},
    lab::{Addressed, End, join, silent_host},
    netns::NetNs,
    talk::{self, Amount, Talk, asker, connect, talk, tell},
    traffic::{ANSWERS, Host, headers},
};
use collector_user::event::{AttributedBy, FlowRecord, InitiatorBy};

use crate::assert_balanced;

/// A host at whose uplink the collector counts, and its peer.
struct Lab {
    host: End,
    peer: End,
    _hosts: [NetNs; 2],
}

impl Lab {
    fn new() -> Result<Self> {
        let hosts = [silent_host()?, silent_host()?];
        let (host, peer) = join(&hosts[0], &hosts[1], 0, Addressed::Both)?;
        for end in [&host, &peer] {
            end.without_offloads()?;
        }
        Ok(Self { host, peer, _hosts: hosts })
    }

    fn collector(&self) -> Result<Running> {
        Running::start_beside(&self.host.place, options(), Some(&self.host.dev))
    }

    fn at_host(&self, version: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.host.address(version), port)
    }

    fn at_peer(&self, version: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.peer.address(version), port)
    }
}

fn assert_all(finished: &Finished, books: &Books) {
    assert_balanced(finished);
    books.assert_kept(finished);
    assert_sum_at_uplinks(finished, &["host", "forwarded", "unknown"], &[finished.link]);
}

/// The records of flows of one protocol.
fn records(finished: &Finished, protocol: u8) -> impl Iterator<Item = &FlowRecord> {
    events::flows(&finished.events).filter(move |record| record.l4_protocol == protocol)
}

/// Sends a datagram to a closed port, and returns when it has been refused.
fn be_refused(lab: &Lab, version: u8, count: u64, size: usize) -> Result<Talk> {
    let socket = asker(&lab.peer.place, lab.at_peer(version, 40_000), lab.at_host(version, 9))?;
    for _ in 0..count {
        socket.send(&vec![0x55; size])?;
        let refused = socket.recv(&mut [0]);
        ensure!(
            refused.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused),
            "a closed port answers: {refused:?}"
        );
    }
    Ok(Talk::one_way(socket.local_addr()?, socket.peer_addr()?, count, size))
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_comes_to_a_closed_port_is_nobodys() -> Result<()> {
    // So many refusals the kernel sends at once, before its limit.
    const COUNT: u64 = 3;
    const SIZE: usize = 100;
    let lab = Lab::new()?;
    let collector = lab.collector()?;
    let mut books = Books::new();
    for version in [4, 6] {
        let asked = be_refused(&lab, version, COUNT, SIZE)?;
        books.was_asked("unknown", &asked);
        // The host's own are the messages that say so: type and code stand in the port, and they hold the datagram.
        let (protocol, kind) = if version == 4 { (1, 3 << 8 | 3) } else { (58, 1 << 8 | 4) };
        let ip = headers(asked.source.ip());
        let bytes = COUNT * (ip + 8 + ip - 14 + 8 + SIZE as u64);
        let refusal = Talk {
            protocol,
            source: SocketAddr::new(asked.destination.ip(), 0),
            destination: SocketAddr::new(asked.source.ip(), kind),
            forth: Amount { packets: COUNT, bytes },
            ..asked
        };
        books.asked("host", &refusal);
    }
    let finished = collector.stop()?;
    assert_all(&finished, &books);
    for record in records(&finished, UDP) {
        assert_eq!((&*record.context_id, record.attributed_by), ("unknown", AttributedBy::Unanswered));
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_a_socket_takes_without_an_answer_is_the_hosts() -> Result<()> {
    let lab = Lab::new()?;
    let collector = lab.collector()?;
    let mut books = Books::new();
    for version in [4, 6] {
        let at = lab.at_host(version, 5001);
        let socket = talk::listener(&lab.host.place, at)?;
        let from = asker(&lab.peer.place, lab.at_peer(version, 40_000), at)?;
        books.was_asked("host", &tell(&from, &socket, 100, 100)?);
    }
    let finished = collector.stop()?;
    assert_all(&finished, &books);
    for record in records(&finished, UDP) {
        assert_eq!((&*record.context_id, record.attributed_by), ("host", AttributedBy::Socket));
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_connection_that_was_there_before_was_opened_to_whoever_listens() -> Result<()> {
    for server_begins in [true, false] {
        let lab = Lab::new()?;
        let mut open = Vec::new();
        for version in [4, 6] {
            // Neither port is registered for anything.
            let at = lab.at_host(version, 31_000);
            let from: IpAddr = lab.peer.address(version);
            let mut connected = connect(&lab.peer.place, from, at, &lab.host.place, at)?;
            connected.unseen_so_far()?;
            open.push(connected);
        }
        let collector = lab.collector()?;
        let mut books = Books::new();
        for mut connected in open {
            if server_begins {
                connected.tell()?;
            }
            connected.ask()?;
            books.was_asked("host", &connected.close()?);
        }
        let finished = collector.stop()?;
        assert_all(&finished, &books);
        for record in records(&finished, TCP) {
            assert_eq!(record.initiator_by, InitiatorBy::Listener, "the server began: {server_begins}");
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_redirected_to_a_local_port_is_the_hosts_by_its_answer() -> Result<()> {
    let lab = Lab::new()?;
    lab.host.place.nft(&format!(
        "table inet redirected {{ chain arriving {{ type nat hook prerouting priority -100; \
         meta l4proto {{ tcp, udp }} th dport 8080 redirect to :{ANSWERS}; }}; }}"
    ))?;
    let _answering = Host::new(&lab.host, &[])?;
    let collector = lab.collector()?;
    let mut books = Books::new();
    for version in [4, 6] {
        let at = lab.at_host(version, 8080);
        books.was_asked("host", &talk(&lab.peer.place, lab.at_peer(version, 40_000), at)?);
        let from = lab.peer.address(version);
        let listening = lab.at_host(version, ANSWERS);
        let (connection, _) = talk::transfer(&lab.peer.place, from, at, &lab.host.place, listening)?;
        books.was_asked("host", &connection);
    }
    let finished = collector.stop()?;
    assert_all(&finished, &books);
    for record in events::flows(&finished.events) {
        assert_eq!(record.attributed_by, AttributedBy::Address, "who answers has the host's address");
    }
    Ok(())
}
