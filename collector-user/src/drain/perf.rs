//! The buffers of single packets, one a CPU, as a stream for tokio: waits on their descriptors, never polls.
#![expect(unsafe_code, reason = "tokio wants a promise about the descriptors that it registers")]

use std::{future::poll_fn, io, ops::ControlFlow, task::Poll};

use aya::maps::{
    MapData, PerfEventArray,
    perf::{PerfEvent, PerfEventArrayBuffer},
};
use bytes::{Bytes, BytesMut};
use tokio::io::unix::AsyncFd;

use crate::{
    drain::decode::{DecodeError, Packet, packet},
    kernel::error::KernelError,
};

/// Packets taken at once, so that a flood cannot keep the task from its other work.
const AT_ONCE: usize = 1024;

/// The buffers, and what was read of them.
pub struct Packets {
    buffers: Vec<AsyncFd<PerfEventArrayBuffer<MapData>>>,
    /// Whose turn it is.
    next: usize,
    skipped: u64,
}

impl Packets {
    /// Makes a buffer of so many octets, a power of two of at least a page, on each of these CPUs, and registers it with
    /// the runtime. On other CPUs the programs find no buffer, and count that.
    ///
    /// # Errors
    ///
    /// [`KernelError::Buffer`], or [`KernelError::Host`] where epoll(7) refuses.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O.
    pub fn open(map: &mut PerfEventArray<MapData>, cpus: &[u32], octets: usize) -> Result<Self, KernelError> {
        let pages = (octets / rustix::param::page_size()).max(1);
        let open = |cpu: &u32| {
            let buffer =
                map.open(*cpu, Some(pages)).map_err(|source| KernelError::Buffer { cpu: *cpu, source })?;
            // SAFETY: the buffer owns its descriptor, which stays open and the same as long as the registration holds it.
            unsafe { AsyncFd::register(buffer) }.map_err(|error| KernelError::Host {
                what: "events of a buffer",
                source: io::Error::from(error),
            })
        };
        Ok(Self { buffers: cpus.iter().map(open).collect::<Result<_, _>>()?, next: 0, skipped: 0 })
    }

    /// Waits until there are packets. Hands each of one CPU to `take`, at most a thousand at once; the CPUs take turns.
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// What epoll(7) says.
    pub async fn next(&mut self, mut take: impl FnMut(Result<Packet, DecodeError>)) -> io::Result<()> {
        poll_fn(|context| {
            let Self { buffers, next, skipped } = self;
            let (before, after) = buffers.split_at_mut(*next);
            for (step, buffer) in after.iter_mut().chain(before).enumerate() {
                let Poll::Ready(ready) = buffer.poll_read_ready_mut(context) else { continue };
                let mut ready = ready?;
                if read(ready.get_inner_mut(), skipped, &mut take) < AT_ONCE {
                    ready.clear_ready();
                }
                *next = (*next + step + 1) % buffers.len();
                return Poll::Ready(Ok(()));
            }
            Poll::Pending
        })
        .await
    }

    /// Hands on what is there now, without waiting.
    pub fn drain(&mut self, mut take: impl FnMut(Result<Packet, DecodeError>)) {
        for buffer in &mut self.buffers {
            while read(buffer.get_mut(), &mut self.skipped, &mut take) == AT_ONCE {}
        }
    }

    /// Packets that the kernel says it found no room for: only once there was room again, so the programs' own count is the
    /// whole one.
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }
}

fn read(
    buffer: &mut PerfEventArrayBuffer<MapData>,
    skipped: &mut u64,
    mut take: impl FnMut(Result<Packet, DecodeError>),
) -> usize {
    let all = buffer.try_fold(0, |count, event| {
        match event {
            PerfEvent::Sample { head, tail } => take(packet(&joined(head, tail))),
            PerfEvent::Lost { count } => *skipped += count,
        }
        // What was handed over is taken out of the buffer.
        if count + 1 == AT_ONCE { ControlFlow::Break(AT_ONCE) } else { ControlFlow::Continue(count + 1) }
    });
    match all {
        ControlFlow::Break(count) | ControlFlow::Continue(count) => count,
    }
}

/// A sample in one piece: at the end of the buffer it goes on at the buffer's beginning.
fn joined(head: &[u8], tail: &[u8]) -> Bytes {
    let mut whole = BytesMut::with_capacity(head.len() + tail.len());
    whole.extend_from_slice(head);
    whole.extend_from_slice(tail);
    whole.freeze()
}
