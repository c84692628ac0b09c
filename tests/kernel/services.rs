//! Services, which have no interface of their own: theirs is what their sockets send and take at the uplinks.

use std::{net::TcpListener, thread};

use collector_tests::{
    PATIENCE, Result,
    books::{Books, assert_sum_at_uplinks},
    cgroups::{Cgroup, Resident, container_name},
    collector::{Running, discovering, often},
    events,
    frames::UDP,
    lab::Wire,
    lives::{steps, wait_for_step},
    netns::unique,
    site::Site,
    talk::{self, ask, asker, talk},
    traffic::{ANSWERS, Host},
};
use collector_user::{
    config::Discover,
    daemon::Options,
    event::{AttributedBy, EndPointType},
    kernel::requirements::is_preempt_rt,
};

use crate::assert_balanced;

/// A service of a name that no other test has, in a slice of its own.
struct Service {
    id: String,
    group: Cgroup,
}

impl Service {
    fn new() -> Result<Self> {
        let slice = format!("{}.slice", unique("ct").replace('.', "_"));
        let id = format!("{}.service", unique("ct").replace('.', "_"));
        Ok(Self { group: Cgroup::new(&format!("{slice}/{id}"))?, id })
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_a_services_sockets_send_and_take_is_the_services() -> Result<()> {
    for is_there_before in [true, false] {
        let wire = Wire::unsegmented()?;
        let before = is_there_before.then(Service::new).transpose()?;
        let collector = Running::start_beside(&wire.a.place, discovering(), Some(&wire.a.dev))?;
        // Nobody waits until it is known.
        let service = before.map_or_else(Service::new, Ok)?;
        let answering = Host::new(&wire.b, &[])?;
        let mut books = Books::new();
        for version in [4, 6] {
            // It asks; and so does somebody else on the host.
            let (from, to) = ((wire.a.address(version), 40_000).into(), talk::answers(&answering, version));
            let socket = service.group.within(|| asker(&wire.a.place, from, to))?;
            books.asked(&service.id, &ask(&socket, 100, 100)?);
            let from = (wire.a.address(version), 40_001).into();
            books.asked("host", &talk(&wire.a.place, from, to)?);
        }
        // It is asked.
        let serving = service.group.within(|| Host::at(&wire.a, &[], (wire.a.v4, ANSWERS).into()))?;
        let into = talk(&wire.b.place, (wire.b.v4, 40_002).into(), talk::answers(&serving, 4))?;
        books.was_asked(&service.id, &into);
        // TCP, whose sockets are made by the kernel for the one that listens.
        let at = (wire.a.v4, 5002).into();
        let listener = service.group.within(|| wire.a.place.within(|| Ok(TcpListener::bind(at)?)))?;
        let into = talk::transfer_to(&wire.b.place, wire.b.v4.into(), at, listener)?;
        books.was_asked(&service.id, &into);
        let finished = collector.stop()?;
        assert_balanced(&finished);
        books.assert_kept(&finished);
        assert_sum_at_uplinks(&finished, &["host", &service.id, "forwarded", "unknown"], &[finished.link]);
        for record in events::flows(&finished.events).filter(|record| *record.context_id == *service.id) {
            assert_eq!(record.attributed_by, AttributedBy::Socket);
            let ends = [&record.source, &record.destination].map(|end| end.clone().unwrap_or_default());
            let own = ends
                .iter()
                .find(|end| end.ip.is_some_and(|ip| ip == wire.a.address(4) || ip == wire.a.address(6)));
            let own = own.expect("one end is its own");
            assert_eq!((&*own.id, own.r#type), (&*service.id, EndPointType::Pu));
            assert!(record.tags.get("slice").is_some(), "{:?}", record.tags);
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_thousand_short_lives_are_all_counted_and_named() -> Result<()> {
    const LIVES: u32 = 1000;
    let wire = Wire::silent()?;
    let collector = Running::start(&wire.a.place, discovering())?;
    let service = Service::new()?;
    let id = service.id.clone();
    {
        let _there = wire.a.place.enter()?;
        service.group.send_once_each(LIVES, std::net::SocketAddrV4::new(wire.b.v4, 9))?;
    }
    drop(service);
    assert!(collector.recorder.wait_until(PATIENCE, |events| steps(events, &id).contains(&"delete")));
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let sent = |unit: &str| events::unit(&finished.events, unit)[2];
    assert_eq!((sent(&id), sent("unknown")), (LIVES.into(), 0));
    let of_service =
        events::total(&finished.events, |flow| *flow.context_id == *id && flow.l4_protocol == UDP);
    assert_eq!(of_service.packets, u64::from(LIVES));
    Ok(())
}

/// More services at once than the programs have indexes for: what the others send is the host's until they are known, and theirs
/// from then on, in the same flows.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn for_whom_no_index_is_left_counts_once_it_is_known() -> Result<()> {
    // The list of a CPU holds 64 at the most, those of all of them 2048.
    let most = 64 * thread::available_parallelism()?.get().min(32);
    let count = u16::try_from(most + 50)?;
    let wire = Wire::silent()?;
    let collector = Running::start(&wire.a.place, Options { discover: Discover::On, ..often() })?;
    let at = (wire.b.v4, 9).into();
    let _taking = talk::listener(&wire.b.place, at)?;
    let held = collector.hold()?;
    let mut services = Vec::new();
    for number in 0..count {
        let service = Service::new()?;
        let from = (wire.a.v4, 20_000 + number).into();
        let socket = service.group.within(|| asker(&wire.a.place, from, at))?;
        socket.send(b"once")?;
        services.push((service, socket));
    }
    let last = Service::new()?;
    drop(held);
    wait_for_step(&collector, &last.id, "create");
    // Whoever is asked has done with what was told.
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(collector.started.inquirer.units())?;
    services.iter().try_for_each(|(_, socket)| socket.send(b"twice").map(drop))?;
    let finished = collector.stop()?;
    let ledger = &finished.status.ledger;
    assert_eq!(ledger.seen, ledger.explained(), "{ledger:?}");
    let sent = |unit: &str| events::total(&finished.events, |flow| *flow.context_id == *unit).packets;
    let each: Vec<_> = services.iter().map(|(service, _)| sent(&service.id)).collect();
    assert!(each.iter().all(|packets| matches!(packets, 1 | 2)), "{each:?}");
    let late = each.iter().filter(|packets| **packets == 1).count() as u64;
    assert_eq!((late, sent("host")), (ledger.units_exhausted, late), "{each:?}");
    assert!(late >= 50, "{late}");
    Ok(())
}

/// What goes before it can be looked at has no name; that this was so is in the ledger, and what it sent is the host's.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_goes_unseen_is_the_hosts_and_the_ledger_says_so() -> Result<()> {
    let wire = Wire::silent()?;
    let collector = Running::start(&wire.a.place, Options { discover: Discover::On, ..often() })?;
    let at = (wire.b.v4, 9).into();
    let taking = talk::listener(&wire.b.place, at)?;
    let held = collector.hold()?;
    let service = Service::new()?;
    let asking = service.group.within(|| asker(&wire.a.place, (wire.a.v4, 40_000).into(), at))?;
    let told = talk::tell(&asking, &taking, 10, 100)?;
    drop((asking, service));
    let last = Service::new()?;
    drop(held);
    wait_for_step(&collector, &last.id, "create");
    let finished = collector.stop()?;
    let ledger = &finished.status.ledger;
    assert_eq!(ledger.seen, ledger.explained(), "{ledger:?}");
    // Under PREEMPT_RT the programs give no group a number that nobody has seen: what is known is how many flows that cost.
    let loss = if is_preempt_rt() { "units_exhausted" } else { "cgroups_unseen" };
    assert_eq!(ledger.losses(), [(loss.to_owned(), 1)]);
    Books::new().asked("host", &told).assert_kept(&finished);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn between_a_container_and_a_service_both_are_counted() -> Result<()> {
    let site = Site::new(1)?;
    let inside = &site.containers[0];
    let name = container_name();
    let (id, cgroup) = (&name[..12], Cgroup::new(&format!("docker/{name}"))?);
    let _resident = Resident::new(&cgroup, &inside.place)?;
    let service = Service::new()?;
    let collector = Running::start_beside(site.host(), discovering(), Some(&site.uplink.dev))?;
    let mut books = Books::new();
    // The container asks what a service serves on the host, and what the host itself does.
    let serving = service.group.within(|| Host::at(&site.bridge, &[], (site.bridge.v4, ANSWERS).into()))?;
    let asked = talk(&inside.place, (inside.v4, 40_000).into(), talk::answers(&serving, 4))?;
    books.asked(id, &asked).was_asked_here(&service.id, &asked);
    let hosts = Host::at(&site.bridge, &[], (site.bridge.v4, ANSWERS + 1).into())?;
    let asked = talk(&inside.place, (inside.v4, 40_001).into(), hosts.address(4, ANSWERS + 1))?;
    books.asked(id, &asked).was_asked_here("host", &asked);
    // The service asks the container.
    let answering = Host::new(inside, &[])?;
    for version in [4, 6] {
        let (from, to) = ((site.bridge.address(version), 40_002).into(), talk::answers(&answering, version));
        let socket = service.group.within(|| asker(site.host(), from, to))?;
        let asked = ask(&socket, 100, 100)?;
        books.was_asked(id, &asked).asked_here(&service.id, &asked);
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    for record in events::flows(&finished.events).filter(|record| *record.context_id == *id) {
        let ends = [&record.source, &record.destination].map(|end| end.clone().unwrap_or_default());
        let of_host =
            ends.iter().find(|end| end.ip != Some(inside.v4.into()) && end.ip != Some(inside.v6.into()));
        let of_host = of_host.expect("one end is the host's");
        let of = if ends.iter().any(|end| end.port == 40_001) { "host" } else { &*service.id };
        assert_eq!((&*of_host.id, of_host.r#type), (of, EndPointType::Pu), "{record:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn all_at_once_add_up_to_what_the_uplink_counts() -> Result<()> {
    let site = Site::new(2)?;
    site.translate()?;
    let answering = [&site.containers[0], &site.containers[1], &site.peer].map(|end| Host::new(end, &[]));
    let [_web, _db, at_peer] = answering;
    let at_peer = at_peer?;
    let names = [container_name(), container_name()];
    let cgroups: Vec<_> =
        names.iter().map(|name| Cgroup::new(&format!("docker/{name}"))).collect::<Result<_>>()?;
    let _residents: Vec<_> = cgroups
        .iter()
        .zip(&site.containers)
        .map(|(cgroup, inside)| Resident::new(cgroup, &inside.place))
        .collect::<Result<_>>()?;
    let [web, db] = [&names[0][..12], &names[1][..12]];
    let service = Service::new()?;
    let before = [site.ports[0].counters()?, site.ports[1].counters()?];
    let options = Options { forwarded: true, ..discovering() };
    let collector = Running::start_beside(site.host(), options, Some(&site.uplink.dev))?;
    let [one, two] = [&site.containers[0], &site.containers[1]];
    let to_peer = |version| talk::answers(&at_peer, version);
    let mut books = Books::new();
    // Out of a container: translated, and routed.
    let out = talk(&one.place, (one.v4, 40_000).into(), to_peer(4))?;
    books.asked(web, &out).asked("forwarded", &out.between((site.uplink.v4, 40_000).into(), out.destination));
    let out = talk(&two.place, (two.v6, 40_001).into(), to_peer(6))?;
    books.asked(db, &out).asked("forwarded", &out);
    // Into one, by a port that is published.
    let into = talk(&site.peer.place, (site.peer.v4, 40_002).into(), site.published(1))?;
    books.was_asked(db, &into.between(into.source, (two.v4, ANSWERS).into())).was_asked("forwarded", &into);
    // From one to the other: each has its own view.
    let between = talk(&one.place, (one.v4, 40_003).into(), (two.v4, ANSWERS).into())?;
    books.asked(web, &between).was_asked(db, &between);
    // A service, and the host itself.
    for (version, port) in [(4, 40_004), (6, 40_005)] {
        let from = (site.uplink.address(version), port).into();
        let socket = service.group.within(|| asker(site.host(), from, to_peer(version)))?;
        books.asked(&service.id, &ask(&socket, 100, 100)?);
        let from = (site.uplink.address(version), port + 10).into();
        books.asked("host", &talk(site.host(), from, to_peer(version))?);
    }
    let at = (site.uplink.v4, 5002).into();
    let listener = service.group.within(|| site.host().within(|| Ok(TcpListener::bind(at)?)))?;
    books.was_asked(&service.id, &talk::transfer_to(&site.peer.place, site.peer.v4.into(), at, listener)?);
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    assert_sum_at_uplinks(&finished, &["host", &service.id, "forwarded", "unknown"], &[finished.link]);
    for (id, (port, before)) in [web, db].iter().zip(site.ports.iter().zip(&before)) {
        let link = port.counters()?.since(before);
        let want = [link.tx_packets, link.tx_bytes, link.rx_packets, link.rx_bytes];
        assert_eq!(events::unit(&finished.events, id), want);
    }
    Ok(())
}
