//! Interfaces that come, change their name, master or address, and go: what they are is told, and what crosses them is
//! counted accordingly.

use std::net::SocketAddr;

use collector_tests::{
    Result,
    books::Books,
    collector::{Running, declared, options},
    command, events,
    lab::{Addressed, End, join, pair, silent_host},
    lives::steps,
    netns::{NetNs, unique},
    talk::talk,
    traffic::{ANSWERS, Host},
};
use collector_user::{
    daemon::Options,
    pu::registry::{Declared, Side},
};

use crate::assert_balanced;

const UNKNOWN: &str = "unknown: the host-side end of something that nobody has named";
const IDLE: &str = "idle: not up, and its other end is here too";
const BEHIND: &str = "declared: declared by web, which is behind it, for it has no address of this host";
const BESIDE: &str =
    "declared: declared by web, which is on the host's side of it, for it has an address of this host";
const BRIDGE: &str = "br0 is stacked: a bridge: its packets are seen on the interfaces below";

/// A peer, a host that routes, and a container that comes while the collector counts.
struct Lab {
    peer: End,
    uplink: End,
    /// The host-side end.
    port: End,
    container: End,
    _hosts: [NetNs; 3],
}

impl Lab {
    fn new() -> Result<Self> {
        let hosts = [silent_host()?, silent_host()?, silent_host()?];
        hosts[1].place().sysctl(&[("ipv4/ip_forward", "1")])?;
        let (uplink, peer) = join(&hosts[1], &hosts[0], 0, Addressed::Both)?;
        peer.place.ip(&format!("route add 10.88.0.0/24 via {} dev {}", uplink.v4, peer.dev))?;
        let end = |host: &NetNs, mac, last| End {
            place: host.place().clone(),
            dev: unique("v"),
            ifindex: 0,
            mac: [0x02, 0x88, 0, 0, 0, mac],
            v4: [10, 88, 0, last].into(),
            v6: std::net::Ipv6Addr::from(0xFD88_u128 << 112 | u128::from(last)),
        };
        let (port, container) = (end(&hosts[1], 2, 254), end(&hosts[2], 1, 1));
        Ok(Self { peer, uplink, port, container, _hosts: hosts })
    }

    fn ip(&self, arguments: &str) -> Result<()> {
        self.uplink.place.ip(arguments).map(|_| ())
    }

    /// The container comes.
    fn appear(&mut self) -> Result<()> {
        pair(&mut self.port, &mut self.container)?;
        self.container.has_its_addresses()?;
        self.container.knows(&self.port)?;
        let gateway = self.port.v4;
        self.container.place.ip(&format!("route add default via {gateway} dev {}", self.container.dev))?;
        Ok(())
    }

    /// Gives the host-side end another name. Older kernels want it to be down meanwhile.
    fn rename(&mut self, name: String) -> Result<()> {
        self.ip(&format!("link set {} down", self.port.dev))?;
        self.ip(&format!("link set {} name {name}", self.port.dev))?;
        self.port.dev = name;
        self.ip(&format!("link set {} up", self.port.dev))
    }

