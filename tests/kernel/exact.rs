//! What is sent is reported, packet by packet and octet by octet.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    panic, thread,
};

use anyhow::{Context as _, bail, ensure};
use collector_tests::{
    PATIENCE, Result,
    collector::{Running, options},
    events::{self, Totals},
    frames::{SCTP, TCP, UDP, UDP_LITE},
    lab::{End, Wire},
    release,
    traffic::{Connection, Datagrams, Host, headers, pin, send, send_and_settle, settle, transfer},
};
use collector_user::event::{Ended, Event, InitiatorBy};
use rustix::{
    io::Errno,
    net::{AddressFamily, Protocol, SocketType, ipproto},
};

use crate::assert_balanced;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn datagrams_are_reported_exactly_at_both_ends() -> Result<()> {
    let wire = Wire::new()?;
    let sent_from = Running::start(&wire.a.place, options())?;
    let sent_to = Running::start(&wire.b.place, options())?;
    let host = Host::new(&wire.b, &[5004, 5006])?;
    let four = Datagrams { to: host.address(4, 5004), count: 10_000, size: 100 };
    let six = Datagrams { to: host.address(6, 5006), count: 10_000, size: 200 };
    send_and_settle(&wire.a, 40_000, &host, &[four, six])?;
    for collector in [sent_from, sent_to] {
        let finished = collector.stop()?;
        assert_balanced(&finished);
        for (datagrams, port) in [(four, 5004), (six, 5006)] {
            let bytes = datagrams.size as u64 + 8 + headers(datagrams.to.ip());
            assert_eq!(
                events::total(&finished.events, |flow| events::is_to(flow, UDP, port)),
                Totals { packets: 10_000, bytes: 10_000 * bytes, count: 1, ..Totals::default() },
                "{}",
                datagrams.to
            );
        }
    }
    Ok(())
}

