//! The numbers by which the programs know verdicts.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::{explosion::What, verdict::Verdict};

/// Verdicts by number, and how long each is needed.
///
/// A number stays a verdict's as long as a set has it, and for a while after that: records of flows that were judged by it
/// are still to come. Number 0 is always that nobody has spoken of the flow.
#[derive(Clone, Debug)]
pub struct Verdicts {
    known: BTreeMap<u16, Known>,
    numbers: HashMap<Verdict, u16>,
    /// The greatest number that was given.
    last: u16,
    /// Numbers that were given back: the one first that has been free for longest.
    free: VecDeque<u16>,
}

#[derive(Clone, Debug)]
struct Known {
    verdict: Verdict,
    /// How many sets have it.
    sets: usize,
    /// Where none has: since when, or when it was last heard of, on the boot clock in nanoseconds.
    over: u64,
}

impl Default for Verdicts {
    fn default() -> Self {
        let known = Known { verdict: Verdict::default(), sets: 1, over: 0 };
        Self {
            numbers: HashMap::from([(known.verdict.clone(), 0)]),
            known: BTreeMap::from([(0, known)]),
            last: 0,
            free: VecDeque::new(),
        }
    }
}

impl Verdicts {
    /// The verdict of a number that a record has.
    pub fn get(&self, number: u16) -> Option<&Verdict> {
        self.known.get(&number).map(|known| &known.verdict)
    }

    /// A record with this number came at `now`, on the boot clock in nanoseconds: others may.
    pub fn is_heard_of(&mut self, number: u16, now: u64) {
        if let Some(known) = self.known.get_mut(&number).filter(|known| known.sets == 0) {
            known.over = now.max(known.over);
        }
    }

    /// Forgets those that no set has, and of which nothing was heard since `before`, on the boot clock in nanoseconds:
    /// their numbers may be others' from now on.
    pub fn forget(&mut self, before: u64) {
        let over = self.known.iter().filter(|(_, known)| known.sets == 0 && known.over < before);
        let over: Vec<u16> = over.map(|(number, _)| *number).collect();
        for number in over {
            if let Some(known) = self.known.remove(&number) {
                self.numbers.remove(&known.verdict);
            }
            self.free.push_back(number);
        }
    }

    /// The number of a verdict that one more set has. None where there is none left.
    pub(super) fn take(&mut self, verdict: &Verdict) -> Option<u16> {
        if let Some(number) = self.numbers.get(verdict) {
            if let Some(known) = self.known.get_mut(number) {
                known.sets += 1;
            }
            return Some(*number);
        }
        // A fresh one, as long as there are: what was said by another is then long told.
        let number = if usize::from(self.last) < What::Verdicts.most() {
            self.last += 1;
            self.last
        } else {
            self.free.pop_front()?
        };
        self.numbers.insert(verdict.clone(), number);
        self.known.insert(number, Known { verdict: verdict.clone(), sets: 1, over: 0 });
        Some(number)
    }

    /// A set that had it, and gave it back a moment ago, has it again.
    pub(super) fn take_again(&mut self, number: u16) {
        if let Some(known) = self.known.get_mut(&number) {
            known.sets += 1;
        }
    }

    /// A set that had it is not used any more, from `now` on, on the boot clock in nanoseconds.
    pub(super) fn give_back(&mut self, number: u16, now: u64) {
        if let Some(known) = self.known.get_mut(&number) {
            known.sets = known.sets.saturating_sub(1);
            known.over = now.max(known.over);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Verdicts;
    use crate::{event::ActionType, policy::verdict::Verdict};

    fn by(id: &str) -> Verdict {
        Verdict::of(ActionType::REJECT, id.into())
    }

    #[test]
    fn nought_is_that_nobody_has_spoken() {
        let mut verdicts = Verdicts::default();
        assert_eq!(verdicts.take(&Verdict::default()), Some(0));
        verdicts.give_back(0, 5);
        verdicts.forget(u64::MAX);
        assert_eq!(verdicts.get(0), Some(&Verdict::default()));
        assert_eq!(verdicts.get(1), None);
    }

    #[test]
    fn a_verdict_has_one_number_and_keeps_it_until_it_is_long_silent() {
        let mut verdicts = Verdicts::default();
        assert_eq!([by("a"), by("a"), by("b")].map(|it| verdicts.take(&it)), [Some(1), Some(1), Some(2)]);
        verdicts.give_back(1, 10);
        verdicts.forget(100);
        assert_eq!(verdicts.get(1), Some(&by("a")), "another set has it");
        verdicts.give_back(1, 20);
        verdicts.is_heard_of(1, 50);
        verdicts.forget(50);
        assert_eq!(verdicts.get(1), Some(&by("a")));
        assert_eq!(verdicts.take(&by("a")), Some(1), "and it is used again");
        verdicts.give_back(1, 60);
        verdicts.forget(61);
        assert_eq!((verdicts.get(1), verdicts.get(2)), (None, Some(&by("b"))));
        assert_eq!(verdicts.take(&by("c")), Some(3), "fresh ones first");
    }

    #[test]
    fn there_is_an_end_and_what_was_forgotten_comes_again() {
        let mut verdicts = Verdicts::default();
        for number in 1..=u16::MAX {
            assert_eq!(verdicts.take(&by(&number.to_string())), Some(number));
        }
        assert_eq!(verdicts.take(&by("more")), None);
        for number in [7, 5] {
            verdicts.give_back(number, 10);
            verdicts.forget(11);
        }
        assert_eq!([by("more"), by("again")].map(|it| verdicts.take(&it)), [Some(7), Some(5)]);
    }
}
