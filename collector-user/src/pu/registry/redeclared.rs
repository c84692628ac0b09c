//! Units that are declared anew while the collector runs.

use std::collections::BTreeSet;

use super::{Declared, Kind, MOST, Registry, TooMany, Unit, declared_unit, unit};
use crate::event::Text;

/// Why units cannot be declared anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedeclareError {
    /// More than there are indexes.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// It is there, and was found as the second one of a name.
    #[error(
        "the processing unit {id:?} was found by itself, and another one of its name is there: to declare it, start the collector anew"
    )]
    Found {
        /// The id.
        id: Text,
    },
}

/// What has become of the declared units, by their indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redeclared {
    /// Those that are new.
    pub added: Vec<u16>,
    /// Those that are declared otherwise than before.
    pub changed: Vec<u16>,
    /// Those that are no more.
    pub removed: Vec<u16>,
    /// Those that were found and have ended, for one of the same id is declared.
    pub replaced: Vec<u16>,
}

impl Redeclared {
    /// Whether all is as it was.
    pub const fn is_nothing(&self) -> bool {
        // What is replaced is so by what is added.
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl Registry {
    /// The units as they are once these are declared, at `now` on the boot clock in nanoseconds, and what is different then.
    ///
    /// Who has an id that was declared before keeps the index, and with it counters and mark. Who is declared no more has
    /// ended, as a unit that was found ends; and so has a unit that was found whose id is declared now.
    ///
    /// # Errors
    ///
    /// [`RedeclareError`].
    pub fn redeclared(&self, declared: &[Declared], now: u64) -> Result<(Self, Redeclared), RedeclareError> {
        let too_many = || TooMany { declared: declared.len(), most: MOST };
        let mut new = self.clone();
        let mut done = Redeclared::default();
        let mut kept = BTreeSet::new();
        for declared in declared {
            match self.of_id(&declared.id) {
                Some(before) if before.kind == Kind::Declared => {
                    kept.insert(before.index);
                    let after = Unit {
                        addresses: before.addresses.clone(),
                        since: before.since,
                        heard: before.heard,
                        ..declared_unit(before.index, declared)
                    };
                    if after != *before {
                        done.changed.push(before.index);
                        new.units.insert(before.index, after);
                    }
                }
                // Its id is the path of its cgroup, which tells nothing of the other's.
                Some(found) if found.id.starts_with('/') => {
                    return Err(RedeclareError::Found { id: found.id.clone() });
                }
                found => {
                    if let Some(found) = found {
                        new.end(found.index, now);
                        done.replaced.push(found.index);
                    }
                    let index = new.indexes.take().ok_or_else(too_many)?;
                    new.units.insert(index, Unit { since: now, ..declared_unit(index, declared) });
                    done.added.push(index);
                }
            }
        }
        let living = self.iter().filter(|unit| unit.kind == Kind::Declared && unit.ended.is_none());
        for before in living.filter(|unit| !kept.contains(&unit.index)) {
            // It has its name for a while, and nothing matches it any more.
            let after = Unit {
                namespace: before.namespace.clone(),
                tags: before.tags.clone(),
                since: before.since,
                addresses: before.addresses.clone(),
                ..unit(before.index, Kind::Declared, &before.id)
            };
            new.units.insert(before.index, after);
            new.end(before.index, now);
            done.removed.push(before.index);
        }
        Ok((new, done))
    }
}

#[cfg(test)]
mod tests {
    use super::{RedeclareError, Redeclared};
    use crate::pu::registry::{Declared, Found, Kind, Registry};

    fn declared(id: &str, interface: &str, range: &str) -> Declared {
        Declared {
            id: id.to_owned(),
            interfaces: vec![interface.to_owned()],
            ranges: vec![range.parse().unwrap()],
            ..Declared::default()
        }
    }

    #[test]
    fn who_stays_keeps_the_index_and_who_goes_keeps_the_name() {
        let [web, db, cache] = [("web", "10.1.0.0/16"), ("db", "10.2.0.0/16"), ("cache", "10.3.0.0/16")]
            .map(|(id, range)| declared(id, &format!("v-{id}"), range));
        let units = Registry::new(&[web.clone(), db.clone()]).unwrap();
        assert_eq!(units.redeclared(&[db.clone(), web], 5).unwrap().1, Redeclared::default());

        let moved = Declared { interfaces: vec!["v9".to_owned()], ..db };
        let (units, done) = units.redeclared(&[cache, moved.clone()], 5).unwrap();
        let want = Redeclared { added: vec![103], changed: vec![102], removed: vec![101], replaced: vec![] };
        assert_eq!(done, want);
        let web = units.get(101).unwrap();
        assert_eq!((&*web.id, web.ended, units.of_id("web")), ("web", Some(5), None));
        assert!(units.of_interface("v-web").is_none() && units.of_interface("v-db").is_none());
        let of = |address: &str| units.of_address(address.parse().unwrap()).map(|unit| unit.index);
        assert_eq!([of("10.1.0.1"), of("10.2.0.1"), of("10.3.0.1")], [None, Some(102), Some(103)]);
        assert_eq!(units.of_interface("v9").map(|unit| unit.index), Some(102));
        assert_eq!(units.of_id("cache").map(|unit| unit.since), Some(5));

        // Who comes again is another.
        let web = declared("web", "v-web", "10.1.0.0/16");
        let (units, done) = units.redeclared(&[web, moved], 7).unwrap();
        assert_eq!((done.added, done.changed, done.removed), (vec![104], vec![], vec![103]));
        assert_eq!(units.of_id("web").map(|unit| unit.index), Some(104));
    }

    #[test]
    fn who_is_declared_takes_the_place_of_who_was_found() {
        let mut units = Registry::new(&[]).unwrap();
        let found = |id: &str| Found { id: id.to_owned(), kind: Kind::Service, tags: vec![] };
        let index = units.add(&found("a.service"), 1).unwrap();
        let (new, done) = units.redeclared(&[declared("a.service", "v1", "10.0.0.0/8")], 2).unwrap();
        assert_eq!((done.added, done.replaced), (vec![index + 1], vec![index]));
        assert_eq!(new.of_id("a.service").map(|unit| unit.index), Some(index + 1));
        assert_eq!(new.get(index).map(|unit| (&*unit.id, unit.ended)), Some(("a.service", Some(2))));
        let second = units.add(&found("/user.slice/a.service"), 1).unwrap();
        let id = units.get(second).unwrap().id.clone();
        assert_eq!(
            units.redeclared(&[declared(&id, "v1", "10.0.0.0/8")], 2).map(drop),
            Err(RedeclareError::Found { id })
        );
    }
}
