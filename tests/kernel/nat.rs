//! Translated addresses: a container behind a masquerade, with a port that is published.

use std::net::{TcpListener, UdpSocket};

use collector_tests::{
    Result,
    books::{Books, assert_sum_at_uplinks},
    collector::{Running, declared, options},
    events,
    site::Site,
    talk::{self, ask, asker, talk, tell, transfer},
    traffic::{ANSWERS, Host},
};
use collector_user::{daemon::Options, event::AttributedBy};

use crate::assert_balanced;

/// Questions of which each has to be in the rows of both sides of a translation, where a few might all have been the first.
const MANY: u64 = 1000;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_translated_container_has_its_own_flows_and_the_twins_pass_through() -> Result<()> {
    for reported in [true, false] {
        let site = Site::new(1)?;
        site.translate()?;
        let (web, port) = (&site.containers[0], &site.ports[0]);
        let answering = [Host::new(web, &[])?, Host::new(&site.peer, &[])?];
        let units = vec![declared("web", &[&port.dev], &[])?];
        let options = Options { units, forwarded: reported, ..options() };
        let before = port.counters()?;
        let collector = Running::start_beside(site.host(), options, Some(&site.uplink.dev))?;
        let mut books = Books::new();
        // Out, from an address that becomes the host's; then in, to one that becomes the container's.
        let count = if reported { MANY } else { 100 };
        let to_peer = talk::answers(&answering[1], 4);
        let out = ask(&asker(&web.place, (web.v4, 40_000).into(), to_peer)?, count, 100)?;
        let twin = out.between((site.uplink.v4, 40_000).into(), out.destination);
        books.asked("web", &out).asked("forwarded", &twin);
        let to_web = asker(&site.peer.place, (site.peer.v4, 40_001).into(), site.published(0))?;
        let into = ask(&to_web, count, 100)?;
        books.was_asked("web", &into.between(into.source, (web.v4, ANSWERS).into()));
        books.was_asked("forwarded", &into);
        let at_peer = (site.peer.v4, 5002).into();
        let (out, seen_as) = transfer(&web.place, web.v4.into(), at_peer, &site.peer.place, at_peer)?;
        books.asked("web", &out).asked("forwarded", &out.between(seen_as, at_peer));
        let at_web = (web.v4, ANSWERS).into();
        let from = site.peer.v4.into();
        let (into, _) = transfer(&site.peer.place, from, site.published(0), &web.place, at_web)?;
        books.was_asked("web", &into.between(into.source, at_web)).was_asked("forwarded", &into);
        // Over IPv6 both have the same addresses.
        let out = talk(&web.place, (web.v6, 40_000).into(), talk::answers(&answering[1], 6))?;
        books.asked("web", &out).asked("forwarded", &out);
        let into = talk(&site.peer.place, (site.peer.v6, 40_001).into(), talk::answers(&answering[0], 6))?;
        books.was_asked("web", &into).was_asked("forwarded", &into);
        let finished = collector.stop()?;
        assert_balanced(&finished);
        if reported { books } else { books.without_flows_of("forwarded") }.assert_kept(&finished);
        assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[finished.link]);
        // What the host-side end receives, the container has sent.
        let link = port.counters()?.since(&before);
        let want = [link.tx_packets, link.tx_bytes, link.rx_packets, link.rx_bytes];
        assert_eq!(events::unit(&finished.events, "web"), want);
        for record in events::flows(&finished.events).filter(|record| &*record.context_id == "web") {
            assert_eq!((record.attributed_by, &*record.interface), (AttributedBy::Declared, &*port.dev));
        }
    }
    Ok(())
}

