//! The only place that reads clocks. Everything else takes a time.

use jiff::Timestamp;

use crate::event::Time;

/// The wall clock now.
pub fn wall() -> Time {
    Time::new(Timestamp::now())
}

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

    /// The wall time of a boot time.
    pub fn wall_of_boot(&self, boot_ns: u64) -> Time {
        Time::from_unix_nanos(self.wall_ns + (boot_ns as i64 - self.boot_ns as i64))
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
    fn wall_time_follows_the_boot_clock() {
        let before = MOMENT.wall_of_boot(99_000_000_000);
        assert_eq!(before.as_unix_nanos(), 999_000_000_000);
    }
}
