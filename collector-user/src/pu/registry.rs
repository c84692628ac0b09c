//! The processing units that there are, by the index that the programs count with.

mod found;
mod redeclared;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use collector_ebpf::abi::pu::index;
pub use found::Found;
use ipnet::IpNet;
pub use redeclared::{RedeclareError, Redeclared};

use super::{cgroup_glob::CgroupGlob, indexes::Indexes, port::Ports, user::User};
use crate::event::{TagStore, Text};

/// On which side of its interfaces a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Behind them: they are the host-side ends of what it is.
    Behind,
    /// On the host's: it is what the host does by them.
    Host,
}

/// What the operator declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// The context id.
    pub id: String,
    /// The namespace that records carry.
    pub namespace: String,
    /// Tags, `key=value`.
    pub tags: Vec<String>,
    /// Interfaces that are its boundary.
    pub interfaces: Vec<String>,
    /// On which side of them it is; without, each interface tells by what it is.
    pub side: Option<Side>,
    /// Addresses that are its own.
    pub ranges: Vec<IpNet>,
    /// Cgroups that are its own, with what is below them.
    pub cgroups: Vec<CgroupGlob>,
    /// Network namespaces that are its own: names below `/run/netns`, or paths.
    pub namespaces: Vec<String>,
    /// Ports of this host that are its own.
    pub ports: Vec<Ports>,
    /// Users whose sockets are its own.
    pub users: Vec<User>,
}

/// What a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One of those that always are: `host`, `forwarded`, `unknown`, `overlay`.
    Fixed,
    /// Declared by the operator.
    Declared,
    /// A container, found by its cgroup.
    Container,
    /// A service of a service manager, found by its cgroup.
    Service,
    /// A scope of a service manager: processes that it did not start itself, such as a session. Found by its cgroup.
    Scope,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fixed => "fixed",
            Self::Declared => "declared",
            Self::Container => "container",
            Self::Service => "service",
            Self::Scope => "scope",
        })
    }
}

/// A processing unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// The index in the counters; where it has a mark, the mark.
    pub index: u16,
    /// What it is.
    pub kind: Kind,
    /// The context id.
    pub id: Text,
    /// The namespace that records carry.
    pub namespace: Text,
    /// Its tags.
    pub tags: Arc<TagStore>,
    /// Interfaces that are its boundary.
    pub interfaces: Vec<String>,
    /// On which side of them it is; without, each interface tells by what it is.
    pub side: Option<Side>,
    /// Addresses that are declared to be its own.
    pub ranges: Vec<IpNet>,
    /// Cgroups that are declared to be its own.
    pub cgroups: Vec<CgroupGlob>,
    /// Network namespaces that are declared to be its own, by their names.
    pub namespaces: Vec<String>,
    /// Ports of this host that are declared to be its own.
    pub ports: Vec<Ports>,
    /// Users whose sockets are declared to be its own.
    pub users: Vec<User>,
    /// Addresses that it was found to have.
    pub addresses: Vec<IpAddr>,
    /// When it was found, on the boot clock in nanoseconds; 0 for those that are there from the start.
    pub since: u64,
    /// When it ended, on the boot clock in nanoseconds; it keeps its name for a while, so that late records have one.
    pub ended: Option<u64>,
    /// When something of it was last heard of after it had ended, on the boot clock in nanoseconds.
    heard: u64,
}

/// More units than there are indexes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{declared} processing units are declared, at most {most} can be counted")]
pub struct TooMany {
    /// How many were asked for.
    pub declared: usize,
    /// How many there can be.
    pub most: usize,
}

/// All processing units: those that always are, those declared, and those found.
///
/// The programs count by index, and may count by one before anybody knows whose it is: such an index stands for one of the
/// units that always are until it is [joined](Self::join) to the unit that it turns out to be of.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    units: BTreeMap<u16, Unit>,
    /// Indexes beside a unit's own, and whose they are.
    others: BTreeMap<u16, u16>,
    /// Of the indexes that nobody will be found for: when, or when something counted by one was last heard of.
    over: BTreeMap<u16, u64>,
    /// Whose addresses were found; several networks may have the same.
    found: HashMap<IpAddr, Vec<u16>>,
    indexes: Indexes,
    /// Flows may be remembered by an index that is not their unit's own.
    is_stale: bool,
}

