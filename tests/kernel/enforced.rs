//! Policies over wires: what is rejected does not arrive, what is only said to be does, and the records tell which.

mod boundaries;
mod connections;
mod said;

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use anyhow::bail;
use collector_tests::{
    Result,
    books::{assert_balanced, assert_explained, assert_sum_at_uplinks},
    collector::{Finished, Running, declared, options},
    events,
    frames::{TCP, UDP},
    lab::{End, Wire},
    policies::policy,
    program::{self, Hook},
    release,
    talk::listener,
    traffic::{ANSWERS, Host, pin, sender, settle},
};
use collector_user::{
    daemon::Options,
    event::{ActionType, DropClass, Event, FlowRecord, PacketEvent, PacketReport},
    kernel::drops::DropLimits,
    policy::{
        lockout::Enforcement,
        rule::{Observe, Policy},
    },
    pu::{registry::Declared, trace::Directions},
};
use ipnet::IpNet;

/// The port that policies let through.
pub(crate) const OPEN: u16 = 6001;
/// A port that they do not.
pub(crate) const CLOSED: u16 = 6002;

pub(crate) const ACCEPT: (bool, Observe) = (true, Observe::None);
pub(crate) const REJECT: (bool, Observe) = (false, Observe::None);

/// The host may be asked, and may ask, by these ports alone: the open one, and that which answers.
pub(crate) fn strict(unit: &str) -> Result<Vec<Policy>> {
    Ok(vec![
        policy("open", unit, Directions::Both, (UDP, OPEN..=OPEN), ACCEPT)?,
        policy("answers", unit, Directions::Both, (UDP, ANSWERS..=ANSWERS), ACCEPT)?,
        policy("web", unit, Directions::Both, (TCP, OPEN..=OPEN), ACCEPT)?,
    ])
}

/// What they reject is dropped, each reported, and the first packet that is seen is the first.
pub(crate) fn enforcing(policies: Vec<Policy>) -> Options {
    let mut options =
        Options { policies, enforcement: Enforcement::Anyway, guess_time: Duration::ZERO, ..options() };
    options.settings.drops =
        Some(DropLimits { per_second: 100_000, burst: 100_000, ..DropLimits::default() });
    options.settings.packets = 1 << 21;
    options
}

/// Sends datagrams; that a program refuses them may be told to their sender.
pub(crate) fn send(from: &End, to: SocketAddr, count: u64) -> Result<()> {
    let socket = sender(from, if to.is_ipv4() { 4 } else { 6 }, 40_000)?;
    for _ in 0..count {
        let _ = socket.send_to(&[0x55; 64], to);
    }
    Ok(())
}

/// How many datagrams lie there.
pub(crate) fn arrived(socket: &UdpSocket) -> Result<u64> {
    socket.set_nonblocking(true)?;
    let mut count = 0;
    loop {
        match socket.recv(&mut [0; 128]) {
            Ok(_) => count += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(count),
            Err(error) => bail!(error),
        }
    }
}

/// A socket for each family at a port of an end.
pub(crate) fn sinks(end: &End, port: u16) -> Result<[UdpSocket; 2]> {
    let at = |version| listener(&end.place, SocketAddr::new(end.address(version), port));
    Ok([at(4)?, at(6)?])
}

pub(crate) fn reports(finished: &Finished) -> Vec<&PacketReport> {
    let packets = finished.events.iter().filter_map(|event| match event {
        Event::Packet(report) if report.event == PacketEvent::Dropped => Some(report),
        _ => None,
    });
    packets.collect()
}

/// The records of flows to a port.
pub(crate) fn records(finished: &Finished, protocol: u8, port: u16) -> Vec<&FlowRecord> {
    events::flows(&finished.events).filter(|flow| events::is_to(flow, protocol, port)).collect()
}

pub(crate) fn sum(records: &[&FlowRecord], of: impl Fn(&FlowRecord) -> u64) -> u64 {
    records.iter().map(|record| of(record)).sum()
}

