//! Who owns the sockets behind flows: in the flow's record, and told once.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
};

use collector_tests::{
    Result,
    books::{Books, assert_sum_at_uplinks},
    collector::{Finished, Running, declared, options},
    events,
    lab::{Addressed, End, Wire, join_places, silent_host},
    site::Site,
    talk::{self, accept, asker, converse, transfer_to},
    users::{Container, FIRST, as_user, process_sends},
};
use collector_user::{
    daemon::Options,
    event::{Event, UserRecord},
    pu::registry::{Declared, Side},
};

use crate::assert_balanced;

/// The users at source and destination of each flow, by the destination's port and IP version; with whether their ids stand
/// in a record of a user.
fn signed(finished: &Finished) -> BTreeMap<(u16, u8), [String; 2]> {
    let told = told(finished);
    let mut all = BTreeMap::new();
    for record in events::flows(&finished.events) {
        let ends = [&record.source, &record.destination].map(|end| end.clone().unwrap_or_default());
        for end in ends.iter().filter(|end| !end.user.is_empty()) {
            let Some(user) = told.iter().find(|user| user.id == end.user_id) else {
                panic!("the user of {end:?} was never told: {told:?}")
            };
            let claims = [format!("user={}", end.user), format!("unit={}", record.context_id)];
            assert!(claims.iter().all(|claim| user.claims.contains(&claim.as_str().into())), "{user:?}");
        }
        let version = if ends[0].ip.is_some_and(|ip| ip.is_ipv4()) { 4 } else { 6 };
        let before = all.insert((ends[1].port, version), ends.clone().map(|end| end.user.to_string()));
        assert_eq!(before, None, "one record a flow");
    }
    all
}

fn told(finished: &Finished) -> Vec<UserRecord> {
    let records = finished.events.iter().filter_map(|event| match event {
        Event::User(record) => Some(record.clone()),
        _ => None,
    });
    records.collect()
}

/// The ids that were told, each as often as it was.
fn uids(finished: &Finished) -> Vec<u32> {
    let uid =
        |user: &UserRecord| user.claims.iter().find_map(|claim| claim.strip_prefix("uid=")?.parse().ok());
    let mut uids: Vec<u32> = told(finished).iter().filter_map(uid).collect();
    uids.sort_unstable();
    uids
}

