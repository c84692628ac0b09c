//! The ring of flows that begin and end, as a stream for tokio: waits on its descriptor, never polls.
#![expect(unsafe_code, reason = "tokio wants a promise about the descriptor that it registers")]

use std::io;

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;

use crate::drain::decode::{DecodeError, Record, flow_event};

/// Records taken at once, so that a flood cannot keep the task from its other work.
const AT_ONCE: usize = 4096;

/// The ring, and what was read from it.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Events {
    /// Registers the ring with the runtime.
    ///
    /// # Errors
    ///
    /// What epoll(7) says.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O.
    pub fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        // SAFETY: the ring owns its descriptor, which stays open and the same as long as the registration holds it.
        let ring = unsafe { AsyncFd::register(ring) }.map_err(io::Error::from)?;
        Ok(Self { ring })
    }

    /// Waits until there are records. Hands each to `take`, at most some thousand at once; cancel safe.
    ///
    /// # Errors
    ///
    /// What epoll(7) says.
    pub async fn next(&mut self, take: impl FnMut(Result<Record, DecodeError>)) -> io::Result<()> {
        let mut ready = self.ring.readable_mut().await?;
        if read(ready.get_inner_mut(), take) < AT_ONCE {
            ready.clear_ready();
        }
        Ok(())
    }

    /// Hands on what is there now, without waiting.
    pub fn drain(&mut self, mut take: impl FnMut(Result<Record, DecodeError>)) {
        while read(self.ring.get_mut(), &mut take) == AT_ONCE {}
    }
}

fn read(ring: &mut RingBuf<MapData>, mut take: impl FnMut(Result<Record, DecodeError>)) -> usize {
    let mut count = 0;
    while count < AT_ONCE
        && let Some(record) = ring.next()
    {
        take(flow_event(&record));
        count += 1;
    }
    count
}
