//! The buffers of single packets, one a CPU, as a stream for tokio: waits on their descriptors, which are ready when one is
//! half full. What is less is there for who looks from time to time.
#![expect(unsafe_code, reason = "tokio wants a promise about the descriptors that it registers")]

use std::{future::poll_fn, io, ops::ControlFlow, task::Poll};

use aya::maps::perf::PerfEvent;
use bytes::{Bytes, BytesMut};
use tokio::io::unix::AsyncFd;

use crate::{
    drain::decode::{DecodeError, Packet, packet},
    kernel::{
        error::KernelError,
        perf::{PacketBuffer, PacketMap},
    },
};

/// Packets taken at once, so that a flood cannot keep the task from its other work.
const AT_ONCE: usize = 1024;

/// The buffers, and what was read of them.
pub struct Packets {
    buffers: Vec<AsyncFd<PacketBuffer>>,
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
    /// As [`PacketMap::open`]; [`KernelError::Host`] where epoll(7) refuses.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O.
    pub fn open(map: &mut PacketMap, cpus: &[u32], octets: usize) -> Result<Self, KernelError> {
        let open = |cpu: &u32| {
            let buffer = map.open(*cpu, octets)?;
            // SAFETY: the buffer owns its descriptor, which stays open and the same as long as the registration holds it.
            unsafe { AsyncFd::register(buffer) }.map_err(|error| KernelError::Host {
                what: "events of a buffer",
                source: io::Error::from(error),
            })
        };
        Ok(Self { buffers: cpus.iter().map(open).collect::<Result<_, _>>()?, next: 0, skipped: 0 })
    }

    /// Waits until there are many packets. Hands each of one CPU to `take`, at most a thousand at once; the CPUs take turns.
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
                if read(ready.get_inner_mut(), skipped, AT_ONCE, &mut take) < AT_ONCE {
                    ready.clear_ready();
                }
                *next = (*next + step + 1) % buffers.len();
                return Poll::Ready(Ok(()));
            }
            Poll::Pending
        })
        .await
    }

    /// Hands on what is there now, without waiting: at most what the buffers hold.
    pub fn drain(&mut self, mut take: impl FnMut(Result<Packet, DecodeError>)) {
        for buffer in &mut self.buffers {
            read(buffer.get_mut(), &mut self.skipped, usize::MAX, &mut take);
        }
    }

    /// Packets that the kernel says it found no room for: only once there was room again, so the programs' own count is the
    /// whole one.
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }
}

fn read(
    buffer: &mut PacketBuffer,
    skipped: &mut u64,
    most: usize,
    mut take: impl FnMut(Result<Packet, DecodeError>),
) -> usize {
    let mut count = 0;
    let _ = buffer.read(|record| {
        match record {
            PerfEvent::Sample { head, tail } => take(packet(&joined(head, tail))),
            PerfEvent::Lost { count } => *skipped += count,
        }
        count += 1;
        // What was handed over is taken out of the buffer.
        if count == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    count
}

/// A sample in one piece: at the end of the buffer it goes on at the buffer's beginning.
fn joined(head: &[u8], tail: &[u8]) -> Bytes {
    let mut whole = BytesMut::with_capacity(head.len() + tail.len());
    whole.extend_from_slice(head);
    whole.extend_from_slice(tail);
    whole.freeze()
}
