//! The only place that reads clocks. Everything else takes a time.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::event::Time;

/// The wall clock now.
pub fn wall() -> Time {
    Time::new(Timestamp::now())
}

/// `CLOCK_BOOTTIME` now, in nanoseconds: the clock of the programs.
pub fn boot() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The time of the packet at hand, where packets are read from a capture, in nanoseconds since 1970.
static REPLAYED: AtomicI64 = AtomicI64::new(0);

/// The time that the packets of a capture have come to: the clock of who reads one.
pub fn replayed() -> Time {
    Time::from_unix_nanos(REPLAYED.load(Relaxed))
}

/// They have come to that time, in nanoseconds since 1970.
pub fn replay_at(nanoseconds: i64) {
    REPLAYED.store(nanoseconds, Relaxed);
}

/// What the wall clock may differ by, in nanoseconds, before it counts as set anew.
const LEAST_STEP_NS: i64 = 1_000_000;

/// Ties the programs' ticks to the boot clock, and that to the wall clock. Taken anew at each drain, so that neither a
/// stepped wall clock nor a suspend moves a record's time by more than one drain.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// `jiffies64` of the kernel.
    pub jiffies: u64,
    /// `CLOCK_BOOTTIME` at that tick, in nanoseconds.
    pub boot_ns: u64,
    /// The wall clock at that moment, in nanoseconds since 1970.
    pub wall_ns: i64,
    /// The kernel's HZ.
    pub hz: u32,
}

impl Moment {
    /// The boot time of a tick, of which the programs keep the low 32 bits. Ticks up to half the range back are taken
    /// for the past, others for the future (a packet counted just after this moment).
    pub fn boot_of_tick(&self, tick: u32) -> u64 {
        let back = (self.jiffies as u32).wrapping_sub(tick) as i32;
        let ns = i64::from(back) * (1_000_000_000 / i64::from(self.hz.max(1)));
        self.boot_ns.saturating_add_signed(-ns)
    }

    /// The same moment, with the wall clock as `before` had it unless it was stepped since: reading two clocks takes
    /// some time, and a flow's first packet must have one time in all its records. The wall clock was read at most `apart_ns`
    /// after the other: so much later it may be without a step.
    #[must_use]
    pub fn in_step_with(self, before: &Self, apart_ns: u64) -> Self {
        let expected = before.wall_ns + (self.boot_ns as i64 - before.boot_ns as i64);
        let later = self.wall_ns - expected;
        let apart = i64::try_from(apart_ns).unwrap_or(i64::MAX);
        let is_step = later < -LEAST_STEP_NS || later > LEAST_STEP_NS.saturating_add(apart);
        Self { wall_ns: if is_step { self.wall_ns } else { expected }, ..self }
    }

    /// The wall time of a boot time.
    pub fn wall_of_boot(&self, boot_ns: u64) -> Time {
        // Captures may have times that no clock has.
        Time::from_unix_nanos(self.wall_ns.saturating_add(boot_ns.wrapping_sub(self.boot_ns).cast_signed()))
    }
}

#[cfg(test)]
mod tests {
    use super::Moment;

    const MOMENT: Moment =
        Moment { jiffies: (7 << 32) + 5, boot_ns: 100_000_000_000, wall_ns: 1_000_000_000_000, hz: 250 };

    #[test]
    fn ticks_wrap() {
        assert_eq!(MOMENT.boot_of_tick(5), 100_000_000_000);
        assert_eq!(MOMENT.boot_of_tick(4), 99_996_000_000);
        assert_eq!(MOMENT.boot_of_tick(u32::MAX), 99_976_000_000);
        assert_eq!(MOMENT.boot_of_tick(6), 100_004_000_000);
    }

    #[test]
    fn only_a_step_of_the_wall_clock_is_followed() {
        let later = Moment { boot_ns: MOMENT.boot_ns + 10, ..MOMENT };
        assert_eq!(
            Moment { wall_ns: MOMENT.wall_ns + 999_000, ..later }.in_step_with(&MOMENT, 0).wall_ns,
            MOMENT.wall_ns + 10
        );
        let stepped = MOMENT.wall_ns + 5_000_000_000;
        assert_eq!(Moment { wall_ns: stepped, ..later }.in_step_with(&MOMENT, 1_000_000).wall_ns, stepped);
        let set_back = MOMENT.wall_ns - 5_000_000;
        assert_eq!(
            Moment { wall_ns: set_back, ..later }.in_step_with(&MOMENT, 1_000_000_000).wall_ns,
            set_back
        );
    }

    #[test]
    fn a_task_that_is_held_up_between_two_clocks_sees_no_step() {
        let later = Moment { boot_ns: MOMENT.boot_ns + 10, wall_ns: MOMENT.wall_ns + 30_000_000, ..MOMENT };
        assert_eq!(later.in_step_with(&MOMENT, 30_000_000).wall_ns, MOMENT.wall_ns + 10);
        assert_eq!(later.in_step_with(&MOMENT, 1_000_000).wall_ns, later.wall_ns);
    }

    #[test]
    fn wall_time_follows_the_boot_clock() {
        let before = MOMENT.wall_of_boot(99_000_000_000);
        assert_eq!(before.as_unix_nanos(), 999_000_000_000);
    }
}
