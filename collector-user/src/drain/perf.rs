//! Perf buffers, one a CPU, as a stream for tokio: waits on their descriptors, which are ready when one is half full. What is
//! less is there for who looks from time to time.
#![expect(unsafe_code, reason = "tokio wants a promise about the descriptors that it registers")]

use std::{future::poll_fn, io, ops::ControlFlow, task::Poll};

use aya::maps::perf::PerfEvent;
use rustix::thread::{MembarrierCommand, membarrier};
use tokio::io::unix::AsyncFd;

use super::{decode::Padding, transport::Raw};
use crate::kernel::{
    error::KernelError,
    perf::{PerfBuffer, PerfMap},
    transport::Amount,
};

/// The buffers of those CPUs that have one.
pub struct PerCpu {
    map: PerfMap,
    octets: u32,
    buffers: Vec<OfCpu>,
    /// Those that others have taken the place of, with what nobody has read yet.
    replaced: Vec<OfCpu>,
    /// Whose turn it is.
    next: usize,
    skipped: u64,
}

struct OfCpu {
    cpu: u32,
    buffer: AsyncFd<PerfBuffer>,
    /// What was read or is no more to be had, ever.
    read: Amount,
}

impl PerCpu {
    /// None yet; each will have so many octets, a power of two of at least a page.
    pub const fn new(map: PerfMap, octets: u32) -> Self {
        Self { map, octets, buffers: Vec::new(), replaced: Vec::new(), next: 0, skipped: 0 }
    }

    /// Makes the buffers that are missing on these CPUs, and registers them with the runtime. On other CPUs the programs
    /// find no buffer, and count that. `written` is what a CPU has written before.
    ///
    /// # Errors
    ///
    /// As [`PerfMap::open`]; [`KernelError::Host`] where epoll(7) refuses. The first of them; the other CPUs have theirs.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O.
    pub fn open(&mut self, cpus: &[u32], written: impl Fn(u32) -> Amount) -> Result<(), KernelError> {
        let mut all = Ok(());
        for cpu in cpus {
            if !self.buffers.iter().any(|of| of.cpu == *cpu) {
                all = all.and(self.open_one(*cpu, written(*cpu)));
            }
        }
        all
    }

    /// Gives these CPUs new buffers, whatever they had: none, or one that a CPU that was offline meanwhile writes no more to.
    /// No record is lost by that, once [all writers are through](wait_for_writers): what is in those of before is
    /// [drained](Self::drain) before what is in the new ones. Where there cannot be a new one, that of before stays.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    ///
    /// # Panics
    ///
    /// As [`open`](Self::open).
    pub fn renew(&mut self, cpus: &[u32], written: impl Fn(u32) -> Amount) -> Result<(), KernelError> {
        self.next = 0;
        let mut all = Ok(());
        for cpu in cpus {
            let place = self.buffers.iter().position(|of| of.cpu == *cpu);
            let before = place.map(|place| self.buffers.swap_remove(place));
            let read = before.as_ref().map_or_else(|| written(*cpu), |of| of.read);
            let opened = self.open_one(*cpu, read);
            match before {
                Some(before) if opened.is_err() => {
                    all = all.and(self.map.put_back(*cpu, before.buffer.get_ref()));
                    self.buffers.push(before);
                }
                Some(before) => self.replaced.push(before),
                None => {}
            }
            all = all.and(opened);
        }
        all
    }

    /// `read` is what was written before there is a buffer: nothing more is.
    fn open_one(&mut self, cpu: u32, read: Amount) -> Result<(), KernelError> {
        let buffer = self.map.open(cpu, self.octets)?;
        // SAFETY: the buffer owns its descriptor, which stays open and the same as long as the registration holds it.
        let buffer = unsafe { AsyncFd::register(buffer) }.map_err(|error| KernelError::Host {
            what: "events of a buffer",
            source: io::Error::from(error),
        })?;
        self.buffers.push(OfCpu { cpu, buffer, read });
        Ok(())
    }

    /// Whether any CPU has a buffer.
    pub const fn is_open(&self) -> bool {
        !self.buffers.is_empty()
    }

