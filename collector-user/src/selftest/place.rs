//! A network namespace without a name, which goes with the process.
#![expect(unsafe_code, reason = "a thread moves to another network namespace")]

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _, RawFd},
    panic, thread,
};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// A namespace cannot be made or entered.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} a network namespace: run as root, or grant CAP_SYS_ADMIN")]
pub struct PlaceError {
    action: &'static str,
    source: io::Error,
}

/// A network namespace.
#[derive(Debug)]
pub(super) struct Place {
    namespace: File,
}

impl Place {
    /// Makes one.
    pub(super) fn new() -> Result<Self, PlaceError> {
        let make = || {
            // SAFETY: only the network namespace changes, and only of this thread, which ends here.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
                .map_err(|error| PlaceError { action: "make", source: error.into() })?;
            let namespace = File::open("/proc/thread-self/ns/net")
                .map_err(|source| PlaceError { action: "keep", source })?;
            Ok(Self { namespace })
        };
        joined(make)
    }

    /// Does `work` there, on a thread of its own. Sockets that are made there stay there.
    pub(super) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, PlaceError> {
        joined(|| {
            move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| PlaceError { action: "enter", source: error.into() })?;
            Ok(work())
        })
    }

    /// What the kernel is told to put an interface here.
    pub(super) fn fd(&self) -> RawFd {
        self.namespace.as_raw_fd()
    }
}

fn joined<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|cause| panic::resume_unwind(cause)))
}
