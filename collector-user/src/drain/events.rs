//! Flows that begin and end, by whatever transport.

use std::io;

use super::{
    decode::{DecodeError, Record, flow_event},
    order::ALL,
    transport::{Raw, Transport},
};
use crate::kernel::{
    error::KernelError,
    transport::{ReadCounts, Source},
};

/// Records taken at once, so that a flood cannot keep the task from its other work.
const AT_ONCE: usize = 4096;

/// What brings events.
pub struct Events {
    transport: Transport,
    read_counts: ReadCounts,
    clock: fn() -> u64,
}

impl Events {
    /// Registers with the runtime what there is, and makes a perf buffer on each of these CPUs, where events come by such.
    /// `clock` is the boot clock.
    ///
    /// # Errors
    ///
    /// As [`PerCpu::open`](super::perf::PerCpu::open).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O.
    pub fn new(
        source: Source,
        read_counts: ReadCounts,
        cpus: &[u32],
        clock: fn() -> u64,
    ) -> Result<Self, KernelError> {
        let mut events = Self { transport: Transport::new(source)?, read_counts, clock };
        events.open(cpus)?;
        Ok(events)
    }

    /// Makes the perf buffers that are missing on these CPUs, where events come by such.
    ///
    /// # Errors
    ///
    /// As [`PerCpu::open`](super::perf::PerCpu::open).
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn open(&mut self, cpus: &[u32]) -> Result<(), KernelError> {
        let Some(buffers) = self.transport.per_cpu() else { return Ok(()) };
        buffers.open(cpus, |cpu| self.read_counts.written(cpu))?;
        self.tell_read();
        Ok(())
    }

    /// Gives these CPUs new perf buffers, where events come by such; to be [drained](Self::drain) then.
    ///
    /// # Errors
    ///
    /// As [`PerCpu::open`](super::perf::PerCpu::open).
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn renew(&mut self, cpus: &[u32]) -> Result<(), KernelError> {
        let Some(buffers) = self.transport.per_cpu() else { return Ok(()) };
        buffers.renew(cpus, |cpu| self.read_counts.written(cpu))?;
        self.tell_read();
        Ok(())
    }

    /// Forgets the perf buffers of CPUs for which `is_gone`; they are to be [drained](Self::drain) before.
    pub fn forget(&mut self, is_gone: impl Fn(u32) -> bool) {
        if let Some(buffers) = self.transport.per_cpu() {
            buffers.forget(is_gone);
        }
    }

    /// Waits until there are records: by the ring any, by perf buffers many, or one that asks for a drain. Hands each to
    /// `take`, and says until when they are [in order](super::order); cancel safe.
    ///
    /// # Errors
    ///
    /// What epoll(7) says.
    pub async fn next(&mut self, mut take: impl FnMut(Result<Record, DecodeError>)) -> io::Result<u64> {
        match &mut self.transport {
            Transport::Ring(ring) => {
                ring.next(AT_ONCE, |raw| take(record(raw))).await?;
                Ok(ALL)
            }
            Transport::Perf(buffers) => {
                buffers.ready().await?;
                Ok(self.drain(take))
            }
        }
    }

    /// Hands on what is there now, without waiting, and says until when that is in order.
    pub fn drain(&mut self, mut take: impl FnMut(Result<Record, DecodeError>)) -> u64 {
        // Before: what was to be told by then is there, or is being written.
        let now = (self.clock)();
        self.transport.drain(|raw| take(record(raw)));
        if self.tell_read() { now } else { ALL }
    }

    /// Tells the programs what was read of each CPU's buffer; `false` where there are none.
    fn tell_read(&mut self) -> bool {
        let Some(buffers) = self.transport.per_cpu() else { return false };
        for (cpu, read) in buffers.read_counts() {
            self.read_counts.tell(cpu, read);
        }
        true
    }
}

fn record(raw: Raw<'_>) -> Result<Record, DecodeError> {
    if raw.tail.is_empty() {
        return flow_event(raw.head, raw.padding);
    }
    flow_event(&[raw.head, raw.tail].concat(), raw.padding)
}
