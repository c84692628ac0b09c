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
mod tests;
