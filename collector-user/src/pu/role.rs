//! What an interface is: the first that matches of the list that decides it. Never by device flags, which bonds set
//! on their slaves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use collector_ebpf::abi::{
    flow::LOOPBACK_BOUNDARY,
    pu::{Role, index, role},
};

use crate::{
    host::links::Link,
    pu::registry::{Side, Unit},
};

/// What an interface is to the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Part of the boundary of this host.
    Uplink,
    /// The host-side end of a declared unit, or an uplink that is one unit's alone.
    Declared,
    /// The host-side end of a container that was found.
    Container,
    /// The host-side end of something that nobody has named.
    Unknown,
    /// A tunnel with an address of this host: a boundary with a sum of its own.
    Overlay,
    /// The loopback device.
    Loopback,
    /// Above an attached device, or a port's master: its packets are seen below.
    Stacked,
    /// One end of a pair, both of whose ends are here, and which is not up: nothing can cross it, and an engine that has just
    /// made it is about to move one of them away. A program on that one would go with it.
    Idle,
    /// Not asked for.
    NotSelected,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Uplink => "uplink",
            Self::Declared => "declared",
            Self::Container => "container",
            Self::Unknown => "unknown",
            Self::Overlay => "overlay",
            Self::Loopback => "loopback",
            Self::Stacked => "stacked",
            Self::Idle => "idle",
            Self::NotSelected => "not selected",
        })
    }
}

/// An interface's role and why it has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What it is.
    pub kind: Kind,
    /// Why, in words for `status`.
    pub reason: String,
}

impl Decision {
    fn new(kind: Kind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }

    /// The programs belong on it.
    pub fn is_attached(&self) -> bool {
        !matches!(self.kind, Kind::Stacked | Kind::Idle | Kind::NotSelected)
    }
}

/// Kinds of device that stand above others.
const STACKED: [&str; 9] = ["bridge", "bond", "team", "vlan", "vrf", "ifb", "dummy", "macsec", "hsr"];
/// Kinds of device that carry packets inside packets.
const OVERLAYS: [&str; 16] = [
    "vxlan",
    "geneve",
    "gre",
    "gretap",
    "ip6gre",
    "ip6gretap",
    "erspan",
    "ip6erspan",
    "ipip",
    "ip6tnl",
    "sit",
    "vti",
    "vti6",
    "xfrm",
    "wireguard",
    "gtp",
];

/// Whether an interface was chosen on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// Nothing was said of any.
    Unsaid,
    /// Others were.
    Others,
    /// A pattern matches it: it is what the list says, among those that match.
    ByPattern,
    /// By its name: it is watched whatever it is.
    ByName,
}

/// What the command line and the configuration say of an interface.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// The unit that declares it.
    pub unit: Option<&'a Unit>,
    /// The unit that was found in the network namespace into which it leads.
    pub found: Option<&'a Unit>,
    /// Whether it was chosen.
    pub chosen: Chosen,
}

/// Decides what an interface is.
pub fn decide(link: &Link, links: &BTreeMap<u32, Link>, said: Said<'_>) -> Decision {
    if said.chosen == Chosen::Others {
        return Decision::new(Kind::NotSelected, "not named by --iface");
    }
    let routable = link.addresses.iter().any(|address| address.routable);
    if link.loopback {
        return match said.chosen {
            Chosen::ByName => Decision::new(Kind::Loopback, "named"),
            _ => Decision::new(Kind::NotSelected, "loopback is watched only when named"),
        };
    }
    if let Some(unit) = said.unit {
        return Decision::new(Kind::Declared, format!("declared by {}, {}", unit.id, lie(link, unit)));
    }
    if let Some(found) = said.found {
        return Decision::new(Kind::Container, format!("the host-side end of {} {}", found.kind, found.id));
    }
    let named = said.chosen == Chosen::ByName;
    let tunnel = OVERLAYS.contains(&link.kind.as_str());
    if tunnel && named {
        return Decision::new(Kind::Overlay, "named");
    }
    if tunnel || link.kind == "tun" && link.raw_ip && routable {
        return overlay(link, routable);
    }
    if STACKED.contains(&link.kind.as_str()) && !named {
        return Decision::new(
            Kind::Stacked,
            format!("a {}: its packets are seen on the interfaces below", link.kind),
        );
    }
    if let Some(lower) =
        link.lower.filter(|_| link.lower_namespace.is_none()).and_then(|lower| links.get(&lower))
        && !link.is_pair()
        && !named
    {
        return Decision::new(Kind::Stacked, format!("above {}", lower.name));
    }
    if !link.bus.is_empty() {
        return Decision::new(Kind::Uplink, format!("on a {} bus", link.bus));
    }
    if routable {
        return Decision::new(Kind::Uplink, "has a routable address of this host");
    }
    if named && STACKED.contains(&link.kind.as_str()) {
        return Decision::new(Kind::Uplink, "named");
    }
    if link.is_pair() && link.lower_namespace.is_none() && !link.up && !named {
        return Decision::new(Kind::Idle, "not up, and its other end is here too");
    }
    Decision::new(Kind::Unknown, "the host-side end of something that nobody has named")
}

