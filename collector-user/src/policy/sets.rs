//! Which compiled list of rules each unit has, as units come and go and policies are loaded anew.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use collector_ebpf::abi::policy::UnitPolicy;

pub use super::set::Set;
use super::{
    compile::compile,
    explosion::{Explosion, What},
    loaded::{List, Loaded},
    rule::{Policy, Subject},
    set::{Size, word},
    verdicts::Verdicts,
};

/// What is to be told to the programs, in this order: write the sets that are [new](Self::new), then the
/// [units](Self::units); wait until no program runs that began before; remove the sets that are [old](Self::old), and say
/// so by [`Sets::removed`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Sets that were not there.
    pub new: Vec<Arc<Set>>,
    /// Units whose policies are others than before, by index.
    pub units: Vec<(u16, UnitPolicy)>,
    /// Sets that nobody has any more.
    pub old: Vec<Arc<Set>>,
}

/// Which set each unit has. Units that have the same rules have the same set.
#[derive(Clone, Debug, Default)]
pub struct Sets {
    loaded: Loaded,
    /// The units that there are.
    units: BTreeMap<u16, (Subject, UnitPolicy)>,
    used: HashMap<List, Used>,
    by_number: BTreeMap<u32, List>,
    /// Sets that nobody has, and that are not removed yet.
    leaving: BTreeMap<u32, Arc<Set>>,
    /// Entries of these and of those that units have.
    size: Size,
    /// The greatest number that a set was given.
    last: u32,
    /// The verdicts' numbers.
    pub verdicts: Verdicts,
}

#[derive(Clone, Debug)]
struct Used {
    set: Arc<Set>,
    /// How many units have it, counted by direction.
    users: usize,
}

impl Sets {
    /// Takes other policies than before, at `now` on the boot clock in nanoseconds. Those that are the same, in the same
    /// order, leave their units' sets as they are.
    ///
    /// # Errors
    ///
    /// [`Explosion`]; everything is as it was.
    pub fn load(&mut self, policies: &[Policy], is_enforced: bool, now: u64) -> Result<Change, Explosion> {
        let loaded = Loaded::of(policies, is_enforced, &self.loaded);
        let units = self.units.values().map(|(subject, _)| subject.clone()).collect();
        self.change(Some(loaded), units, Vec::new(), now)
    }

    /// Takes in a unit that is there from `now` on.
    ///
    /// # Errors
    ///
    /// [`Explosion`]. The unit is known all the same, and goes without policies until they are loaded anew.
    pub fn put(&mut self, unit: Subject, now: u64) -> Result<Change, Explosion> {
        let known = unit.clone();
        self.change(None, vec![unit], Vec::new(), now).inspect_err(|_| {
            // One that was there keeps what it had.
            self.units.entry(known.index).or_insert_with(|| (known, UnitPolicy::default()));
        })
    }

    /// A unit is forgotten at `now`. Its entry becomes all zero.
    pub fn remove(&mut self, unit: u16, now: u64) -> Change {
        // What only takes away is never too much.
        self.change(None, Vec::new(), vec![unit], now).unwrap_or_default()
    }

    /// A set that was [old](Change::old) is not in the programs' maps any more.
    pub fn removed(&mut self, number: u32) {
        if let Some(set) = self.leaving.remove(&number) {
            self.size.take_off(&set);
        }
    }

    /// Makes it as it was `before`: all of it was told, and so was what came since then; none of the sets of before is removed.
    /// Those that came since are [old](Change::old), and are returned. It takes no room, and cannot fail.
    pub fn put_back(&mut self, before: Self, now: u64) -> Vec<Arc<Set>> {
        let since = std::mem::replace(self, before);
        // Whatever was judged meanwhile is still to be told of, and no number comes again.
        (self.verdicts, self.last) = (since.verdicts, since.last);
        let gone = self.used.values().filter(|used| !since.by_number.contains_key(&used.set.number));
        for number in gone.flat_map(|used| used.set.verdicts_by_number()) {
            self.verdicts.take_again(number);
        }
        let mut old = Vec::new();
        for Used { set, .. } in since.used.into_values() {
            if !self.by_number.contains_key(&set.number) {
                set.verdicts_by_number().for_each(|number| self.verdicts.give_back(number, now));
                self.size.add(&set);
                self.leaving.insert(set.number, Arc::clone(&set));
                old.push(set);
            }
        }
        old
    }

    /// What a unit has.
    pub fn of(&self, unit: u16) -> UnitPolicy {
        self.units.get(&unit).map(|(_, policy)| *policy).unwrap_or_default()
    }

    /// The set that units have, by its number.
    pub fn get(&self, number: u32) -> Option<&Arc<Set>> {
        self.used.get(self.by_number.get(&number)?).map(|used| &used.set)
    }

