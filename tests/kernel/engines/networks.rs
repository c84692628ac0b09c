//! What containers of Docker's send and take, by the network that they are on.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use collector_tests::{
    Result,
    books::Books,
    collector::Finished,
    engine::Engine,
    events,
    lives::{life, steps, wait_for_step},
    talk::{self, Talk, talk, transfer},
    traffic::{ANSWERS, Host},
};
use collector_user::event::AttributedBy;

use super::{PUBLISHED, WHOLE, ask_from, assert_uplinks, behind, start, wire};
use crate::assert_balanced;

/// Where the port of connections is published.
const CONNECTIONS: u16 = 8081;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn docker_on_its_bridge_with_ports_that_are_published() -> Result<()> {
    for proxy in [true, false] {
        let wire = wire()?;
        let Some(docker) = Engine::docker(&wire.a.place, proxy)? else { return Ok(()) };
        let peer = Host::new(&wire.b, &[])?;
        let collector = start(&wire)?;
        let web = docker.serve(&["--publish", "8080:7/udp", "--publish", "8081:5002/tcp"])?;
        let inside = docker.enter(&web.id)?;
        let (id, own) = (web.unit(), inside.end.v4);
        wait_for_step(&collector, id, "start");
        let mut books = Books::new();
        // Out, from addresses that become the host's.
        let at_peer = talk::answers(&peer, 4);
        ask_from(&docker, &web.id, 40_000, at_peer)?;
        let out = Talk::answered((own, 40_000).into(), at_peer, 100, 100);
        books.flow(id, &out).asked("forwarded", &out.between((wire.a.v4, 40_000).into(), at_peer));
        let at_peer = (wire.b.v4, 5002).into();
        let (out, seen_as) = transfer(&inside.end.place, own.into(), at_peer, &wire.b.place, at_peer)?;
        books.flow(id, &out).asked("forwarded", &out.between(seen_as, at_peer));
        // In, to those that become the container's: whether a proxy listens there or not.
        let into = talk(&wire.b.place, (wire.b.v4, 40_001).into(), (wire.a.v4, PUBLISHED).into())?;
        books.flow(id, &into.between(into.source, (own, ANSWERS).into())).was_asked("forwarded", &into);
        let at_web = (own, 5002).into();
        let published = (wire.a.v4, CONNECTIONS).into();
        let (into, _) = transfer(&wire.b.place, wire.b.v4.into(), published, &inside.end.place, at_web)?;
        books.flow(id, &into.between(into.source, at_web)).was_asked("forwarded", &into);
        // From the host itself, by the address that the port is published at: translated in both cases, without a proxy
        // with the bridge's address for its own.
        let bridge = Ipv4Addr::new(172, 17, 0, 1);
        let asked = talk(&wire.a.place, (wire.a.v4, 41_000).into(), (wire.a.v4, PUBLISHED).into())?;
        let seen_as = (if proxy { wire.a.v4 } else { bridge }, 41_000).into();
        books.asked_here("host", &asked).flow(id, &asked.between(seen_as, (own, ANSWERS).into()));
        // By its loopback address it asks the proxy, whose socket then is who asks the container; without a proxy the
        // address becomes the bridge's.
        let loopback = Ipv4Addr::LOCALHOST;
        let asked = talk(&wire.a.place, (loopback, 41_001).into(), (loopback, PUBLISHED).into())?;
        let link = inside.port.counters()?;
        drop(inside);
        docker.run(&["rm", "--force", &web.id])?;
        wait_for_step(&collector, id, "delete");
        let finished = collector.stop()?;
        let port = if proxy { proxys_port(&finished, id, bridge)? } else { 41_001 };
        let seen_as = (bridge, port).into();
        books.asked_here("host", &asked).flow(id, &asked.between(seen_as, (own, ANSWERS).into()));
        books.counts(id, behind(&link));
        assert_balanced(&finished);
        books.assert_kept(&finished);
        assert_uplinks(&finished, &[]);
        assert_eq!(steps(&finished.events, id), WHOLE);
        let told = life(&finished.events, id);
        assert_eq!(told[0].tags.get("runtime"), Some("docker"));
        assert_eq!(told[0].tags.get("container_id"), Some(&*web.id));
        assert_eq!(told[1].ip_address["docker0"], own.to_string());
        for record in events::flows(&finished.events).filter(|record| &*record.context_id == id) {
            assert_eq!(record.attributed_by, AttributedBy::Veth);
        }
    }
    Ok(())
}

