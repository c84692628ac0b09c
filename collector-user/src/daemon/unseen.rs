//! What crossed an uplink and the programs never saw, by difference to the interface's own counters: packets that were sent
//! past the queueing discipline (`PACKET_QDISC_BYPASS`, `AF_XDP`), redirected or dropped by programs of others before ours.
//!
//! Whatever drivers count, buffers or the wire packets that they stand for, a number between the two explains itself. What is
//! beyond is named, and never less than it was, but for packets in flight when the counters were read.

use std::collections::BTreeMap;

use collector_ebpf::abi::{
    control::{Crossed, UPLINKS},
    flow::{RX, TX},
};

use crate::{event::Unseen, kernel::object::Ledgers};

/// What crossed each place so far.
pub(super) type All = [Crossed; UPLINKS];

/// That.
pub(super) fn crossed(ledgers: &Ledgers) -> All {
    std::array::from_fn(|place| ledgers.crossed(place))
}

/// The uplinks that are followed.
#[derive(Default)]
pub(super) struct Uplinks {
    /// By interface index.
    followed: BTreeMap<u32, Followed>,
}

struct Followed {
    /// Its entry in the programs' counters; none while nothing hangs on it.
    place: usize,
    /// None until the programs count there.
    compared: Option<Compared>,
}

/// What two counters have said that shall say the same.
struct Compared {
    /// What stood at the programs' entry, and what the interface had counted, when they were compared first.
    begin: (Crossed, [u64; 2]),
    /// What the interface had counted when it was last looked at.
    last: [u64; 2],
    /// What was unseen since the beginning.
    unseen: Unseen,
    /// What was before, when the interface had not begun to count anew.
    past: Unseen,
}

impl Compared {
    fn new(crossed: Crossed, counted: [u64; 2], past: Unseen) -> Self {
        Self { begin: (crossed, counted), last: counted, unseen: Unseen::default(), past }
    }

    /// What has never been seen so far.
    fn all(&self) -> Unseen {
        let (one, other) = (&self.past, &self.unseen);
        Unseen {
            received: one.received + other.received,
            sent: one.sent + other.sent,
            dropped_behind: one.dropped_behind + other.dropped_behind,
        }
    }

    /// Whether the interface has begun to count anew.
    fn look(&mut self, earlier: &Crossed, crossed: Crossed, counted: [u64; 2]) -> bool {
        let went_back = counted.iter().zip(&self.last).any(|(now, before)| now < before);
        if went_back {
            // From before it counted: what comes in between is seen, and not counted.
            *self = Self::new(*earlier, counted, self.all());
        } else {
            let (before, base) = &self.begin;
            self.unseen = difference(before, &crossed, base, &counted);
            self.last = counted;
        }
        went_back
    }
}

impl Uplinks {
    /// The place of an uplink: its own, or the first that nobody has; 0 where there is none, and what crosses it unseen is
    /// not told.
    pub(super) fn place(&mut self, index: u32) -> u32 {
        if let Some(followed) = self.followed.get(&index) {
            return followed.place as u32;
        }
        let is_free = |place: &usize| self.followed.values().all(|followed| followed.place != *place);
        let Some(place) = (1..UPLINKS).find(is_free) else { return 0 };
        self.followed.insert(index, Followed { place, compared: None });
        place as u32
    }

    /// The interface is no uplink any more, or gone.
    pub(super) fn forget(&mut self, index: u32) {
        self.followed.remove(&index);
    }

    /// The place of an uplink that is not compared yet.
    pub(super) fn is_new(&self, index: u32) -> Option<usize> {
        self.followed
            .get(&index)
            .filter(|followed| followed.compared.is_none())
            .map(|followed| followed.place)
    }

    /// The programs hang on an interface: from here on it is compared. First what they had seen `crossed` it was read, then
    /// what it had `counted`: what came in between is seen, and not counted.
    pub(super) fn begin(&mut self, index: u32, crossed: Crossed, counted: [u64; 2]) {
        if let Some(followed) = self.followed.get_mut(&index) {
            followed.compared = Some(Compared::new(crossed, counted, Unseen::default()));
        }
    }