fn overlay(link: &Link, routable: bool) -> Decision {
    if routable {
        Decision::new(Kind::Overlay, format!("a {} tunnel with an address of this host", link.kind))
    } else {
        Decision::new(Kind::Stacked, format!("a {} tunnel without an address of this host", link.kind))
    }
}

/// On which side of an interface a unit that declares it is, and why.
fn side(link: &Link, unit: &Unit) -> (Side, &'static str) {
    unit.side.map_or_else(|| side_unsaid(link), |side| (side, "as it is said"))
}

/// The same where the unit does not say it.
pub fn side_unsaid(link: &Link) -> (Side, &'static str) {
    if !link.bus.is_empty() {
        (Side::Host, "for it is a device of this host's")
    } else if link.addresses.iter().any(|address| address.routable) {
        (Side::Host, "for it has an address of this host")
    } else {
        (Side::Behind, "for it has no address of this host")
    }
}

/// The same in words.
fn lie(link: &Link, unit: &Unit) -> String {
    match side(link, unit) {
        (Side::Behind, why) => format!("which is behind it, {why}"),
        (Side::Host, why) => format!("which is on the host's side of it, {why}"),
    }
}

/// Whether the host is the remote end of what crosses an interface that has a boundary of its own: what is counted there
/// lies behind it. `None` where it has none.
pub fn is_far(link: &Link, decision: &Decision, unit: Option<&Unit>) -> Option<bool> {
    match decision.kind {
        Kind::Overlay => Some(false),
        Kind::Declared => Some(unit.is_none_or(|unit| side(link, unit).0 == Side::Behind)),
        Kind::Container | Kind::Unknown => Some(true),
        Kind::Uplink | Kind::Loopback | Kind::Stacked | Kind::Idle | Kind::NotSelected => None,
    }
}

/// Devices on whose way into the host lie host-side ends: the bridges that those are ports of, and what stands above
/// either. A packet that is routed to one, or came in by one, is counted at such an end.
pub fn inside(links: &BTreeMap<u32, Link>, is_far: impl Fn(u32) -> bool) -> BTreeSet<u32> {
    let mut inside = BTreeSet::new();
    loop {
        let before = inside.len();
        for link in links.values() {
            if is_far(link.index) || inside.contains(&link.index) {
                inside.extend(link.master);
            } else if link.lower.is_some_and(|lower| {
                link.lower_namespace.is_none() && (is_far(lower) || inside.contains(&lower))
            }) && !link.is_pair()
            {
                inside.insert(link.index);
            }
        }
        if inside.len() == before {
            return inside;
        }
    }
}

/// Interfaces that count, and lie above another that does: each packet that crosses both is counted at both. First the
/// upper one. What a tunnel carries is counted apart from what carries it.
pub fn doubled(links: &BTreeMap<u32, Link>, kind: impl Fn(u32) -> Option<Kind>) -> Vec<(u32, u32)> {
    let counts = |index: &u32| {
        matches!(
            kind(*index),
            Some(Kind::Uplink | Kind::Declared | Kind::Container | Kind::Overlay | Kind::Unknown)
        )
    };
    let mut pairs = Vec::new();
    for link in links.values().filter(|link| counts(&link.index)) {
        if let Some(master) = link.master.filter(counts) {
            pairs.push((master, link.index));
        }
        let is_above = link.lower_namespace.is_none() && !link.is_pair();
        if let Some(lower) = link.lower.filter(|lower| is_above && counts(lower))
            && kind(link.index) != Some(Kind::Overlay)
        {
            pairs.push((link.index, lower));
        }
    }
    pairs
}

/// What the programs are told of an interface that they are not attached to, if it matters where packets come from or go
/// to.
pub fn for_others(link: &Link, inside: &BTreeSet<u32>) -> Option<Role> {
    let flags = match link.kind.as_str() {
        "ifb" => role::IFB,
        _ if inside.contains(&link.index) => role::INSIDE,
        _ => return None,
    };
    Some(Role { ifindex: link.index, flags, ..Role::default() })
}

