//! What stays on a bridge: between containers, and between them and the host.

use std::net::SocketAddr;

use collector_tests::{
    Result,
    books::{Books, assert_sum_at_uplinks},
    collector::{Running, declared, options},
    lab::End,
    site::Site,
    talk::{self, Talk, ask, asker, talk, tell, transfer},
    traffic::{Datagrams, Host, pin, send, sender},
};
use collector_user::daemon::Options;

use crate::assert_balanced;

/// `one` and `two` declare the first containers' host-side ends; flows of all are told.
fn options_of(site: &Site) -> Result<Options> {
    let units =
        vec![declared("one", &[&site.ports[0].dev], &[])?, declared("two", &[&site.ports[1].dev], &[])?];
    Ok(Options { units, forwarded: true, ..options() })
}

/// Datagrams and a connection from one end to another, over both families.
fn all_kinds(from: &End, to: &End, answering: &Host) -> Result<Vec<Talk>> {
    let mut talks = Vec::new();
    for version in [4, 6] {
        let source = SocketAddr::new(from.address(version), 40_000);
        talks.push(talk(&from.place, source, talk::answers(answering, version))?);
        let at = SocketAddr::new(to.address(version), 5002);
        talks.push(transfer(&from.place, source.ip(), at, &to.place, at)?.0);
    }
    Ok(talks)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn between_containers_each_has_its_own_flow() -> Result<()> {
    let site = Site::new(2)?;
    let [one, two] = &site.containers[..] else { unreachable!("two were asked for") };
    let answering = Host::new(two, &[])?;
    let collector = Running::start_beside(site.host(), options_of(&site)?, Some(&site.uplink.dev))?;
    let mut books = Books::new();
    for talk in all_kinds(one, two, &answering)? {
        books.asked("one", &talk).was_asked("two", &talk);
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[finished.link]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn between_host_and_container_the_hosts_end_is_local() -> Result<()> {
    let site = Site::new(2)?;
    let one = &site.containers[0];
    let answering = [Host::new(one, &[])?, Host::new(&site.bridge, &[])?];
    let collector = Running::start_beside(site.host(), options_of(&site)?, Some(&site.uplink.dev))?;
    let mut books = Books::new();
    for talk in all_kinds(&site.bridge, one, &answering[0])? {
        books.was_asked("one", &talk).asked_here("host", &talk);
    }
    for talk in all_kinds(one, &site.bridge, &answering[1])? {
        books.asked("one", &talk).was_asked_here("host", &talk);
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[finished.link]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_a_bridge_floods_is_received_at_every_port() -> Result<()> {
    const COUNT: u64 = 100;
    const SIZE: usize = 60;
    let nobody = "10.88.0.99";
    let site = Site::new(3)?;
    let [one, two, _] = &site.containers[..] else { unreachable!("three were asked for") };
    one.knows_address(nobody, &End { mac: [0x02, 0x99, 0, 0, 0, 0x99], ..one.clone() })?;
    let answering = Host::new(two, &[])?;
    let collector = Running::start_beside(site.host(), options_of(&site)?, Some(&site.uplink.dev))?;
    pin(0)?;
    let flooded = Datagrams { to: format!("{nobody}:5001").parse()?, count: COUNT, size: SIZE };
    send(&sender(one, 4, 40_000)?, &flooded)?;
    // A CPU hands packets on in their order.
    let last = asker(&one.place, (one.v4, 40_001).into(), talk::answers(&answering, 4))?;
    let last = ask(&last, 1, SIZE)?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let flooded = Talk::one_way((one.v4, 40_000).into(), flooded.to, COUNT, SIZE);
    let mut books = Books::new();
    books.asked("one", &flooded).was_asked("two", &flooded);
    // Nobody has named the third.
    books.was_asked("unknown", &flooded);
    books.asked("one", &last).was_asked("two", &last);
    books.assert_kept(&finished);
    assert_sum_at_uplinks(&finished, &["host", "forwarded"], &[finished.link]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_range_behind_a_bridge_is_counted_where_it_ends() -> Result<()> {
    let site = Site::new(1)?;
    let web = &site.containers[0];
    site.peer.place.ip(&format!("route add 10.88.0.0/24 via {} dev {}", site.uplink.v4, site.peer.dev))?;
    let ranges = [format!("{}/32", web.v4), format!("{}/128", web.v6)];
    let options = Options { units: vec![declared("web", &[], &ranges)?], forwarded: true, ..options() };
    let collector = Running::start_beside(site.host(), options, Some(&site.uplink.dev))?;
    let mut books = Books::new();
    let answering = Host::new(web, &[])?;
    for version in [4, 6] {
        // The other side begins, and nobody answers.
        let at = SocketAddr::new(web.address(version), 5001);
        let from = SocketAddr::new(site.peer.address(version), 40_000);
        let told = tell(&asker(&site.peer.place, from, at)?, &talk::listener(&web.place, at)?, 100, 100)?;
        books.was_asked("web", &told).was_asked("forwarded", &told);
        let asked = talk(&site.peer.place, from, talk::answers(&answering, version))?;
        books.was_asked("web", &asked).was_asked("forwarded", &asked);
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[finished.link]);
    Ok(())
}
