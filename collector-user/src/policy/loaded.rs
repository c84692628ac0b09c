//! The policies that hold, and which rules they are to a unit.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use collector_ebpf::abi::policy::{INCOMING, OUTGOING};

use super::{
    explosion::What,
    rule::{Policy, Rule, Subject},
    select::Selection,
};
use crate::{event::Text, pu::trace::Directions};

/// The rules of a list, by number.
pub(super) type List = Box<[u32]>;

/// The policies that hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Loaded {
    policies: Vec<Policy>,
    pub(super) is_enforced: bool,
    selection: Selection,
    /// Rules by their contents, those from before among them: one that is loaded again has the same number.
    numbers: HashMap<Arc<Rule>, u32>,
    rules: HashMap<u32, Arc<Rule>>,
    last: u32,
    /// The number of each policy's rule.
    of_policy: Vec<u32>,
}

impl Loaded {
    pub(super) fn of(policies: &[Policy], is_enforced: bool, before: &Self) -> Self {
        let mut numbers = before.numbers.clone();
        let mut last = before.last;
        let of_policy = policies.iter().map(|policy| {
            *numbers.entry(Arc::clone(&policy.rule)).or_insert_with(|| {
                // As many as there are rules in a file at a time, for longer than files are loaded.
                last = last.wrapping_add(1);
                last
            })
        });
        let of_policy = of_policy.collect();
        let rules = numbers.iter().map(|(rule, number)| (*number, Arc::clone(rule))).collect();
        Self {
            selection: Selection::of(policies),
            policies: policies.to_vec(),
            is_enforced,
            numbers,
            rules,
            last,
            of_policy,
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The rules that a unit has, by direction.
    pub(super) fn lists(&self, unit: &Subject) -> [List; 2] {
        let mut lists = [Vec::new(), Vec::new()];
        for place in self.selection.about(&self.policies, unit) {
            let place = place as usize;
            let (Some(policy), Some(number)) = (self.policies.get(place), self.of_policy.get(place)) else {
                continue;
            };
            for (direction, other) in [(INCOMING, Directions::Out), (OUTGOING, Directions::In)] {
                if policy.directions != other
                    && let Some(list) = lists.get_mut(direction)
                {
                    list.push(*number);
                }
            }
        }
        lists.map(Vec::into_boxed_slice)
    }

    /// The rules of a list.
    pub(super) fn rules(&self, list: &List) -> Vec<Arc<Rule>> {
        list.iter().filter_map(|number| self.rules.get(number)).map(Arc::clone).collect()
    }

    /// Forgets the rules that none of these lists has, and no policy.
    pub(super) fn forget<'a>(&mut self, lists: impl Iterator<Item = &'a List>) {
        let mut needed: HashSet<u32> = self.of_policy.iter().copied().collect();
        needed.extend(lists.flatten());
        self.numbers.retain(|_, number| needed.contains(number));
        self.rules.retain(|number, _| needed.contains(number));
    }

    /// How great a part each policy has in what there is too much of.
    pub(super) fn parts<'a>(&'a self, what: What, lists: &[(Subject, [List; 2])]) -> Vec<(&'a Text, usize)> {
        let mut times: HashMap<u32, usize> = HashMap::new();
        let mut seen: HashSet<&List> = HashSet::new();
        for list in lists.iter().flat_map(|(_, lists)| lists).filter(|list| seen.insert(list)) {
            for number in list {
                *times.entry(*number).or_default() += 1;
            }
        }
        let part = |rule: &Rule| match what {
            What::RemoteEntries => rule.remote.all().count(),
            What::ServiceEntries => rule.service.ports.len().max(1),
            _ => rule.remote.all().count().max(1) * rule.service.ports.len().max(1),
        };
        let rules = self.policies.iter().map(|policy| &policy.rule);
        let of = |rule: &Rule, number: &u32| times.get(number).map_or(0, |times| times * part(rule));
        rules.zip(&self.of_policy).map(|(rule, number)| (&rule.id, of(rule, number))).collect()
    }
}
