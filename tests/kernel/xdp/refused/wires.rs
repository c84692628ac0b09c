//! Over wires, in each mode: what arrives, and the same records, counters, rows and reports as without.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
};

use collector_tests::{
    Result,
    books::{assert_balanced, assert_sum_at_uplinks},
    collector::{Finished, NEVER, Running},
    events::{self, Totals},
    filters,
    frames::{self, IPV4, SYN, TCP, UDP, ipv4},
    lab::{End, Wire},
    policies::policy,
    release,
    traffic::{Host, PacketSocket, pin, settle},
};
use collector_user::{
    daemon::Options,
    event::PacketReport,
    kernel::{
        drops::DropLimits,
        requirements::is_preempt_rt,
        settings::Transport,
        xdp::{Choice, Mode},
    },
    pu::trace::Directions,
};

use crate::enforced::{
    ACCEPT, CLOSED, OPEN, REJECT, arrived, dropped, enforcing, records, reports, send, sinks, strict, sum,
};

const IN: u64 = 1000;
const FEW: u64 = 50;
const PART: u64 = 50;

/// Of so many packets that XDP may drop, those that it does: under `PREEMPT_RT` none.
fn early(packets: u64) -> u64 {
    if is_preempt_rt() { 0 } else { packets }
}

fn with(choice: Choice) -> Result<Options> {
    Ok(Options { xdp: choice, ..enforcing(strict("host")?) })
}

/// A SYN to a port of the other end, with a checksum.
fn opening(from: &End, to: &End, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    let segment = frames::tcp([0x9C, 0x40, high, low], SYN, &[], 0);
    let packet = frames::with_checksums(&ipv4((from.v4, to.v4), &[], 0x4000, TCP, &segment));
    frames::ethernet_between(from.mac, to.mac, &[], IPV4, &packet)
}

/// Sends what is accepted, and what is not: datagrams of both families, and SYNs; in parts, for the ring of a veth on whose
/// other side a program hangs has room for 256.
fn offer(from: &End, to: &End, host: &Host) -> Result<()> {
    for version in [4, 6] {
        let at = |port| SocketAddr::new(to.address(version), port);
        for _ in 0..IN / PART {
            send(from, at(CLOSED), PART)?;
            settle(from, host)?;
        }
        send(from, at(OPEN), FEW)?;
    }
    let (socket, frame) = (PacketSocket::new(from)?, opening(from, to, CLOSED));
    (0..FEW).try_for_each(|_| socket.send(&frame))
}

/// Packets, octets, and packets that were rejected, of flows and rows of drops.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    datagrams: [u64; 4],
    segments: [u64; 4],
    open: u64,
    unit: [u64; 5],
    rows: [u64; 3],
    reports: usize,
}

/// What the collector says of [`offer`], with XDP or without.
fn told(finished: &Finished) -> Told {
    let of = |protocol| {
        let records = records(finished, protocol, CLOSED);
        for record in &records {
            assert_eq!((&*record.policy_id, &*record.drop_reason), ("default", "policy"), "{record:?}");
        }
        [
            sum(&records, |it| it.packets),
            sum(&records, |it| it.bytes),
            sum(&records, |it| it.rejected_packets),
            sum(&records, |it| it.count),
        ]
    };
    let Totals { packets, .. } = events::total(&finished.events, |flow| events::is_to(flow, UDP, OPEN));
    let rows = finished.status.drops.iter().filter(|row| row.advice.contains("this collector"));
    let mut sums = [0; 3];
    for row in rows {
        for (sum, count) in sums.iter_mut().zip([row.packets, row.skbs, row.bytes]) {
            *sum += count;
        }
    }
    let [rx, rx_bytes, tx, tx_bytes] = events::unit(&finished.events, "host");
    let refused = events::counter(&finished.events, "host", "rejected_rx_packets");
    // What settles is there, too, as often as it was asked.
    assert!(rx > 0 && rx_bytes > 0 && tx_bytes > 0);
    Told {
        datagrams: of(UDP),
        segments: of(TCP),
        open: packets,
        unit: [rx, rx_bytes, tx, tx_bytes, refused],
        rows: sums,
        reports: reports(finished).len(),
    }
}