/// Packets of a unit that were dropped by us, and by anybody else at TC.
pub(crate) fn dropped(finished: &Finished, unit: &str) -> (u64, u64) {
    let rows =
        finished.status.drops.iter().filter(|row| &*row.puid == unit && row.class == DropClass::Policy);
    let (own, others): (Vec<_>, Vec<_>) = rows.partition(|row| row.advice.contains("this collector"));
    let sum = |rows: Vec<&collector_user::event::Dropped>| rows.iter().map(|row| row.packets).sum();
    (sum(own), sum(others))
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_rejected_does_not_arrive_and_is_counted_to_the_packet() -> Result<()> {
    const IN: u64 = 1000;
    const OUT: u64 = 500;
    const FEW: u64 = 50;
    let wire = Wire::new()?;
    pin(0)?;
    let host = [Host::new(&wire.a, &[])?, Host::new(&wire.b, &[])?];
    let [a, b] = [&wire.a, &wire.b];
    let (open, closed) = ([sinks(a, OPEN)?, sinks(b, OPEN)?], [sinks(a, CLOSED)?, sinks(b, CLOSED)?]);
    let collector = Running::start_beside(&a.place, enforcing(strict("host")?), Some(&a.dev))?;
    for version in [4, 6] {
        let to = |end: &End, port| SocketAddr::new(end.address(version), port);
        send(b, to(a, CLOSED), IN)?;
        send(b, to(a, OPEN), FEW)?;
        send(a, to(b, CLOSED), OUT)?;
        send(a, to(b, OPEN), FEW)?;
    }
    settle(b, &host[0])?;
    settle(a, &host[1])?;
    let finished = collector.stop()?;
    for (open, closed) in open.iter().zip(&closed) {
        for (open, closed) in open.iter().zip(closed) {
            assert_eq!((arrived(open)?, arrived(closed)?), (FEW, 0));
        }
    }
    // What did not leave, the interface has not counted, nor has any unit; what was dropped as it came in, both have.
    assert_balanced(&finished);
    assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[finished.link]);
    assert_eq!(finished.status.ledger.rejected, 2 * OUT);
    let closed = records(&finished, UDP, CLOSED);
    for record in &closed {
        assert_eq!((record.action, &*record.policy_id), (ActionType::REJECT, "default"), "{record:?}");
        assert_eq!((&*record.drop_reason, &*record.context_id), ("policy", "host"), "{record:?}");
        assert_eq!(record.observed_action, ActionType::NONE);
    }
    assert_eq!(sum(&closed, |record| record.packets), 2 * IN);
    assert_eq!(sum(&closed, |record| record.rejected_packets), 2 * (IN + OUT));
    assert_eq!(sum(&closed, |record| record.count), 4);
    let open = records(&finished, UDP, OPEN);
    for record in &open {
        assert_eq!((record.action, &*record.policy_id), (ActionType::ACCEPT, "open"), "{record:?}");
        assert_eq!((&*record.drop_reason, record.rejected_packets), ("", 0));
    }
    assert_eq!(sum(&open, |record| record.packets), 4 * FEW);
    let counter = |name| events::counter(&finished.events, "host", name);
    assert_eq!(
        [counter("rejected_rx_packets"), counter("rejected_tx_packets"), counter("dropped_policy")],
        [2 * IN, 2 * OUT, 2 * (IN + OUT)]
    );
    assert_eq!(dropped(&finished, "host"), (2 * (IN + OUT), 0), "{:#?}", finished.status.drops);
    let reports = reports(&finished);
    assert_eq!(reports.len() as u64, 2 * (IN + OUT));
    for report in reports {
        assert_eq!((&*report.drop_reason, report.drop_class), ("policy", DropClass::Policy));
        assert_eq!((&*report.puid, report.destination_port), ("host", CLOSED));
        assert!(report.advice.contains("this collector"), "{report:?}");
        if release::is_at_least((5, 19)) {
            assert!(report.kernel_reason.starts_with("TC_"), "the kernel's own stands beside it: {report:?}");
        }
    }
    assert_eq!(events::rejected(&finished.events).count(), 0, "the flows' own records say it");
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn other_policies_hold_for_what_lives_once_they_are_loaded() -> Result<()> {
    const EACH: u64 = 40;
    let wire = Wire::new()?;
    pin(0)?;
    let answering = Host::new(&wire.a, &[])?;
    let sockets = sinks(&wire.a, OPEN)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    // No drain falls due by itself.
    let drain_interval = collector_tests::collector::NEVER;
    let options = Options { drain_interval, ..enforcing(strict("host")?) };
    let collector = Running::start_beside(&wire.a.place, options.clone(), Some(&wire.a.dev))?;
    let load = |policies, enforce| {
        let enforcement = if enforce { Enforcement::Anyway } else { Enforcement::Off };
        let wanted = Options { policies, enforcement, ..options.clone() };
        runtime.block_on(collector.started.reloader.reload(wanted.into()))
    };
    let senders = [4, 6].map(|version| sender(&wire.b, version, 40_000));
    let [four, six] = senders;
    let senders = [four?, six?];
    // One flow of each family lives through all of it.
    let round = || -> Result<[u64; 2]> {
        for (version, socket) in [4, 6].into_iter().zip(&senders) {
            for _ in 0..EACH {
                socket.send_to(&[1; 64], SocketAddr::new(wire.a.address(version), OPEN))?;
            }
        }
        settle(&wire.b, &answering)?;
        Ok([arrived(&sockets[0])?, arrived(&sockets[1])?])
    };
    assert_eq!(round()?, [EACH; 2], "accepted");
    let mut closed = strict("host")?;
    closed.push(policy("closed", "host", Directions::In, (UDP, OPEN..=OPEN), REJECT)?);
    load(closed.clone(), true)?;
    assert_eq!(round()?, [0; 2], "rejected from the next packet on");
    load(closed, false)?;
    assert_eq!(round()?, [EACH; 2], "only said to be");
    load(strict("host")?, true)?;
    assert_eq!(round()?, [EACH; 2], "accepted once more");
    load(Vec::new(), true)?;
    assert_eq!(round()?, [EACH; 2], "no policies");
    let finished = collector.stop()?;
    assert_balanced(&finished);
    assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[finished.link]);
    let records = records(&finished, UDP, OPEN);
    let of = |action, id: &str| {
        let those: Vec<_> =
            records.iter().copied().filter(|it| it.action == action && &*it.policy_id == id).collect();
        (sum(&those, |it| it.packets), sum(&those, |it| it.rejected_packets))
    };
    // Each record is of one verdict.
    assert_eq!(of(ActionType::ACCEPT, "open"), (4 * EACH, 0), "{records:#?}");
    assert_eq!(of(ActionType::REJECT, "closed"), (4 * EACH, 2 * EACH));
    assert_eq!(of(ActionType::ACCEPT, "default"), (2 * EACH, 0));
    assert_eq!(sum(&records, |it| it.count), 2, "and it began once");
    Ok(())
}

