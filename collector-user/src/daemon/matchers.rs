//! What the programs find declared units by, beside interfaces: ranges of addresses, users, and ports of this host. Written as
//! it is to be, or left as it was.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::Daemon;
use crate::{
    kernel::error::KernelError,
    pu::{port, registry::Registry},
};

/// The unit of each matcher, by its index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Matchers {
    pub(super) ranges: BTreeMap<IpNet, u16>,
    /// By the id that the host knows the user by.
    pub(super) users: BTreeMap<u32, u16>,
    /// By protocol and port.
    pub(super) ports: BTreeMap<(u8, u16), u16>,
}

impl Matchers {
    /// Those of these units; `id_of` knows users by their names.
    pub(super) fn of(units: &Registry, id_of: impl Fn(&str) -> Option<u32>) -> Self {
        let mut users = BTreeMap::new();
        for unit in units.iter() {
            for id in unit.users.iter().filter_map(|user| user.id(&id_of)) {
                // Of several that declare a user the first has it.
                users.entry(id).or_insert(unit.index);
            }
        }
        Self { ranges: units.ranges().collect(), users, ports: port::owners(units) }
    }

    /// Units that have users no more that they had by `before`: flows stay with them that are theirs by their sockets.
    fn losers<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = u16> + 'a {
        before.users.iter().filter(|(id, unit)| self.users.get(id) != Some(unit)).map(|(_, unit)| *unit)
    }
}

impl Daemon<'_> {
    /// Tells the programs whose the matchers are now, where that is not as they were told before. Where that is news, the units
    /// that may have lost sockets by it; flows that are known have to be attributed anew then.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`]; all is as it was.
    pub(super) fn match_by(&mut self, wanted: Matchers) -> Result<Option<BTreeSet<u16>>, KernelError> {
        if self.users.matchers == wanted {
            return Ok(None);
        }
        let before = self.users.matchers.clone();
        if let Err(error) = self.rewrite(&before, &wanted) {
            // What could be written before can be written again.
            self.rewrite(&wanted, &before)?;
            return Err(error);
        }
        let losers = wanted.losers(&before).collect();
        self.users.matchers = wanted;
        Ok(Some(losers))
    }

    /// Whichever of them are written already.
    fn rewrite(&mut self, before: &Matchers, after: &Matchers) -> Result<(), KernelError> {
        // What is no more first: there may be no room for both.
        for range in gone(&before.ranges, &after.ranges) {
            self.controller.remove_range(range.network(), range.prefix_len())?;
        }
        for (range, pu) in others(&before.ranges, &after.ranges) {
            self.controller.add_range(range.network(), range.prefix_len(), *pu)?;
        }
        let (users, ports) = self.users.programs();
        for id in gone(&before.users, &after.users) {
            users.remove(*id)?;
        }
        for (id, pu) in others(&before.users, &after.users) {
            users.set(*id, *pu)?;
        }
        for (protocol, port) in gone(&before.ports, &after.ports) {
            ports.set(*protocol, *port, 0);
        }
        for ((protocol, port), pu) in others(&before.ports, &after.ports) {
            ports.set(*protocol, *port, *pu);
        }
        Ok(())
    }
}

/// What is not as before.
fn others<'a, K: Ord, V: PartialEq>(
    before: &'a BTreeMap<K, V>,
    after: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    after.iter().filter(|(key, value)| before.get(key) != Some(value))
}

/// What is no more.
fn gone<'a, K: Ord, V>(before: &'a BTreeMap<K, V>, after: &'a BTreeMap<K, V>) -> impl Iterator<Item = &'a K> {
    before.keys().filter(|key| !after.contains_key(key))
}
