//! Routes: flows that move from one uplink to another, and ranges that are routed.

use std::net::SocketAddr;

use collector_tests::{
    Result,
    books::{Books, assert_sum_at_uplinks},
    collector::{Finished, Running, declared, options},
    events,
    lab::{Addressed, End, LinkCounters, join, silent_host},
    netns::{NetNs, Place},
    talk::{self, ask, asker, connect, talk, tell, transfer},
    traffic::{ANSWERS, Host},
};
use collector_user::daemon::Options;

use crate::assert_balanced;

/// Two hosts on two wires, with addresses that either wire leads to.
struct TwoWires {
    /// One host's ends of the wires, on which the collector counts.
    here: [End; 2],
    /// The other's.
    there: [End; 2],
    _hosts: [NetNs; 2],
}

/// The addresses of both hosts.
const HERE: [&str; 2] = ["10.99.0.1", "fd99::1"];
const THERE: [&str; 2] = ["10.99.0.2", "fd99::2"];

impl TwoWires {
    fn new() -> Result<Self> {
        let hosts = [silent_host()?, silent_host()?];
        let (a, b) = join(&hosts[0], &hosts[1], 0, Addressed::Both)?;
        let (c, d) = join(&hosts[0], &hosts[1], 1, Addressed::Both)?;
        for end in [&a, &b, &c, &d] {
            end.without_offloads()?;
        }
        for (end, [four, six]) in [(&a, HERE), (&b, THERE)] {
            end.place.ip(&format!("addr add {four}/32 dev {}", end.dev))?;
            end.place.ip(&format!("addr add {six}/128 dev {} nodad", end.dev))?;
        }
        Ok(Self { here: [a, c], there: [b, d], _hosts: hosts })
    }

    /// From here to there the way leads over one wire, back over another.
    fn lead(&self, forth: usize, back: usize) -> Result<()> {
        for (from, to, own, other) in [
            (&self.here[forth], &self.there[forth], HERE, THERE),
            (&self.there[back], &self.here[back], THERE, HERE),
        ] {
            for (version, bits, at) in [(4, 32, 0), (6, 128, 1)] {
                let (own, other, gateway) = (own[at], other[at], to.address(version));
                from.place.ip(&format!(
                    "-{version} route replace {other}/{bits} via {gateway} dev {} src {own}",
                    from.dev
                ))?;
            }
        }
        Ok(())
    }

    fn counters(&self) -> Result<[LinkCounters; 2]> {
        Ok([self.here[0].counters()?, self.here[1].counters()?])
    }

    fn assert_sums(&self, finished: &Finished, before: &[LinkCounters; 2]) -> Result<[LinkCounters; 2]> {
        let now = self.counters()?;
        let links = [now[0].since(&before[0]), now[1].since(&before[1])];
        assert_sum_at_uplinks(finished, &["host", "forwarded", "unknown"], &links);
        Ok(links)
    }
}

