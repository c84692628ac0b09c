//! Time, which is the packets' own: on one clock it is what their capture says, on the other it only goes forward.

use std::mem;

use super::{Oddity, Replay, fragments::Fragments, nobody};
use crate::read::{backwards::Older, container::Record};

/// Between two drains of the table, in nanoseconds of the packets' time.
const DRAIN_NS: u64 = 1_000_000_000;
/// Longer than any flow is remembered without a packet.
const AGES_NS: u64 = 100_000_000_000_000;

impl Replay<'_> {
    /// Goes on to the frame's time. Time does not run backwards for what is due.
    pub(super) fn pass_time(&mut self, record: &Record<'_>) -> Option<Oddity> {
        let wall = record.time?;
        if mem::take(&mut self.is_first) {
            if self.drain_due == 0 {
                // The clock that only goes forward begins as the other one, where that can be.
                let boot = u64::try_from(wall).unwrap_or(0);
                (self.moment.boot_ns, self.moment.wall_ns, self.now) = (boot, wall, boot);
                (self.drain_due, self.report_due) =
                    (boot.saturating_add(DRAIN_NS), boot.saturating_add(self.counter_interval));
            } else if wall < self.moment.wall_ns {
                self.leave_off();
                self.moment.wall_ns = wall;
            }
        }
        let time = self.clock(wall);
        if time < self.now {
            let Older { is_odd, is_set_back } = self.behind.by(self.now - time);
            self.backwards += u64::from(is_odd);
            if is_set_back {
                // Nothing would fall due before the packets have caught up, if ever.
                self.moment.wall_ns = wall;
            }
            return is_odd.then_some(Oddity::Backwards);
        }
        self.behind.none();
        if time >= self.drain_due {
            // What is due between two packets is due at the second one: nothing is counted in between.
            self.drain();
            self.drain_due = time.saturating_add(DRAIN_NS - (time - self.drain_due) % DRAIN_NS);
            self.go_on(time);
            self.settle(time);
            if time >= self.report_due {
                self.report();
                self.report_due = time.saturating_add(self.counter_interval);
            }
        }
        self.go_on(time);
        None
    }

    /// A time since 1970 on the clock that only goes forward.
    pub(super) fn clock(&self, wall: i64) -> u64 {
        self.moment.boot_ns.saturating_add_signed(wall.saturating_sub(self.moment.wall_ns))
    }

    const fn go_on(&mut self, time: u64) {
        self.moment.wall_ns = self.moment.wall_ns.saturating_add_unsigned(time - self.moment.boot_ns);
        (self.moment.boot_ns, self.now) = (time, time);
    }

    /// Tells all that is left of flows, and forgets them.
    fn leave_off(&mut self) {
        self.tell_all();
        let now = self.now.saturating_add(AGES_NS);
        while !self.flows.is_empty() {
            // All was told.
            let over = self.flows.settle(now, now, &nobody, |_, _| {});
            self.table.forget(&over);
        }
        self.fragments = Fragments::default();
        (self.moment.boot_ns, self.now) = (now, now);
        (self.drain_due, self.report_due) =
            (now.saturating_add(DRAIN_NS), now.saturating_add(self.counter_interval));
    }
}
