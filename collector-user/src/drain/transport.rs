//! One interface above the two transports: records come, in one piece or two, and somebody waits for them.

use super::{decode::Padding, perf::PerCpu, ring::Ring};
use crate::kernel::{error::KernelError, transport::Source};

/// A record, as it lies in its buffer.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a> {
    /// Its beginning, mostly the whole of it.
    pub head: &'a [u8],
    /// Its rest, where it goes on at the buffer's beginning.
    pub tail: &'a [u8],
    /// What may lie behind it.
    pub padding: Padding,
}

/// By what records come.
pub enum Transport {
    /// A ring of all CPUs.
    Ring(Ring),
    /// A buffer of each CPU.
    Perf(PerCpu),
}

impl Transport {
    /// Registers with the runtime what there is; perf buffers are made later.
    ///
    /// # Errors
    ///
    /// [`KernelError::Host`] where epoll(7) refuses.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O.
    pub fn new(source: Source) -> Result<Self, KernelError> {
        Ok(match source {
            Source::Ring(ring, octets) => Self::Ring(Ring::new(ring, octets)?),
            Source::Perf(map, octets) => Self::Perf(PerCpu::new(map, octets)),
        })
    }

    /// The buffers of CPUs, where there are any.
    pub const fn per_cpu(&mut self) -> Option<&mut PerCpu> {
        match self {
            Self::Ring(_) => None,
            Self::Perf(buffers) => Some(buffers),
        }
    }

    /// Waits until there is much. Hands each record to `take`, at most so many at once. Cancel safe.
    ///
    /// # Errors
    ///
    /// What epoll(7) says.
    pub async fn next(&mut self, most: usize, take: impl FnMut(Raw<'_>)) -> std::io::Result<()> {
        match self {
            Self::Ring(ring) => ring.next(most, take).await,
            Self::Perf(buffers) => buffers.next(most, take).await,
        }
    }

    /// Hands on what is there now, without waiting.
    pub fn drain(&mut self, take: impl FnMut(Raw<'_>)) {
        match self {
            Self::Ring(ring) => ring.drain(take),
            Self::Perf(buffers) => buffers.drain(take),
        }
    }
}
