//! Protocols and ports as classes.

use std::{collections::BTreeMap, sync::Arc};

use collector_ebpf::wire::UNKNOWN;

use super::{
    classes::{Classes, Conditions},
    explosion::{Explosion, What},
    rule::{Rule, Service},
};

/// The class of a protocol's ports with a prefix, but for those of longer prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// The IP protocol number.
    pub protocol: u8,
    /// The prefix, host byte order; zeros behind it.
    pub port: u16,
    /// Its length in bits, 0 to 16.
    pub length: u8,
    /// The class; not 0.
    pub class: u16,
}

/// The class of packets that were not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreadEntry {
    /// The IP protocol number; [`UNKNOWN`] for those of which it is not known.
    pub protocol: u8,
    /// The class; not 0.
    pub class: u16,
}

/// The classes that the rules of a list make of protocols and ports. Rules that are about every protocol tell nothing apart,
/// so that there is no entry for all of them.
pub(super) struct Services {
    pub(super) entries: Vec<ServiceEntry>,
    /// Of packets that were not understood; class 0 where only rules about every protocol say something of them.
    pub(super) unread: Vec<UnreadEntry>,
    pub(super) classes: Classes,
    /// The condition of each rule; none where it is about every service.
    pub(super) of_rule: Vec<Option<u32>>,
    /// Beside these, the conditions on packets that were not understood, with the rules that are about such.
    pub(super) unread_rules: Vec<(u32, Vec<u32>)>,
    /// How many conditions there are.
    pub(super) conditions: usize,
}

/// Divides protocols and ports by what rules say of them.
pub(super) fn classes(rules: &[Arc<Rule>]) -> Result<Services, Explosion> {
    let conditions = Conditions::of(rules.iter().map(|rule| &rule.service), Service::is_everything);
    let mut by_protocol: BTreeMap<u8, Vec<(u32, &Service)>> = BTreeMap::new();
    for (condition, service) in conditions.all.iter().enumerate() {
        if let Some(protocol) = service.protocol {
            by_protocol.entry(protocol).or_default().push((condition as u32, *service));
        }
    }
    let mut services = Services {
        entries: Vec::new(),
        unread: Vec::new(),
        classes: Classes::default(),
        of_rule: conditions.of_rule,
        unread_rules: Vec::new(),
        conditions: conditions.all.len(),
    };
    let too_many = |what| {
        let ports =
            |rule: &Rule| if rule.service.is_everything() { 0 } else { rule.service.ports.len().max(1) };
        Explosion::of(what, rules.iter().map(|rule| (&rule.id, ports(rule))))
    };
    let protocols: Vec<u8> = by_protocol.keys().copied().filter(|protocol| *protocol != UNKNOWN).collect();
    for (protocol, of_it) in by_protocol {
        let of_all = of_it.iter().filter(|(_, service)| service.ports.is_empty());
        let of_all: Vec<u32> = of_all.map(|(condition, _)| *condition).collect();
        let base = services.classes.number(&of_all).ok_or_else(|| too_many(What::Services))?;
        if base != 0 {
            services.entries.push(ServiceEntry { protocol, port: 0, length: 0, class: base });
        }
        let runs = runs(&of_it, &mut services.classes).ok_or_else(|| too_many(What::Services))?;
        for Run { first, last, class } in runs.into_iter().filter(|run| run.class != base) {
            prefixes(first, last, |port, length| {
                // A range of all ports takes the place of the entry for all.
                services.entries.pop_if(|entry| {
                    entry.protocol == protocol && (entry.port, entry.length) == (port, length)
                });
                services.entries.push(ServiceEntry { protocol, port, length, class });
            });
            if services.entries.len() > What::ServiceEntries.most() {
                return Err(too_many(What::ServiceEntries));
            }
        }
    }
    for protocol in protocols.into_iter().chain([UNKNOWN]) {
        services.divide_unread(protocol, rules).ok_or_else(|| too_many(What::Services))?;
    }
    Ok(services)
}

impl Services {
    /// What rules say of packets of a protocol that were not understood is a class of its own. None where there are too many.
    fn divide_unread(&mut self, protocol: u8, rules: &[Arc<Rule>]) -> Option<()> {
        let about = (0..).zip(rules).filter(|(_, rule)| rule.is_about_unread(protocol));
        let about: Vec<u32> = about.map(|(place, _)| place).collect();
        if !about.is_empty() {
            let condition = self.conditions as u32;
            self.conditions += 1;
            self.unread_rules.push((condition, about));
            self.unread.push(UnreadEntry { protocol, class: self.classes.number(&[condition])? });
        }
        Some(())
    }
}

/// Ports of one class.
struct Run {
    first: u16,
    last: u16,
    class: u16,
}

/// All ports in their order, as runs of one class each. None where there are too many classes.
fn runs(of_protocol: &[(u32, &Service)], classes: &mut Classes) -> Option<Vec<Run>> {
    // Where ranges begin and end: how many more, or fewer, of a condition's hold from a port on.
    let mut turns: BTreeMap<u32, Vec<(u32, bool)>> = BTreeMap::from([(0, Vec::new())]);
    let mut holding: BTreeMap<u32, usize> = BTreeMap::new();
    for (condition, service) in of_protocol {
        if service.ports.is_empty() {
            holding.insert(*condition, 1);
        }
        for ports in &service.ports {
            turns.entry(ports.first.into()).or_default().push((*condition, true));
            turns.entry(u32::from(ports.last) + 1).or_default().push((*condition, false));
        }
    }
    let mut runs: Vec<Run> = Vec::new();
    for (port, turns) in turns {
        for (condition, begins) in turns {
            let ranges = holding.entry(condition).or_default();
            if begins {
                *ranges += 1;
            } else {
                *ranges = ranges.saturating_sub(1);
            }
            if *ranges == 0 {
                holding.remove(&condition);
            }
        }
        // The last turn may be behind the last port.
        let Ok(first) = u16::try_from(port) else { break };
        if let Some(run) = runs.last_mut() {
            run.last = first.saturating_sub(1);
        }
        let conditions: Vec<u32> = holding.keys().copied().collect();
        let class = classes.number(&conditions)?;
        if runs.last().is_none_or(|run| run.class != class) {
            runs.push(Run { first, last: u16::MAX, class });
        } else if let Some(run) = runs.last_mut() {
            run.last = u16::MAX;
        }
    }
    Some(runs)
}

/// The fewest prefixes that are a range together, in ascending order: each with its length.
fn prefixes(first: u16, last: u16, mut each: impl FnMut(u16, u8)) {
    let (mut at, end) = (u32::from(first), u32::from(last) + 1);
    while at < end {
        // As long as it begins at a multiple of its size, and ends within the range.
        let free = at.trailing_zeros().min(16).min((end - at).ilog2());
        each(at as u16, 16 - free as u8);
        at += 1 << free;
    }
}

#[cfg(test)]
mod tests {
    use super::prefixes;

    fn all(first: u16, last: u16) -> Vec<(u16, u8)> {
        let mut all = Vec::new();
        prefixes(first, last, |port, length| all.push((port, length)));
        all
    }

    #[test]
    fn a_range_is_its_prefixes() {
        assert_eq!(all(0, u16::MAX), [(0, 0)]);
        assert_eq!(all(443, 443), [(443, 16)]);
        assert_eq!(all(1, 6), [(1, 16), (2, 15), (4, 15), (6, 16)]);
        assert_eq!(all(1024, u16::MAX), (10..16).map(|bit| (1 << bit, 16 - bit)).collect::<Vec<_>>());
        assert_eq!(all(1, u16::MAX - 1).len(), 30, "the most that there can be");
    }
}
