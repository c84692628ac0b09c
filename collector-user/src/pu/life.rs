//! The life of units, as container records tell it: each step once, when it happens.
//!
//! A declared unit is created when it is declared, and deleted when it is declared no more, or when the collector ends. One with
//! interfaces starts when the first of them is watched and stops when the last one is gone; one that is ranges only runs from
//! its creation on. One that is declared otherwise than before is updated.
//!
//! A unit that was found is created with its cgroup, starts once that has a process and it is known where its packets cross,
//! stops with the last process, and is deleted with the cgroup, or when the collector ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    event::{ContainerRecord, ExtendedMap, reason},
    pu::registry::{Kind, Registry, Unit},
};

/// An interface that a unit declares, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Index of the unit.
    pub pu: u16,
    /// Its name.
    pub name: String,
    /// What has become of it.
    pub state: State,
    /// The host's addresses on it, as text.
    pub addresses: Vec<String>,
}

/// What has become of an interface that a unit declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The programs are attached to it.
    Watched,
    /// They could not be.
    Refused,
    /// Others were chosen.
    NotSelected,
    /// It is still to be attached.
    Waiting,
}

/// What was told of each unit, by its index.
#[derive(Debug, Default)]
pub struct Lives {
    units: BTreeMap<u16, Life>,
    /// Those with interfaces that are declared otherwise than when they were told of.
    changed: BTreeSet<u16>,
}

#[derive(Debug, Default)]
struct Life {
    running: bool,
    addresses: ExtendedMap,
    /// It has been said that it cannot be watched, or is not to be.
    refused: bool,
    ignored: bool,
}

impl Lives {
    /// The creation of every declared unit, and the start of those that need no interface.
    pub fn begin(&mut self, units: &Registry) -> Vec<ContainerRecord> {
        let declared = units.iter().filter(|unit| unit.kind == Kind::Declared);
        declared.flat_map(|unit| self.declare(unit)).collect()
    }

    /// The creation of a unit that is declared, and its start where it needs no interface.
    pub fn declare(&mut self, unit: &Unit) -> Vec<ContainerRecord> {
        let life = self.units.entry(unit.index).or_default();
        life.addresses = addresses(unit, &[]);
        life.running = unit.interfaces.is_empty();
        let created = record(unit, &life.addresses, reason::CONTAINER_CREATE);
        let started = life.running.then(|| record(unit, &life.addresses, reason::CONTAINER_START));
        std::iter::once(created).chain(started).collect()
    }

    /// A unit is declared otherwise than before. Of one with interfaces it is told when [those are looked at](Self::follow).
    pub fn change(&mut self, unit: &Unit) -> Option<ContainerRecord> {
        let life = self.units.get_mut(&unit.index)?;
        if !unit.interfaces.is_empty() {
            (life.refused, life.ignored) = (false, false);
            self.changed.insert(unit.index);
            return None;
        }
        life.addresses = addresses(unit, &[]);
        let has_run = std::mem::replace(&mut life.running, true);
        let event = if has_run { reason::CONTAINER_UPDATE } else { reason::CONTAINER_START };
        Some(record(unit, &life.addresses, event))
    }

    /// What has happened since the last time, now that `seen` is what there is of the declared interfaces.
    pub fn follow(&mut self, units: &Registry, seen: &[Seen]) -> Vec<ContainerRecord> {
        let mut told = Vec::new();
        for (index, life) in &mut self.units {
            let Some(unit) = units.get(*index).filter(|unit| !unit.interfaces.is_empty()) else { continue };
            let of_unit = |state| seen.iter().filter(move |seen| seen.pu == *index && seen.state == state);
            let watched: Vec<&Seen> = of_unit(State::Watched).collect();
            let before = std::mem::replace(&mut life.addresses, addresses(unit, &watched));
            let running = !watched.is_empty();
            let changed = self.changed.remove(index) || before != life.addresses;
            let refused = !running && of_unit(State::Refused).next().is_some();
            let ignored = !running && of_unit(State::NotSelected).next().is_some();
            let steps = [
                (running && !life.running, reason::CONTAINER_START),
                (running && life.running && changed, reason::CONTAINER_UPDATE),
                (!running && life.running, reason::CONTAINER_STOP),
                (refused && !life.refused, reason::CONTAINER_FAILED),
                (ignored && !life.ignored, reason::CONTAINER_IGNORED),
            ];
            let steps = steps.into_iter().filter(|(happened, _)| *happened);
            told.extend(steps.map(|(_, event)| record(unit, &life.addresses, event)));
            (life.running, life.refused, life.ignored) = (running, refused, ignored);
        }
        told
    }