    /// All sets that units have.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Set>> {
        self.used.values().map(|used| &used.set)
    }

    /// All units that there are, with what each has.
    pub fn units(&self) -> impl Iterator<Item = (&Subject, UnitPolicy)> {
        self.units.values().map(|(subject, policy)| (subject, *policy))
    }

    /// Whether this unit was put, and is what it was.
    pub fn knows(&self, unit: &Subject) -> bool {
        self.units.get(&unit.index).is_some_and(|(known, _)| known == unit)
    }

    /// There is no policy: no unit has any set.
    pub fn is_idle(&self) -> bool {
        self.loaded.is_empty()
    }

    /// Whether what is rejected is dropped.
    pub const fn is_enforced(&self) -> bool {
        self.loaded.is_enforced
    }

    /// Nothing is changed where this fails.
    fn change(
        &mut self,
        loaded: Option<Loaded>,
        units: Vec<Subject>,
        gone: Vec<u16>,
        now: u64,
    ) -> Result<Change, Explosion> {
        let is_reload = loaded.is_some();
        let holding = loaded.as_ref().unwrap_or(&self.loaded);
        // A verdict that is enforced is another one to the programs.
        let is_remade = holding.is_enforced != self.loaded.is_enforced;
        let lists: Vec<(Subject, [List; 2])> = units
            .into_iter()
            .map(|unit| {
                let lists = holding.lists(&unit);
                (unit, lists)
            })
            .collect();
        let made = match self.make(loaded.as_ref(), &lists, is_remade) {
            Ok(made) => made,
            Err((explosion, numbers)) => {
                for number in numbers {
                    self.verdicts.give_back(number, now);
                }
                return Err(explosion);
            }
        };
        // Nothing fails from here on.
        if let Some(loaded) = loaded {
            self.loaded = loaded;
        }
        let mut change = Change::default();
        for Used { set, .. } in made.values() {
            self.size.add(set);
            self.last = set.number.max(self.last);
            change.new.push(Arc::clone(set));
        }
        change.new.sort_unstable_by_key(|set| set.number);
        let mut before: Vec<Arc<Set>> = Vec::new();
        if is_remade {
            before.extend(self.used.drain().map(|(_, used)| used.set));
            self.by_number.clear();
        }
        for (list, used) in made {
            self.by_number.insert(used.set.number, list.clone());
            self.used.insert(list, used);
        }
        // Sets that may have lost their last unit.
        let mut idle: Vec<u32> = Vec::new();
        for (unit, lists) in lists {
            let mut policy = UnitPolicy::default();
            let each = policy.sets.iter_mut().zip(&mut policy.otherwise).zip(&lists);
            for ((number, otherwise), list) in each {
                if let Some(used) = self.used.get_mut(list) {
                    used.users += 1;
                    (*number, *otherwise) = (used.set.number, used.set.otherwise());
                }
            }
            let index = unit.index;
            let had = self.units.insert(index, (unit, policy)).map(|(_, had)| had).unwrap_or_default();
            idle.extend(self.release(had));
            if had != policy {
                change.units.push((index, policy));
            }
        }
        for unit in gone {
            if let Some((_, had)) = self.units.remove(&unit)
                && had != UnitPolicy::default()
            {
                idle.extend(self.release(had));
                change.units.push((unit, UnitPolicy::default()));
            }
        }
        for number in idle {
            let Some(list) = self.by_number.get(&number) else { continue };
            if self.used.get(list).is_some_and(|used| used.users == 0) {
                before.extend(self.used.remove(list).map(|used| used.set));
                self.by_number.remove(&number);
            }
        }
        before.sort_unstable_by_key(|set| set.number);
        for set in before {
            set.verdicts_by_number().for_each(|number| self.verdicts.give_back(number, now));
            self.leaving.insert(set.number, Arc::clone(&set));
            change.old.push(set);
        }
        if is_reload {
            self.loaded.forget(self.used.keys());
        }
        Ok(change)
    }

    /// The sets that are needed and not there. Where that fails, the numbers of verdicts that were taken for them.
    fn make(
        &mut self,
        loaded: Option<&Loaded>,
        lists: &[(Subject, [List; 2])],
        is_remade: bool,
    ) -> Result<HashMap<List, Used>, (Explosion, Vec<u16>)> {
        let Self { loaded: from_before, used, verdicts, size, last, .. } = self;
        let loaded = loaded.unwrap_or(from_before);
        let mut made: HashMap<List, Used> = HashMap::new();
        let mut taken: Vec<u16> = Vec::new();
        let (mut size, mut last) = (*size, *last);
        for list in lists.iter().flat_map(|(_, lists)| lists).filter(|list| !list.is_empty()) {
            if made.contains_key(list) || !is_remade && used.contains_key(list) {
                continue;
            }
            let rules = loaded.rules(list);
            let compiled = match compile(&rules) {
                Ok(compiled) => compiled,
                Err(explosion) => return Err((explosion, taken)),
            };
            let blame = |what| Explosion::of(what, rules.iter().map(|rule| (&rule.id, 1)));
            let mut words = Vec::with_capacity(compiled.verdicts.len());
            for verdict in &compiled.verdicts {
                let Some(number) = verdicts.take(verdict) else { return Err((blame(What::Verdicts), taken)) };
                taken.push(number);
                words.push(word(number, verdict, loaded.is_enforced));
            }
            let Some(number) = last.checked_add(1) else { return Err((blame(What::Numbers), taken)) };
            last = number;
            let set = Arc::new(Set { number, compiled, words });
            size.add(&set);
            if let Some(what) = size.beyond() {
                return Err((Explosion::of(what, loaded.parts(what, lists)), taken));
            }
            made.insert(list.clone(), Used { set, users: 0 });
        }
        Ok(made)
    }

    /// A unit does not have these sets any more; their numbers.
    fn release(&mut self, had: UnitPolicy) -> [u32; 2] {
        for number in had.sets {
            let Some(list) = self.by_number.get(&number) else { continue };
            if let Some(used) = self.used.get_mut(list) {
                used.users = used.users.saturating_sub(1);
            }
        }
        had.sets
    }
}

#[cfg(test)]
mod tests;
