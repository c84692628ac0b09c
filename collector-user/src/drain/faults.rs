//! Rare faults that the programs tell in words, passed on to this process's log.
#![expect(unsafe_code, reason = "tokio wants a promise about the descriptor that it registers")]

use std::io;

use aya_log::EbpfLogger;
use tokio::io::unix::AsyncFd;

/// The programs' log.
pub struct Faults {
    log: AsyncFd<EbpfLogger<&'static dyn log::Log>>,
}

impl Faults {
    /// Registers the log with the runtime.
    ///
    /// # Errors
    ///
    /// What epoll(7) says.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O.
    pub fn new(log: EbpfLogger<&'static dyn log::Log>) -> io::Result<Self> {
        // SAFETY: the log owns its descriptor, which stays open and the same as long as the registration holds it.
        let log = unsafe { AsyncFd::register(log) }.map_err(io::Error::from)?;
        Ok(Self { log })
    }

    /// Waits until the programs have said something, and passes it on; cancel safe.
    ///
    /// # Errors
    ///
    /// What epoll(7) says.
    pub async fn pass_on(&mut self) -> io::Result<()> {
        let mut ready = self.log.readable_mut().await?;
        ready.get_inner_mut().flush();
        ready.clear_ready();
        Ok(())
    }
}