/// Policies stay as they are, and one that was about nobody is about a unit that a reload brings.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_unit_for_whose_policies_there_is_no_room_is_refused() -> Result<()> {
    const COUNT: u64 = 20;
    let wire = Wire::new()?;
    let [a, b] = [&wire.a, &wire.b];
    let mut policies = strict("host")?;
    for port in 7001..7021 {
        policies.push(policy(&format!("at-{port}"), "crowd", Directions::Both, (UDP, port..=port), ACCEPT)?);
    }
    let mut options = enforcing(policies);
    options.settings.verdicts = 8;
    let [open, closed] = [sinks(a, OPEN)?, sinks(a, CLOSED)?];
    // What begins without policies has the room that it is given.
    let begins = Options { policies: Vec::new(), ..options.clone() };
    let collector = Running::start_beside(&a.place, begins, Some(&a.dev))?;
    collector.reload(options.clone())?;
    let declare = |id: &str| {
        let units = vec![declared(id, &[], &[format!("{}/32", a.v4)])?];
        collector.reload(Options { units, ..options.clone() })
    };
    let ask = |want: [u64; 2]| -> Result<()> {
        for (sink, port, want) in [(&open, OPEN, want[0]), (&closed, CLOSED, want[1])] {
            send(b, SocketAddr::new(a.address(4), port), COUNT)?;
            settle(b, &Host::new(a, &[])?)?;
            assert_eq!(arrived(&sink[0])?, want, "at {port}");
        }
        Ok(())
    };
    ask([COUNT, 0])?;
    let refused = declare("crowd").unwrap_err().to_string();
    assert!(refused.contains("the policies stay as they were"), "{refused}");
    ask([COUNT, 0])?;
    // Nothing is said of this one.
    declare("small")?;
    ask([COUNT, COUNT])?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    assert_eq!((finished.status.ledger.reloads, finished.status.ledger.reloads_refused), (2, 1));
    Ok(())
}

