//! Numbers of interfaces, and what is counted under them.
//!
//! Flows name an interface's boundary by its number, and it must mean the same as long as one of them is remembered: which
//! interface it is, and on which side of it the host is.

use std::collections::{BTreeSet, VecDeque};

use collector_ebpf::abi::{flow::FIRST_BOUNDARY, network};

/// The numbers that were given. One that was given back is taken again only when no fresh one is left, and the one given
/// back first before others: flows that were counted under it are long over.
#[derive(Default)]
pub(super) struct Numbers {
    taken: u16,
    back: VecDeque<u16>,
    /// Those at whose boundary the host is the remote end, and those where it is the local one.
    sides: [BTreeSet<u16>; 2],
}

impl Numbers {
    /// One boundary each, of those that are not VLAN ids, nor networks inside of tunnels.
    pub(super) const MOST: u16 = network::FIRST - 1 - FIRST_BOUNDARY;

    /// The boundary of the interface with this number.
    pub(super) const fn boundary(number: u16) -> u16 {
        FIRST_BOUNDARY + number
    }

    /// A number for an interface that has a boundary of its own where there is a `host_is_remote`, which says on which side
    /// of it the host is: the `known` one, unless the host was on the other side of that. `None` where there is none left.
    pub(super) fn give(&mut self, known: Option<u16>, host_is_remote: Option<bool>) -> Option<u16> {
        let Some(is_remote) = host_is_remote else { return known.or_else(|| self.take()) };
        let [remote, local] = &self.sides;
        let other = if is_remote { local } else { remote };
        let kept = known.filter(|number| !other.contains(number));
        let number = if let Some(number) = kept {
            number
        } else {
            let fresh = self.take()?;
            if let Some(number) = known {
                self.give_back(number);
            }
            fresh
        };
        let [remote, local] = &mut self.sides;
        if is_remote { remote } else { local }.insert(number);
        Some(number)
    }

    fn take(&mut self) -> Option<u16> {
        if self.taken < Self::MOST {
            self.taken += 1;
            return Some(self.taken);
        }
        let number = self.back.pop_front()?;
        for side in &mut self.sides {
            side.remove(&number);
        }
        Some(number)
    }

    /// The interface that had the number has it no more.
    pub(super) fn give_back(&mut self, number: u16) {
        self.back.push_back(number);
    }

    /// Whether the host is the remote end of what crosses a boundary: it is the host-side end of what lies behind it.
    pub(super) fn is_far(&self, boundary: u16) -> bool {
        let [remote, _] = &self.sides;
        boundary.checked_sub(FIRST_BOUNDARY).is_some_and(|number| remote.contains(&number))
    }
}

#[cfg(test)]
mod tests {
    use collector_ebpf::abi::{flow::FIRST_BOUNDARY, network};

    use super::Numbers;

    #[test]
    fn numbers_come_again_only_when_there_are_no_others() {
        let mut numbers = Numbers::default();
        assert_eq!([numbers.give(None, None), numbers.give(None, Some(true))], [Some(1), Some(2)]);
        numbers.give_back(2);
        for expected in 3..=Numbers::MOST {
            assert_eq!(numbers.give(None, None), Some(expected));
        }
        numbers.give_back(7);
        assert!(numbers.is_far(Numbers::boundary(2)), "its flows may still be told");
        assert_eq!(numbers.give(None, Some(false)), Some(2));
        assert!(!numbers.is_far(Numbers::boundary(2)), "it means another interface now");
        assert_eq!([numbers.give(None, None), numbers.give(None, None)], [Some(7), None]);
    }

    #[test]
    fn an_interface_on_whose_other_side_the_host_is_now_has_another_number() {
        let mut numbers = Numbers::default();
        let first = numbers.give(None, Some(true));
        assert_eq!(numbers.give(first, Some(true)), first);
        assert_eq!(numbers.give(first, None), first, "at an uplink nothing is counted by its number");
        let second = numbers.give(first, Some(false));
        assert_eq!([first, second], [Some(1), Some(2)]);
        assert_eq!([1, 2].map(|number| numbers.is_far(Numbers::boundary(number))), [true, false]);
        let third = numbers.give(second, Some(true));
        assert_eq!(third, Some(3), "those given back come last");
        assert!(!numbers.is_far(0) && !numbers.is_far(4000) && !numbers.is_far(network::FIRST));
    }

    #[test]
    fn no_boundary_is_a_vlan() {
        assert!(Numbers::boundary(1) > FIRST_BOUNDARY);
        assert!(!network::is_inside(Numbers::boundary(Numbers::MOST)));
    }
}