/// By which port the proxy asked a container.
fn proxys_port(finished: &Finished, id: &str, bridge: Ipv4Addr) -> Result<u16> {
    let sources = events::flows(&finished.events)
        .filter(|record| &*record.context_id == id)
        .map(|record| record.source.as_ref());
    let mut of_bridge = sources.filter(|source| events::ip_of(*source) == Some(bridge.into()));
    Ok(events::port_of(of_bridge.next().context("the proxy has asked nothing")?))
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn two_on_one_bridge_have_each_its_own_view() -> Result<()> {
    let wire = wire()?;
    let Some(docker) = Engine::docker(&wire.a.place, true)? else { return Ok(()) };
    let collector = start(&wire)?;
    let [one, two] = [docker.serve(&[])?, docker.serve(&[])?];
    let [in_one, in_two] = [docker.enter(&one.id)?, docker.enter(&two.id)?];
    for serving in [&one, &two] {
        wait_for_step(&collector, serving.unit(), "start");
    }
    let mut books = Books::new();
    for (asks, inside, asked, other) in [(&one, &in_one, &two, &in_two), (&two, &in_two, &one, &in_one)] {
        let to = (other.end.v4, ANSWERS).into();
        ask_from(&docker, &asks.id, 40_000, to)?;
        let talk = Talk::answered((inside.end.v4, 40_000).into(), to, 100, 100);
        books.flow(asks.unit(), &talk).flow(asked.unit(), &talk);
        let to = (other.end.v4, 5002).into();
        let (talk, _) = transfer(&inside.end.place, inside.end.v4.into(), to, &other.end.place, to)?;
        books.flow(asks.unit(), &talk).flow(asked.unit(), &talk);
    }
    for (serving, inside) in [(&one, in_one), (&two, in_two)] {
        books.counts(serving.unit(), behind(&inside.port.counters()?));
    }
    docker.run(&["rm", "--force", &one.id, &two.id])?;
    for serving in [&one, &two] {
        wait_for_step(&collector, serving.unit(), "delete");
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    assert_uplinks(&finished, &[]);
    for serving in [&one, &two] {
        assert_eq!(steps(&finished.events, serving.unit()), WHOLE);
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn on_the_hosts_network_a_container_is_known_by_its_sockets() -> Result<()> {
    let wire = wire()?;
    let Some(docker) = Engine::docker(&wire.a.place, true)? else { return Ok(()) };
    let peer = Host::new(&wire.b, &[])?;
    let collector = start(&wire)?;
    let web = docker.serve(&["--network", "host"])?;
    let id = web.unit();
    wait_for_step(&collector, id, "start");
    let mut books = Books::new();
    let at_peer = talk::answers(&peer, 4);
    ask_from(&docker, &web.id, 40_000, at_peer)?;
    books.asked(id, &Talk::answered((wire.a.v4, 40_000).into(), at_peer, 100, 100));
    let into = talk(&wire.b.place, (wire.b.v4, 40_001).into(), (wire.a.v4, ANSWERS).into())?;
    books.was_asked(id, &into);
    // Beside it the host asks for itself.
    books.asked("host", &talk(&wire.a.place, (wire.a.v4, 40_002).into(), at_peer)?);
    docker.run(&["rm", "--force", &web.id])?;
    wait_for_step(&collector, id, "delete");
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    assert_uplinks(&finished, &[id]);
    assert_eq!(steps(&finished.events, id), WHOLE);
    for record in events::flows(&finished.events).filter(|record| &*record.context_id == id) {
        assert_eq!((record.attributed_by, &*record.interface), (AttributedBy::Socket, &*wire.a.dev));
    }
    Ok(())
}