/// Whether this kernel was built without a transport protocol, in which case that is said.
fn lacks(name: &str, kind: SocketType, protocol: Protocol) -> Result<bool> {
    match rustix::net::socket(AddressFamily::INET, kind, Some(protocol)) {
        Ok(_) => Ok(false),
        Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) => {
            release::has_none(name);
            Ok(true)
        }
        Err(error) => Err(error.into()),
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn datagrams_of_which_part_is_checked_are_reported_exactly_at_both_ends() -> Result<()> {
    const COUNT: u64 = 1000;
    // RFC 3828: its header has the coverage of the checksum where UDP has the length.
    let bound = |end: &End, version: u8, port: u16| -> Result<UdpSocket> {
        let at = SocketAddr::new(end.address(version), port);
        let family = if version == 4 { AddressFamily::INET } else { AddressFamily::INET6 };
        end.place.within(|| {
            let socket = rustix::net::socket(family, SocketType::DGRAM, Some(ipproto::UDPLITE))?;
            rustix::net::bind(&socket, &at)?;
            Ok(socket.into())
        })
    };
    if lacks("UDP-Lite", SocketType::DGRAM, ipproto::UDPLITE)? {
        return Ok(());
    }
    let wire = Wire::new()?;
    let sent_from = Running::start(&wire.a.place, options())?;
    let sent_to = Running::start(&wire.b.place, options())?;
    let host = Host::new(&wire.b, &[])?;
    let streams = [(4, 5004, 100), (6, 5006, 200)];
    pin(0)?;
    for (version, port, size) in streams {
        let _receiver = bound(&wire.b, version, port)?;
        let datagrams = Datagrams { to: host.address(version, port), count: COUNT, size };
        send(&bound(&wire.a, version, 40_000)?, &datagrams)?;
        settle(&wire.a, &host)?;
    }
    for collector in [sent_from, sent_to] {
        let finished = collector.stop()?;
        assert_balanced(&finished);
        for (version, port, size) in streams {
            let bytes = size as u64 + 8 + headers(host.address(version, port).ip());
            assert_eq!(
                events::total(&finished.events, |flow| events::is_to(flow, UDP_LITE, port)),
                Totals { packets: COUNT, bytes: COUNT * bytes, count: 1, ..Totals::default() },
                "over IPv{version}"
            );
        }
    }
    Ok(())
}

const FORTH: usize = 50_000_000;
const BACK: usize = 5_000_000;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn tcp_with_offloads_is_reported_as_its_sockets_count() -> Result<()> {
    for version in [4, 6] {
        let wire = Wire::new()?;
        let client = Running::start(&wire.a.place, options())?;
        let server = Running::start(&wire.b.place, options())?;
        let connection = transfer(&wire.a, &wire.b, version, 5001, FORTH, BACK)?;
        for collector in [client, server] {
            let finished = collector.stop()?;
            assert_balanced(&finished);
            assert_connection(&finished.events, &connection);
            let skbs: u64 = events::flows(&finished.events).map(|flow| flow.skbs).sum();
            assert!(skbs < connection.client_info.segs_out / 2, "no offloads: {skbs} buffers");
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn tcp_in_super_packets_beyond_64_kib_is_reported_as_its_sockets_count() -> Result<()> {
    if release::lacks("BIG TCP", release::BIG_TCP) {
        return Ok(());
    }
    let wire = Wire::new()?;
    for end in [&wire.a, &wire.b] {
        end.place.ip(&format!("link set {} gso_max_size 400000 gro_max_size 400000", end.dev))?;
    }
    wire.b.place.nft(
        "table inet long { chain coming { type filter hook input priority 0; meta length > 65575 counter; }; }",
    )?;
    let client = Running::start(&wire.a.place, options())?;
    let server = Running::start(&wire.b.place, options())?;
    let connection = transfer(&wire.a, &wire.b, 6, 5001, 4 * FORTH, 0)?;
    for collector in [client, server] {
        let finished = collector.stop()?;
        assert_balanced(&finished);
        assert_connection(&finished.events, &connection);
    }
    // The firewall sees buffers.
    let seen = wire.b.place.run("nft list table inet long")?;
    ensure!(!seen.contains("packets 0 "), "no buffer was that long: {seen}");
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn tcp_without_offloads_is_reported_as_the_interface_counts() -> Result<()> {
    for version in [4, 6] {
        let wire = Wire::new()?;
        wire.a.without_offloads()?;
        wire.b.without_offloads()?;
        let client = Running::start_beside(&wire.a.place, options(), Some(&wire.a.dev))?;
        let server = Running::start_beside(&wire.b.place, options(), Some(&wire.b.dev))?;
        let connection = transfer(&wire.a, &wire.b, version, 5001, FORTH, BACK)?;
        for collector in [client, server] {
            let finished = collector.stop()?;
            assert_balanced(&finished);
            assert_connection(&finished.events, &connection);
            let link = finished.link;
            assert_eq!(
                events::all_units(&finished.events),
                [link.rx_packets, link.rx_bytes, link.tx_packets, link.tx_bytes],
                "received packets and octets, sent packets and octets"
            );
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn sctp_in_super_packets_is_reported_as_the_interface_counts() -> Result<()> {
    const PORT: u16 = 5002;
    const OCTETS: usize = 4_000_000;
    let socket = |end: &End, version: u8| -> Result<OwnedFd> {
        let family = if version == 4 { AddressFamily::INET } else { AddressFamily::INET6 };
        end.place.within(|| Ok(rustix::net::socket(family, SocketType::STREAM, Some(ipproto::SCTP))?))
    };
    if lacks("SCTP", SocketType::STREAM, ipproto::SCTP)? {
        return Ok(());
    }
    for version in [4, 6] {
        let wire = Wire::new()?;
        let client = socket(&wire.a, version)?;
        for end in [&wire.a, &wire.b] {
            // It is cut behind the programs, and before the interface counts.
            end.place.run(&format!("ethtool -K {} tx-sctp-segmentation off", end.dev))?;
        }
        let collectors =
            [&wire.a, &wire.b].map(|end| Running::start_beside(&end.place, options(), Some(&end.dev)));
        let host = Host::new(&wire.b, &[])?;
        let (server, to) = (socket(&wire.b, version)?, SocketAddr::new(wire.b.address(version), PORT));
        rustix::net::bind(&server, &to)?;
        rustix::net::listen(&server, 1)?;
        let receiving = thread::spawn(move || -> Result<usize> {
            let mut stream = TcpStream::from(rustix::net::accept(&server)?);
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.read_to_end(&mut Vec::new()).context("the server reads")
        });
        pin(0)?;
        rustix::net::connect(&client, &to)?;
        let mut client = TcpStream::from(client);
        client.set_read_timeout(Some(PATIENCE))?;
        for _ in 0..OCTETS / 16_000 {
            client.write_all(&[0x55; 16_000]).context("the client writes")?;
        }
        client.shutdown(Shutdown::Write).context("the client has no more")?;
        // The other side says that it has all: then there is no association any more.
        match client.read(&mut [0; 1]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::NotConnected => {}
            other => bail!("nothing is sent back: {other:?}"),
        }
        let received = receiving.join().unwrap_or_else(|cause| panic::resume_unwind(cause))?;
        assert_eq!(received, OCTETS);
        settle(&wire.a, &host)?;
        let finished: Vec<_> =
            collectors.into_iter().map(|collector| collector?.stop()).collect::<Result<_>>()?;
        for finished in &finished {
            assert_balanced(finished);
            let link = finished.link;
            assert_eq!(
                events::all_units(&finished.events),
                [link.rx_packets, link.rx_bytes, link.tx_packets, link.tx_bytes],
                "received packets and octets, sent packets and octets"
            );
        }
        let [sent, came] = [&finished[0], &finished[1]]
            .map(|finished| events::total(&finished.events, |flow| events::is_to(flow, SCTP, PORT)));
        assert_eq!(sent, came, "both ends");
        assert!(sent.bytes > OCTETS as u64 && sent.count == 1, "{sent:?}");
        let seen = finished[0].status.ledger.seen;
        assert!(seen < sent.packets + sent.reply_packets, "no super-packet: {seen} buffers of {sent:?}");
    }
    Ok(())
}

/// The records of the connection say what its sockets say.
fn assert_connection(events: &[Event], connection: &Connection) {
    let Connection { client, server, client_info, server_info } = connection;
    let records: Vec<_> = events::flows(events).filter(|flow| flow.l4_protocol == TCP).collect();
    assert!(!records.is_empty(), "no record of the connection");
    for record in &records {
        assert_eq!(events::ip_of(record.source.as_ref()), Some(client.ip()), "the client opened it");
        assert_eq!(events::port_of(record.source.as_ref()), client.port());
        assert_eq!(events::port_of(record.destination.as_ref()), server.port());
        assert_eq!(record.initiator_by, InitiatorBy::Syn);
    }
    assert_eq!(records.last().map(|record| record.ended), Some(Ended::Fin));
    let total = events::total(events, |flow| flow.l4_protocol == TCP);
    assert_eq!(total.count, 1, "connections begun");
    // The server's socket did not send the answer to the SYN: it came to be by what answered that.
    let server_segments = server_info.segs_out + 1;
    assert_eq!(
        (total.packets, total.reply_packets),
        (client_info.segs_out, server_segments),
        "{connection:#?}"
    );
    assert!(client_info.timestamps && server_info.timestamps, "{connection:#?}");
    // Timestamps in every segment, and 8 octets more of options in each one's first.
    let each = headers(client.ip()) + 20 + 12;
    assert_eq!(
        (total.bytes, total.reply_bytes),
        (
            client_info.bytes_sent + client_info.segs_out * each + 8,
            server_info.bytes_sent + server_segments * each + 8
        ),
        "{connection:#?}"
    );
}
