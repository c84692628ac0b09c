//! At other boundaries than the host's uplinks: a container's, and loopback.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::Context as _;
use collector_tests::{
    Result,
    books::assert_explained,
    collector::{Running, declared},
    events,
    frames::UDP,
    lab::{Addressed, End, host, join},
    policies::policy,
    talk::listener,
    traffic::{ANSWERS, Host, pin, settle},
};
use collector_user::{
    daemon::Options,
    pu::{
        registry::{Declared, Side},
        trace::Directions,
    },
};

use super::{ACCEPT, CLOSED, OPEN, REJECT, arrived, dropped, enforcing, records, send, sum};

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_container_has_rules_of_its_own_at_its_boundary() -> Result<()> {
    const COUNT: u64 = 60;
    let (on_host, container, peer) = (host()?, host()?, host()?);
    let (port, inside) = join(&on_host, &container, 1, Addressed::Both)?;
    let (uplink, outside) = join(&on_host, &peer, 2, Addressed::Both)?;
    on_host.place().sysctl(&[("ipv4/ip_forward", "1")])?;
    inside.place.ip(&format!("route add 10.77.2.0/24 via {}", port.v4))?;
    outside.place.ip(&format!("route add 10.77.1.0/24 via {}", uplink.v4))?;
    let unit = Declared { side: Some(Side::Behind), ..declared("web", &[&port.dev], &[])? };
    pin(0)?;
    let answering = [Host::new(&inside, &[])?, Host::new(&outside, &[])?];
    let policies = vec![
        policy("open", "web", Directions::Both, (UDP, OPEN..=OPEN), ACCEPT)?,
        policy("answers", "web", Directions::Both, (UDP, ANSWERS..=ANSWERS), ACCEPT)?,
    ];
    let options = Options { units: vec![unit], ..enforcing(policies) };
    let collector = Running::start(on_host.place(), options)?;
    let at = |end: &End, port| end.at(4, port);
    let sockets = [
        listener(&inside.place, at(&inside, OPEN))?,
        listener(&outside.place, at(&outside, OPEN))?,
        listener(&inside.place, at(&inside, CLOSED))?,
        listener(&outside.place, at(&outside, CLOSED))?,
        listener(&port.place, at(&port, CLOSED))?,
    ];
    for (from, to) in [(&outside, &inside), (&inside, &outside)] {
        send(from, at(to, OPEN), COUNT)?;
        send(from, at(to, CLOSED), COUNT)?;
    }
    // To the host itself, which has no rules.
    send(&inside, at(&port, CLOSED), COUNT)?;
    settle(&outside, &answering[0])?;
    settle(&inside, &answering[1])?;
    let finished = collector.stop()?;
    let counts: Vec<_> = sockets.iter().map(arrived).collect::<Result<_>>()?;
    assert_eq!(counts, [COUNT, COUNT, 0, 0, 0]);
    assert_explained(&finished);
    let counter = |name| events::counter(&finished.events, "web", name);
    // What it sends comes in at the host's end, and is dropped there; what is sent to it never leaves by that.
    assert_eq!([counter("rejected_rx_packets"), counter("rejected_tx_packets")], [COUNT, 2 * COUNT]);
    assert_eq!(dropped(&finished, "web"), (3 * COUNT, 0), "{:#?}", finished.status.drops);
    let closed = records(&finished, UDP, CLOSED);
    let of_web: Vec<_> = closed.iter().copied().filter(|it| &*it.context_id == "web").collect();
    assert_eq!(sum(&of_web, |it| it.rejected_packets), 3 * COUNT);
    assert_eq!(sum(&of_web, |it| it.packets), 2 * COUNT);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn both_ends_of_loopback_have_a_say() -> Result<()> {
    const COUNT: u64 = 25;
    let alone = host()?;
    let place = alone.place();
    let local = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let sockets = [OPEN, CLOSED, CLOSED + 1].map(|port| listener(place, local(port)));
    let [open, no_entry, no_exit] = sockets;
    let sockets = [open?, no_entry?, no_exit?];
    let mut policies = Vec::new();
    // One may not be called, the other may not be asked to call.
    for (directions, closed) in [(Directions::In, CLOSED), (Directions::Out, CLOSED + 1)] {
        let (id, all) = (directions.name(), 1..=u16::MAX);
        policies.push(policy(&format!("no-{id}"), "host", directions, (UDP, closed..=closed), REJECT)?);
        policies.push(policy(id, "host", directions, (UDP, all), ACCEPT)?);
    }
    let options = Options { ifaces: vec!["lo".parse()?], ..enforcing(policies) };
    let collector = Running::start(place, options)?;
    let socket = place.within(|| UdpSocket::bind(local(0)).context("a socket"))?;
    for port in [OPEN, CLOSED, CLOSED + 1] {
        for _ in 0..COUNT {
            let _ = socket.send_to(&[0; 64], local(port));
        }
    }
    let finished = collector.stop()?;
    let counts: Vec<_> = sockets.iter().map(arrived).collect::<Result<_>>()?;
    assert_eq!(counts, [COUNT, 0, 0], "delivered at once");
    assert_explained(&finished);
    for (port, id) in [(CLOSED, "no-in"), (CLOSED + 1, "no-out")] {
        let records = records(&finished, UDP, port);
        assert_eq!(sum(&records, |it| it.rejected_packets), COUNT);
        assert!(records.iter().all(|it| &*it.policy_id == id && it.packets == 0), "{records:#?}");
    }
    let counter = |name| events::counter(&finished.events, "host", name);
    assert_eq!([counter("rejected_rx_packets"), counter("rejected_tx_packets")], [COUNT; 2]);
    assert_eq!(dropped(&finished, "host"), (2 * COUNT, 0));
    Ok(())
}