    /// A unit was found.
    pub fn create(&mut self, unit: &Unit) -> ContainerRecord {
        let life = self.units.entry(unit.index).or_default();
        life.addresses = anywhere();
        record(unit, &life.addresses, reason::CONTAINER_CREATE)
    }

    /// A unit that was found runs, and has these addresses, by the name of the network; none where that has none of its own.
    /// What that is news of.
    pub fn run(&mut self, unit: &Unit, addresses: ExtendedMap) -> Option<ContainerRecord> {
        let life = self.units.get_mut(&unit.index)?;
        let addresses = if addresses.is_empty() { anywhere() } else { addresses };
        let before = std::mem::replace(&mut life.addresses, addresses);
        let event = match std::mem::replace(&mut life.running, true) {
            false => reason::CONTAINER_START,
            true if before != life.addresses => reason::CONTAINER_UPDATE,
            true => return None,
        };
        Some(record(unit, &life.addresses, event))
    }

    /// A unit that was found cannot be watched where it crosses.
    pub fn fail(&mut self, unit: &Unit) -> Option<ContainerRecord> {
        let life = self.units.get_mut(&unit.index)?;
        let is_news = !std::mem::replace(&mut life.refused, true);
        is_news.then(|| record(unit, &life.addresses, reason::CONTAINER_FAILED))
    }

    /// A unit that was found has no process any more. It has run, however short that was.
    pub fn stop(&mut self, unit: &Unit) -> Vec<ContainerRecord> {
        let Some(life) = self.units.get_mut(&unit.index) else { return Vec::new() };
        let start = (!life.running).then(|| record(unit, &life.addresses, reason::CONTAINER_START));
        life.running = false;
        start.into_iter().chain([record(unit, &life.addresses, reason::CONTAINER_STOP)]).collect()
    }

    /// A unit that was found is no more.
    pub fn delete(&mut self, unit: &Unit) -> Vec<ContainerRecord> {
        let Some(life) = self.units.remove(&unit.index) else { return Vec::new() };
        life.end(unit)
    }

    /// Whether a unit runs, as far as was told.
    pub fn is_running(&self, index: u16) -> bool {
        self.units.get(&index).is_some_and(|life| life.running)
    }

    /// The end of all of them.
    pub fn end(&mut self, units: &Registry) -> Vec<ContainerRecord> {
        let mut told = Vec::new();
        for (index, life) in std::mem::take(&mut self.units) {
            told.extend(units.get(index).map(|unit| life.end(unit)).into_iter().flatten());
        }
        told
    }
}

impl Life {
    fn end(self, unit: &Unit) -> Vec<ContainerRecord> {
        let stop = self.running.then(|| record(unit, &self.addresses, reason::CONTAINER_STOP));
        stop.into_iter().chain([record(unit, &self.addresses, reason::CONTAINER_DELETE)]).collect()
    }
}

/// What is told of something that is no unit.
pub fn of_no_unit(id: &str, tags: &[String], addresses: ExtendedMap, event: &str) -> ContainerRecord {
    ContainerRecord {
        context_id: id.into(),
        ip_address: if addresses.is_empty() { anywhere() } else { addresses },
        tags: Arc::new(tags.iter().map(String::as_str).collect()),
        event: event.into(),
    }
}

/// The address of what has none of its own, by the network's name of the original.
fn anywhere() -> ExtendedMap {
    [("bridge".to_owned(), ANY.to_owned())].into_iter().collect()
}

const ANY: &str = "0.0.0.0/0";

