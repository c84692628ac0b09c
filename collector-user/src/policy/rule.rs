//! Policies: a rule, and whose flows it is about.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use collector_ebpf::{abi::pu::index, wire::UNKNOWN};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::networks::ExternalNetwork;
use crate::{
    event::{ActionType, TagStore, Text},
    pu::{registry::Unit, trace::Directions, unit_glob::UnitGlob},
};

/// A rule, and whose flows it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which units.
    pub selector: Selector,
    /// Flows that the remote end opens, that the unit opens, or both.
    pub directions: Directions,
    /// What is done with which of them.
    pub rule: Arc<Rule>,
}

/// Which units a policy is about: those of which all holds that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// One of these is its id. A pattern never means `forwarded`, `unknown` or `overlay`, which are sums and no units:
    /// a rule for everybody would be applied twice to what one unit sends through another's boundary. None: any id.
    pub units: Vec<UnitGlob>,
    /// Its namespace is this, to the letter.
    pub namespace: Option<Text>,
    /// It has all of these tags, each as `key=value`.
    pub tags: Vec<Text>,
}

/// What a policy can know of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The index.
    pub index: u16,
    /// The context id.
    pub id: Text,
    /// The namespace.
    pub namespace: Text,
    /// The tags.
    pub tags: Arc<TagStore>,
}

impl From<&Unit> for Subject {
    fn from(unit: &Unit) -> Self {
        Self {
            index: unit.index,
            id: Text::clone(&unit.id),
            namespace: Text::clone(&unit.namespace),
            tags: Arc::clone(&unit.tags),
        }
    }
}

impl Subject {
    /// It is a sum of what is nobody's.
    pub(super) const fn is_sum(&self) -> bool {
        matches!(self.index, index::FORWARDED | index::UNKNOWN | index::OVERLAY)
    }
}

impl Selector {
    /// Whether it is about a unit.
    pub fn selects(&self, unit: &Subject) -> bool {
        let is_named = |glob: &UnitGlob| {
            if unit.is_sum() { glob.literal() == Some(&*unit.id) } else { glob.matches(&unit.id) }
        };
        let by_id = if self.units.is_empty() { !unit.is_sum() } else { self.units.iter().any(is_named) };
        by_id
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == unit.namespace)
            && self.tags.iter().all(|tag| unit.tags.as_slice().contains(tag))
    }

    /// It selects nothing by anything.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && self.namespace.is_none() && self.tags.is_empty()
    }
}

/// What is done with which flows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The policy's id.
    pub id: Text,
    /// Where the remote end is.
    pub remote: Remote,
    /// What the flow is.
    pub service: Service,
    /// What is done.
    pub action: Action,
    /// Whether the action has the bit that asks for a log.
    pub log: bool,
    /// Whether it only says what it would do.
    pub observe: Observe,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The flow may pass.
    Accept {
        /// It is to be encrypted, which is said and not done.
        encrypt: bool,
    },
    /// It may not.
    Reject,
}

/// Whether a rule only says what it would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Observe {
    /// It does it.
    #[default]
    None,
    /// It says so, and the search goes on.
    Continue,
    /// It does it, and says so, where no rule of another kind does anything.
    Apply,
}

impl Observe {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Continue => "continue",
            Self::Apply => "apply",
        }
    }

    /// What the word stands for.
    pub fn of(name: &str) -> Option<Self> {
        [Self::None, Self::Continue, Self::Apply].into_iter().find(|observe| observe.name() == name)
    }
}

impl Rule {
    /// The bits of what it does.
    pub fn bits(&self) -> ActionType {
        let action = match self.action {
            Action::Accept { encrypt: true } => ActionType::ACCEPT | ActionType::ENCRYPT,
            Action::Accept { encrypt: false } => ActionType::ACCEPT,
            Action::Reject => ActionType::REJECT,
        };
        if self.log { action | ActionType::LOG } else { action }
    }

    /// Whether what it says of services holds for a packet of this protocol, or [`UNKNOWN`], that was not understood: whatever its
    /// ports may be, if it accepts; if they may be its own, where it rejects. Rules about every service are not meant.
    pub(super) fn is_about_unread(&self, protocol: u8) -> bool {
        let Service { protocol: own, ports } = &self.service;
        let Some(own) = *own else { return false };
        let may_be = protocol == UNKNOWN || own == protocol;
        may_be && (self.action == Action::Reject || protocol != UNKNOWN && ports.is_empty())
    }

    /// Whether it is about a flow.
    pub fn is_about(&self, flow: &Opened) -> bool {
        self.remote.holds(flow.remote) && self.service.holds(flow.protocol, flow.port)
    }
}

/// A flow as rules see it, from one of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The other end. An IPv4 address in the form `::ffff:a.b.c.d` is taken for what it is.
    pub remote: IpAddr,
    /// The IP protocol number.
    pub protocol: u8,
    /// The port of the end that did not open it; type and code of an ICMP message, the type in the upper octet; 0 where
    /// the protocol has neither.
    pub port: u16,
}

/// Where a remote end may be: in any of these networks; everywhere where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Remote {
    /// Networks. One of IPv6 holds no IPv4 address, `::/0` neither.
    pub cidr: Vec<IpNet>,
    /// Networks that have a name.
    pub networks: Vec<Arc<ExternalNetwork>>,
}

impl Remote {
    /// Whether it is everywhere.
    pub fn is_everywhere(&self) -> bool {
        self.cidr.is_empty() && self.networks.is_empty()
    }

    /// All networks.
    pub fn all(&self) -> impl Iterator<Item = IpNet> {
        let named = self.networks.iter().flat_map(|network| &network.cidr);
        self.cidr.iter().chain(named).copied().map(canonical)
    }

    /// Whether an address is in it.
    pub fn holds(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.is_everywhere() || self.all().any(|network| network.contains(&address))
    }
}

/// A network without bits beyond its length; one of IPv4 addresses in the form that IPv6 sockets have for them is one of
/// IPv4.
pub(super) fn canonical(network: IpNet) -> IpNet {
    match network.trunc() {
        IpNet::V6(six) => mapped(six).map_or(IpNet::V6(six), IpNet::V4),
        four @ IpNet::V4(_) => four,
    }
}

fn mapped(network: Ipv6Net) -> Option<Ipv4Net> {
    let address = network.addr().to_ipv4_mapped()?;
    Ipv4Net::new(address, network.prefix_len().checked_sub(MAPPED_LENGTH)?).ok()
}

/// All IPv4 addresses, as IPv6 has them (RFC 4291, section 2.5.5.2).
pub(super) const MAPPED: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0xFFFF, 0, 0);
/// The length of that prefix.
pub(super) const MAPPED_LENGTH: u8 = 96;

/// What a flow may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Service {
    /// The IP protocol number; none: any, with whatever port.
    pub protocol: Option<u8>,
    /// Its ports, or types and codes; none: all.
    pub ports: Vec<Ports>,
}

impl Service {
    /// Whether it is everything.
    pub const fn is_everything(&self) -> bool {
        self.protocol.is_none()
    }

    /// Whether a protocol and a port are among it.
    pub fn holds(&self, protocol: u8, port: u16) -> bool {
        let Some(own) = self.protocol else { return true };
        own == protocol && (self.ports.is_empty() || self.ports.iter().any(|ports| ports.holds(port)))
    }
}

/// A range of ports; of ICMP, one of types and codes, a type being the upper octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last; not before the first.
    pub last: u16,
}

impl Ports {
    /// One alone.
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Whether it has a port.
    pub const fn holds(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}
