//! This process in a cgroup of the test's own, and sockets made there.
//!
//! A socket belongs to the cgroup that the process was in which made it, for good. So this process itself goes in, makes
//! sockets, and comes out again: tests that do so run one at a time, as all kernel tests do.
#![expect(unsafe_code, reason = "fork(2) has no safe form")]

use std::{
    fs,
    marker::PhantomData,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};

use crate::{
    Result,
    cgroups::{Cgroup, root},
};

impl Cgroup {
    /// Moves this process there until the guard is dropped.
    pub fn enter(&self) -> Result<Inside> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).context("no group of version 2")?;
        let before = root()?.join(own);
        join(self.directory())?;
        Ok(Inside { before, _stays: PhantomData })
    }

    /// Makes something there: a socket, mostly.
    pub fn within<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let _inside = self.enter()?;
        work()
    }

    /// A process that is made, joins the group, sends a datagram from a socket of its own, and ends: `times`, one after
    /// the other. `to` is an IPv4 address that the calling thread's namespace has a way to.
    pub fn send_once_each(&self, times: u32, to: std::net::SocketAddrV4) -> Result<()> {
        let procs = fs::OpenOptions::new().write(true).open(self.directory().join("cgroup.procs"))?;
        let address = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: to.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
            sin_zero: [0; 8],
        };
        for number in 0..times {
            // SAFETY: the child calls nothing but the kernel, on memory that was there before.
            let child = unsafe { libc::fork() };
            ensure!(child >= 0, "fork: {}", std::io::Error::last_os_error());
            if child == 0 {
                // SAFETY: as above; what is pointed to is as long as is said.
                unsafe { libc::_exit(send_from_inside(procs.as_raw_fd(), &address)) };
            }
            let mut status = 0;
            // SAFETY: the child is this process's own.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            ensure!(waited == child && status == 0, "process {number} ended with {status:#x}");
        }
        Ok(())
    }
}

/// In the child: which step failed, or 0.
///
/// # Safety
///
/// After fork(2) only system calls may be made.
unsafe fn send_from_inside(procs: i32, to: &libc::sockaddr_in) -> i32 {
    // SAFETY: all that is pointed to is as long as is said.
    unsafe {
        if libc::write(procs, c"0".as_ptr().cast(), 1) != 1 {
            return 1;
        }
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        if socket < 0 {
            return 2;
        }
        let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        let sent = libc::sendto(socket, c"x".as_ptr().cast(), 1, 0, (&raw const *to).cast(), length);
        if sent == 1 { 0 } else { 3 }
    }
}

/// This process is in another group; it goes back when this is dropped.
#[derive(Debug)]
pub struct Inside {
    before: PathBuf,
    _stays: PhantomData<*const ()>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = join(&self.before);
    }
}

fn join(group: &Path) -> Result<()> {
    fs::write(group.join("cgroup.procs"), "0").with_context(|| format!("cannot go to {}", group.display()))
}
