//! Units that are declared otherwise while the collector counts: what was counted stays whose it was, and what lives is
//! another's from then on, to the packet.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use collector_tests::{
    Result,
    books::{Books, assert_sum_at_uplinks},
    collector::{Running, declared, options},
    events,
    lab::{End, Wire},
    lives::steps,
    talk::{self, Talk, connect_to, converse},
    users::{FIRST, as_user},
};
use collector_user::{
    daemon::Options,
    kernel::settings::{Ends, Settings},
    pu::{registry::Declared, user::User},
};

use crate::assert_balanced;

/// Questions in each step of a story.
pub(crate) const EACH: u64 = 20;

/// Options under which units may come to be declared by whatever they can be.
pub(crate) fn all_matchers() -> Options {
    let ends = Ends { declared_ports: true, declared_users: true, ..Ends::default() };
    Options { settings: Settings { ends, ..Settings::default() }, ..options() }
}

pub(crate) fn by_ports(id: &str, ports: &[&str]) -> Result<Declared> {
    let ports = ports.iter().map(|text| Ok(text.parse()?)).collect::<Result<_>>()?;
    Ok(Declared { id: id.to_owned(), ports, ..Declared::default() })
}

fn by_user(id: &str, uid: u32) -> Declared {
    let users = vec![User::Id(uid)];
    Declared { id: id.to_owned(), users, ..Declared::default() }
}

/// Flows of both families that live through a whole story, in which the host asks: whose a flow is, is asked when its next
/// packet leaves.
pub(crate) struct Living {
    flows: Vec<(UdpSocket, UdpSocket)>,
    told: BTreeMap<(String, usize), Talk>,
}

impl Living {
    /// With these sockets of the host, by IP version, which ask at such a port of a peer.
    pub(crate) fn new(peer: &End, port: u16, asking: impl Fn(u8) -> Result<UdpSocket>) -> Result<Self> {
        let flow = |version| -> Result<(UdpSocket, UdpSocket)> {
            let (asking, serving) = (asking(version)?, talk::listener(&peer.place, peer.at(version, port))?);
            asking.connect(serving.local_addr()?)?;
            Ok((asking, serving))
        };
        Ok(Self { flows: vec![flow(4)?, flow(6)?], told: BTreeMap::new() })
    }

    /// Talks on, and expects that to be a unit's.
    pub(crate) fn go_on(&mut self, unit: &str) -> Result<()> {
        for (number, (asking, serving)) in self.flows.iter().enumerate() {
            let talk = converse(asking, serving, EACH, 100)?;
            // A flow begins once.
            let has_begun = self.told.keys().any(|(_, of)| *of == number);
            let talk = Talk { begun: u64::from(!has_begun), ..talk };
            let all = self.told.entry((unit.to_owned(), number));
            all.and_modify(|all| *all = all.and(&talk)).or_insert(talk);
        }
        Ok(())
    }

