//! Units that are declared by cgroups and network namespaces, or left out, while the collector counts: who was found ends for
//! who is declared, and is found again, and flows that live are the other's from then on, to the packet.

use std::collections::BTreeMap;

use collector_tests::{
    Result,
    books::{Books, assert_sum_at_uplinks},
    cgroups::{Cgroup, Guest, Resident, container_name},
    collector::{Running, discovering},
    lab::Wire,
    lives::{steps, wait_for_step},
    netns::unique,
    site::Site,
    talk::{self, Talk, ask, asker},
    traffic::Host,
    users::FIRST,
};
use collector_user::{
    daemon::Options,
    pu::{
        registry::Declared,
        trace::{Whose, Wish},
        user::User,
    },
};

use crate::{
    assert_balanced,
    redeclared::{Living, all_matchers, by_ports},
};

fn by_cgroup(id: &str, cgroup: &str) -> Result<Declared> {
    Ok(Declared { id: id.to_owned(), cgroups: vec![cgroup.parse()?], ..Declared::default() })
}

fn by_name(id: &str, namespace: &str) -> Declared {
    Declared { id: id.to_owned(), namespaces: vec![namespace.to_owned()], ..Declared::default() }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_lives_in_a_cgroup_is_whose_the_cgroup_is() -> Result<()> {
    let wire = Wire::unsegmented()?;
    let (host, peer) = (&wire.b, &wire.a);
    let [slice, id] = ["slice", "service"].map(|kind| format!("{}.{kind}", unique("ct").replace('.', "_")));
    let id = id.as_str();
    let path = format!("/{slice}/{id}");
    let (service, part) = (Cgroup::new(&path)?, Cgroup::new(&format!("{path}/part"))?);
    let _guest = Guest::enter(service.directory())?;
    let options = Options { discover: discovering().discover, ..all_matchers() };
    let collector = Running::start_beside(&host.place, options.clone(), Some(&host.dev))?;
    wait_for_step(&collector, id, "start");
    let living = |group: &Cgroup, port| {
        let serving = |version| group.within(|| talk::listener(&host.place, host.at(version, port)));
        Living::new(peer, port, serving)
    };
    let (mut whole, mut inner) = (living(&service, 5001)?, living(&part, 5002)?);
    // Its sockets live on.
    part.remove()?;
    let mut go_on = |unit: &str| whole.go_on(unit).and_then(|()| inner.go_on(unit));
    let declare = |units: Vec<Declared>| collector.reload(Options { units, ..options.clone() });
    go_on(id)?;
    let web = by_cgroup("web", &format!("/{slice}"))?;
    declare(vec![web.clone()])?;
    go_on("web")?;
    // What is refused late changes nothing.
    let crowd = (0..4097).map(|number| User::Id(FIRST + number));
    let crowd = Declared { users: crowd.collect(), ..by_cgroup("crowd", &path)? };
    let refused = declare(vec![web.clone(), crowd]).unwrap_err().to_string();
    assert!(refused.contains("USERS"), "{refused}");
    go_on("web")?;
    // Nor what is refused soon.
    let traces =
        vec![Wish { whose: Whose::Unit("nosuch".into()), ..collector_tests::collector::all_of_the_host() }];
    let refused = collector.reload(Options { traces, ..options.clone() }).unwrap_err().to_string();
    assert!(refused.contains("nosuch"), "{refused}");
    go_on("web")?;
    // The inner one counts.
    declare(vec![web.clone(), by_cgroup("inner", &format!("/{slice}/*.service"))?])?;
    go_on("inner")?;
    declare(vec![web])?;
    go_on("web")?;
    declare(vec![by_cgroup("web", "/elsewhere")?])?;
    go_on(id)?;
    // It is declared by its name, and lives as that.
    declare(vec![by_ports(id, &["9"])?])?;
    go_on(id)?;
    declare(vec![])?;
    go_on(id)?;
    collector.reload(Options { ignore: vec![id.parse()?], ..options.clone() })?;
    go_on("host")?;
    collector.reload(Options { ignore: vec![id.parse()?, "nosuch".parse()?], ..options.clone() })?;
    go_on("host")?;
    declare(vec![])?;
    // What was a part of it is gone, and nobody knows of what.
    whole.go_on(id)?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let mut books = Books::new();
    whole.write(&mut books);
    inner.write(&mut books);
    books.assert_kept(&finished);
    assert_sum_at_uplinks(&finished, &["host", id, "web", "inner"], &[finished.link]);
    let (lived, once) = (["create", "start", "stop", "delete"], ["create", "start"]);
    let told = [&lived[..], &lived, &lived, &lived, &["ignore"], &lived].concat();
    assert_eq!(steps(&finished.events, id), told);
    assert_eq!(steps(&finished.events, "inner"), lived);
    assert_eq!(steps(&finished.events, "web"), [&once[..], &["update", "stop", "delete"]].concat());
    assert_eq!(steps(&finished.events, "crowd"), [""; 0]);
    assert_eq!((finished.status.ledger.reloads, finished.status.ledger.reloads_refused), (9, 2));
    Ok(())
}

/// What lives in containers, each of which asks the peer by one flow.
#[derive(Default)]
struct Asking {
    sockets: Vec<std::net::UdpSocket>,
    told: BTreeMap<(String, usize), Talk>,
}

impl Asking {
    fn go_on(&mut self, units: &[&str]) -> Result<()> {
        for (number, (socket, unit)) in self.sockets.iter().zip(units).enumerate() {
            let begun = u64::from(!self.told.keys().any(|(_, of)| *of == number));
            let talk = Talk { begun, ..ask(socket, 20, 100)? };
            // At the uplink it is one flow.
            for unit in [*unit, "forwarded"] {
                let all = self.told.entry((unit.to_owned(), number));
                all.and_modify(|all| *all = all.and(&talk)).or_insert(talk);
            }
        }
        Ok(())
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_lives_behind_an_interface_is_whose_the_namespace_or_the_container_is() -> Result<()> {
    let site = Site::new(2)?;
    let [one, two] = &site.containers[..] else { unreachable!("two were asked for") };
    let answering = Host::new(&site.peer, &[])?;
    let name = container_name();
    let id = &name[..12];
    let cgroup = Cgroup::new(&format!("docker/{name}"))?;
    let _resident = Resident::new(&cgroup, &one.place)?;
    let options = discovering();
    let collector = Running::start_beside(site.host(), options.clone(), Some(&site.uplink.dev))?;
    wait_for_step(&collector, id, "start");
    let declare = |units: Vec<Declared>| collector.reload(Options { units, ..options.clone() });
    let mut asking = Asking::default();
    for inside in [one, two] {
        let to = talk::answers(&answering, 6);
        asking.sockets.push(asker(&inside.place, (inside.v6, 40_000).into(), to)?);
    }
    asking.go_on(&[id, "unknown"])?;
    declare(vec![by_name("db", two.place.name())])?;
    asking.go_on(&[id, "db"])?;
    // By the namespace: the container is a unit, though nothing crosses for it.
    declare(vec![by_name("web", one.place.name()), by_name("db", two.place.name())])?;
    asking.go_on(&["web", "db"])?;
    declare(vec![by_cgroup("db", &format!("/docker/{name}"))?])?;
    asking.go_on(&["db", "unknown"])?;
    declare(vec![by_name("db", one.place.name())])?;
    asking.go_on(&["db", "unknown"])?;
    declare(vec![])?;
    asking.go_on(&[id, "unknown"])?;
    collector.reload(Options { ignore: vec![id.parse()?], ..options.clone() })?;
    asking.go_on(&["unknown", "unknown"])?;
    declare(vec![])?;
    asking.go_on(&[id, "unknown"])?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let mut books = Books::new();
    for ((unit, _), talk) in &asking.told {
        books.asked(unit, talk);
    }
    books.without_flows_of("forwarded").assert_kept(&finished);
    assert_sum_at_uplinks(&finished, &["host", "forwarded"], &[finished.link]);
    let lived = ["create", "start", "stop", "delete"];
    assert_eq!(steps(&finished.events, id), [&lived[..], &lived, &["ignore"], &lived].concat());
    assert_eq!(steps(&finished.events, "web"), lived);
    assert_eq!(
        steps(&finished.events, "db"),
        ["create", "start", "update", "update", "stop", "delete"],
        "its namespace stayed at one reload, and what it matches is another at two"
    );
    Ok(())
}
