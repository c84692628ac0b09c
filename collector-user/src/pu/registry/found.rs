//! Units that are found while the collector runs: the indexes that they are counted by, their addresses, and their end.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{Kind, Registry, Unit, is_named, unit};

/// What was found on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The context id.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// Tags, `key=value`.
    pub tags: Vec<String>,
}

impl Registry {
    /// Whether, since this was asked, an index was given anew that another unit had before, or one turned out to be of a unit
    /// that has another one: flows that are remembered by such an index shall be asked for anew, for their packets have its
    /// mark.
    pub const fn take_stale(&mut self) -> bool {
        self.indexes.take_reused() | std::mem::replace(&mut self.is_stale, false)
    }

    /// An index to count by of what nobody has named yet: it stands for the unit `of` until then. `None` where there is none
    /// left.
    pub fn reserve(&mut self, of: u16) -> Option<u16> {
        let index = self.indexes.take()?;
        self.others.insert(index, of);
        Some(index)
    }

    /// Adds what was found at `now` on the boot clock in nanoseconds; its index. `None` where there is none left.
    pub fn add(&mut self, found: &Found, now: u64) -> Option<u16> {
        let index = self.indexes.take()?;
        self.insert(index, found, now);
        Some(index)
    }

    /// The same by an index that was [reserved](Self::reserve), by which the programs have counted before anybody had found
    /// it; `None` where that index is not free.
    pub fn add_early(&mut self, found: &Found, index: u16, now: u64) -> Option<u16> {
        self.others.get(&index).filter(|of| !is_named(**of))?;
        self.others.remove(&index);
        self.over.remove(&index);
        self.insert(index, found, now);
        Some(index)
    }

    fn insert(&mut self, index: u16, found: &Found, now: u64) {
        let tags = Arc::new(found.tags.iter().map(String::as_str).collect());
        self.units.insert(index, Unit { tags, since: now, ..unit(index, found.kind, &found.id) });
    }

    /// From here on an index that was [reserved](Self::reserve) is of a unit; of one of those that always are nothing more is
    /// counted by it, from `now` on.
    pub fn join(&mut self, index: u16, unit: u16, now: u64) {
        if index == unit || !self.others.contains_key(&index) {
            return;
        }
        self.is_stale = true;
        if is_named(unit) {
            self.others.insert(index, unit);
            self.over.remove(&index);
        } else {
            self.release(index, now);
        }
    }

    /// Which addresses a unit has that was found; whether they are others than before.
    pub fn set_addresses(&mut self, index: u16, addresses: Vec<IpAddr>) -> bool {
        let Some(unit) = self.units.get_mut(&index) else { return false };
        if unit.addresses == addresses {
            return false;
        }
        for address in std::mem::replace(&mut unit.addresses, addresses) {
            if let Some(units) = self.found.get_mut(&address) {
                units.retain(|it| *it != index);
                if units.is_empty() {
                    self.found.remove(&address);
                }
            }
        }
        for address in &unit.addresses {
            self.found.entry(*address).or_default().push(index);
        }
        true
    }

    /// A unit has ended, at `now` on the boot clock in nanoseconds: its addresses may be another's from now on.
    pub fn end(&mut self, index: u16, now: u64) {
        self.set_addresses(index, Vec::new());
        if let Some(unit) = self.units.get_mut(&index) {
            unit.ended = Some(now);
        }
    }

    /// Nothing is counted any more by an index that was [reserved](Self::reserve), from `now` on.
    pub fn release(&mut self, index: u16, now: u64) {
        // One that was joined goes with its unit.
        if self.others.get(&index).is_some_and(|of| !is_named(*of)) {
            self.over.insert(index, now);
        }
    }

    /// What is counted by this index is told of at `now`: who ended keeps the name for longer.
    pub fn is_heard_of(&mut self, index: u16, now: u64) {
        if let Some(over) = self.over.get_mut(&index) {
            *over = now.max(*over);
        }
        let index = self.others.get(&index).copied().unwrap_or(index);
        if let Some(unit) = self.units.get_mut(&index).filter(|unit| unit.ended.is_some()) {
            unit.heard = now.max(unit.heard);
        }
    }

    /// The indexes of which nothing was heard since `before`: those that [`forget`](Self::forget) will give back.
    pub fn forgettable(&self, before: u64) -> Vec<u16> {
        let is_long_ago = |unit: &&Unit| unit.ended.is_some_and(|ended| ended.max(unit.heard) < before);
        let ended = self.units.values().filter(is_long_ago);
        let ended: BTreeSet<u16> = ended.map(|unit| unit.index).collect();
        let is_over = |index: &u16| self.over.get(index).is_some_and(|over| *over < before);
        let others = self.others.iter().filter(|(other, of)| ended.contains(of) || is_over(other));
        others.map(|(other, _)| *other).chain(ended.iter().copied()).collect()
    }

