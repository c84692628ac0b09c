//! The processing units that there are, by the index that the programs count with.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use collector_ebpf::abi::pu::index;
use ipnet::IpNet;

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
}

/// A processing unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// The index in the counters; where it has a mark, the mark.
    pub index: u16,
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
    /// Addresses that are its own.
    pub ranges: Vec<IpNet>,
}

/// More units than there are indexes.
#[derive(Debug, thiserror::Error)]
#[error("{declared} processing units are declared, at most {most} can be counted")]
pub struct TooMany {
    /// How many were asked for.
    pub declared: usize,
    /// How many there can be.
    pub most: usize,
}

/// All processing units: those that always are, and those declared.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    units: BTreeMap<u16, Unit>,
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
        let fixed = fixed.into_iter().map(|(index, id)| Unit {
            index,
            id: id.into(),
            namespace: "".into(),
            tags: Arc::default(),
            interfaces: Vec::new(),
            side: None,
            ranges: Vec::new(),
        });
        let declared = (index::FIRST..).zip(declared).map(|(index, declared)| Unit {
            index,
            id: declared.id.as_str().into(),
            namespace: declared.namespace.as_str().into(),
            tags: Arc::new(declared.tags.iter().map(String::as_str).collect()),
            interfaces: declared.interfaces.clone(),
            side: declared.side,
            ranges: declared.ranges.clone(),
        });
        Ok(Self { units: fixed.chain(declared).map(|unit| (unit.index, unit)).collect() })
    }

    /// The unit with this index.
    pub fn get(&self, index: u16) -> Option<&Unit> {
        self.units.get(&index)
    }

    /// All units, by index.
    pub fn iter(&self) -> impl Iterator<Item = &Unit> {
        self.units.values()
    }

    /// The greatest index there is.
    pub fn last_index(&self) -> u16 {
        self.units.keys().next_back().copied().unwrap_or(0)
    }

    /// The unit that declares an interface.
    pub fn of_interface(&self, name: &str) -> Option<&Unit> {
        self.units.values().find(|unit| unit.interfaces.iter().any(|interface| interface == name))
    }

    /// The unit whose longest declared range holds an address.
    pub fn of_address(&self, address: IpAddr) -> Option<&Unit> {
        let ranges = self.units.values().flat_map(|unit| unit.ranges.iter().map(move |range| (range, unit)));
        ranges
            .filter(|(range, _)| range.contains(&address))
            .max_by_key(|(range, _)| range.prefix_len())
            .map(|(_, unit)| unit)
    }

    /// Every declared range with its unit's index.
    pub fn ranges(&self) -> impl Iterator<Item = (IpNet, u16)> {
        self.units.values().flat_map(|unit| unit.ranges.iter().map(|range| (*range, unit.index)))
    }
}

/// Whether the unit has a name that an operator gave.
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
}
