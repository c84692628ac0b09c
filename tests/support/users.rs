//! Users of a test's own: what has no name in any user database, and sockets that they make.
//!
//! A socket has the user of the task that made it. A thread has credentials of its own where the kernel is asked for that by
//! itself; the C library would change those of all threads.
#![expect(unsafe_code, reason = "credentials of one thread, and fork(2), have no safe form")]

use std::{
    fs::{self, File},
    io::{PipeWriter, Read as _, Write as _},
    net::SocketAddr,
    os::fd::AsRawFd as _,
};

use anyhow::{Context as _, ensure};

use crate::{
    Result, command,
    netns::{Place, unique},
};

/// The first id of the test's users: far from all that a database has.
pub const FIRST: u32 = 1_700_000_000;

/// Does `work` as a user, on a thread of its own: sockets made there are that user's for good.
pub fn as_user<T: Send>(
    place: &Place,
    uid: u32,
    work: impl FnOnce() -> std::io::Result<T> + Send,
) -> Result<T> {
    place.within(|| {
        // SAFETY: the call changes this thread alone.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
        ensure!(result == 0, "setresuid({uid}): {}", std::io::Error::last_os_error());
        work().with_context(|| format!("as user {uid}"))
    })
}

/// A process that becomes a user, in a user namespace if one is given (where the id is that namespace's), sends a datagram
/// of one octet from a socket of its own, and ends. In the calling thread's network namespace.
pub fn process_sends(uid: u32, namespace: Option<&File>, to: SocketAddr) -> Result<()> {
    // SAFETY: all zero is an address of either kind.
    let (mut address_4, mut address_6): (libc::sockaddr_in, libc::sockaddr_in6) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    let (family, address, length) = match to {
        SocketAddr::V4(to) => {
            address_4.sin_family = libc::AF_INET as libc::sa_family_t;
            address_4.sin_port = to.port().to_be();
            address_4.sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
            (libc::AF_INET, (&raw const address_4).cast(), size_of_val(&address_4))
        }
        SocketAddr::V6(to) => {
            address_6.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            address_6.sin6_port = to.port().to_be();
            address_6.sin6_addr.s6_addr = to.ip().octets();
            (libc::AF_INET6, (&raw const address_6).cast(), size_of_val(&address_6))
        }
    };
    let namespace = namespace.map_or(-1, File::as_raw_fd);
    // SAFETY: the child calls nothing but the kernel, on memory that was there before.
    let child = unsafe { libc::fork() };
    ensure!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        // SAFETY: as above; what is pointed to is as long as is said.
        unsafe { libc::_exit(become_and_send(uid, namespace, family, address, length as libc::socklen_t)) };
    }
    let mut status = 0;
    // SAFETY: the child is this process's own.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    ensure!(waited == child && status == 0, "the process of user {uid} ended with {status:#x}");
    Ok(())
}

/// In the child: which step failed, or 0.
///
/// # Safety
///
/// After fork(2) only system calls may be made; the address is as long as is said.
unsafe fn become_and_send(
    uid: u32,
    namespace: i32,
    family: i32,
    to: *const libc::sockaddr,
    length: libc::socklen_t,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        if namespace >= 0 && libc::setns(namespace, libc::CLONE_NEWUSER) != 0 {
            return 1;
        }
        if libc::syscall(libc::SYS_setresuid, uid, uid, uid) != 0 {
            return 2;
        }
        let socket = libc::socket(family, libc::SOCK_DGRAM, 0);
        if socket < 0 {
            return 3;
        }
        if libc::sendto(socket, c"x".as_ptr().cast(), 1, 0, to, length) == 1 { 0 } else { 4 }
    }
}

/// A user namespace with a network namespace that is its own; both end when this is dropped. Its ids from 0 on are the host's
/// from [`FIRST`] on.
#[derive(Debug)]
pub struct Container {
    pid: libc::pid_t,
    place: Place,
    /// The process ends when nobody holds this any more.
    _held: PipeWriter,
}

impl Container {
    /// A new one.
    pub fn new() -> Result<Self> {
        let (mut there, is_there) = std::io::pipe()?;
        let (ends, held) = std::io::pipe()?;
        // SAFETY: the child calls nothing but the kernel, on memory that was there before.
        let pid = unsafe { libc::fork() };
        ensure!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            let (is_there, ends, held) = (is_there.as_raw_fd(), ends.as_raw_fd(), held.as_raw_fd());
            // SAFETY: as above; what is pointed to is as long as is said.
            unsafe {
                libc::close(held);
                let failed = libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET);
                let mut octet = u8::from(failed != 0);
                libc::write(is_there, (&raw const octet).cast(), 1);
                libc::read(ends, (&raw mut octet).cast(), 1);
                libc::_exit(0);
            }
        }
        let name = unique("ct");
        let container = Self { pid, place: Place::named(&name), _held: held };
        let mut failed = [1];
        there.read_exact(&mut failed)?;
        ensure!(failed == [0], "no user namespace can be made");
        for map in ["uid_map", "gid_map"] {
            let mut file = fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/{map}"))?;
            file.write_all(format!("0 {FIRST} 65536").as_bytes()).context(map)?;
        }
        command::run("ip", &["netns", "attach", &name, &pid.to_string()])?;
        container.place.ip("link set lo up")?;
        Ok(container)
    }

    /// Its network namespace.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its user namespace.
    pub fn users(&self) -> Result<File> {
        Ok(File::open(format!("/proc/{}/ns/user", self.pid))?)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = command::run("ip", &["netns", "del", self.place.name()]);
        // SAFETY: the child is this process's own, and was not waited for.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}