/// Indexes below the counters' end.
const MOST: usize = (collector_ebpf::abi::counter::PU_CHUNKS * collector_ebpf::abi::counter::PUS_PER_CHUNK)
    as usize
    - index::FIRST as usize;

impl Registry {
    /// `host`, `forwarded`, `unknown`, `overlay`, and the declared ones in their order.
    ///
    /// # Errors
    ///
    /// [`TooMany`].
    pub fn new(declared: &[Declared]) -> Result<Self, TooMany> {
        if declared.len() > MOST {
            return Err(TooMany { declared: declared.len(), most: MOST });
        }
        let fixed = [
            (index::HOST, "host"),
            (index::FORWARDED, "forwarded"),
            (index::UNKNOWN, "unknown"),
            (index::OVERLAY, "overlay"),
        ];
        let mut registry = Self::default();
        for (index, id) in fixed {
            registry.units.insert(index, unit(index, Kind::Fixed, id));
        }
        for declared in declared {
            let Some(index) = registry.indexes.take() else { break };
            registry.units.insert(index, declared_unit(index, declared));
        }
        Ok(registry)
    }

    /// The unit that an index is of.
    pub fn get(&self, index: u16) -> Option<&Unit> {
        self.units.get(self.others.get(&index).unwrap_or(&index))
    }

    /// All units, by index.
    pub fn iter(&self) -> impl Iterator<Item = &Unit> {
        self.units.values()
    }

    /// Every index that may have been counted by.
    pub fn indexes(&self) -> impl Iterator<Item = u16> {
        self.units.keys().chain(self.others.keys()).copied()
    }

    /// Every index that a unit is counted by: its own, and those that turned out to be its.
    pub fn all_of(&self, unit: u16) -> Vec<u16> {
        let others = self.others.iter().filter(|(_, of)| **of == unit).map(|(other, _)| *other);
        std::iter::once(unit).chain(others).collect()
    }

    /// The greatest index that there has been.
    pub fn last_index(&self) -> u16 {
        self.indexes.last().max(index::OVERLAY)
    }

    /// The unit that declares an interface.
    pub fn of_interface(&self, name: &str) -> Option<&Unit> {
        self.units.values().find(|unit| unit.interfaces.iter().any(|interface| interface == name))
    }

    /// The unit that declares a cgroup or one above it, and the path of that: the one that declares the innermost; of several
    /// that declare it, the one that does so by its name, else by the longest pattern, else the first.
    pub fn of_cgroup(&self, path: &str) -> Option<(&Unit, String)> {
        let units = || self.units.values().filter(|unit| !unit.cgroups.is_empty());
        units().next()?;
        let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
        let mut above: Vec<&str> = ends.filter_map(|end| path.get(..end)).collect();
        above.reverse();
        above.into_iter().find_map(|path| {
            let globs = units().flat_map(|unit| unit.cgroups.iter().map(move |glob| (glob, unit)));
            let matching = globs.filter(|(glob, _)| glob.matches(path));
            // Of equals the last is the greatest: they are asked from behind.
            let matching: Vec<_> = matching.collect();
            let (_, unit) = matching.into_iter().rev().max_by_key(|(glob, _)| glob.weight())?;
            Some((unit, path.to_owned()))
        })
    }

    /// Names of network namespaces that units declare, with the unit.
    pub fn namespaces(&self) -> impl Iterator<Item = (&str, u16)> {
        self.units.values().flat_map(|unit| unit.namespaces.iter().map(|name| (name.as_str(), unit.index)))
    }

    /// The unit whose longest declared range holds an address, else the one that was found to have it. Of an address that
    /// several were found to have, nobody can say whose it is.
    pub fn of_address(&self, address: IpAddr) -> Option<&Unit> {
        let ranges = self.units.values().flat_map(|unit| unit.ranges.iter().map(move |range| (range, unit)));
        let declared = ranges
            .filter(|(range, _)| range.contains(&address))
            .max_by_key(|(range, _)| range.prefix_len())
            .map(|(_, unit)| unit);
        declared.or_else(|| match self.found.get(&address)?.as_slice() {
            [index] => self.units.get(index),
            _ => None,
        })
    }

    /// The living unit with this id.
    pub fn of_id(&self, id: &str) -> Option<&Unit> {
        self.units.values().find(|unit| &*unit.id == id && unit.ended.is_none())
    }

    /// Every declared range with its unit's index.
    pub fn ranges(&self) -> impl Iterator<Item = (IpNet, u16)> {
        self.units.values().flat_map(|unit| unit.ranges.iter().map(|range| (*range, unit.index)))
    }
}

