//! Which moment it is, by both clocks and in the kernel's ticks; and the lease that lets the programs count on.

use std::time::Duration;

use collector_ebpf::abi::control::Anchor;

use super::Daemon;
use crate::{
    clock::{self, Moment},
    kernel::{control::LEASE_SECONDS, error::KernelError, programs::Programs},
};

/// How often both clocks are read at most until that was done within [`CLOSE_NS`].
const READINGS: u32 = 8;

/// Two readings of clocks that are no further apart are of one moment.
const CLOSE_NS: u64 = 200_000;

impl Daemon<'_> {
    /// Looks at the clocks, and lets the programs count on.
    pub(super) fn renew(&mut self) -> Result<(), KernelError> {
        self.moment = moment(&self.programs, self.hz, Some(&self.moment))?;
        if self.controller.lease_has_run_out(self.moment.jiffies) {
            self.gaps += 1;
            tracing::warn!(
                "the collector was stopped for more than {LEASE_SECONDS} s: from then until now nothing was counted"
            );
        }
        let anchor = Anchor { jiffies: self.moment.jiffies, boot_ns: self.moment.boot_ns };
        self.controller.renew_lease(&anchor);
        Ok(())
    }
}

/// Now, in step with the moment before.
pub(super) fn moment(programs: &Programs, hz: u32, before: Option<&Moment>) -> Result<Moment, KernelError> {
    let mut tries = READINGS;
    loop {
        let anchor = programs.anchor()?;
        let wall_ns = i64::try_from(clock::wall().as_unix_nanos()).unwrap_or(i64::MAX);
        let apart_ns = clock::boot().saturating_sub(anchor.boot_ns);
        tries -= 1;
        // Somebody else ran in between.
        if apart_ns > CLOSE_NS && tries > 0 {
            continue;
        }
        let moment = Moment { jiffies: anchor.jiffies, boot_ns: anchor.boot_ns, wall_ns, hz };
        return Ok(before.map_or(moment, |before| moment.in_step_with(before, apart_ns)));
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