/// The addresses of one family.
fn ends(family: usize) -> Result<[SocketAddr; 2]> {
    Ok([SocketAddr::new(HERE[family].parse()?, 40_000), SocketAddr::new(THERE[family].parse()?, ANSWERS)])
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_flow_that_moves_to_another_uplink_is_one_flow() -> Result<()> {
    let wires = TwoWires::new()?;
    let [here, there] = [&wires.here[0].place, &wires.there[0].place];
    let _answering = Host::new(&wires.there[0], &[])?;
    let before = wires.counters()?;
    let collector = Running::start(here, options())?;
    let mut books = Books::new();
    for family in [0, 1] {
        let [from, to] = ends(family)?;
        wires.lead(0, 0)?;
        let socket = asker(here, from, to)?;
        let first = ask(&socket, 100, 100)?;
        let mut connected = connect(here, from.ip(), to, there, to)?;
        connected.ask()?;
        wires.lead(1, 1)?;
        books.asked("host", &first.and(&ask(&socket, 100, 100)?));
        connected.ask()?;
        books.asked("host", &connected.close()?);
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    let links = wires.assert_sums(&finished, &before)?;
    for link in links {
        assert!(link.rx_packets >= 2 * 100 && link.tx_packets >= 2 * 100, "a part went over each: {links:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_leaves_by_one_uplink_and_comes_in_by_another_is_one_flow() -> Result<()> {
    let wires = TwoWires::new()?;
    wires.lead(0, 1)?;
    let [here, there] = [&wires.here[0].place, &wires.there[0].place];
    let _answering = [Host::new(&wires.here[0], &[])?, Host::new(&wires.there[0], &[])?];
    let before = wires.counters()?;
    let collector = Running::start(here, options())?;
    let mut books = Books::new();
    for family in [0, 1] {
        let [from, to] = ends(family)?;
        books.asked("host", &talk(here, from, to)?);
        books.asked("host", &transfer(here, from.ip(), to, there, to)?.0);
        // And the other way round.
        let (from, to) = (SocketAddr::new(to.ip(), from.port()), SocketAddr::new(from.ip(), to.port()));
        books.was_asked("host", &talk(there, from, to)?);
        books.was_asked("host", &transfer(there, from.ip(), to, here, to)?.0);
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    let [out, back] = wires.assert_sums(&finished, &before)?;
    assert_eq!((out.rx_packets, back.tx_packets), (0, 0), "each wire has one direction");
    Ok(())
}

/// A peer beyond an uplink, a host that routes, and who lies beyond it: at a host-side end without a name, or beyond
/// another uplink.
struct Routed {
    peer: End,
    uplink: End,
    web: End,
    /// The host's end of the wire to `web`.
    near: End,
    _hosts: [NetNs; 3],
}

impl Routed {
    fn new(beyond: Addressed) -> Result<Self> {
        let hosts = [silent_host()?, silent_host()?, silent_host()?];
        let host = hosts[1].place();
        host.sysctl(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
        let (uplink, peer) = join(&hosts[1], &hosts[0], 0, Addressed::Both)?;
        let (near, web) = join(&hosts[1], &hosts[2], 1, beyond)?;
        for end in [&uplink, &peer, &near, &web] {
            end.without_offloads()?;
        }
        near.knows(&web)?;
        for version in [4, 6] {
            for (end, gateway) in [(&peer, &uplink), (&web, &near)] {
                let gateway = gateway.address(version);
                end.place.ip(&format!("-{version} route add default via {gateway} dev {}", end.dev))?;
            }
            if beyond == Addressed::Second {
                host.ip(&format!("-{version} route add {} dev {}", web.address(version), near.dev))?;
            }
        }
        Ok(Self { peer, uplink, web, near, _hosts: hosts })
    }

    fn host(&self) -> &Place {
        &self.uplink.place
    }

    /// `web` declares the addresses of what lies beyond.
    fn options(&self) -> Result<Options> {
        let ranges = [format!("{}/32", self.web.v4), format!("{}/128", self.web.v6)];
        Ok(Options { units: vec![declared("web", &[], &ranges)?], forwarded: true, ..options() })
    }

    /// The peer begins, and is not answered; then it is, on another port; then it is asked. What `each` is given came
    /// from the peer (`true`), or went there.
    fn talk(&self, mut each: impl FnMut(&talk::Talk, bool)) -> Result<()> {
        let (peer, web) = (&self.peer, &self.web);
        let answering = [Host::new(web, &[])?, Host::new(peer, &[])?];
        for version in [4, 6] {
            let at = SocketAddr::new(web.address(version), 5001);
            let from = SocketAddr::new(peer.address(version), 40_000);
            each(&tell(&asker(&peer.place, from, at)?, &talk::listener(&web.place, at)?, 100, 100)?, true);
            each(&talk(&peer.place, from, talk::answers(&answering[0], version))?, true);
            each(&transfer(&peer.place, from.ip(), at, &web.place, at)?.0, true);
            let from = SocketAddr::new(at.ip(), 40_001);
            each(&talk(&web.place, from, talk::answers(&answering[1], version))?, false);
        }
        Ok(())
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_range_behind_a_host_side_end_is_counted_there_alone() -> Result<()> {
    let lab = Routed::new(Addressed::Second)?;
    let before = lab.near.counters()?;
    let collector = Running::start_beside(lab.host(), lab.options()?, Some(&lab.uplink.dev))?;
    let mut books = Books::new();
    lab.talk(|talk, from_peer| {
        for unit in ["web", "forwarded"] {
            if from_peer {
                books.was_asked(unit, talk)
            } else {
                books.asked(unit, talk)
            };
        }
    })?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[finished.link]);
    let near = lab.near.counters()?.since(&before);
    let want = [near.tx_packets, near.tx_bytes, near.rx_packets, near.rx_bytes];
    assert_eq!(events::unit(&finished.events, "web"), want);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_range_between_two_uplinks_is_counted_once_each_way() -> Result<()> {
    let lab = Routed::new(Addressed::Both)?;
    let before = lab.near.counters()?;
    let collector = Running::start_beside(lab.host(), lab.options()?, Some(&lab.uplink.dev))?;
    let mut books = Books::new();
    lab.talk(|talk, from_peer| {
        if from_peer {
            books.was_asked("web", talk)
        } else {
            books.asked("web", talk)
        };
        // At the other uplink it only passes, with its direction there: what came in by one leaves by the other.
        if from_peer {
            books.asked("forwarded", talk)
        } else {
            books.was_asked("forwarded", talk)
        };
    })?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    let near = lab.near.counters()?.since(&before);
    assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown", "web"], &[finished.link, near]);
    Ok(())
}