fn declared_unit(index: u16, declared: &Declared) -> Unit {
    Unit {
        namespace: declared.namespace.as_str().into(),
        tags: Arc::new(declared.tags.iter().map(String::as_str).collect()),
        interfaces: declared.interfaces.clone(),
        side: declared.side,
        ranges: declared.ranges.clone(),
        cgroups: declared.cgroups.clone(),
        namespaces: declared.namespaces.clone(),
        ports: declared.ports.clone(),
        users: declared.users.clone(),
        ..unit(index, Kind::Declared, &declared.id)
    }
}

fn unit(index: u16, kind: Kind, id: &str) -> Unit {
    Unit {
        index,
        kind,
        id: id.into(),
        namespace: "".into(),
        tags: Arc::default(),
        interfaces: Vec::new(),
        side: None,
        ranges: Vec::new(),
        cgroups: Vec::new(),
        namespaces: Vec::new(),
        ports: Vec::new(),
        users: Vec::new(),
        addresses: Vec::new(),
        since: 0,
        ended: None,
        heard: 0,
    }
}

/// Whether the index is one of a unit that has a name, or may yet have one.
pub fn is_named(index: u16) -> bool {
    index >= index::FIRST
}

#[cfg(test)]
mod tests {
    use super::{Declared, Registry};

    fn declared(id: &str, interfaces: &[&str], ranges: &[&str]) -> Declared {
        Declared {
            id: id.into(),
            interfaces: interfaces.iter().map(ToString::to_string).collect(),
            ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
            ..Declared::default()
        }
    }

    #[test]
    fn four_units_always_are_and_marks_begin_at_101() {
        let registry = Registry::new(&[declared("web", &[], &[]), declared("db", &[], &[])]).unwrap();
        let all: Vec<_> = registry.iter().map(|unit| (unit.index, &*unit.id)).collect();
        assert_eq!(
            all,
            [(1, "host"), (2, "forwarded"), (3, "unknown"), (4, "overlay"), (101, "web"), (102, "db")]
        );
        assert_eq!(registry.last_index(), 102);
    }

    #[test]
    fn the_longest_range_wins() {
        let registry = Registry::new(&[
            declared("wide", &[], &["10.0.0.0/8"]),
            declared("narrow", &[], &["10.1.0.0/16", "fd00::/8"]),
        ])
        .unwrap();
        let of = |address: &str| registry.of_address(address.parse().unwrap()).map(|unit| &*unit.id);
        assert_eq!(of("10.2.3.4"), Some("wide"));
        assert_eq!(of("10.1.3.4"), Some("narrow"));
        assert_eq!(of("fd00::1"), Some("narrow"));
        assert_eq!(of("192.0.2.1"), None);
    }

    #[test]
    fn an_interface_is_found_by_its_name() {
        let registry = Registry::new(&[declared("web", &["veth1"], &[])]).unwrap();
        assert_eq!(registry.of_interface("veth1").map(|unit| unit.index), Some(101));
        assert_eq!(registry.of_interface("veth"), None);
    }

    #[test]
    fn the_innermost_and_plainest_matcher_of_a_cgroup_wins() {
        let of = |id: &str, globs: &[&str]| Declared {
            cgroups: globs.iter().map(|glob| glob.parse().unwrap()).collect(),
            ..declared(id, &[], &[])
        };
        let registry = Registry::new(&[
            of("all", &["/system.slice"]),
            of("some", &["/system.slice/web-*.service", "/system.slice/**/db.service"]),
            of("same", &["/system.slice/web-?.service"]),
            of("one", &["/system.slice/web-1.service"]),
        ])
        .unwrap();
        let of = |path: &str| registry.of_cgroup(path).map(|(unit, root)| (unit.id.to_string(), root));
        let is = |id: &str, root: &str| Some((id.to_owned(), root.to_owned()));
        assert_eq!(of("/system.slice/ssh.service"), is("all", "/system.slice"));
        assert_eq!(of("/system.slice/web-1.service/a/b"), is("one", "/system.slice/web-1.service"));
        assert_eq!(of("/system.slice/web-2.service"), is("some", "/system.slice/web-2.service"));
        assert_eq!(of("/system.slice/a/b/db.service"), is("some", "/system.slice/a/b/db.service"));
        assert_eq!((of("/user.slice"), of("/")), (None, None));
    }
}
