//! CPUs that come and go while the daemon runs: what goes by perf buffers needs one on each.

use std::{future::pending, io};

use super::Daemon;
use crate::{
    drain,
    host::uevents::{CpuChange, Uevents},
    kernel::{cpus, error::KernelError},
};

/// Who tells of them.
pub(super) struct Cpus {
    uevents: Option<Uevents>,
    /// What could not be had, in words.
    pub(super) missing: Option<String>,
}

impl Cpus {
    /// Listens, where that `is_needed`: to be made before anybody asks which CPUs are online.
    pub(super) fn new(is_needed: bool) -> Self {
        match is_needed.then(Uevents::open).transpose() {
            Ok(uevents) => Self { uevents, missing: None },
            Err(error) => {
                let missing = format!(
                    "CPUs that come online later: the kernel does not tell of them ({error}), so reports of packets \
                     that they see are lost, and counted (`output_failed`)"
                );
                Self { uevents: None, missing: Some(missing) }
            }
        }
    }

    /// Waits until some come or go; for ever where nobody tells.
    pub(super) async fn next(&mut self) -> io::Result<CpuChange> {
        match &mut self.uevents {
            Some(uevents) => uevents.next().await,
            None => pending().await,
        }
    }
}

impl Daemon<'_> {
    /// Gives buffers to CPUs that have come, and takes those of CPUs that have gone. Where that fails, what is seen there
    /// is counted all the same, and what cannot be told of it, too.
    pub(super) fn follow_cpus(&mut self, change: io::Result<CpuChange>) {
        let result = match change {
            Ok(CpuChange::Online(cpu)) => {
                // Nobody tells of those that a suspended host takes down: the buffer of before may be a dead one.
                self.renew_buffers(&[cpu])
                    .inspect(|()| tracing::info!("CPU {cpu} has come: what it sees is told from now on"))
            }
            Ok(CpuChange::Offline(cpu)) => {
                self.forget_buffers(|it| it == cpu);
                Ok(())
            }
            Ok(CpuChange::Any) => cpus::online().and_then(|online| {
                self.forget_buffers(|it| !online.contains(&it));
                self.renew_buffers(&online).inspect(|()| {
                    tracing::info!(
                        "more changes of CPUs than the kernel had room for: all that are online have new buffers"
                    );
                })
            }),
            Err(source) => {
                self.cpus.uevents = None;
                Err(KernelError::Host { what: "CPUs that come and go", source })
            }
        };
        if let Err(error) = result {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "reports of what some CPU sees are lost, and counted"
            );
        }
    }

    /// Gives these CPUs new buffers, and reads those of before.
    fn renew_buffers(&mut self, cpus: &[u32]) -> Result<(), KernelError> {
        let result = self
            .events
            .renew(cpus)
            .and(self.tracing.packets.renew(cpus))
            .and(self.tracing.dropped.renew(cpus));
        drain::perf::wait_for_writers();
        self.read_news();
        self.drain_packets();
        result
    }

    fn forget_buffers(&mut self, is_gone: impl Fn(u32) -> bool) {
        self.read_news();
        self.drain_packets();
        self.events.forget(&is_gone);
        self.tracing.packets.forget(&is_gone);
        self.tracing.dropped.forget(&is_gone);
    }
}