/// The unit's addresses by where they are: its ranges as `cidr`, the host's own by interface. One without any has the
/// original's `0.0.0.0/0`.
fn addresses(unit: &Unit, watched: &[&Seen]) -> ExtendedMap {
    let ranges: Vec<String> = unit.ranges.iter().map(ToString::to_string).collect();
    let ranges = (!ranges.is_empty()).then(|| ("cidr".to_owned(), ranges.join(",")));
    let interfaces = watched.iter().map(|seen| {
        let addresses = seen.addresses.join(",");
        (seen.name.clone(), if addresses.is_empty() { ANY.to_owned() } else { addresses })
    });
    let all: ExtendedMap = interfaces.chain(ranges).collect();
    if all.is_empty() && unit.interfaces.is_empty() { anywhere() } else { all }
}

fn record(unit: &Unit, addresses: &ExtendedMap, event: &str) -> ContainerRecord {
    ContainerRecord {
        context_id: unit.id.clone(),
        ip_address: addresses.clone(),
        tags: unit.tags.clone(),
        event: event.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Lives, Seen, State};
    use crate::{
        event::ContainerRecord,
        pu::registry::{Declared, Found, Kind, Registry},
    };

    fn units() -> Registry {
        let web = Declared {
            id: "web".to_owned(),
            interfaces: vec!["v1".to_owned(), "v2".to_owned()],
            tags: vec!["app=web".to_owned()],
            ..Declared::default()
        };
        let range = Declared {
            id: "range".to_owned(),
            ranges: ["10.1.0.0/16", "fd00:1::/32"].map(|range| range.parse().unwrap()).into(),
            ..Declared::default()
        };
        Registry::new(&[web, range]).unwrap()
    }

    fn seen(name: &str, state: State, addresses: &[&str]) -> Seen {
        Seen {
            pu: 101,
            name: name.to_owned(),
            state,
            addresses: addresses.iter().map(ToString::to_string).collect(),
        }
    }

    fn steps(records: &[ContainerRecord]) -> Vec<(&str, &str)> {
        records.iter().map(|record| (&*record.context_id, &*record.event)).collect()
    }

    #[test]
    fn each_step_is_told_once() {
        let (units, mut lives) = (units(), Lives::default());
        let begun = lives.begin(&units);
        assert_eq!(steps(&begun), [("web", "create"), ("range", "create"), ("range", "start")]);
        assert_eq!(begun[2].ip_address["cidr"], "10.1.0.0/16,fd00:1::/32");
        assert_eq!(*begun[0].tags, ["app=web"].into_iter().collect());
        assert_eq!(lives.follow(&units, &[]), []);
        assert_eq!(lives.follow(&units, &[seen("v1", State::Waiting, &[])]), []);
        let started = lives.follow(&units, &[seen("v1", State::Watched, &[])]);
        assert_eq!(steps(&started), [("web", "start")]);
        assert_eq!(started[0].ip_address["v1"], "0.0.0.0/0");
        assert_eq!(lives.follow(&units, &[seen("v1", State::Watched, &[])]), [], "told already");
        let both = [seen("v1", State::Watched, &["10.0.0.1"]), seen("v2", State::Watched, &[])];
        let updated = lives.follow(&units, &both);
        assert_eq!(steps(&updated), [("web", "update")]);
        assert_eq!(updated[0].ip_address["v1"], "10.0.0.1");
        assert_eq!(steps(&lives.follow(&units, &both[1..])), [("web", "update")], "one is left");
        assert_eq!(steps(&lives.follow(&units, &[])), [("web", "stop")]);
        assert_eq!(steps(&lives.follow(&units, &both)), [("web", "start")], "and again");
        let ended = lives.end(&units);
        assert_eq!(
            steps(&ended),
            [("web", "stop"), ("web", "delete"), ("range", "stop"), ("range", "delete")]
        );
        assert_eq!(lives.end(&units), []);
    }

    #[test]
    fn what_is_declared_otherwise_is_updated_once() {
        let (mut units, mut lives) = (units(), Lives::default());
        lives.begin(&units);
        let both = [seen("v1", State::Watched, &[]), seen("v2", State::Watched, &[])];
        lives.follow(&units, &both);
        let mut redeclare = |web: Declared, seen: &[Seen]| {
            let range = Declared {
                id: "range".to_owned(),
                ranges: vec!["10.2.0.0/16".parse().unwrap()],
                ..Declared::default()
            };
            let (new, done) = units.redeclared(&[web, range], 1).unwrap();
            let mut told = Vec::new();
            told.extend(done.removed.iter().flat_map(|index| lives.delete(units.get(*index).unwrap())));
            told.extend(done.changed.iter().filter_map(|index| lives.change(new.get(*index).unwrap())));
            units = new;
            told.extend(lives.follow(&units, seen));
            assert_eq!(lives.follow(&units, seen), [], "told already");
            told
        };
        let of = |interfaces: &[&str], tag: &str| Declared {
            id: "web".to_owned(),
            interfaces: interfaces.iter().map(ToString::to_string).collect(),
            tags: vec![tag.to_owned()],
            ..Declared::default()
        };
        let told = redeclare(of(&["v1", "v2"], "app=other"), &both);
        assert_eq!(steps(&told), [("range", "update"), ("web", "update")]);
        assert_eq!((&*told[0].ip_address["cidr"], told[1].tags.as_slice().len()), ("10.2.0.0/16", 1));
        assert_eq!(steps(&redeclare(of(&["v1"], "app=other"), &both[..1])), [("web", "update")]);
        assert_eq!(steps(&redeclare(of(&["v3"], "app=other"), &[])), [("web", "stop")]);
        let without = Declared { ranges: vec!["10.3.0.0/16".parse().unwrap()], ..of(&[], "app=other") };
        assert_eq!(steps(&redeclare(without, &[])), [("web", "start")]);
    }

    #[test]
    fn what_is_found_lives_step_by_step() {
        let (mut units, mut lives) = (units(), Lives::default());
        let found = Found { id: "aa".into(), kind: Kind::Container, tags: vec!["runtime=docker".into()] };
        let index = units.add(&found, 1).unwrap();
        let unit = units.get(index).unwrap();
        let created = lives.create(unit);
        assert_eq!((&*created.event, &*created.ip_address["bridge"]), ("create", "0.0.0.0/0"));
        let at = |address: &str| [("docker0".to_owned(), address.to_owned())].into_iter().collect();
        let started = lives.run(unit, at("172.17.0.2")).unwrap();
        assert_eq!((&*started.event, &*started.ip_address["docker0"]), ("start", "172.17.0.2"));
        assert_eq!(lives.run(unit, at("172.17.0.2")), None);
        let updated = lives.run(unit, at("172.17.0.3")).unwrap();
        assert_eq!((&*updated.event, &*updated.ip_address["docker0"]), ("update", "172.17.0.3"));
        assert_eq!(steps(&lives.stop(unit)), [("aa", "stop")]);
        assert_eq!(steps(&lives.delete(unit)), [("aa", "delete")]);
        assert_eq!(lives.delete(unit), []);
    }

    #[test]
    fn what_was_over_before_it_was_seen_to_run_has_run() {
        let (mut units, mut lives) = (units(), Lives::default());
        let found = Found { id: "aa".into(), kind: Kind::Container, tags: vec![] };
        let index = units.add(&found, 1).unwrap();
        let unit = units.get(index).unwrap();
        lives.create(unit);
        assert_eq!(steps(&lives.stop(unit)), [("aa", "start"), ("aa", "stop")]);
        assert_eq!(steps(&lives.end(&units)), [("aa", "delete")]);
    }

    #[test]
    fn what_cannot_be_watched_is_told_once() {
        let (units, mut lives) = (units(), Lives::default());
        lives.begin(&units);
        let refused = [seen("v1", State::Refused, &[])];
        assert_eq!(steps(&lives.follow(&units, &refused)), [("web", "forcestop")]);
        assert_eq!(lives.follow(&units, &refused), []);
        let other = [seen("v1", State::NotSelected, &[])];
        assert_eq!(steps(&lives.follow(&units, &other)), [("web", "ignore")]);
        assert_eq!(lives.follow(&units, &other), []);
        assert_eq!(steps(&lives.end(&units)), [("web", "delete"), ("range", "stop"), ("range", "delete")]);
    }
}
