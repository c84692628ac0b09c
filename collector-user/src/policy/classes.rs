//! Classes: what no rule tells apart, by which rules' conditions hold for it.

use std::{collections::HashMap, hash::Hash};

/// The conditions of one kind that rules have: each once, whatever the number of rules that have it.
pub(super) struct Conditions<'a, T> {
    /// The conditions that differ.
    pub(super) all: Vec<&'a T>,
    /// The condition of each rule; none where it always holds.
    pub(super) of_rule: Vec<Option<u32>>,
}

impl<'a, T: Eq + Hash> Conditions<'a, T> {
    pub(super) fn of(given: impl Iterator<Item = &'a T>, always: impl Fn(&T) -> bool) -> Self {
        let mut numbers: HashMap<&T, u32> = HashMap::new();
        let mut conditions = Self { all: Vec::new(), of_rule: Vec::new() };
        for condition in given {
            if always(condition) {
                conditions.of_rule.push(None);
                continue;
            }
            let fresh = conditions.all.len() as u32;
            let number = *numbers.entry(condition).or_insert(fresh);
            if number == fresh {
                conditions.all.push(condition);
            }
            conditions.of_rule.push(Some(number));
        }
        conditions
    }
}

/// Classes by number. Class 0 is what no condition holds for.
pub(super) struct Classes {
    /// The conditions that hold in each class, in ascending order.
    holding: Vec<Box<[u32]>>,
    numbers: HashMap<Box<[u32]>, u16>,
    /// Conditions of all classes together.
    size: usize,
}

/// More conditions of all classes together are taken for too many classes: 64 MiB.
const MOST_CONDITIONS: usize = 1 << 24;

impl Default for Classes {
    fn default() -> Self {
        let none: Box<[u32]> = Box::default();
        Self { holding: vec![none.clone()], numbers: HashMap::from([(none, 0)]), size: 0 }
    }
}

impl Classes {
    /// The class for which these conditions hold, in ascending order. None where there would be too many.
    pub(super) fn number(&mut self, conditions: &[u32]) -> Option<u16> {
        if let Some(number) = self.numbers.get(conditions) {
            return Some(*number);
        }
        let number = u16::try_from(self.holding.len()).ok()?;
        self.size += conditions.len();
        if self.size > MOST_CONDITIONS {
            return None;
        }
        self.numbers.insert(conditions.into(), number);
        self.holding.push(conditions.into());
        Some(number)
    }

    /// The conditions that hold in a class.
    pub(super) fn holding(&self, class: u16) -> &[u32] {
        self.holding.get(usize::from(class)).map_or(&[], |holding| holding)
    }

    /// Each class with the conditions that hold in it.
    pub(super) fn each(&self) -> impl Iterator<Item = (u16, &[u32])> {
        self.holding.iter().enumerate().map(|(class, holding)| (class as u16, &**holding))
    }

    /// How many there are, class 0 among them.
    pub(super) fn len(&self) -> usize {
        self.holding.len()
    }
}
