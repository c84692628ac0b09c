//! A ring of all CPUs as a stream for tokio: waits on its descriptor, never polls.
#![expect(unsafe_code, reason = "tokio wants a promise about the descriptor that it registers")]

use std::io;

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;

use super::{decode::Padding, transport::Raw};
use crate::kernel::error::KernelError;

/// The ring.
pub struct Ring {
    ring: AsyncFd<RingBuf<MapData>>,
    /// Octets that it has room for.
    octets: usize,
}

impl Ring {
    /// Registers the ring with the runtime.
    ///
    /// # Errors
    ///
    /// [`KernelError::Host`] where epoll(7) refuses.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O.
    pub fn new(ring: RingBuf<MapData>, octets: u32) -> Result<Self, KernelError> {
        // SAFETY: the ring owns its descriptor, which stays open and the same as long as the registration holds it.
        let ring = unsafe { AsyncFd::register(ring) }.map_err(|error| KernelError::Host {
            what: "events of a ring",
            source: io::Error::from(error),
        })?;
        Ok(Self { ring, octets: octets as usize })
    }

    /// Waits until its reader is woken. Hands each record to `take`, at most so many at once; cancel safe.
    ///
    /// # Errors
    ///
    /// What epoll(7) says.
    pub async fn next(&mut self, most: usize, take: impl FnMut(Raw<'_>)) -> io::Result<()> {
        let mut ready = self.ring.readable_mut().await?;
        if read(ready.get_inner_mut(), most, usize::MAX, take) < most {
            ready.clear_ready();
        }
        Ok(())
    }

    /// Hands on what is there, without waiting: no more than fits in, for others go on writing.
    pub fn drain(&mut self, take: impl FnMut(Raw<'_>)) {
        read(self.ring.get_mut(), usize::MAX, self.octets, take);
    }
}

/// Hands on records, until there are no more, or so many or so many octets were.
fn read(ring: &mut RingBuf<MapData>, most: usize, octets: usize, mut take: impl FnMut(Raw<'_>)) -> usize {
    let (mut count, mut taken) = (0, 0);
    while count < most
        && taken < octets
        && let Some(record) = ring.next()
    {
        taken += record.len();
        take(Raw { head: &record, tail: &[], padding: Padding::None });
        count += 1;
    }
    count
}
