//! Units that are declared by ports of the host and by users, and whose a flow is that several match.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use collector_tests::{
    Result,
    books::{Books, assert_sum_at_uplinks},
    cgroups::Cgroup,
    collector::{Running, declared, discovering, options},
    events,
    lab::{End, Wire, silent_host},
    netns::unique,
    site::Site,
    talk::{self, asker, converse, transfer_to},
    users::{FIRST, as_user},
};
use collector_user::{
    daemon::Options,
    event::{AttributedBy, Event, UnitStatus},
    pu::registry::Declared,
};

use crate::assert_balanced;

fn by_ports(id: &str, ports: &[&str]) -> Result<Declared> {
    Ok(Declared {
        ports: ports.iter().map(|text| Ok(text.parse()?)).collect::<Result<_>>()?,
        ..declared(id, &[], &[])?
    })
}

fn by_users(id: &str, users: &[&str]) -> Result<Declared> {
    Ok(Declared {
        users: users.iter().map(|text| text.parse().unwrap()).collect(),
        ..declared(id, &[], &[])?
    })
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_local_port_is_its_units_whoever_opened_the_flow() -> Result<()> {
    let wire = Wire::unsegmented()?;
    let (host, peer) = (&wire.b, &wire.a);
    let units = vec![
        by_ports("web", &["5001"])?,
        by_ports("range", &["6000-6999"])?,
        by_ports("one", &["udp/6500"])?,
        // Has all of the host's addresses, and is less specific than a port.
        declared("all", &[], &[format!("{}/32", host.v4), format!("{}/128", host.v6)])?,
    ];
    let collector = Running::start_beside(&host.place, Options { units, ..options() }, Some(&host.dev))?;
    let mut books = Books::new();
    for version in [4, 6] {
        for (unit, port) in [("web", 5001), ("range", 6499), ("one", 6500), ("range", 6999), ("all", 7000)] {
            let serving = talk::listener(&host.place, host.at(version, port))?;
            let asking = asker(&peer.place, peer.at(version, 40_000 + port), host.at(version, port))?;
            books.was_asked(unit, &converse(&asking, &serving, 20, 100)?);
            // Nobody answers.
            let sending = asker(&peer.place, peer.at(version, 30_000 + port), host.at(version, port))?;
            books.was_asked(unit, &talk::tell(&sending, &serving, 10, 100)?);
        }
        // From that port, and to that port elsewhere.
        for (unit, from, to) in [("web", 5001, 9000), ("all", 9001, 5001)] {
            let taking = talk::listener(&peer.place, peer.at(version, to))?;
            books.asked(
                unit,
                &talk::tell(
                    &asker(&host.place, host.at(version, from), peer.at(version, to))?,
                    &taking,
                    10,
                    100,
                )?,
            );
        }
        for (unit, port) in [("web", 5001), ("range", 6500)] {
            let listener = host.place.within(|| Ok(TcpListener::bind(host.at(version, port))?))?;
            books.was_asked(
                unit,
                &transfer_to(&peer.place, peer.address(version), host.at(version, port), listener)?,
            );
        }
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    assert_sum_at_uplinks(&finished, &["host", "web", "range", "one", "all"], &[finished.link]);
    assert!(events::flows(&finished.events).all(|flow| flow.attributed_by == AttributedBy::Declared));
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_port_is_its_units_on_loopback_and_towards_containers() -> Result<()> {
    let alone = silent_host()?;
    let lo = End::loopback(alone.place());
    let units = vec![by_ports("web", &["5120"])?, by_ports("client", &["40002"])?];
    let named = Options { units: units.clone(), ifaces: vec!["lo".parse()?], ..options() };
    let collector = Running::start(&lo.place, named)?;
    let mut books = Books::new();
    // The port that is the lesser one in memory stands for the flow: in network byte order.
    for version in [4, 6] {
        let serving = talk::listener(&lo.place, (lo.address(version), 5120).into())?;
        for (unit, port) in [("host", 40_001), ("client", 40_002)] {
            let from = (lo.address(version), port).into();
            let out = converse(&asker(&lo.place, from, serving.local_addr()?)?, &serving, 20, 100)?;
            books.flow("web", &out).was_asked_here("web", &out).asked_here(unit, &out);
        }
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);

    let site = Site::new(1)?;
    let inside = &site.containers[0];
    let options = Options {
        units: units.into_iter().chain([declared("box", &[&site.ports[0].dev], &[])?]).collect(),
        ..options()
    };
    let collector = Running::start(site.host(), options)?;
    let mut books = Books::new();
    for version in [4, 6] {
        let at_host = (site.bridge.address(version), 5120).into();
        let serving = talk::listener(site.host(), at_host)?;
        let asking = asker(&inside.place, (inside.address(version), 40_001).into(), at_host)?;
        let out = converse(&asking, &serving, 20, 100)?;
        books.asked("box", &out).was_asked_here("web", &out);
        let serving = talk::listener(&inside.place, (inside.address(version), 5120).into())?;
        let from = (site.bridge.address(version), 40_002).into();
        let into = converse(&asker(site.host(), from, serving.local_addr()?)?, &serving, 20, 100)?;
        books.was_asked("box", &into).asked_here("client", &into);
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_users_sockets_are_its_units_but_for_declared_groups() -> Result<()> {
    let wire = Wire::unsegmented()?;
    let (host, peer) = (&wire.b, &wire.a);
    let service = format!("{}.service", unique("ct").replace('.', "_"));
    let (found, group) = (Cgroup::new(&service)?, Cgroup::unique()?);
    let path = format!("/{}", group.directory().file_name().unwrap_or_default().to_string_lossy());
    let by_group = Declared { cgroups: vec![path.parse()?], ..declared("group", &[], &[])? };
    let units = vec![
        by_users("alice", &[&(FIRST + 1).to_string()])?,
        by_users("root", &["0"])?,
        by_group,
        by_ports("web", &["5005"])?,
    ];
    let collector = Running::start_beside(&host.place, Options { units, ..discovering() }, Some(&host.dev))?;
    let mut books = Books::new();
    for version in [4, 6] {
        let bound = |uid: u32, port: u16| {
            move || as_user(&host.place, uid, || UdpSocket::bind(host.at(version, port)))
        };
        let cases: [(&str, u16, UdpSocket); 5] = [
            ("alice", 5001, found.within(bound(FIRST + 1, 5001))?),
            ("group", 5002, group.within(bound(FIRST + 1, 5002))?),
            (&service, 5003, found.within(bound(FIRST + 2, 5003))?),
            ("root", 5004, bound(0, 5004)()?),
            ("web", 5005, group.within(bound(FIRST + 1, 5005))?),
        ];
        for (unit, port, socket) in cases {
            let asking = asker(&peer.place, peer.at(version, 40_000 + port), host.at(version, port))?;
            books.was_asked(unit, &converse(&asking, &socket, 20, 100)?);
            let taking = talk::listener(&peer.place, peer.at(version, port))?;
            socket.connect(peer.at(version, port))?;
            books.asked(unit, &talk::tell(&socket, &taking, 10, 100)?);
        }
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    let units = ["host", "alice", "group", &service, "root", "web"];
    assert_sum_at_uplinks(&finished, &units, &[finished.link]);
    for record in events::flows(&finished.events) {
        let by = if &*record.context_id == "web" { AttributedBy::Declared } else { AttributedBy::Socket };
        assert_eq!(record.attributed_by, by, "{record:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_users_sockets_are_its_units_where_nothing_is_found() -> Result<()> {
    let wire = Wire::silent()?;
    let (host, peer) = (&wire.b, &wire.a);
    let collector = Running::start(
        &host.place,
        Options { units: vec![by_users("alice", &[&(FIRST + 1).to_string()])?], ..options() },
    )?;
    let mut books = Books::new();
    for (unit, uid, port) in [("alice", FIRST + 1, 5001), ("host", FIRST + 2, 5002)] {
        let at: SocketAddr = (host.v4, port).into();
        let listener = as_user(&host.place, uid, || TcpListener::bind(at))?;
        books.was_asked(unit, &transfer_to(&peer.place, peer.v4.into(), at, listener)?);
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_two_units_match_is_said_at_the_start() -> Result<()> {
    let wire = Wire::new()?;
    let units = vec![
        by_ports("low", &["1-1023"])?,
        by_ports("web", &["443"])?,
        by_users("nobody", &["no-such-user"])?,
    ];
    let collector = Running::start(&wire.a.place, Options { units, ..options() })?;
    collector.wait_to_say(
        "port 1-1023 of low and 443 of web share some: these are web's, for its ports are fewer, or name the protocol",
    )?;
    let missing = &collector.started.missing;
    let want = "sockets of no-such-user, which are nobody's once there is a user of that name in /etc/passwd";
    assert!(missing.iter().any(|said| said == want), "{missing:?}");
    collector.stop()?;
    Ok(())
}

/// Seven bits have room for the numbers up to 127, and the first is 101.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn units_beyond_the_marks_have_none_and_are_counted_all_the_same() -> Result<()> {
    const MASK: u32 = 0x7F00_0000;
    const COUNT: u64 = 10;
    let alone = silent_host()?;
    let lo = alone.place();
    // What loopback hands over still has the mark that it left with.
    lo.nft(&format!(
        "table inet seen {{ counter last {{ }}; counter others {{ }}; chain arriving {{ type filter hook input priority 0; \
         meta mark & {MASK} == {} counter name last; meta mark & {MASK} != {{ 0, {} }} counter name others; }}; }}",
        127_u32 << 24,
        127_u32 << 24
    ))?;
    // Those with the numbers 101 to 130.
    let units = (0..30).map(|number| by_ports(&format!("u{number}"), &[&(6000 + number).to_string()]));
    let mut options =
        Options { units: units.collect::<Result<_>>()?, ifaces: vec!["lo".parse()?], ..options() };
    options.settings.mark_mask = MASK;
    let collector = Running::start(lo, options)?;
    let said = &collector.started.missing;
    assert!(
        said.contains(&"marks above 127: the mark mask 0x7f000000 has no room for them".to_owned()),
        "{said:?}"
    );
    let mut books = Books::new();
    for (unit, port) in [("u26", 6026), ("u27", 6027), ("u29", 6029)] {
        let at: SocketAddr = ([127, 0, 0, 1], port).into();
        let taking = talk::listener(lo, at)?;
        let told = talk::tell(&asker(lo, ([127, 0, 0, 1], 40_000 + port).into(), at)?, &taking, COUNT, 100)?;
        books.flow(unit, &told).was_asked_here(unit, &told).asked_here("host", &told);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let units = runtime.block_on(collector.started.inquirer.units())?;
    let marks = |unit: &UnitStatus| (unit.index >= 101).then_some((unit.index, unit.mark));
    let want: Vec<_> = (101..=130).map(|index| (index, (index <= 127).then_some(index))).collect();
    assert_eq!(units.iter().filter_map(marks).collect::<Vec<_>>(), want);
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    let counted = |name| -> Result<Option<u64>> {
        let text = lo.run(&format!("nft list counter inet seen {name}"))?;
        let packets = text.split_whitespace().skip_while(|word| *word != "packets").nth(1);
        Ok(packets.and_then(|packets| packets.parse().ok()))
    };
    assert_eq!((counted("last")?, counted("others")?), (Some(COUNT), Some(0)));
    assert!(
        finished.events.iter().any(|event| matches!(event, Event::Counter(it) if &*it.context_id == "u29"))
    );
    Ok(())
}
