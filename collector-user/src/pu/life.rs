//! The life of declared units, as container records tell it: each step once, when it happens.
//!
//! A unit is created when it is declared, and deleted when the collector ends. One with interfaces starts when the first
//! of them is watched and stops when the last one is gone; one that is ranges only runs from its creation on.

use std::collections::BTreeMap;

use crate::{
    event::{ContainerRecord, ExtendedMap, reason},
    pu::registry::{Registry, Unit, is_named},
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

/// What was told of each declared unit.
#[derive(Debug, Default)]
pub struct Lives {
    units: BTreeMap<u16, Life>,
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
        let mut told = Vec::new();
        for unit in units.iter().filter(|unit| is_named(unit.index)) {
            let life = self.units.entry(unit.index).or_default();
            life.addresses = addresses(unit, &[]);
            told.push(record(unit, &life.addresses, reason::CONTAINER_CREATE));
            if unit.interfaces.is_empty() {
                life.running = true;
                told.push(record(unit, &life.addresses, reason::CONTAINER_START));
            }
        }
        told
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
            let refused = !running && of_unit(State::Refused).next().is_some();
            let ignored = !running && of_unit(State::NotSelected).next().is_some();
            let steps = [
                (running && !life.running, reason::CONTAINER_START),
                (running && life.running && before != life.addresses, reason::CONTAINER_UPDATE),
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

    /// The end of all of them.
    pub fn end(&mut self, units: &Registry) -> Vec<ContainerRecord> {
        let mut told = Vec::new();
        for (index, life) in std::mem::take(&mut self.units) {
            let Some(unit) = units.get(index) else { continue };
            if life.running {
                told.push(record(unit, &life.addresses, reason::CONTAINER_STOP));
            }
            told.push(record(unit, &life.addresses, reason::CONTAINER_DELETE));
        }
        told
    }
}

/// The unit's addresses by where they are: its ranges as `cidr`, the host's own by interface. One without any has the
/// original's `0.0.0.0/0`.
fn addresses(unit: &Unit, watched: &[&Seen]) -> ExtendedMap {
    const ANY: &str = "0.0.0.0/0";
    let ranges: Vec<String> = unit.ranges.iter().map(ToString::to_string).collect();
    let ranges = (!ranges.is_empty()).then(|| ("cidr".to_owned(), ranges.join(",")));
    let interfaces = watched.iter().map(|seen| {
        let addresses = seen.addresses.join(",");
        (seen.name.clone(), if addresses.is_empty() { ANY.to_owned() } else { addresses })
    });
    interfaces.chain(ranges).collect()
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
        pu::registry::{Declared, Registry},
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