    /// The peer asks the container, from a port of its own; the way leads by `dev`.
    fn talk(&self, dev: &str, port: u16) -> Result<collector_tests::talk::Talk> {
        let by = End { dev: dev.to_owned(), ..self.port.clone() };
        by.wait_for_carrier()?;
        by.knows(&self.container)?;
        self.container.wait_for_carrier()?;
        self.ip(&format!("route replace {}/32 dev {dev}", self.container.v4))?;
        let at = SocketAddr::from((self.container.v4, ANSWERS));
        talk(&self.peer.place, (self.peer.v4, port).into(), at)
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_an_interface_is_follows_it() -> Result<()> {
    let mut lab = Lab::new()?;
    let names = [unique("n"), unique("n")];
    let units = vec![
        declared("web", &[&names[0]], &[])?,
        declared("range", &[], &[format!("{}/32", lab.container.v4)])?,
    ];
    let options = Options { units, forwarded: true, ..options() };
    let collector = Running::start(&lab.uplink.place, options)?;
    let absent = format!("{} of web, which is watched once it comes", names[0]);
    assert!(collector.started.missing.contains(&absent), "{:?}", collector.started.missing);
    let mut books = Books::new();
    let mut behind_a_host_side_end = |unit: &str, lab: &Lab, dev: &str, port| -> Result<()> {
        let talk = lab.talk(dev, port)?;
        books.was_asked(unit, &talk).was_asked("forwarded", &talk);
        Ok(())
    };
    lab.appear()?;
    let answering = Host::new(&lab.container, &[])?;
    collector.wait_to_say(&format!("{} is {UNKNOWN}", lab.port.dev))?;
    behind_a_host_side_end("range", &lab, &lab.port.dev, 40_000)?;
    // A name that a unit declares.
    lab.rename(names[0].clone())?;
    collector.wait_to_say(&format!("{} is {BEHIND}", names[0]))?;
    behind_a_host_side_end("web", &lab, &names[0], 40_001)?;
    lab.rename(names[1].clone())?;
    let dev = &*names[1];
    collector.wait_to_say(&format!("{dev} is {UNKNOWN}"))?;
    behind_a_host_side_end("range", &lab, dev, 40_002)?;
    // A bridge comes, and becomes its master, whose address the container's packets go to.
    lab.ip("link add br0 address 02:88:00:00:00:02 type bridge mcast_snooping 0")?;
    lab.ip("link set br0 up")?;
    collector.wait_to_say(BRIDGE)?;
    lab.ip(&format!("link set {dev} master br0"))?;
    collector.wait_to_say(&format!("{BRIDGE}; host-side ends lie behind it"))?;
    behind_a_host_side_end("range", &lab, "br0", 40_003)?;
    lab.ip(&format!("link set {dev} nomaster"))?;
    collector.wait_to_say(BRIDGE)?;
    behind_a_host_side_end("range", &lab, dev, 40_004)?;
    // With an address of the host's it is an uplink, and the range is routed between two of them.
    lab.ip(&format!("addr add {}/24 dev {dev}", lab.port.v4))?;
    collector.wait_to_say(&format!("{dev} is uplink: has a routable address of this host"))?;
    let between = lab.talk(dev, 40_005)?;
    lab.ip(&format!("addr del {}/24 dev {dev}", lab.port.v4))?;
    collector.wait_to_say(&format!("{dev} is {UNKNOWN}"))?;
    behind_a_host_side_end("range", &lab, dev, 40_006)?;
    books.was_asked("range", &between).asked("forwarded", &between);
    drop(answering);
    lab.ip(&format!("link del {dev}"))?;
    collector.wait_to_say(&format!("{dev} is gone"))?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    books.assert_kept(&finished);
    let roles: Vec<_> = finished.status.interfaces.iter().map(|it| (&*it.name, &*it.role)).collect();
    let mut want = vec![("lo", "not selected"), (&*lab.uplink.dev, "uplink"), ("br0", "stacked")];
    want.sort_by_key(|(name, _)| roles.iter().position(|(it, _)| it == name));
    assert_eq!(roles, want);
    assert_eq!(steps(&finished.events, "web"), ["create", "start", "stop", "delete"]);
    assert_eq!(steps(&finished.events, "range"), ["create", "start", "stop", "delete"]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn records_and_counters_agree_on_which_side_of_an_interface_a_unit_is() -> Result<()> {
    for side in [None, Some(Side::Behind)] {
        let mut lab = Lab::new()?;
        let unit = Declared { side, ..declared("web", &[&lab.port.dev], &[])? };
        let collector =
            Running::start(&lab.uplink.place, Options { units: vec![unit], forwarded: true, ..options() })?;
        lab.appear()?;
        let answering = Host::new(&lab.container, &[])?;
        let dev = lab.port.dev.clone();
        let said = |is| {
            if side.is_some() { "declared: declared by web, which is behind it, as it is said" } else { is }
        };
        collector.wait_to_say(&format!("{dev} is {}", said(BEHIND)))?;
        let before = lab.talk(&dev, 40_000)?;
        lab.ip(&format!("addr add {}/24 dev {dev}", lab.port.v4))?;
        if side.is_none() {
            collector.wait_to_say(&format!("{dev} is {BESIDE}"))?;
        }
        let after = lab.talk(&dev, 40_001)?;
        let finished = collector.stop()?;
        assert_balanced(&finished);
        drop(answering);
        let mut books = Books::new();
        books.was_asked("forwarded", &before).was_asked("web", &before);
        // What goes out by an interface is sent by who is on the host's side of it.
        match side {
            None => books.asked("web", &after).asked("forwarded", &after),
            Some(_) => books.was_asked("web", &after).was_asked("forwarded", &after),
        };
        books.assert_kept(&finished);
        let is_source = |port| {
            let record = events::flows(&finished.events)
                .find(|flow| &*flow.context_id == "web" && events::port_of(flow.source.as_ref()) == port);
            let [source, destination] =
                record.map(|it| [it.source.clone(), it.destination.clone()]).unwrap_or_default();
            [source, destination].map(|end| end.is_some_and(|end| &*end.id == "web"))
        };
        assert_eq!(is_source(40_000), [false, true], "{side:?}");
        assert_eq!(is_source(40_001), [side.is_none(), side.is_some()], "{side:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_cannot_be_watched_is_named_once() -> Result<()> {
    let lab = Lab::new()?;
    let collector = Running::start(&lab.uplink.place, options())?;
    let host = &lab.uplink.place;
    let shell = |line: &str| host.within(|| command::run("sh", &["-c", line]));
    // A name that the kernel takes, and that is no text.
    shell("ip link add \"$(printf 'w\\3771')\" type veth peer name before")?;
    collector.wait_to_say(
        "w\\xff1 is not watched: its name is no UTF-8; give it another: ip link set NAME name OTHER",
    )?;
    host.ip("link set before mtu 1400")?;
    host.ip("link set before name after")?;
    // A pair that is here with both ends, and down, waits.
    let said = collector.wait_to_say(&format!("after is {IDLE}"))?;
    assert!(!said.iter().any(|sentence| sentence.contains("not watched")), "again: {said:?}");
    shell("ip link set \"$(printf 'w\\3771')\" name text")?;
    collector.wait_to_say(&format!("text is {IDLE}"))?;
    host.ip("link set text up")?;
    collector.wait_to_say(&format!("text is {UNKNOWN}"))?;
    let finished = collector.stop()?;
    assert!(finished.status.interfaces.iter().any(|it| it.name == "text" && it.hook == "ingress+egress"));
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_bridge_that_is_named_beside_its_port_is_said_to_count_twice() -> Result<()> {
    let mut lab = Lab::new()?;
    lab.appear()?;
    lab.ip("link add br0 type bridge")?;
    lab.ip(&format!("link set {} master br0", lab.port.dev))?;
    let units = vec![declared("bridge", &["br0"], &[])?, declared("port", &[&lab.port.dev], &[])?];
    let collector = Running::start(&lab.uplink.place, Options { units, ..options() })?;
    let want = format!(
        "sums without doubles: a packet that crosses br0 and {} below it is counted at both",
        lab.port.dev
    );
    assert!(collector.started.missing.contains(&want), "{:?}", collector.started.missing);
    collector.stop()?;
    Ok(())
}