    pub(crate) fn write(&self, books: &mut Books) {
        for ((unit, _), talk) in &self.told {
            books.asked(unit, talk);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_lives_at_a_port_is_whose_the_port_is() -> Result<()> {
    let wire = Wire::unsegmented()?;
    let (host, peer) = (&wire.b, &wire.a);
    let options = all_matchers();
    let collector = Running::start_beside(&host.place, options.clone(), Some(&host.dev))?;
    let declare = |units: Vec<Declared>| collector.reload(Options { units, ..options.clone() });
    let mut living =
        Living::new(peer, 40_000, |version| talk::listener(&host.place, host.at(version, 5001)))?;
    living.go_on("host")?;
    declare(vec![by_ports("web", &["5001"])?])?;
    living.go_on("web")?;
    // The narrower counts, wherever it stands.
    declare(vec![by_ports("web", &["5000-5009"])?, by_ports("one", &["udp/5001"])?])?;
    living.go_on("one")?;
    declare(vec![by_ports("web", &["5000-5009"])?])?;
    living.go_on("web")?;
    declare(vec![by_ports("web", &["5002"])?])?;
    living.go_on("host")?;
    declare(vec![])?;
    living.go_on("host")?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let mut books = Books::new();
    living.write(&mut books);
    books.assert_kept(&finished);
    assert_sum_at_uplinks(&finished, &["host", "web", "one"], &[finished.link]);
    assert_eq!(
        steps(&finished.events, "web"),
        ["create", "start", "update", "update", "stop", "delete"],
        "nothing was another at one of four reloads"
    );
    assert_eq!(steps(&finished.events, "one"), ["create", "start", "stop", "delete"]);
    assert_eq!((finished.status.ledger.reloads, finished.status.ledger.reloads_refused), (5, 0));
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_lives_of_a_user_is_whose_the_user_is() -> Result<()> {
    let wire = Wire::unsegmented()?;
    let (host, peer) = (&wire.b, &wire.a);
    let options = all_matchers();
    let collector = Running::start_beside(&host.place, options.clone(), Some(&host.dev))?;
    let declare = |units: Vec<Declared>| collector.reload(Options { units, ..options.clone() });
    let of_user = |uid, port| {
        Living::new(peer, port, move |version| {
            as_user(&host.place, uid, || UdpSocket::bind(host.at(version, port)))
        })
    };
    let (mut one, mut other) = (of_user(FIRST + 1, 5001)?, of_user(FIRST + 2, 5002)?);
    let mut go_on = |units: [&str; 2]| one.go_on(units[0]).and_then(|()| other.go_on(units[1]));
    go_on(["host", "host"])?;
    declare(vec![by_user("alice", FIRST + 1)])?;
    go_on(["alice", "host"])?;
    declare(vec![by_user("alice", FIRST + 2)])?;
    go_on(["host", "alice"])?;
    declare(vec![by_user("bob", FIRST + 1), by_user("alice", FIRST + 2)])?;
    go_on(["bob", "alice"])?;
    declare(vec![by_user("bob", FIRST + 1)])?;
    go_on(["bob", "host"])?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let mut books = Books::new();
    one.write(&mut books);
    other.write(&mut books);
    books.assert_kept(&finished);
    assert_sum_at_uplinks(&finished, &["host", "alice", "bob"], &[finished.link]);
    assert_eq!(steps(&finished.events, "alice"), ["create", "start", "update", "stop", "delete"]);
    assert_eq!(steps(&finished.events, "bob"), ["create", "start", "stop", "delete"]);
    Ok(())
}

/// Of what comes in nobody knows but by the packets that leave, unless the flow's unit has lost the socket.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_a_user_has_no_more_is_the_hosts_though_it_only_comes_in() -> Result<()> {
    let wire = Wire::unsegmented()?;
    let (host, peer) = (&wire.b, &wire.a);
    let options = Options { units: vec![by_user("alice", FIRST + 1)], ..all_matchers() };
    let collector = Running::start_beside(&host.place, options.clone(), Some(&host.dev))?;
    let serving = as_user(&host.place, FIRST + 1, || UdpSocket::bind(host.at(4, 5001)))?;
    let asking = talk::asker(&peer.place, peer.at(4, 40_000), host.at(4, 5001))?;
    let both_ways = converse(&asking, &serving, EACH, 100)?;
    collector.reload(Options { units: vec![], ..options })?;
    let only_in = Talk { begun: 0, ..talk::tell(&asking, &serving, EACH, 100)? };
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let mut books = Books::new();
    books.was_asked("alice", &both_ways).was_asked("host", &only_in);
    books.assert_kept(&finished);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_connection_that_lives_goes_on_at_another_unit() -> Result<()> {
    let wire = Wire::unsegmented()?;
    let (host, peer) = (&wire.b, &wire.a);
    let options = all_matchers();
    let collector = Running::start_beside(&host.place, options.clone(), Some(&host.dev))?;
    let declare = |units: Vec<Declared>| collector.reload(Options { units, ..options.clone() });
    let mut connected = Vec::new();
    for (version, port) in [(4, 5001), (6, 5001)] {
        let at: SocketAddr = host.at(version, port);
        // Who accepts it has it.
        let listener = host.place.within(|| Ok(TcpListener::bind(at)?))?;
        connected.push(connect_to(&peer.place, peer.address(version), at, listener)?);
    }
    let units: [(&str, Vec<Declared>); 4] = [
        ("root", vec![by_user("root", 0)]),
        // A port goes before a user.
        ("web", vec![by_user("root", 0), by_ports("web", &["tcp/5001"])?]),
        ("root", vec![by_user("root", 0)]),
        ("host", vec![]),
    ];
    for (_, units) in units {
        declare(units)?;
        for connected in &mut connected {
            connected.ask()?;
        }
    }
    let talks = connected.into_iter().map(talk::Connected::close).collect::<Result<Vec<_>>>()?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let total = |unit: Option<&str>| {
        events::total(&finished.events, |flow| {
            flow.l4_protocol == 6 && unit.is_none_or(|unit| *flow.context_id == *unit)
        })
    };
    let all = total(None);
    let sum = |of: fn(&Talk) -> u64| talks.iter().map(of).sum::<u64>();
    assert_eq!(
        [all.packets, all.bytes, all.reply_packets, all.reply_bytes, all.count],
        [
            sum(|talk| talk.forth.packets),
            sum(|talk| talk.forth.bytes),
            sum(|talk| talk.back.packets),
            sum(|talk| talk.back.bytes),
            2
        ]
    );
    // 20 questions of 3,000 octets, in each of two connections and each time.
    for (unit, least) in [("root", 2 * 2 * 60_000), ("web", 2 * 60_000), ("host", 2 * 60_000)] {
        assert!(total(Some(unit)).bytes > least, "{unit}: {:?}", total(Some(unit)));
    }
    assert_sum_at_uplinks(&finished, &["host", "root", "web"], &[finished.link]);
    Ok(())
}

/// The programs have room for 4,096 users: what was written before the one too many is written back.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_the_kernel_has_no_room_for_changes_nothing() -> Result<()> {
    let wire = Wire::unsegmented()?;
    let (host, peer) = (&wire.b, &wire.a);
    let units = vec![
        by_ports("web", &["5001"])?,
        by_user("alice", FIRST + 1),
        declared("net", &[], &[format!("{}/32", host.v4), format!("{}/128", host.v6)])?,
    ];
    let options = Options { units, ..all_matchers() };
    let collector = Running::start_beside(&host.place, options.clone(), Some(&host.dev))?;
    let at = |uid, port| {
        Living::new(peer, port, move |version| {
            as_user(&host.place, uid, || UdpSocket::bind(host.at(version, port)))
        })
    };
    let (mut port, mut rest) = (at(FIRST + 2, 5001)?, at(FIRST + 1, 5002)?);
    port.go_on("web")?;
    rest.go_on("net")?;
    let crowd = (0..4097).map(|number| User::Id(FIRST + 100 + number));
    let wrong = vec![
        by_ports("other", &["5001"])?,
        by_user("alice", FIRST + 2),
        Declared { users: crowd.collect(), ..by_ports("crowd", &["5002"])? },
    ];
    let refused = collector.reload(Options { units: wrong, ..options.clone() }).unwrap_err().to_string();
    assert!(refused.contains("USERS"), "{refused}");
    port.go_on("web")?;
    rest.go_on("net")?;
    // What is right after it is taken over.
    let [web, alice, _] = options.units.clone().try_into().expect("three");
    collector.reload(Options { units: vec![web, alice], ..options.clone() })?;
    port.go_on("web")?;
    rest.go_on("alice")?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let mut books = Books::new();
    port.write(&mut books);
    rest.write(&mut books);
    books.assert_kept(&finished);
    for (unit, want) in [("web", &["create", "start", "stop", "delete"] as &[&str]), ("other", &[])] {
        assert_eq!(steps(&finished.events, unit), want, "{unit}");
    }
    assert_eq!((finished.status.ledger.reloads, finished.status.ledger.reloads_refused), (1, 1));
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_the_programs_do_not_look_for_is_refused() -> Result<()> {
    let wire = Wire::unsegmented()?;
    let options = options();
    let collector = Running::start(&wire.b.place, options.clone())?;
    for (unit, matcher) in [(by_user("alice", FIRST), "uid"), (by_ports("web", &["80"])?, "port")] {
        let units = vec![unit];
        let refused = collector.reload(Options { units, ..options.clone() }).unwrap_err().to_string();
        let want = format!("has `{matcher}`, which the programs do not look for: start the collector anew");
        assert!(refused.ends_with(&want), "{refused}");
    }
    collector.stop()?;
    Ok(())
}
