//! What devices and their queues have dropped by their own counters: part of it never was a socket buffer, and no program
//! is told.

use std::collections::BTreeMap;

use crate::{
    event::{DeviceDrops, QueueDrops},
    host::{
        links::Link,
        queues::{self, Queue},
    },
};

/// The counters of the interfaces since each was seen first.
#[derive(Default)]
pub(super) struct Devices {
    since: BTreeMap<u32, Since>,
}

/// What an interface has counted when it was last looked at, and by how much that had grown.
#[derive(Default)]
struct Since {
    last: DeviceDrops,
    grown: DeviceDrops,
}

impl Since {
    /// A counter that fell below half of what it was has been reset with its card, or has 32 bits: what it says now is the least
    /// that it has grown by. One that went back by less is read at two places at once, and stands still.
    fn look(&mut self, now: DeviceDrops) {
        let grow = |by: &mut u64, last: &mut u64, now: u64| {
            if now >= *last {
                *by += now - *last;
            } else if now < *last / 2 {
                *by += now;
            } else {
                return;
            }
            *last = now;
        };
        grow(&mut self.grown.received, &mut self.last.received, now.received);
        grow(&mut self.grown.missed, &mut self.last.missed, now.missed);
        grow(&mut self.grown.sent, &mut self.last.sent, now.sent);
    }
}

impl Devices {
    /// These are the interfaces now.
    pub(super) fn note(&mut self, links: &BTreeMap<u32, Link>) {
        self.since.retain(|index, _| links.contains_key(index));
        for (index, link) in links {
            let new = || Since { last: link.dropped, grown: DeviceDrops::default() };
            self.since.entry(*index).or_insert_with(new).look(link.dropped);
        }
    }

    /// What the device had dropped since it was seen first, when it was last looked at.
    pub(super) fn since(&self, index: u32) -> Option<DeviceDrops> {
        self.since.get(&index).map(|since| since.grown)
    }
}

/// The counters of the queueing disciplines as they were when the collector started.
#[derive(Default)]
pub(super) struct Queues {
    /// `None` where they could not be read.
    before: Option<BTreeMap<u32, Queue>>,
    /// Those that were there when that was looked at last: what each is called, and its handle where that is known.
    there: BTreeMap<u32, (String, Option<u32>)>,
    /// One has gone since it started, and what it had counted with it.
    have_gone: bool,
}

impl Queues {
    /// These are there when it starts; what comes later has counted nothing before.
    pub(super) fn begin(&mut self, queues: Option<BTreeMap<u32, Queue>>) {
        if let Some(queues) = &queues {
            self.look(queues);
        }
        self.before = queues;
    }

    /// These are there now.
    pub(super) fn look(&mut self, queues: &BTreeMap<u32, Queue>) {
        let is_there = |index: &u32, kind: &str, handle: Option<u32>| {
            let queue = queues.get(index).filter(|queue| queue.kind == kind);
            queue.is_some_and(|queue| handle.is_none_or(|handle| handle == queue.handle))
        };
        self.have_gone |= self.there.iter().any(|(index, (kind, handle))| !is_there(index, kind, *handle));
        let now = queues.iter().map(|(index, queue)| (*index, (queue.kind.clone(), Some(queue.handle))));
        self.there = now.collect();
    }

    /// These are the interfaces now: who is no more had perhaps a queue, which may have come since that was looked at.
    pub(super) fn note(&mut self, links: &BTreeMap<u32, Link>) {
        self.have_gone |= self.there.keys().any(|index| !links.contains_key(index));
        self.there.retain(|index, _| links.contains_key(index));
        for link in links.values().filter(|link| !["", "noop", queues::NONE].contains(&&*link.queue)) {
            self.there.entry(link.index).or_insert_with(|| (link.queue.clone(), None));
        }
    }

    /// One has gone.
    pub(super) const fn went(&mut self) {
        self.have_gone = true;
    }

    /// Whether one has gone since it started: what it dropped nobody knows, though it was told.
    pub(super) const fn have_gone(&self) -> bool {
        self.have_gone
    }

