//! Processing units that the configuration declares.

use std::{collections::HashMap, ops::Range, sync::Arc};

use collector_ebpf::abi::pu::USERS;
use ipnet::IpNet;
use serde::Deserialize;
use toml::Spanned;

use super::{
    cidr,
    error::{Fault, Wrong, line_of},
};
use crate::{
    event::{TagStore, Text},
    pu::{
        cgroup_glob::CgroupGlob,
        port::Ports,
        registry::{Declared, Registry, Side},
        user::User,
    },
};

/// A declared processing unit: everything that any of its matchers matches.
#[derive(Clone, Debug, PartialEq)]
pub struct PuConfig {
    /// Its id; no other has the same.
    pub id: Text,
    /// Its namespace; empty without.
    pub namespace: Text,
    /// Its tags, `key=value` each.
    pub tags: Arc<TagStore>,
    /// The names of interfaces: the host-side ends of containers, or uplinks.
    pub interface: Vec<String>,
    /// On which side of them it is; none: each interface tells by what it is.
    pub side: Option<Side>,
    /// Networks, without bits beyond their length; no two units share one.
    pub cidr: Vec<IpNet>,
    /// Cgroups, with what is below them.
    pub cgroup: Vec<CgroupGlob>,
    /// Network namespaces: names below `/run/netns`, or paths.
    pub netns: Vec<String>,
    /// Ports of this host.
    pub port: Vec<Ports>,
    /// Users whose sockets are meant.
    pub uid: Vec<User>,
}

/// A table of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPu {
    id: Spanned<String>,
    #[serde(default)]
    namespace: Text,
    #[serde(default)]
    tags: Vec<Spanned<String>>,
    #[serde(default)]
    interface: Vec<Spanned<String>>,
    side: Option<Spanned<RawSide>>,
    #[serde(default)]
    cidr: Vec<Spanned<String>>,
    #[serde(default)]
    cgroup: Vec<Spanned<String>>,
    #[serde(default)]
    netns: Vec<Spanned<String>>,
    #[serde(default)]
    port: Vec<Spanned<RawNumber>>,
    #[serde(default)]
    uid: Vec<Spanned<RawNumber>>,
}

/// A number, or text that may be one.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number or text")]
enum RawNumber {
    Number(i64),
    Text(String),
}

impl From<RawNumber> for String {
    fn from(raw: RawNumber) -> Self {
        match raw {
            RawNumber::Number(number) => number.to_string(),
            RawNumber::Text(text) => text,
        }
    }
}

/// The words for [`Side`].
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawSide {
    Behind,
    Host,
}

impl From<RawSide> for Side {
    fn from(side: RawSide) -> Self {
        match side {
            RawSide::Behind => Self::Behind,
            RawSide::Host => Self::Host,
        }
    }
}

impl From<&PuConfig> for Declared {
    fn from(unit: &PuConfig) -> Self {
        Self {
            id: unit.id.to_string(),
            namespace: unit.namespace.to_string(),
            tags: unit.tags.as_slice().iter().map(ToString::to_string).collect(),
            interfaces: unit.interface.clone(),
            side: unit.side,
            ranges: unit.cidr.clone(),
            cgroups: unit.cgroup.clone(),
            namespaces: unit.netns.clone(),
            ports: unit.port.clone(),
            users: unit.uid.clone(),
        }
    }
}

/// What at most one unit may claim.
#[derive(PartialEq, Eq, Hash)]
enum Claim {
    Interface(String),
    Network(IpNet),
    Cgroup(String),
    Namespace(String),
    Ports(Ports),
    User(User),
}