/// Runs a collector over [`offer`] with these options.
fn run_with(wire: &Wire, host: &Host, options: Options) -> Result<Finished> {
    let choice = options.xdp;
    pin(0)?;
    let open = sinks(&wire.b, OPEN)?;
    let closed = sinks(&wire.b, CLOSED)?;
    // What nobody waits for is nobody's yet, and meets no rules.
    let v4 = wire.b.v4;
    let listener = wire.b.place.within(|| Ok(TcpListener::bind((v4, CLOSED))?))?;
    let collector = Running::start_beside(&wire.b.place, options, Some(&wire.b.dev))?;
    offer(&wire.a, &wire.b, host)?;
    settle(&wire.a, host)?;
    let finished = collector.stop()?;
    for (open, closed) in open.iter().zip(&closed) {
        let told = &finished.status;
        assert_eq!(
            (arrived(open)?, arrived(closed)?),
            (FEW, 0),
            "{choice:?}: {:#?} {:#?}",
            told.drops,
            told.ledger
        );
    }
    listener.set_nonblocking(true)?;
    assert!(listener.accept().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "nobody came");
    // Where the kernel frees a buffer of what was dropped, nobody else has dropped it.
    assert_eq!(dropped(&finished, "host"), (2 * IN + FEW, 0), "{:#?}", finished.status.drops);
    assert_balanced(&finished);
    let mut link = finished.link;
    if choice == Choice::Only(Mode::Native) {
        // veth counts what comes to its program without the Ethernet header.
        link.rx_bytes += 14 * link.rx_packets;
    }
    assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[link]);
    Ok(finished)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn counts_records_and_reports_are_those_of_tc_in_every_mode() -> Result<()> {
    let wire = Wire::silent()?;
    // Sums are made where packets are, so that generic XDP sees that none stands for several.
    wire.a.without_offloads()?;
    let host = Host::new(&wire.b, &[])?;
    let alone = told(&run_with(&wire, &host, with(Choice::Off)?)?);
    assert_eq!(alone.datagrams[0], 2 * IN);
    assert_eq!(alone.rows[0], 2 * IN + FEW);
    for choice in [Choice::Only(Mode::Generic), Choice::Only(Mode::Native)] {
        let finished = run_with(&wire, &host, with(choice)?)?;
        let ledger = &finished.status.ledger;
        assert_eq!(told(&finished), alone, "{choice:?}: {ledger:#?}");
        // TC has judged each flow once, and nothing else of it.
        assert_eq!(ledger.xdp_dropped, early(2 * IN + FEW - 3), "{choice:?}: {ledger:?}");
        assert_eq!(ledger.xdp_seen, ledger.xdp_passed + ledger.xdp_dropped, "{choice:?}");
        assert_eq!(ledger.xdp_seen, finished.link.rx_packets, "{choice:?}");
        let rows = finished.status.drops.iter().filter(|row| &*row.place == "xdp_ingress");
        let rows: Vec<_> = rows.map(|row| (&*row.puid, row.packets, &*row.kernel_reason)).collect();
        let reason = if release::is_at_least((5, 18)) { "XDP" } else { "" };
        let wanted = ("host", ledger.xdp_dropped, reason);
        assert_eq!(rows, [wanted][usize::from(is_preempt_rt())..], "{:#?}", finished.status.drops);
        let all = reports(&finished);
        let early: Vec<_> = all.iter().filter(|it| &*it.drop_place == "xdp_ingress").collect();
        assert_eq!(early.len() as u64, ledger.xdp_dropped);
        for report in early {
            assert_eq!((&*report.puid, report.destination_port), ("host", CLOSED), "{report:?}");
            assert_eq!((&*report.drop_reason, report.payload.is_empty()), ("policy", false), "{report:?}");
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn reports_are_those_that_are_wanted_and_paid_for() -> Result<()> {
    const BURST: u32 = 10;
    let wire = Wire::silent()?;
    wire.a.without_offloads()?;
    let host = Host::new(&wire.b, &[])?;
    for mode in [Mode::Generic, Mode::Native] {
        let mut options = with(Choice::Only(mode))?;
        options.settings.filter = Some(filters::of("ip6")?);
        options.settings.transport = Transport::Ring;
        let finished = run_with(&wire, &host, options)?;
        let (all, ledger) = (reports(&finished), &finished.status.ledger);
        assert_eq!((all.len() as u64, ledger.drop_reports_filtered), (IN, IN + FEW), "{mode}: {ledger:?}");
        let is_whole =
            |it: &&PacketReport| it.destination_ip == Some(wire.b.address(6)) && it.payload.len() > 40;
        assert!(all.iter().all(is_whole), "{mode}: {all:?}");
        let mut options = with(Choice::Only(mode))?;
        options.settings.drops = Some(DropLimits { per_second: 1, burst: BURST, ..DropLimits::default() });
        let finished = run_with(&wire, &host, options)?;
        let (all, ledger) = (reports(&finished), &finished.status.ledger);
        let (told, held_back) = (all.len() as u64, ledger.drop_reports_held_back);
        assert!(told >= BURST.into() && held_back > IN, "{mode}: {ledger:?}");
        assert_eq!(told + held_back, 2 * IN + FEW, "{mode}: {ledger:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn super_packets_are_counted_as_what_they_stand_for() -> Result<()> {
    let wire = Wire::silent()?;
    let host = Host::new(&wire.b, &[])?;
    let alone = told(&run_with(&wire, &host, with(Choice::Off)?)?);
    let finished = run_with(&wire, &host, with(Choice::Only(Mode::Generic))?)?;
    assert_eq!(told(&finished), alone);
    // Datagrams whose sum is left to be made are TC's; a SYN carries nothing.
    assert_eq!(finished.status.ledger.xdp_dropped, early(FEW - 1), "{:?}", finished.status.ledger);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_allowed_by_now_passes_from_the_next_packet_on() -> Result<()> {
    const EACH: u64 = 40;
    for choice in [Choice::Only(Mode::Generic), Choice::Only(Mode::Native)] {
        let wire = Wire::silent()?;
        wire.a.without_offloads()?;
        pin(0)?;
        let host = Host::new(&wire.b, &[])?;
        let sockets = sinks(&wire.b, CLOSED)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let options = Options { drain_interval: NEVER, ..with(choice)? };
        let collector = Running::start(&wire.b.place, options.clone())?;
        let round = || -> Result<[u64; 2]> {
            for version in [4, 6] {
                send(&wire.a, SocketAddr::new(wire.b.address(version), CLOSED), EACH)?;
            }
            settle(&wire.a, &host)?;
            Ok([arrived(&sockets[0])?, arrived(&sockets[1])?])
        };
        let load = |closed| {
            let mut policies = strict("host")?;
            policies.push(policy("closed", "host", Directions::In, (UDP, CLOSED..=CLOSED), closed)?);
            Ok::<_, anyhow::Error>(runtime.block_on(
                collector.started.reloader.reload(Options { policies, ..options.clone() }.into()),
            )?)
        };
        assert_eq!(round()?, [0; 2]);
        load(ACCEPT)?;
        assert_eq!(round()?, [EACH; 2], "{choice:?}");
        load(REJECT)?;
        assert_eq!(round()?, [0; 2], "{choice:?}");
        let finished = collector.stop()?;
        assert_balanced(&finished);
        let records = records(&finished, UDP, CLOSED);
        assert_eq!(sum(&records, |it| it.packets), 6 * EACH);
        assert_eq!(sum(&records, |it| it.rejected_packets), 4 * EACH);
        // Of each family the first under each configuration is TC's; in a later epoch that which shows it to live on, too.
        assert!(finished.status.ledger.xdp_dropped >= early(4 * (EACH - 2)), "{:?}", finished.status.ledger);
    }
    Ok(())
}
