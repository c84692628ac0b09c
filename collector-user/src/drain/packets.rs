//! Single packets, by whatever transport.

use std::{future::pending, io};

use bytes::{Bytes, BytesMut};

use super::{
    decode::{DecodeError, Packet, packet},
    transport::{Raw, Transport},
};
use crate::kernel::{
    error::KernelError,
    transport::{Amount, ReadCounts, Source},
};

/// Packets taken at once, so that a flood cannot keep the task from its other work.
const AT_ONCE: usize = 1024;

/// What brings packets.
pub struct Packets {
    transport: Transport,
    /// Where the programs are told what was read, so that each unit has its share.
    read_counts: Option<ReadCounts>,
    /// Somebody has asked for them.
    is_wanted: bool,
}

impl Packets {
    /// Where they come by perf buffers, there are none until they are [opened](Self::open). `read_counts` where the programs
    /// give each unit a share of them.
    ///
    /// # Errors
    ///
    /// [`KernelError::Host`] where epoll(7) refuses.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O.
    pub fn new(source: Source, read_counts: Option<ReadCounts>) -> Result<Self, KernelError> {
        Ok(Self { transport: Transport::new(source)?, read_counts, is_wanted: false })
    }

    /// Makes the perf buffers that are missing on these CPUs, where packets come by such.
    ///
    /// # Errors
    ///
    /// As [`PerCpu::open`](super::perf::PerCpu::open).
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn open(&mut self, cpus: &[u32]) -> Result<(), KernelError> {
        self.is_wanted = true;
        let Some(buffers) = self.transport.per_cpu() else { return Ok(()) };
        let opened = buffers.open(cpus, |cpu| written(self.read_counts.as_ref(), cpu));
        self.tell_read();
        opened
    }

    /// Gives these CPUs new perf buffers, where packets come by such and there are to be any; to be [drained](Self::drain) then.
    ///
    /// # Errors
    ///
    /// As [`PerCpu::open`](super::perf::PerCpu::open).
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn renew(&mut self, cpus: &[u32]) -> Result<(), KernelError> {
        let Some(buffers) = self.transport.per_cpu().filter(|_| self.is_wanted) else { return Ok(()) };
        let renewed = buffers.renew(cpus, |cpu| written(self.read_counts.as_ref(), cpu));
        self.tell_read();
        renewed
    }

    /// Forgets the perf buffers of CPUs for which `is_gone`; they are to be [drained](Self::drain) before.
    pub fn forget(&mut self, is_gone: impl Fn(u32) -> bool) {
        if let Some(buffers) = self.transport.per_cpu() {
            buffers.forget(is_gone);
        }
    }

    /// Waits until there are many packets, for ever where there is no buffer for them. Hands each to `take`, at most a
    /// thousand at once. Cancel safe.
    ///
    /// # Errors
    ///
    /// What epoll(7) says.
    pub async fn next(&mut self, mut take: impl FnMut(Result<Packet, DecodeError>)) -> io::Result<()> {
        if self.transport.per_cpu().is_some_and(|buffers| !buffers.is_open()) {
            return pending().await;
        }
        self.transport.next(AT_ONCE, |raw| take(packet(&whole(raw), raw.padding))).await?;
        self.tell_read();
        Ok(())
    }

    /// Hands on what is there now, without waiting.
    pub fn drain(&mut self, mut take: impl FnMut(Result<Packet, DecodeError>)) {
        self.transport.drain(|raw| take(packet(&whole(raw), raw.padding)));
        self.tell_read();
    }

    /// Tells the programs what was read of each CPU's buffer, where there are such and they share them out.
    fn tell_read(&mut self) {
        if let (Some(told), Some(buffers)) = (&self.read_counts, self.transport.per_cpu()) {
            for (cpu, read) in buffers.read_counts() {
                told.tell(cpu, read);
            }
        }
    }

    /// Packets that the kernel says it found no room for in perf buffers.
    pub fn skipped(&mut self) -> u64 {
        self.transport.per_cpu().map_or(0, |buffers| buffers.skipped())
    }
}

/// What a CPU has written before it had a buffer.
fn written(read_counts: Option<&ReadCounts>, cpu: u32) -> Amount {
    read_counts.map_or_else(Amount::default, |counts| counts.written(cpu))
}

/// A record in one piece, apart from its buffer.
fn whole(raw: Raw<'_>) -> Bytes {
    let mut whole = BytesMut::with_capacity(raw.head.len() + raw.tail.len());
    whole.extend_from_slice(raw.head);
    whole.extend_from_slice(raw.tail);
    whole.freeze()
}