fn bound(end: &End, uid: u32, version: u8, port: u16) -> Result<UdpSocket> {
    as_user(&end.place, uid, || UdpSocket::bind(end.at(version, port)))
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn the_user_of_a_datagrams_socket_is_in_its_flow() -> Result<()> {
    let wire = Wire::unsegmented()?;
    let (host, peer) = (&wire.b, &wire.a);
    let collector = Running::start_beside(&host.place, options(), Some(&host.dev))?;
    let mut books = Books::new();
    for version in [4, 6] {
        // Nobody answers.
        let sending = bound(host, FIRST + 1, version, 40_001)?;
        sending.connect(peer.at(version, 5001))?;
        let taking = talk::listener(&peer.place, peer.at(version, 5001))?;
        books.asked("host", &talk::tell(&sending, &taking, 100, 100)?);
        // Nobody is answered.
        let taking = bound(host, FIRST + 2, version, 5002)?;
        let sending = asker(&peer.place, peer.at(version, 40_002), host.at(version, 5002))?;
        books.was_asked("host", &talk::tell(&sending, &taking, 100, 100)?);
        let answering = bound(host, FIRST + 3, version, 5003)?;
        let asking = asker(&peer.place, peer.at(version, 40_003), host.at(version, 5003))?;
        books.was_asked("host", &converse(&asking, &answering, 50, 100)?);
        // Root has a name wherever there is a database of users.
        let answering = bound(host, 0, version, 5004)?;
        let asking = asker(&peer.place, peer.at(version, 40_004), host.at(version, 5004))?;
        books.was_asked("host", &converse(&asking, &answering, 5, 100)?);
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    assert_sum_at_uplinks(&finished, &["host"], &[finished.link]);
    let user = |uid: u32| (FIRST + uid).to_string();
    let (none, root) = (String::new, signed(&finished)[&(5004, 4)][1].clone());
    assert!(["root", "0"].contains(&&*root));
    let flows = [4, 6].into_iter().flat_map(|version| {
        [
            ((5001, version), [user(1), none()]),
            ((5002, version), [none(), user(2)]),
            ((5003, version), [none(), user(3)]),
            ((5004, version), [none(), root.clone()]),
        ]
    });
    assert_eq!(signed(&finished), flows.collect());
    assert_eq!(uids(&finished), [0, FIRST + 1, FIRST + 2, FIRST + 3], "each once");
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_connection_has_the_user_who_listens_or_who_connects() -> Result<()> {
    let wire = Wire::unsegmented()?;
    let (host, peer) = (&wire.b, &wire.a);
    let collector = Running::start_beside(&host.place, options(), Some(&host.dev))?;
    let mut books = Books::new();
    for version in [4, 6] {
        let at_host: SocketAddr = (host.address(version), 5001).into();
        let listener = as_user(&host.place, FIRST + 1, || TcpListener::bind(at_host))?;
        books.was_asked("host", &transfer_to(&peer.place, peer.address(version), at_host, listener)?);
        let at_peer: SocketAddr = (peer.address(version), 5002).into();
        let listener = peer.place.within(|| Ok(TcpListener::bind(at_peer)?))?;
        let client = as_user(&host.place, FIRST + 2, || TcpStream::connect(at_peer))?;
        let mut connected = accept(client, at_peer, listener)?;
        connected.ask()?;
        books.asked("host", &connected.close()?);
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    let flows = [4, 6].into_iter().flat_map(|version| {
        [
            ((5001, version), [String::new(), (FIRST + 1).to_string()]),
            ((5002, version), [(FIRST + 2).to_string(), String::new()]),
        ]
    });
    assert_eq!(signed(&finished), flows.collect());
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_process_that_becomes_a_user_sends_as_that() -> Result<()> {
    let wire = Wire::silent()?;
    let (host, peer) = (&wire.b, &wire.a);
    let collector = Running::start(&host.place, options())?;
    for version in [4, 6] {
        let at_peer: SocketAddr = (peer.address(version), 5001).into();
        let taking = talk::listener(&peer.place, at_peer)?;
        taking.set_read_timeout(Some(collector_tests::PATIENCE))?;
        host.place.within(|| process_sends(FIRST + 7, None, at_peer))?;
        taking.recv(&mut [0; 8])?;
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let user = || [(FIRST + 7).to_string(), String::new()];
    assert_eq!(signed(&finished), [((5001, 4), user()), ((5001, 6), user())].into());
    assert_eq!(uids(&finished), [FIRST + 7]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn both_ways_on_loopback_the_user_is_the_local_ends() -> Result<()> {
    let alone = silent_host()?;
    let lo = End::loopback(alone.place());
    let collector = Running::start(&lo.place, Options { ifaces: vec!["lo".parse()?], ..options() })?;
    for version in [4, 6] {
        // The port that is the lesser one in memory stands for the flow: in network byte order.
        let serving = bound(&lo, FIRST + 1, version, 5120)?;
        let asking = bound(&lo, FIRST + 2, version, 40_001)?;
        asking.connect(serving.local_addr()?)?;
        converse(&asking, &serving, 10, 100)?;
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let user = || [String::new(), (FIRST + 1).to_string()];
    assert_eq!(signed(&finished), [((5120, 4), user()), ((5120, 6), user())].into());
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn the_users_of_a_containers_sockets_are_known_at_its_interface() -> Result<()> {
    let site = Site::new(1)?;
    let (inside, peer) = (&site.containers[0], &site.peer);
    let units = vec![declared("web", &[&site.ports[0].dev], &[])?];
    let collector = Running::start(site.host(), Options { units, ..options() })?;
    let mut books = Books::new();
    let mut both = |talk: &talk::Talk, asks: bool| {
        if asks {
            books.asked("web", talk).asked("forwarded", talk);
        } else {
            books.was_asked("web", talk).was_asked("forwarded", talk);
        }
    };
    let at_peer: SocketAddr = (peer.v6, 5001).into();
    let sending = bound(inside, FIRST + 1, 6, 40_001)?;
    sending.connect(at_peer)?;
    let taking = talk::listener(&peer.place, at_peer)?;
    both(&talk::tell(&sending, &taking, 100, 100)?, true);
    // Who serves is known by the answer.
    let answering = bound(inside, FIRST + 2, 6, 5002)?;
    let asking = asker(&peer.place, (peer.v6, 40_002).into(), (inside.v6, 5002).into())?;
    both(&converse(&asking, &answering, 50, 100)?, false);
    // Nobody knows who takes what is never answered.
    let taking = bound(inside, FIRST + 3, 6, 5003)?;
    let sending = asker(&peer.place, (peer.v6, 40_003).into(), (inside.v6, 5003).into())?;
    both(&talk::tell(&sending, &taking, 100, 100)?, false);
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.without_flows_of("forwarded").assert_kept(&finished);
    let none = String::new;
    let want = [
        ((5001, 6), [(FIRST + 1).to_string(), none()]),
        ((5002, 6), [none(), (FIRST + 2).to_string()]),
        ((5003, 6), [none(), none()]),
    ];
    assert_eq!(signed(&finished), want.into());
    assert!(told(&finished).iter().all(|user| &*user.namespace == "/lab"));
    Ok(())
}

/// The kernel's own helper would call both of them by the number that is the container's.
#[test]
#[ignore = "needs CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN: cargo xtask test kernel"]
fn a_user_of_a_user_namespace_is_whom_the_host_knows() -> Result<()> {
    let (host, container) = (silent_host()?, Container::new()?);
    let (outside, inside) = join_places([host.place(), container.place()], 0, Addressed::Both)?;
    // Once as seen from the host, and once from inside, where it is what leaves by an uplink.
    let users = container.users()?;
    for (place, context) in [(&outside.place, "outside"), (&inside.place, "inside")] {
        let collector = Running::start(place, options())?;
        let at: IpAddr = outside.v4.into();
        for (uid, port) in [(0, 5000), (33, 5033)] {
            let taking = talk::listener(&outside.place, (at, port).into())?;
            taking.set_read_timeout(Some(collector_tests::PATIENCE))?;
            inside.place.within(|| process_sends(uid, Some(&users), (at, port).into()))?;
            taking.recv(&mut [0; 8])?;
        }
        let finished = collector.stop()?;
        let signed = signed(&finished);
        for (uid, port) in [(0, 5000), (33, 5033)] {
            let [source, destination] = &signed[&(port, 4)];
            // Outside, the pair's end is an uplink, at which what comes in is the host's: its own sockets' are known.
            if context == "inside" {
                assert_eq!(*source, (FIRST + uid).to_string(), "{context}");
            } else {
                assert!(["root", "0"].contains(&&**destination), "{context}: {destination}");
            }
        }
    }
    // And at the host-side end, when it is one.
    let units = vec![Declared { side: Some(Side::Behind), ..declared("web", &[&outside.dev], &[])? }];
    let collector = Running::start(&outside.place, Options { units, ..options() })?;
    let taking = talk::listener(&outside.place, (outside.v4, 5033).into())?;
    taking.set_read_timeout(Some(collector_tests::PATIENCE))?;
    inside.place.within(|| process_sends(33, Some(&users), (outside.v4, 5033).into()))?;
    taking.recv(&mut [0; 8])?;
    let finished = collector.stop()?;
    assert_eq!(signed(&finished)[&(5033, 4)][0], (FIRST + 33).to_string());
    Ok(())
}