    /// Forgets the buffers of CPUs for which `is_gone`: the kernel writes no more to the buffer of a CPU that went offline,
    /// not even when it has come again. What is in them is to be [read](Self::drain) before.
    pub fn forget(&mut self, is_gone: impl Fn(u32) -> bool) {
        self.buffers.retain(|of| !is_gone(of.cpu));
        self.replaced.retain(|of| !is_gone(of.cpu));
        self.next = 0;
    }

    /// Waits until there is much in one of them. Hands each record of that CPU to `take`, at most so many at once; the CPUs
    /// take turns. Cancel safe.
    ///
    /// # Errors
    ///
    /// What epoll(7) says.
    pub async fn next(&mut self, most: usize, mut take: impl FnMut(Raw<'_>)) -> io::Result<()> {
        poll_fn(|context| {
            let Self { buffers, next, skipped, .. } = self;
            let (before, after) = buffers.split_at_mut(*next);
            for (step, OfCpu { buffer, read, .. }) in after.iter_mut().chain(before).enumerate() {
                let Poll::Ready(ready) = buffer.poll_read_ready_mut(context) else { continue };
                let mut ready = ready?;
                if take_out(ready.get_inner_mut(), read, skipped, most, &mut take) < most {
                    ready.clear_ready();
                }
                *next = (*next + step + 1) % buffers.len();
                return Poll::Ready(Ok(()));
            }
            Poll::Pending
        })
        .await
    }

    /// Waits until there is much in one of them, and takes nothing out: to be [drained](Self::drain) then. Cancel safe.
    ///
    /// # Errors
    ///
    /// What epoll(7) says.
    pub async fn ready(&mut self) -> io::Result<()> {
        poll_fn(|context| {
            let mut any = false;
            for OfCpu { buffer, .. } in &mut self.buffers {
                if let Poll::Ready(ready) = buffer.poll_read_ready_mut(context) {
                    ready?.clear_ready();
                    any = true;
                }
            }
            if any { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }

    /// Hands on what is there now, without waiting: at most what the buffers hold.
    pub fn drain(&mut self, mut take: impl FnMut(Raw<'_>)) {
        for OfCpu { cpu, mut buffer, mut read } in self.replaced.drain(..) {
            let before = read;
            take_out(buffer.get_mut(), &mut read, &mut self.skipped, usize::MAX, &mut take);
            if let Some(of) = self.buffers.iter_mut().find(|of| of.cpu == cpu) {
                of.read.records += read.records - before.records;
                of.read.octets += read.octets - before.octets;
            }
        }
        for OfCpu { buffer, read, .. } in &mut self.buffers {
            take_out(buffer.get_mut(), read, &mut self.skipped, usize::MAX, &mut take);
        }
    }

    /// How much of each CPU's was read or is no more to be had, of all that it has written.
    pub fn read_counts(&self) -> impl Iterator<Item = (u32, Amount)> {
        self.buffers.iter().map(|of| (of.cpu, of.read))
    }

    /// Records that the kernel says it found no room for: only once there was room again, so the programs' own count is the
    /// whole one.
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }
}

/// Waits until no program writes any more to what it found in a map before now: for a grace period of RCU (`sys_membarrier` in
/// kernel/sched/membarrier.c, since Linux 4.3).
pub fn wait_for_writers() {
    // A kernel that refuses (one with `nohz_full=`) has nothing as good: what is being written in that very moment is then
    // counted as lost.
    let _ = membarrier(MembarrierCommand::Global);
}

/// What the kernel puts before a record, which it makes as long as is a multiple of eight with that: a header of eight octets,
/// and a length of four.
const BEFORE: usize = 8 + 4;

/// Hands on what a buffer holds, at most so much; how much that was.
fn take_out(
    buffer: &mut PerfBuffer,
    read: &mut Amount,
    skipped: &mut u64,
    most: usize,
    mut take: impl FnMut(Raw<'_>),
) -> usize {
    let mut count = 0;
    let _ = buffer.read(|record| {
        match record {
            PerfEvent::Sample { head, tail } => {
                let head_and_tail = head.len() + tail.len();
                take(Raw { head, tail, padding: Padding::Perf });
                read.records += 1;
                read.octets += (BEFORE + head_and_tail) as u64;
            }
            PerfEvent::Lost { count } => *skipped += count,
        }
        count += 1;
        // What was handed over is taken out of the buffer.
        if count == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    count
}