/// All units' policies together may name 262,144 ranges of addresses.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_unit_whose_policies_are_one_too_many_is_refused() -> Result<()> {
    let wire = Wire::new()?;
    let [a, b] = [&wire.a, &wire.b];
    let vast = |unit: &str| -> Result<Policy> {
        let mut vast = policy(unit, unit, Directions::Both, (UDP, OPEN..=OPEN), ACCEPT)?;
        let beside =
            (0..200_000_u32).map(|at| IpNet::from(IpAddr::from(Ipv4Addr::from(0x0a00_0000 + 2 * at))));
        Arc::make_mut(&mut vast.rule).remote.cidr.extend(beside);
        Ok(vast)
    };
    let answers = policy("answers", "net", Directions::Both, (UDP, ANSWERS..=ANSWERS), ACCEPT)?;
    let options = enforcing(vec![vast("net")?, vast("crowd")?, answers]);
    let unit = |id: &str, end: &End| declared(id, &[], &[format!("{}/32", end.v4)]);
    let units = vec![unit("net", a)?];
    let collector =
        Running::start_beside(&a.place, Options { units: units.clone(), ..options.clone() }, Some(&a.dev))?;
    let crowd = Declared { ranges: vec!["192.0.2.0/24".parse()?], ..unit("crowd", a)? };
    let refused = collector.reload(Options { units: vec![units[0].clone(), crowd], ..options.clone() });
    let refused = refused.unwrap_err().to_string();
    assert!(refused.starts_with("the policies stay as they were: the policies make"), "{refused}");
    let [sink, _] = sinks(a, CLOSED)?;
    send(b, SocketAddr::new(a.address(4), CLOSED), 10)?;
    settle(b, &Host::new(a, &[])?)?;
    assert_eq!(arrived(&sink)?, 0, "those of before hold");
    collector.reload(Options { units: vec![], ..options })?;
    send(b, SocketAddr::new(a.address(4), CLOSED), 10)?;
    settle(b, &Host::new(a, &[])?)?;
    assert_eq!(arrived(&sink)?, 10);
    assert_balanced(&collector.stop()?);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn policies_of_before_hold_where_what_comes_with_others_has_no_room() -> Result<()> {
    const COUNT: u64 = 20;
    /// More than there is room for.
    const RANGES: u32 = 17_000;
    let wire = Wire::new()?;
    let [a, b] = [&wire.a, &wire.b];
    let mut options = enforcing(strict("host")?);
    // For those of before and the others; not for those of before once more.
    options.settings.verdicts = 10;
    let sinks = [(OPEN, COUNT, sinks(a, OPEN)?), (CLOSED, 0, sinks(a, CLOSED)?)];
    let begins = Options { policies: Vec::new(), ..options.clone() };
    let collector = Running::start_beside(&a.place, begins, Some(&a.dev))?;
    collector.reload(options.clone())?;
    let ask = || -> Result<()> {
        for (port, want, sinks) in &sinks {
            send(b, SocketAddr::new(a.address(4), *port), COUNT)?;
            settle(b, &Host::new(a, &[])?)?;
            assert_eq!(arrived(&sinks[0])?, *want, "at {port}");
        }
        Ok(())
    };
    ask()?;
    let ranges: Vec<_> = (0..RANGES).map(|at| format!("{}/32", Ipv4Addr::from(0x0a00_0000 + at))).collect();
    let others = vec![
        policy("other", "host", Directions::Both, (UDP, CLOSED..=CLOSED), ACCEPT)?,
        policy("answers", "host", Directions::Both, (UDP, ANSWERS..=ANSWERS), ACCEPT)?,
    ];
    let units = vec![declared("crowd", &[], &ranges)?];
    let refused = collector.reload(Options { units, policies: others.clone(), ..options.clone() });
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("CIDRS"), "{refused}");
    ask()?;
    // What was written for the others has left room for them.
    collector.reload(Options { policies: others, ..options })?;
    send(b, SocketAddr::new(a.address(4), CLOSED), COUNT)?;
    settle(b, &Host::new(a, &[])?)?;
    assert_eq!(arrived(&sinks[1].2[0])?, COUNT);
    let finished = collector.stop()?;
    assert_balanced(&finished);
    assert_eq!((finished.status.ledger.reloads, finished.status.ledger.reloads_refused), (2, 1));
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_programs_of_others_drop_is_told_apart() -> Result<()> {
    const OWN: u64 = 30;
    const OTHERS: u64 = 20;
    if release::lacks("TCX", release::TCX) {
        return Ok(());
    }
    let wire = Wire::new()?;
    // What nobody waits for is nobody's yet, and meets no rules.
    let _sockets = [sinks(&wire.a, OPEN)?, sinks(&wire.a, CLOSED)?];
    // Ours goes before what hangs there.
    let _program = program::Dropping::at(&wire.a, Hook::TcIngress)?;
    let collector = Running::start(&wire.a.place, enforcing(strict("host")?))?;
    for (port, count) in [(CLOSED, OWN), (OPEN, OTHERS)] {
        send(&wire.b, SocketAddr::new(wire.a.v4.into(), port), count)?;
    }
    let finished = collector.stop()?;
    assert_explained(&finished);
    assert_eq!(dropped(&finished, "host"), (OWN, OTHERS), "{:#?}", finished.status.drops);
    for report in reports(&finished) {
        assert_eq!(report.advice.contains("this collector"), report.destination_port == CLOSED, "{report:?}");
    }
    let rejected: Vec<_> = events::rejected(&finished.events).collect();
    assert_eq!(rejected.iter().map(|flow| flow.dropped_packets).sum::<u64>(), OTHERS);
    Ok(())
}
