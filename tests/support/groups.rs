//! Control groups (cgroup v2) of a test's own, and sockets made in them.
//!
//! A socket belongs to the group that the process was in which made it, for good. So this process itself goes in, makes
//! sockets, and comes out again: tests that do so run one at a time, as all kernel tests do.
#![expect(unsafe_code, reason = "fork(2) has no safe form")]

use std::{
    fs,
    marker::PhantomData,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};

use crate::{Result, netns::unique, privilege};

/// A group of its own; removed when this is dropped. Whoever is in it then goes back to the root.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
}

impl Group {
    /// Makes one, directly below the root.
    pub fn new() -> Result<Self> {
        privilege::check()?;
        let path = root()?.join(unique("ct"));
        fs::create_dir(&path).with_context(|| format!("no group {}", path.display()))?;
        Ok(Self { path })
    }

    /// Makes one by its path below the root. What lies above it has to be made before.
    pub fn named(path: &str) -> Result<Self> {
        privilege::check()?;
        let path = root()?.join(path);
        fs::create_dir(&path).with_context(|| format!("no group {}", path.display()))?;
        Ok(Self { path })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its id: the inode of its directory.
    pub fn id(&self) -> Result<u64> {
        Ok(fs::metadata(&self.path)?.ino())
    }

    /// Moves this process there until the guard is dropped.
    pub fn enter(&self) -> Result<Inside> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).context("no group of version 2")?;
        let before = root()?.join(own);
        join(&self.path)?;
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
        let procs = fs::OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))?;
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

impl Drop for Group {
    fn drop(&mut self) {
        // A test that fails for another reason shall say that one.
        let _ = fs::remove_dir(&self.path);
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

/// Where the hierarchy of version 2 is mounted.
fn root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mount = mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| place.split(' ').nth(4)).flatten()
    });
    Ok(mount.context("no hierarchy of control groups of version 2 is mounted")?.into())
}