    /// Forgets units and indexes of which nothing was heard since `before`; the indexes, which others may have from now on.
    pub fn forget(&mut self, before: u64) -> Vec<u16> {
        let free = self.forgettable(before);
        for index in &free {
            self.units.remove(index);
            self.others.remove(index);
            self.over.remove(index);
            self.indexes.give_back(*index);
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use collector_ebpf::abi::pu::index;

    use super::{Found, Kind, Registry};
    use crate::pu::registry::Declared;

    fn found(id: &str) -> Found {
        Found { id: id.into(), kind: Kind::Container, tags: vec!["runtime=docker".into()] }
    }

    #[test]
    fn what_is_found_is_counted_by_an_index_of_its_own() {
        let web = Declared { id: "web".into(), ..Declared::default() };
        let mut registry = Registry::new(&[web]).unwrap();
        let index = registry.add(&found("aa"), 5).unwrap();
        assert_eq!((index, registry.last_index()), (102, 102));
        assert_eq!(registry.of_id("aa").map(|unit| (unit.index, unit.kind)), Some((102, Kind::Container)));
    }

    #[test]
    fn an_index_stands_for_unknown_until_it_is_somebodys() {
        let mut registry = Registry::new(&[]).unwrap();
        let early = registry.reserve(index::UNKNOWN).unwrap();
        let id = |registry: &Registry| registry.get(early).unwrap().id.to_string();
        assert_eq!(id(&registry), "unknown");
        let unit = registry.add(&found("aa"), 5).unwrap();
        registry.join(early, unit, 5);
        registry.join(unit, index::HOST, 5);
        assert_eq!((id(&registry), &*registry.get(unit).unwrap().id), ("aa".into(), "aa"));
        assert_eq!(registry.indexes().collect::<Vec<_>>(), [1, 2, 3, 4, 102, 101]);
    }

    #[test]
    fn who_is_found_late_keeps_the_index_that_the_programs_gave() {
        let mut registry = Registry::new(&[]).unwrap();
        let early = registry.reserve(index::HOST).unwrap();
        registry.release(early, 4);
        assert_eq!(registry.add_early(&found("aa"), early, 5), Some(early));
        assert_eq!(registry.all_of(early), [early]);
        assert!(registry.forget(6).is_empty(), "it is not over");
        assert!(!registry.take_stale(), "no flow has another's mark");
        assert_eq!(registry.add_early(&found("bb"), early, 5), None, "it is aa's");
        let late = registry.reserve(index::HOST).unwrap();
        registry.join(late, early, 7);
        assert!(registry.take_stale() && !registry.take_stale());
        assert_eq!(registry.add_early(&found("bb"), late, 7), None, "it is aa's, too");
        let hosts = registry.reserve(index::HOST).unwrap();
        registry.join(hosts, index::HOST, 8);
        assert!(registry.take_stale(), "its flows have a mark that is nobody's");
        assert_eq!(registry.forget(9), [hosts]);
    }

    #[test]
    fn an_address_that_several_have_is_nobodys() {
        let ranges = vec!["10.2.0.0/16".parse().unwrap()];
        let net = Declared { id: "net".into(), ranges, ..Declared::default() };
        let mut registry = Registry::new(&[net]).unwrap();
        let (one, two) = (registry.add(&found("aa"), 5).unwrap(), registry.add(&found("bb"), 5).unwrap());
        let address = |last: u8| std::net::IpAddr::from([10, 1, 0, last]);
        assert!(registry.set_addresses(one, vec![address(1), address(2), [10, 2, 0, 1].into()]));
        assert!(!registry.set_addresses(one, vec![address(1), address(2), [10, 2, 0, 1].into()]));
        assert!(registry.set_addresses(two, vec![address(2)]));
        let of = |registry: &Registry, ip| registry.of_address(ip).map(|unit| unit.id.to_string());
        assert_eq!(of(&registry, address(1)).as_deref(), Some("aa"));
        assert_eq!(of(&registry, address(2)), None);
        assert_eq!(
            of(&registry, [10, 2, 0, 1].into()).as_deref(),
            Some("net"),
            "what is declared comes first"
        );
        registry.end(one, 5);
        assert_eq!(of(&registry, address(1)), None);
        assert_eq!(of(&registry, address(2)).as_deref(), Some("bb"));
    }

    #[test]
    fn who_has_ended_keeps_the_name_until_nothing_was_heard_for_long() {
        let mut registry = Registry::new(&[]).unwrap();
        let early = registry.reserve(index::UNKNOWN).unwrap();
        let unit = registry.add(&found("aa"), 5).unwrap();
        registry.join(early, unit, 5);
        registry.end(unit, 10);
        assert!(registry.of_id("aa").is_none());
        registry.is_heard_of(early, 20);
        assert_eq!(registry.get(unit).map(|unit| (unit.since, unit.ended)), Some((5, Some(10))));
        assert!(registry.forget(20).is_empty(), "late packets");
        assert_eq!(registry.get(early).map(|unit| &*unit.id), Some("aa"));
        assert_eq!(registry.forget(21), [early, unit]);
        assert!(registry.get(early).is_none() && registry.get(unit).is_none());
    }

    #[test]
    fn an_index_that_nobody_was_found_for_is_free_again_in_the_end() {
        let mut registry = Registry::new(&[]).unwrap();
        let (early, other) =
            (registry.reserve(index::UNKNOWN).unwrap(), registry.reserve(index::UNKNOWN).unwrap());
        registry.release(early, 10);
        registry.release(other, 10);
        let unit = registry.add(&found("aa"), 5).unwrap();
        registry.join(other, unit, 11);
        registry.is_heard_of(early, 20);
        assert!(registry.forget(20).is_empty());
        assert_eq!(registry.forget(21), [early]);
        assert!(registry.get(early).is_none());
        assert_eq!(registry.get(other).map(|unit| &*unit.id), Some("aa"));
    }
}