/// What the programs are told of an attached interface. `boundary` is an index of its own from 4097 on, `number` names
/// the interface in flow counts, `behind` is the unit behind it, if it is the end of one that nobody declares.
pub fn for_programs(
    link: &Link,
    decision: &Decision,
    unit: Option<&Unit>,
    boundary: u16,
    number: u16,
    behind: u16,
) -> Role {
    let raw = if link.raw_ip { role::RAW_IP } else { 0 };
    let far = if is_far(link, decision, unit) == Some(true) { role::FAR } else { 0 };
    let (flags, pu, boundary) = match decision.kind {
        Kind::Uplink => (role::UPLINK, index::HOST, 0),
        Kind::Loopback => (role::LOOPBACK, index::HOST, LOOPBACK_BOUNDARY),
        Kind::Overlay => (role::OWN, index::OVERLAY, boundary),
        Kind::Declared => (role::OWN | far, unit.map_or(index::UNKNOWN, |unit| unit.index), boundary),
        _ => (far, behind, boundary),
    };
    Role { ifindex: link.index, boundary, pu, interface: number, flags: flags | raw, uplink: 0 }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use collector_ebpf::abi::pu::{index, role};

    use super::{Chosen, Decision, Kind, Said, decide, doubled, for_others, for_programs, inside};
    use crate::{
        host::links::{Address, Link},
        pu::registry::{Declared, Registry, Side},
    };

    fn link(kind: &str) -> Link {
        Link { index: 7, name: "x0".into(), kind: kind.into(), up: true, ..Link::default() }
    }

    fn with_address(mut link: Link) -> Link {
        link.addresses.push(Address { ip: [10, 0, 0, 1].into(), routable: true });
        link
    }

    fn kind(link: &Link, chosen: Chosen) -> Kind {
        decide(link, &BTreeMap::new(), Said { unit: None, found: None, chosen }).kind
    }

    #[test]
    fn the_list_in_its_order() {
        assert_eq!(kind(&link("bridge"), Chosen::Unsaid), Kind::Stacked);
        assert_eq!(
            kind(&with_address(link("bridge")), Chosen::Unsaid),
            Kind::Stacked,
            "even with an address"
        );
        assert_eq!(kind(&with_address(link("wireguard")), Chosen::Unsaid), Kind::Overlay);
        assert_eq!(kind(&link("vxlan"), Chosen::Unsaid), Kind::Stacked);
        assert_eq!(kind(&with_address(link("veth")), Chosen::Unsaid), Kind::Uplink);
        assert_eq!(kind(&link("veth"), Chosen::Unsaid), Kind::Unknown);
        assert_eq!(kind(&Link { bus: "pci".into(), ..link("") }, Chosen::Unsaid), Kind::Uplink);
        assert_eq!(kind(&Link { raw_ip: true, ..with_address(link("tun")) }, Chosen::Unsaid), Kind::Overlay);
        assert_eq!(kind(&link("tun"), Chosen::Unsaid), Kind::Unknown, "a tap of a virtual machine");
    }

    #[test]
    fn an_end_waits_until_it_is_up_or_its_other_end_is_elsewhere() {
        let down = Link { up: false, ..link("veth") };
        assert_eq!(kind(&down, Chosen::Unsaid), Kind::Idle);
        assert_eq!(kind(&Link { lower_namespace: Some(0), ..down.clone() }, Chosen::Unsaid), Kind::Unknown);
        assert_eq!(kind(&down, Chosen::ByName), Kind::Unknown, "watched whatever it is");
        assert_eq!(kind(&Link { up: false, ..link("tun") }, Chosen::Unsaid), Kind::Unknown);
    }

    #[test]
    fn what_is_named_is_attached_and_nothing_else() {
        assert_eq!(kind(&with_address(link("bridge")), Chosen::ByName), Kind::Uplink);
        assert_eq!(kind(&link("bridge"), Chosen::ByName), Kind::Uplink);
        assert_eq!(kind(&with_address(link("veth")), Chosen::Others), Kind::NotSelected);
        let lo = Link { loopback: true, ..with_address(link("")) };
        assert_eq!(kind(&lo, Chosen::Unsaid), Kind::NotSelected);
        assert_eq!(kind(&lo, Chosen::ByName), Kind::Loopback);
    }

    #[test]
    fn a_pattern_takes_no_packet_twice() {
        assert_eq!(kind(&with_address(link("bridge")), Chosen::ByPattern), Kind::Stacked);
        assert_eq!(kind(&with_address(link("veth")), Chosen::ByPattern), Kind::Uplink);
        assert_eq!(kind(&link("vxlan"), Chosen::ByName), Kind::Overlay, "named, and so watched");
    }

    #[test]
    fn what_lies_above_another_device_is_stacked() {
        let upper = Link { lower: Some(3), ..with_address(link("macvlan")) };
        let lower = Link { index: 3, name: "eth0".into(), ..Link::default() };
        let links = BTreeMap::from([(3, lower)]);
        let decision = decide(&upper, &links, Said { unit: None, found: None, chosen: Chosen::Unsaid });
        assert_eq!(decision, Decision::new(Kind::Stacked, "above eth0"));
        // Inside a container the parent is in another namespace, and the macvlan is all there is.
        let alone = Link { lower_namespace: Some(0), ..upper };
        assert_eq!(
            decide(&alone, &links, Said { unit: None, found: None, chosen: Chosen::Unsaid }).kind,
            Kind::Uplink
        );
    }

    #[test]
    fn what_is_routed_to_a_bridge_of_host_side_ends_is_inside() {
        let link = |index, kind: &str, master, lower| {
            (index, Link { index, kind: kind.into(), master, lower, ..Link::default() })
        };
        let links: BTreeMap<_, _> = [
            link(1, "", None, None),
            link(2, "bridge", None, None),
            link(3, "veth", Some(2), Some(9)),
            link(4, "vlan", None, Some(2)),
            link(5, "bridge", None, None),
            link(6, "", Some(5), None),
            link(7, "macvlan", None, Some(1)),
            link(8, "vrf", None, None),
            link(9, "vlan", Some(8), Some(4)),
        ]
        .into();
        let found = inside(&links, |index| index == 3);
        assert_eq!(found, BTreeSet::from([2, 4, 8, 9]));
        assert_eq!(for_others(&links[&2], &found).map(|role| role.flags), Some(role::INSIDE));
        assert_eq!(for_others(&links[&5], &found), None);
        let ifb = Link { index: 10, kind: "ifb".into(), ..Link::default() };
        assert_eq!(for_others(&ifb, &found).map(|role| (role.ifindex, role.flags)), Some((10, role::IFB)));
    }

    #[test]
    fn what_is_watched_above_what_is_watched_counts_twice() {
        let link = |index, kind: &str, master, lower| {
            (index, Link { index, kind: kind.into(), master, lower, ..Link::default() })
        };
        let links: BTreeMap<_, _> = [
            link(1, "", None, None),
            link(2, "bridge", None, None),
            link(3, "veth", Some(2), Some(4)),
            link(4, "veth", None, Some(3)),
            link(5, "vlan", None, Some(1)),
            link(6, "vxlan", None, Some(1)),
            link(7, "macvlan", None, Some(1)),
        ]
        .into();
        let kind = |index| Some(if index == 6 { Kind::Overlay } else { Kind::Declared });
        assert_eq!(doubled(&links, kind), [(2, 3), (5, 1), (7, 1)]);
        // One of the two, whichever it is.
        assert_eq!(doubled(&links, |index| kind(index).filter(|_| index != 1 && index != 3)), []);
        assert_eq!(
            doubled(&links, |index| Some(if index == 2 { Kind::Stacked } else { Kind::Unknown })),
            [(5, 1), (6, 1), (7, 1)]
        );
    }

    #[test]
    fn a_declared_unit_is_where_it_is_said_to_be_or_where_the_interface_says() {
        let unit = |side| {
            let declared =
                Declared { id: "web".into(), interfaces: vec!["x0".into()], side, ..Declared::default() };
            Registry::new(&[declared]).unwrap()
        };
        let bare = link("veth");
        let addressed = with_address(link("veth"));
        let device = Link { bus: "pci".into(), ..link("") };
        for (side, link, is_far, why) in [
            (None, &bare, true, "behind it, for it has no address of this host"),
            (None, &addressed, false, "on the host's side of it, for it has an address of this host"),
            (None, &device, false, "on the host's side of it, for it is a device of this host's"),
            (Some(Side::Behind), &addressed, true, "behind it, as it is said"),
            (Some(Side::Host), &bare, false, "on the host's side of it, as it is said"),
        ] {
            let registry = unit(side);
            let unit = registry.of_interface("x0");
            let decision = decide(link, &BTreeMap::new(), Said { unit, found: None, chosen: Chosen::Unsaid });
            assert_eq!(decision, Decision::new(Kind::Declared, format!("declared by web, which is {why}")));
            assert_eq!(super::is_far(link, &decision, unit), Some(is_far), "{why}");
            let flags = for_programs(link, &decision, unit, 4096, 1, 3).flags;
            assert_eq!(flags, if is_far { role::OWN | role::FAR } else { role::OWN }, "{why}");
        }
    }

    #[test]
    fn directions_are_the_units() {
        let behind = for_programs(&link("veth"), &Decision::new(Kind::Unknown, ""), None, 4096, 1, 101);
        assert_eq!((behind.flags, behind.pu, behind.boundary), (role::FAR, 101, 4096));
        let uplink =
            for_programs(&with_address(link("veth")), &Decision::new(Kind::Uplink, ""), None, 4097, 2, 101);
        assert_eq!((uplink.flags, uplink.pu, uplink.boundary), (role::UPLINK, index::HOST, 0));
    }
}