/// Checks the tables of a file one by one, against each other, and their number.
pub(super) fn check(raw: Vec<RawPu>, text: &str) -> Result<Vec<PuConfig>, Wrong> {
    let mut units: Vec<PuConfig> = Vec::with_capacity(raw.len());
    // Where each stands; lines are counted where one is told, since that takes a walk through the file.
    let mut places: Vec<Range<usize>> = Vec::with_capacity(raw.len());
    let mut ids: HashMap<String, usize> = HashMap::new();
    let mut claims: HashMap<Claim, Text> = HashMap::new();
    for raw in raw {
        let span = raw.id.span();
        let unit = Unit { id: raw.id.into_inner() };
        let first = ids.insert(unit.id.clone(), span.start);
        if let Some(fault) = unit.id_fault(first.map(|first| line_of(text, first))) {
            return Err(Wrong { span, fault });
        }
        let matchers = [&raw.interface, &raw.cidr, &raw.cgroup, &raw.netns];
        let numbers = [&raw.port, &raw.uid];
        if matchers.iter().all(|matchers| matchers.is_empty()) && numbers.iter().all(|it| it.is_empty()) {
            return Err(Wrong { span, fault: Fault::NoMatcher { id: unit.id } });
        }
        let side = match raw.side {
            Some(side) if raw.interface.is_empty() => {
                return Err(Wrong { span: side.span(), fault: Fault::SideOfNothing { id: unit.id } });
            }
            side => side.map(|side| side.into_inner().into()),
        };
        let tags = unit.each(raw.tags, Unit::tag)?;
        let interfaces = unit.each(raw.interface, Unit::interface)?;
        let networks = unit.each(raw.cidr, Unit::network)?;
        let cgroups = unit.each(raw.cgroup, Unit::cgroup)?;
        let namespaces = unit.each(raw.netns, Unit::netns)?;
        let ports = unit.each(raw.port, Unit::port)?;
        let users = unit.each(raw.uid, Unit::user)?;
        let id = Text::from(unit.id.as_str());
        let all = interfaces.iter().map(|(span, name)| (span, Claim::Interface(name.clone()), name.clone()));
        // By value: a network may be written in more than one way.
        let all = all.chain(networks.iter().map(|(span, it)| (span, Claim::Network(*it), it.to_string())));
        let all =
            all.chain(cgroups.iter().map(|(span, it)| (span, Claim::Cgroup(it.to_string()), it.to_string())));
        let all =
            all.chain(namespaces.iter().map(|(span, it)| (span, Claim::Namespace(it.clone()), it.clone())));
        let all = all.chain(ports.iter().map(|(span, it)| (span, Claim::Ports(*it), format!("port {it}"))));
        let all =
            all.chain(users.iter().map(|(span, it)| (span, Claim::User(it.clone()), format!("uid {it}"))));
        for (span, claim, matcher) in all {
            match claims.insert(claim, Arc::clone(&id)) {
                Some(other) if other != id => {
                    let fault = Fault::ClaimedTwice { id: unit.id, other: other.to_string(), matcher };
                    return Err(Wrong { span: span.clone(), fault });
                }
                _ => {}
            }
        }
        units.push(PuConfig {
            id,
            namespace: raw.namespace,
            tags: Arc::new(tags.into_iter().map(|(_, tag)| tag).collect()),
            interface: interfaces.into_iter().map(|(_, name)| name).collect(),
            side,
            cidr: networks.into_iter().map(|(_, network)| network).collect(),
            cgroup: cgroups.into_iter().map(|(_, cgroup)| cgroup).collect(),
            netns: namespaces.into_iter().map(|(_, name)| name).collect(),
            port: ports.into_iter().map(|(_, ports)| ports).collect(),
            uid: users.into_iter().map(|(_, user)| user).collect(),
        });
        places.push(span);
    }
    count(&units, &places)?;
    count_users(&units, &places)?;
    Ok(units)
}

/// Whether the programs have room for all users.
fn count_users(units: &[PuConfig], places: &[Range<usize>]) -> Result<(), Wrong> {
    let mut declared = 0;
    for (unit, place) in units.iter().zip(places) {
        declared += unit.uid.len();
        if declared > USERS as usize {
            let fault = Fault::TooManyUsers { id: unit.id.to_string(), most: USERS };
            return Err(Wrong { span: place.clone(), fault });
        }
    }
    Ok(())
}