    /// What the discipline of an interface has dropped since; `None` where nobody knows.
    ///
    /// One that was made anew with the handle of another is told from that by a counter that went back.
    pub(super) fn since(&self, index: u32, now: &Queue) -> Option<QueueDrops> {
        let Queue { handle, kind, dropped, over_limits } = now;
        let went_back = |now: u32, before: u32| now.wrapping_sub(before) > u32::MAX / 2;
        let same = self.before.as_ref()?.get(&index).filter(|before| {
            before.handle == *handle
                && before.kind == *kind
                && !went_back(*dropped, before.dropped)
                && !went_back(*over_limits, before.over_limits)
        });
        let (dropped_before, over_before) =
            same.map_or((0, 0), |before| (before.dropped, before.over_limits));
        Some(QueueDrops {
            discipline: kind.clone(),
            dropped: dropped.wrapping_sub(dropped_before).into(),
            over_limits: over_limits.wrapping_sub(over_before).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Devices, Queues};
    use crate::{
        event::{DeviceDrops, QueueDrops},
        host::{links::Link, queues::Queue},
    };

    #[test]
    fn a_counter_that_goes_back_begins_anew() {
        let mut devices = Devices::default();
        let mut since = |received, missed| {
            let dropped = DeviceDrops { received, missed, sent: 7 };
            devices.note(&[(3, Link { index: 3, dropped, ..Link::default() })].into());
            let DeviceDrops { received, missed, sent } = devices.since(3).unwrap();
            [received, missed, sent]
        };
        assert_eq!(since(u64::from(u32::MAX), 1000), [0, 0, 0], "from before");
        assert_eq!(since(u64::from(u32::MAX) + 1, 1004), [1, 4, 0]);
        assert_eq!(since(5, 1005), [6, 5, 0]);
        assert_eq!(since(8, 2), [9, 7, 0]);
        assert_eq!(since(7, 2), [9, 7, 0], "one that jitters");
        assert_eq!(since(9, 2), [10, 7, 0]);
    }

    #[test]
    fn a_queue_that_has_gone_is_remembered() {
        let queue = |handle| Queue { handle, kind: "tbf".to_owned(), dropped: 4, over_limits: 0 };
        let link = |index, queue: &str| Link { index, queue: queue.to_owned(), ..Link::default() };
        let links = |links: &[Link]| links.iter().map(|link| (link.index, link.clone())).collect();
        let begun = || {
            let mut queues = Queues::default();
            queues.begin(Some([(3, queue(1))].into()));
            queues.note(&links(&[link(3, "tbf"), link(4, "noqueue")]));
            queues.look(&[(3, queue(1))].into());
            assert!(!queues.have_gone());
            queues
        };
        let has_gone = |after: &dyn Fn(&mut Queues)| {
            let mut queues = begun();
            after(&mut queues);
            queues.have_gone()
        };
        assert!(!has_gone(&|queues| queues.note(&links(&[link(3, "tbf")]))), "what had no queue");
        assert!(has_gone(&|queues| queues.note(&links(&[link(4, "noqueue")]))));
        assert!(has_gone(&|queues| queues.look(&[(3, queue(2))].into())), "another one");
        assert!(has_gone(&Queues::went));
        // One that comes and goes.
        assert!(has_gone(&|queues| {
            queues.note(&links(&[link(3, "tbf"), link(5, "pfifo_fast")]));
            queues.note(&links(&[link(3, "tbf")]));
        }));
    }

    #[test]
    fn a_queue_counts_since_the_start_or_since_it_is_there() {
        let queue = |handle, dropped| Queue { handle, kind: "tbf".to_owned(), dropped, over_limits: dropped };
        let mut queues = Queues::default();
        assert_eq!(queues.since(3, &queue(1, 4)), None, "nobody could read them");
        queues.begin(Some([(3, queue(1, u32::MAX)), (5, queue(1, 1000))].into()));
        let since = |index, now: &Queue| {
            let QueueDrops { dropped, over_limits, .. } = queues.since(index, now).unwrap();
            (dropped, over_limits)
        };
        assert_eq!(since(5, &queue(1, 4)), (4, 4), "another one, by the same handle");
        assert_eq!(since(3, &queue(1, 4)), (5, 5), "the kernel counts with 32 bits");
        assert_eq!(since(3, &queue(2, 4)), (4, 4), "another one");
        assert_eq!(since(4, &queue(1, 4)), (4, 4), "of an interface that came");
    }
}