/// Sockets of the host's where a container's port is published, as a proxy has them that nobody asks any more.
fn proxy(site: &Site, container: usize) -> Result<(UdpSocket, TcpListener)> {
    let at = site.published(container);
    Ok((talk::listener(site.host(), at)?, site.host().within(|| Ok(TcpListener::bind(at)?))?))
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn by_the_hosts_published_port_a_container_reaches_another_and_itself() -> Result<()> {
    let site = Site::new(2)?;
    site.translate()?;
    let [one, two] = &site.containers[..] else { unreachable!("two were asked for") };
    let _answering = [Host::new(one, &[])?, Host::new(two, &[])?];
    let _proxies = [proxy(&site, 0)?, proxy(&site, 1)?];
    let units =
        vec![declared("one", &[&site.ports[0].dev], &[])?, declared("two", &[&site.ports[1].dev], &[])?];
    let options = Options { units, forwarded: true, ..options() };
    let collector = Running::start_beside(site.host(), options, Some(&site.uplink.dev))?;
    let mut books = Books::new();
    for (server, unit, number) in [(two, "two", 1), (one, "one", 0)] {
        let at_server = (server.v4, ANSWERS).into();
        let source = (one.v4, 40_000 + number as u16).into();
        let asked = ask(&asker(&one.place, source, site.published(number))?, MANY, 100)?;
        // The bridge's address stands for whoever asks by a published port.
        let seen_as = (site.bridge.v4, source.port()).into();
        books.asked("one", &asked).was_asked(unit, &asked.between(seen_as, at_server));
        let (asked, seen_as) =
            transfer(&one.place, one.v4.into(), site.published(number), &server.place, at_server)?;
        books.asked("one", &asked).was_asked(unit, &asked.between(seen_as, at_server));
    }
    // The host itself does, with the address that the port is published at.
    let host = (site.uplink.v4, 41_000).into();
    let asked = talk(site.host(), host, site.published(1))?;
    books.asked_here("host", &asked).was_asked("two", &asked.between(host, (two.v4, ANSWERS).into()));
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[finished.link]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_proxys_sockets_at_a_published_port_have_nothing_of_what_is_translated() -> Result<()> {
    let site = Site::new(1)?;
    site.translate()?;
    let (web, peer) = (&site.containers[0], &site.peer);
    let _answering = Host::new(web, &[])?;
    let at = site.published(0);
    let _proxy = (talk::listener(site.host(), at)?, site.host().within(|| Ok(TcpListener::bind(at)?))?);
    let units = vec![declared("web", &[&site.ports[0].dev], &[])?];
    let options = Options { units, forwarded: true, ..options() };
    let collector = Running::start_beside(site.host(), options, Some(&site.uplink.dev))?;
    let mut books = Books::new();
    let at_web = (web.v4, ANSWERS).into();
    let datagrams = talk(&peer.place, (peer.v4, 40_000).into(), site.published(0))?;
    let (connection, _) = transfer(&peer.place, peer.v4.into(), site.published(0), &web.place, at_web)?;
    for talk in [datagrams, connection] {
        books.was_asked("web", &talk.between(talk.source, at_web)).was_asked("forwarded", &talk);
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[finished.link]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn without_an_answer_the_twin_of_what_is_published_stays_unknown() -> Result<()> {
    let site = Site::new(1)?;
    site.translate()?;
    let (web, peer) = (&site.containers[0], &site.peer);
    let units = vec![declared("web", &[&site.ports[0].dev], &[])?];
    let collector =
        Running::start_beside(site.host(), Options { units, ..options() }, Some(&site.uplink.dev))?;
    let socket = talk::listener(&web.place, (web.v4, ANSWERS).into())?;
    let from = asker(&peer.place, (peer.v4, 40_000).into(), site.published(0))?;
    let told = tell(&from, &socket, 100, 100)?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let mut books = Books::new();
    books.was_asked("web", &told.between(told.source, socket.local_addr()?)).was_asked("unknown", &told);
    books.assert_kept(&finished);
    assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[finished.link]);
    for record in events::flows(&finished.events).filter(|record| &*record.context_id == "unknown") {
        assert_eq!(record.attributed_by, AttributedBy::Unanswered);
    }
    Ok(())
}