/// Whether the registry has room for all of them.
fn count(units: &[PuConfig], places: &[Range<usize>]) -> Result<(), Wrong> {
    let declared: Vec<Declared> = units.iter().map(Declared::from).collect();
    Registry::new(&declared).map(drop).map_err(|source| Wrong {
        span: places.get(source.most).cloned().unwrap_or_default(),
        fault: Fault::TooMany { source },
    })
}

/// The unit under check, for the messages.
struct Unit {
    id: String,
}

impl Unit {
    /// Each of those given, checked, and where it stands.
    fn each<T>(
        &self,
        given: Vec<Spanned<impl Into<String>>>,
        check: impl Fn(&Self, String) -> Result<T, Fault>,
    ) -> Result<Vec<(Range<usize>, T)>, Wrong> {
        let mut checked = Vec::with_capacity(given.len());
        for given in given {
            let span = given.span();
            match check(self, given.into_inner().into()) {
                Ok(value) => checked.push((span, value)),
                Err(fault) => return Err(Wrong { span, fault }),
            }
        }
        Ok(checked)
    }

    /// `first` is the line of another unit with this id.
    fn id_fault(&self, first: Option<usize>) -> Option<Fault> {
        let id = || self.id.clone();
        match (self.id.as_str(), first) {
            ("", _) => Some(Fault::EmptyId),
            ("host" | "forwarded" | "unknown" | "overlay", _) => Some(Fault::ReservedId { id: id() }),
            (_, Some(first)) => Some(Fault::DuplicateId { id: id(), first }),
            _ => None,
        }
    }

    fn tag(&self, tag: String) -> Result<String, Fault> {
        match tag.split_once('=') {
            Some((key, _)) if !key.is_empty() => Ok(tag),
            _ => Err(Fault::Tag { id: self.id.clone(), tag }),
        }
    }

    /// What the kernel takes for a name (`dev_valid_name`).
    fn interface(&self, name: String) -> Result<String, Fault> {
        let is_valid = (1..16).contains(&name.len())
            && name != "."
            && name != ".."
            && !name.contains(|character: char| character.is_ascii_whitespace() || "/:".contains(character));
        if name.contains(['*', '?', '[']) {
            return Err(Fault::InterfacePattern { id: self.id.clone(), name });
        }
        if is_valid { Ok(name) } else { Err(Fault::InterfaceName { id: self.id.clone(), name }) }
    }

    #[expect(clippy::needless_pass_by_value, reason = "as the checks of other matchers are")]
    fn cgroup(&self, given: String) -> Result<CgroupGlob, Fault> {
        given.parse().map_err(|source| Fault::Cgroup { id: self.id.clone(), source })
    }

    #[expect(clippy::needless_pass_by_value, reason = "as the checks of other matchers are")]
    fn port(&self, given: String) -> Result<Ports, Fault> {
        given.parse().map_err(|source| Fault::Port { id: self.id.clone(), source })
    }

    /// The kernel's ids are below that which is nobody's; a name is what shadow's `useradd` takes, and more, but for what a line
    /// of the database cannot hold.
    fn user(&self, given: String) -> Result<User, Fault> {
        let user = given.parse::<User>().unwrap_or_else(|never| match never {});
        let is_one = match &user {
            User::Id(id) => *id != u32::MAX,
            User::Name(name) => {
                let first = name.chars().next();
                first.is_some_and(|first| !first.is_ascii_digit() && !"-+#".contains(first))
                    && !name.contains([':', '\n', '\0'])
            }
        };
        if is_one { Ok(user) } else { Err(Fault::User { id: self.id.clone(), given }) }
    }

    /// `ip netns` makes files of these names; others are named by their path.
    fn netns(&self, name: String) -> Result<String, Fault> {
        let is_path = name.starts_with('/') && !name.contains('\0');
        let is_name = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
        if is_path || is_name { Ok(name) } else { Err(Fault::Netns { id: self.id.clone(), name }) }
    }

    fn network(&self, given: String) -> Result<IpNet, Fault> {
        cidr::parse(given).map_err(|source| Fault::Cidr { id: self.id.clone(), source })
    }
}