    /// Compares what an interface has counted by now. Whether it has begun to count anew, as one does whose driver resets
    /// it: what crossed it since it was last looked at is not compared then, for nobody knows what it had counted.
    ///
    /// What it has `counted` was read between what the programs had seen `before` and what they see now.
    pub(super) fn look(&mut self, index: u32, before: &All, ledgers: &Ledgers, counted: [u64; 2]) -> bool {
        let Some(Followed { place, compared: Some(compared) }) = self.followed.get_mut(&index) else {
            return false;
        };
        let before = before.get(*place).copied().unwrap_or_default();
        compared.look(&before, ledgers.crossed(*place), counted)
    }

    /// What has never been seen of what an interface had counted when it was last [looked](Self::look) at.
    pub(super) fn unseen(&self, index: u32) -> Option<Unseen> {
        self.followed.get(&index)?.compared.as_ref().map(Compared::all)
    }
}

fn difference(before: &Crossed, now: &Crossed, base: &[u64; 2], counted: &[u64; 2]) -> Unseen {
    let of = |direction: usize| {
        let part = |counts: &[u64; 2]| counts.get(direction).copied().unwrap_or_default();
        let since = |now: &[u64; 2], before: &[u64; 2]| part(now).wrapping_sub(part(before));
        let counted = part(counted).saturating_sub(part(base));
        let packets = since(&now.packets, &before.packets);
        let skbs = since(&now.skbs, &before.skbs);
        (counted.saturating_sub(packets.max(skbs)), skbs.min(packets).saturating_sub(counted))
    };
    let ((received, _), (sent, dropped)) = (of(RX), of(TX));
    Unseen { received, sent, dropped_behind: dropped }
}

#[cfg(test)]
mod tests {
    use collector_ebpf::abi::control::{Crossed, UPLINKS};

    use super::{Compared, Uplinks, difference};
    use crate::event::Unseen;

    #[test]
    fn an_interface_that_counts_anew_is_compared_anew() {
        let crossed = |packets| Crossed { skbs: [packets; 2], packets: [packets; 2] };
        let unseen = |received| Unseen { received, ..Unseen::default() };
        // One of 32 bits that wraps, and one that was reset: what the programs have seen is no drop behind them.
        for last in [u64::from(u32::MAX) - 10, 5000] {
            let mut compared = Compared::new(crossed(0), [last - 103; 2], Unseen::default());
            let mut look = |before, now, counted| {
                let is_anew = compared.look(&crossed(before), crossed(now), counted);
                (is_anew, compared.all())
            };
            assert_eq!(look(90, 100, [last, last - 3]), (false, unseen(3)));
            // What it had counted in between nobody knows; what came while it was read is in neither.
            assert_eq!(look(1090, 1100, [900, 900]), (true, unseen(3)));
            assert_eq!(look(1190, 1190, [1004, 1000]), (false, unseen(7)));
        }
    }

    #[test]
    fn a_count_between_buffers_and_packets_explains_itself() {
        let before = Crossed { skbs: [u64::MAX, 7], packets: [5, 9] };
        let now = Crossed { skbs: [9, 17], packets: [105, 109] };
        let of = |received: u64, sent: u64| {
            difference(&before, &now, &[1000, 2000], &[1000 + received, 2000 + sent])
        };
        for (received, sent) in [(10, 10), (100, 100), (50, 70)] {
            assert_eq!(of(received, sent), Unseen::default(), "{received} {sent}");
        }
        assert_eq!(of(103, 101), Unseen { received: 3, sent: 1, dropped_behind: 0 });
        assert_eq!(of(8, 6), Unseen { received: 0, sent: 0, dropped_behind: 4 });
    }

    #[test]
    fn places_are_given_to_so_many_and_come_again() {
        let mut uplinks = Uplinks::default();
        let places: Vec<_> = (1..=UPLINKS as u32).map(|index| uplinks.place(index)).collect();
        assert_eq!(places, [1, 2, 3, 4, 5, 6, 7, 0]);
        assert_eq!(uplinks.place(3), 3);
        uplinks.forget(3);
        assert_eq!((uplinks.place(9), uplinks.place(8)), (3, 0));
    }
}
