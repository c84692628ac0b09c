//! Units that are found by themselves: whose they are, what they count, and what is told of their lives.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, TcpListener},
};

use collector_tests::{
    Result,
    books::{Books, assert_sum_at_uplinks},
    cgroups::{Cgroup, Resident, container_name},
    collector::{Finished, Running, declared, discovering},
    command, events,
    lab::{self, End, Wire},
    lives::{life, steps, wait_for_step},
    netns::unique,
    site::Site,
    talk::{self, Talk, ask, asker, talk, transfer},
    traffic::{ANSWERS, Host},
};
use collector_user::{
    daemon::Options,
    event::{AttributedBy, EndPointType, Event, PacketEvent},
    pu::{
        registry::Declared,
        trace::{Directions, Whose, Wish},
    },
};

use crate::assert_balanced;

/// Units that counted something, of those that no test besides this one has.
fn counted(finished: &Finished) -> BTreeSet<String> {
    let reports = finished.events.iter().filter_map(|event| match event {
        Event::Counter(report) if report.counters.iter().any(|counter| counter.value != 0) => Some(report),
        _ => None,
    });
    reports.map(|report| report.context_id.to_string()).filter(|id| !id.is_empty()).collect()
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_container_is_found_by_its_cgroup_and_counted_at_its_veth() -> Result<()> {
    for is_there_before in [true, false] {
        let site = Site::new(1)?;
        site.translate()?;
        let (inside, port) = (&site.containers[0], &site.ports[0]);
        let answering = [Host::new(inside, &[])?, Host::new(&site.peer, &[])?];
        let name = container_name();
        let id = &name[..12];
        let path = format!("docker/{name}");
        let mut made = None;
        if is_there_before {
            let cgroup = Cgroup::new(&path)?;
            made = Some((Resident::new(&cgroup, &inside.place)?, cgroup));
        }
        let before = port.counters()?;
        let options = Options { forwarded: true, ..discovering() };
        let collector = Running::start_beside(site.host(), options, Some(&site.uplink.dev))?;
        if made.is_none() {
            let cgroup = Cgroup::new(&path)?;
            made = Some((Resident::new(&cgroup, &inside.place)?, cgroup));
        }
        wait_for_step(&collector, id, "start");
        let mut books = Books::new();
        let out = talk(&inside.place, (inside.v4, 40_000).into(), talk::answers(&answering[1], 4))?;
        let twin = out.between((site.uplink.v4, 40_000).into(), out.destination);
        books.asked(id, &out).asked("forwarded", &twin);
        let into = talk(&site.peer.place, (site.peer.v4, 40_001).into(), site.published(0))?;
        books.was_asked(id, &into.between(into.source, (inside.v4, ANSWERS).into()));
        books.was_asked("forwarded", &into);
        let at_peer = (site.peer.v4, 5002).into();
        let (out, seen_as) = transfer(&inside.place, inside.v4.into(), at_peer, &site.peer.place, at_peer)?;
        books.asked(id, &out).asked("forwarded", &out.between(seen_as, at_peer));
        let (resident, cgroup) = made.take().expect("it was made");
        drop(resident);
        wait_for_step(&collector, id, "stop");
        cgroup.remove()?;
        wait_for_step(&collector, id, "delete");
        let finished = collector.stop()?;
        assert_balanced(&finished);
        books.assert_kept(&finished);
        assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[finished.link]);
        let link = port.counters()?.since(&before);
        let want = [link.tx_packets, link.tx_bytes, link.rx_packets, link.rx_bytes];
        assert_eq!(events::unit(&finished.events, id), want);
        let told = life(&finished.events, id);
        assert_eq!(steps(&finished.events, id), ["create", "start", "stop", "delete"]);
        assert_eq!(told[0].tags.get("runtime"), Some("docker"));
        assert_eq!(told[1].ip_address["br0"], format!("{},{}", inside.v4, inside.v6));
        for record in events::flows(&finished.events).filter(|record| &*record.context_id == id) {
            assert_eq!((record.attributed_by, &*record.interface), (AttributedBy::Veth, &*port.dev));
            let ends = [&record.source, &record.destination].map(|end| end.clone().unwrap_or_default());
            let own = ends.iter().find(|end| end.ip == Some(inside.v4.into())).expect("one end is its own");
            assert_eq!((&*own.id, own.r#type), (id, EndPointType::Pu));
        }
    }
    Ok(())
}

/// Of a container whose interface stands above the card (macvlan) nothing tells at the card but its sockets, and these only once
/// it sends.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_container_above_the_card_has_all_of_what_it_is_asked_and_asks() -> Result<()> {
    let wire = Wire::unsegmented()?;
    let apart = lab::silent_host()?;
    let (v4, v6) = (Ipv4Addr::new(10, 77, 0, 9), "fd77::9".parse()?);
    let (mac, text) = ([0x02, 0x77, 0, 0, 0, 9], "02:77:00:00:00:09");
    let inside = End { place: apart.place().clone(), dev: "m0".into(), ifindex: 0, mac, v4, v6 };
    wire.a.place.ip(&format!(
        "link add link {} name m0 address {text} netns {} type macvlan mode bridge",
        wire.a.dev,
        inside.place.name()
    ))?;
    inside.has_its_addresses()?;
    inside.place.ip("link set m0 up")?;
    inside.wait_for_carrier()?;
    inside.without_offloads()?;
    inside.knows(&wire.b)?;
    wire.b.knows(&inside)?;
    let name = container_name();
    let (id, cgroup) = (&name[..12], Cgroup::new(&format!("docker/{name}"))?);
    let _resident = Resident::new(&cgroup, &inside.place)?;
    let options = Options { forwarded: true, ..discovering() };
    let collector = Running::start_beside(&wire.a.place, options, Some(&wire.a.dev))?;
    let mut books = Books::new();
    let answering = Host::new(&wire.b, &[])?;
    for version in [4, 6] {
        let at = inside.at(version, ANSWERS);
        let _serving = cgroup.within(|| Host::at(&inside, &[], at))?;
        books.was_asked(id, &talk(&wire.b.place, wire.b.at(version, 40_000), at)?);
        let at = inside.at(version, 5_001);
        let listener = cgroup.within(|| inside.place.within(|| Ok(TcpListener::bind(at)?)))?;
        books.was_asked(id, &talk::transfer_to(&wire.b.place, wire.b.address(version), at, listener)?);
        let to = talk::answers(&answering, version);
        let socket = cgroup.within(|| asker(&inside.place, inside.at(version, 40_001), to))?;
        books.asked(id, &ask(&socket, 100, 100)?);
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown", id], &[finished.link]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_crossed_before_the_name_was_known_is_the_containers() -> Result<()> {
    let site = Site::new(1)?;
    let inside = &site.containers[0];
    let answering = Host::new(&site.peer, &[])?;
    let collector = Running::start(site.host(), discovering())?;
    let mut books = Books::new();
    let out = talk(&inside.place, (inside.v6, 40_000).into(), talk::answers(&answering, 6))?;
    let name = container_name();
    let id = &name[..12];
    let cgroup = Cgroup::new(&format!("machine.slice/libpod-{name}.scope"))?;
    let _resident = Resident::new(&cgroup, &inside.place)?;
    wait_for_step(&collector, id, "start");
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.asked(id, &out).asked("forwarded", &out);
    books.without_flows_of("forwarded").assert_kept(&finished);
    assert_eq!(counted(&finished), ["forwarded", id].map(str::to_owned).into());
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn an_address_that_a_container_gets_later_is_told() -> Result<()> {
    let site = Site::new(1)?;
    let inside = &site.containers[0];
    let name = container_name();
    let id = &name[..12];
    let cgroup = Cgroup::new(&format!("docker/{name}"))?;
    let _resident = Resident::new(&cgroup, &inside.place)?;
    let collector = Running::start(site.host(), discovering())?;
    wait_for_step(&collector, id, "start");
    inside.place.ip(&format!("addr add 10.88.0.77/24 dev {}", inside.dev))?;
    wait_for_step(&collector, id, "update");
    let finished = collector.stop()?;
    assert_eq!(steps(&finished.events, id), ["create", "start", "update", "stop", "delete"]);
    let told = life(&finished.events, id);
    assert_eq!(told[2].ip_address["br0"], format!("{},10.88.0.77,{}", inside.v4, inside.v6));
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_left_out_or_known_to_nobody_is_told_once() -> Result<()> {
    let site = Site::new(2)?;
    let (inside, port) = (&site.containers[0], &site.ports[0]);
    let answering = Host::new(&site.peer, &[])?;
    let name = container_name();
    let id = &name[..12];
    let cgroup = Cgroup::new(&format!("docker/{name}"))?;
    let _resident = Resident::new(&cgroup, &inside.place)?;
    let ignore = vec![id.parse()?];
    let collector = Running::start(site.host(), Options { ignore, ..discovering() })?;
    let out = talk(&inside.place, (inside.v6, 40_000).into(), talk::answers(&answering, 6))?;
    for end in &site.ports {
        wait_for_step(&collector, &end.dev, "unknowncontainer");
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    assert_eq!(steps(&finished.events, id), ["ignore"]);
    assert_eq!(steps(&finished.events, &port.dev), ["unknowncontainer"]);
    assert_eq!(
        life(&finished.events, &port.dev)[0].ip_address["br0"],
        format!("{},{}", inside.v4, inside.v6)
    );
    let mut books = Books::new();
    books.asked("unknown", &out).asked("forwarded", &out);
    books.without_flows_of("forwarded").assert_kept(&finished);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn packets_of_what_was_found_are_traced_also_when_it_comes_again() -> Result<()> {
    let site = Site::new(1)?;
    let inside = &site.containers[0];
    let answering = Host::new(&site.peer, &[])?;
    let name = container_name();
    let id = &name[..12];
    let path = format!("docker/{name}");
    let mut cgroup = Cgroup::new(&path)?;
    let mut resident = Resident::new(&cgroup, &inside.place)?;
    let wish = Wish {
        whose: Whose::Unit(id.into()),
        directions: Directions::Out,
        duration: None,
        every: std::num::NonZeroU32::MIN,
    };
    let collector = Running::start(site.host(), Options { traces: vec![wish], ..discovering() })?;
    let mut sent = 0;
    for life in 0..2 {
        wait_for_step(&collector, id, "start");
        let from = (inside.v6, 40_000 + life).into();
        sent += talk(&inside.place, from, talk::answers(&answering, 6))?.forth.packets;
        drop(resident);
        wait_for_step(&collector, id, "stop");
        cgroup.remove()?;
        wait_for_step(&collector, id, "delete");
        drop(cgroup);
        cgroup = Cgroup::new(&path)?;
        resident = Resident::new(&cgroup, &inside.place)?;
    }
    let finished = collector.stop()?;
    let reports = finished.events.iter().filter_map(|event| match event {
        Event::Packet(report) if report.event != PacketEvent::Dropped => Some(report),
        _ => None,
    });
    let of_unit = reports.filter(|report| &*report.puid == id && report.trireme_packet).count();
    assert_eq!(of_unit as u64, sent);
    let told = steps(&finished.events, id);
    assert_eq!(told[..8], ["create", "start", "stop", "delete", "create", "start", "stop", "delete"]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_declared_comes_before_what_is_found() -> Result<()> {
    let site = Site::new(2)?;
    let [one, two] = &site.containers[..] else { unreachable!("two were asked for") };
    let answering = Host::new(&site.peer, &[])?;
    let name = container_name();
    let cgroup = Cgroup::new(&format!("docker/{name}"))?;
    let _resident = Resident::new(&cgroup, &one.place)?;
    let by_cgroup = Declared {
        cgroups: vec![format!("/docker/{}*", &name[..20]).parse()?],
        ..declared("web", &[], &[])?
    };
    let by_name = Declared { namespaces: vec![two.place.name().to_owned()], ..declared("db", &[], &[])? };
    let options = Options { units: vec![by_cgroup, by_name], ..discovering() };
    let collector = Running::start(site.host(), options)?;
    let mut books = Books::new();
    for (id, inside) in [("web", one), ("db", two)] {
        let out = talk(&inside.place, (inside.v6, 40_000).into(), talk::answers(&answering, 6))?;
        books.asked(id, &out).asked("forwarded", &out);
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.without_flows_of("forwarded").assert_kept(&finished);
    assert_eq!(steps(&finished.events, &name[..12]), [""; 0], "it is no unit of its own");
    assert_eq!(steps(&finished.events, "web"), ["create", "start", "stop", "delete"]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_rule_of_the_host_matches_what_a_container_sends_by_its_mark() -> Result<()> {
    let site = Site::new(1)?;
    let inside = &site.containers[0];
    let answering = Host::new(&site.peer, &[])?;
    let name = container_name();
    let id = &name[..12];
    let cgroup = Cgroup::new(&format!("docker/{name}"))?;
    let _resident = Resident::new(&cgroup, &inside.place)?;
    let collector = Running::start(site.host(), discovering())?;
    wait_for_step(&collector, id, "start");
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let units = runtime.block_on(collector.started.inquirer.units())?;
    let unit = units.iter().find(|unit| &*unit.context_id == id).expect("it was found");
    assert_eq!(
        (unit.kind.to_string().as_str(), unit.matchers.cgroup.as_slice()),
        ("container", &[format!("/docker/{name}")][..])
    );
    assert_eq!(unit.matchers.ends, [site.ports[0].dev.clone()]);
    let mark = u32::from(unit.mark.expect("the default bits have room")) << 18;
    site.host().nft(&format!(
        "table inet seen {{ counter marked {{ }}; chain passing {{ type filter hook forward priority 0; \
         meta mark & 0xfffc0000 == {mark} counter name marked; }}; }}"
    ))?;
    let out = talk(&inside.place, (inside.v6, 40_000).into(), talk::answers(&answering, 6))?;
    let text = site.host().within(|| command::run("nft", &["list", "counter", "inet", "seen", "marked"]))?;
    let packets = text.split_whitespace().skip_while(|word| *word != "packets").nth(1);
    assert_eq!(packets, Some(out.forth.packets.to_string().as_str()), "{text}");
    collector.stop()?;
    Ok(())
}

/// The two ends of a pair are made in one namespace, one is put to a bridge, and then the other is moved: what the bridge has
/// flooded to it before that is known.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_crossed_before_an_end_was_moved_is_the_containers() -> Result<()> {
    let site = Site::new(1)?;
    let (sender, host) = (&site.containers[0], site.host());
    let inside = lab::silent_host()?;
    let (port, moved) = (unique("v"), unique("v"));
    host.ip(&format!("link add {port} master br0 type veth peer name {moved}"))?;
    for dev in [&port, &moved] {
        host.ip(&format!("link set {dev} up"))?;
    }
    let port = End { dev: port, ..site.ports[0].clone() };
    port.wait_for_carrier()?;
    let collector = Running::start(host, discovering())?;
    // To an address that nobody has, whose frames go to every port.
    let nobody = (Ipv4Addr::new(10, 88, 0, 77), 9).into();
    sender.place.ip(&format!("neigh replace 10.88.0.77 lladdr 02:88:00:00:00:77 dev {}", sender.dev))?;
    let socket = asker(&sender.place, (sender.v4, 40_000).into(), nobody)?;
    socket.send(&[0x55; 100])?;
    let flooded = Talk::one_way((sender.v4, 40_000).into(), nobody, 1, 100);
    // By the other end, as long as that is here, it comes in once more.
    let both = Talk { begun: 2, ..Talk::one_way(flooded.source, nobody, 2, 100) };
    host.ip(&format!("link set {moved} netns {}", inside.place().name()))?;
    inside.place().ip(&format!("link set {moved} up"))?;
    let name = container_name();
    let id = &name[..12];
    let cgroup = Cgroup::new(&format!("docker/{name}"))?;
    let _resident = Resident::new(&cgroup, inside.place())?;
    wait_for_step(&collector, id, "start");
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let mut books = Books::new();
    books.asked("unknown", &both).was_asked(id, &flooded);
    books.assert_kept(&finished);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_namespace_that_outlives_a_container_is_the_next_ones() -> Result<()> {
    let site = Site::new(1)?;
    let inside = &site.containers[0];
    let answering = Host::new(&site.peer, &[])?;
    let collector = Running::start(site.host(), discovering())?;
    let mut books = Books::new();
    for port in [40_000, 40_001] {
        let name = container_name();
        let id = &name[..12];
        let cgroup = Cgroup::new(&format!("docker/{name}"))?;
        let resident = Resident::new(&cgroup, &inside.place)?;
        wait_for_step(&collector, id, "start");
        let out = talk(&inside.place, (inside.v6, port).into(), talk::answers(&answering, 6))?;
        books.asked(id, &out).asked("forwarded", &out);
        drop(resident);
        wait_for_step(&collector, id, "stop");
        cgroup.remove()?;
        wait_for_step(&collector, id, "delete");
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.without_flows_of("forwarded").assert_kept(&finished);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn who_goes_into_a_containers_namespace_does_not_own_it() -> Result<()> {
    let site = Site::new(1)?;
    let inside = &site.containers[0];
    let answering = Host::new(&site.peer, &[])?;
    // An operator's login, older than the container, with a process here and one there.
    let login = Cgroup::new(&format!(
        "{}.slice/session-{}.scope",
        unique("ct").replace('.', "_"),
        std::process::id()
    ))?;
    let _residents = [Resident::new(&login, site.host())?, Resident::new(&login, &inside.place)?];
    let name = container_name();
    let id = &name[..12];
    let cgroup = Cgroup::new(&format!("docker/{name}"))?;
    let _resident = Resident::new(&cgroup, &inside.place)?;
    let collector = Running::start(site.host(), discovering())?;
    let out = talk(&inside.place, (inside.v6, 40_000).into(), talk::answers(&answering, 6))?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let mut books = Books::new();
    books.asked(id, &out).asked("forwarded", &out);
    books.without_flows_of("forwarded").assert_kept(&finished);
    Ok(())
}
