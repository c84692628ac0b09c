//! Tells when CPUs come and go, by the kernel's messages about its devices (`NETLINK_KOBJECT_UEVENT`).
#![expect(unsafe_code, reason = "tokio wants a promise about the descriptor that it registers")]

use std::{io, os::fd::OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind,
    netlink::{self, SocketAddrNetlink},
    recvfrom, socket_with,
};
use socket2::{SockFilter, SockRef};
use tokio::io::unix::AsyncFd;

/// What became of CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuChange {
    /// This one is there.
    Online(u32),
    /// This one has gone.
    Offline(u32),
    /// More than could be told: any.
    Any,
}

/// The kernel's own messages; what udev makes of them is another group.
const KERNEL: u32 = 1;
/// `UEVENT_BUFFER_SIZE` (include/linux/kobject.h), and what stands before it.
const LONGEST: usize = 4096;

/// What a filter of a socket consists of (`include/uapi/linux/bpf_common.h`).
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const IS_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// The messages.
pub struct Uevents {
    socket: AsyncFd<OwnedFd>,
}

impl Uevents {
    /// Listens from now on. The kernel tells network namespaces of the initial user namespace only.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(netlink::KOBJECT_UEVENT);
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)?;
        // Before anything is in it.
        SockRef::from(&socket).attach_filter(&of_cpus())?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL))?;
        // SAFETY: the socket owns its descriptor, which stays open and the same as long as the registration holds it.
        let socket = unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)?;
        Ok(Self { socket })
    }

    /// Waits until CPUs come or go; cancel safe.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub async fn next(&mut self) -> io::Result<CpuChange> {
        let mut message = [0; LONGEST];
        loop {
            let mut ready = self.socket.readable_mut().await?;
            match recvfrom(ready.get_inner(), &mut message, RecvFlags::empty()) {
                Ok((_, length, from)) => {
                    // Nobody but the kernel has the number 0.
                    let is_the_kernels = from
                        .and_then(|from| SocketAddrNetlink::try_from(from).ok())
                        .is_some_and(|from| from.pid() == 0);
                    let text = message.get(..length).unwrap_or_default();
                    if let Some(change) = change(text).filter(|_| is_the_kernels) {
                        return Ok(change);
                    }
                }
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::NOBUFS) => return Ok(CpuChange::Any),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What the socket takes: what begins like the messages that [`change`] reads. So a burst of other devices (an interface is
/// one, and each of its queues) leaves those their room.
fn of_cpus() -> Vec<SockFilter> {
    let mut filter = beginning(b"online@/devices/system/c");
    filter.extend(beginning(b"offline@/devices/system/cpu/"));
    filter.push(SockFilter::new(RETURN, 0, 0, 0));
    filter
}

/// Takes what begins like this, word by word, and goes on behind itself with all else. What ends before a word is refused by
/// the kernel.
fn beginning(text: &[u8]) -> Vec<SockFilter> {
    let (words, _) = text.as_chunks();
    let mut filter = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let to_the_end = 2 * (words.len() - at) - 1;
        filter.push(SockFilter::new(LOAD_WORD, 0, 0, 4 * at as u32));
        filter.push(SockFilter::new(IS_EQUAL, 0, to_the_end as u8, u32::from_be_bytes(*word)));
    }
    filter.push(SockFilter::new(RETURN, 0, 0, u32::MAX));
    filter
}

/// What a message says of a CPU: it begins with `online@/devices/system/cpu/cpu3` and an octet of zero.
fn change(message: &[u8]) -> Option<CpuChange> {
    let head = message.split(|octet| *octet == 0).next()?;
    let (action, path) = str::from_utf8(head).ok()?.split_once('@')?;
    let number = path.strip_prefix("/devices/system/cpu/cpu")?;
    let number = number.parse().ok().filter(|_| number.bytes().all(|octet| octet.is_ascii_digit()))?;
    match action {
        "online" => Some(CpuChange::Online(number)),
        "offline" => Some(CpuChange::Offline(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use socket2::SockRef;

    use super::{CpuChange, change, of_cpus};

    #[test]
    fn messages_of_cpus_and_of_nothing_else() {
        let message = |head: &str| change(format!("{head}\0ACTION=x\0SUBSYSTEM=cpu\0").as_bytes());
        assert_eq!(message("online@/devices/system/cpu/cpu3"), Some(CpuChange::Online(3)));
        assert_eq!(message("offline@/devices/system/cpu/cpu127"), Some(CpuChange::Offline(127)));
        for other in [
            "",
            "online",
            "add@/devices/system/cpu/cpu3",
            "online@/devices/system/memory/memory3",
            "online@/devices/system/cpu/cpu",
            "online@/devices/system/cpu/cpu+3",
            "online@/devices/system/cpu/cpu3/cache",
            "online@/devices/system/cpu/cpu99999999999",
        ] {
            assert_eq!(message(other), None, "{other}");
        }
        assert_eq!(change(&[0xFF, 0]), None);
    }

    #[test]
    fn the_socket_takes_what_begins_like_messages_of_cpus_and_the_whole_of_it() {
        let (here, there) = UnixDatagram::pair().unwrap();
        SockRef::from(&there).attach_filter(&of_cpus()).unwrap();
        there.set_nonblocking(true).unwrap();
        let mut room = [0; 100];
        for wanted in
            ["online@/devices/system/cpu/cpu3\0ACTION=online\0", "offline@/devices/system/cpu/cpu127\0"]
        {
            here.send(wanted.as_bytes()).unwrap();
            assert_eq!(there.recv(&mut room).unwrap(), wanted.len());
        }
        for other in [
            "add@/devices/virtual/net/veth0\0ACTION=add\0",
            "online@/devices/system/memory/memory3\0",
            "offline@/devices/system/memory/memory3\0",
            "change@/devices/system/cpu/cpu3\0ACTION=change\0",
            "online@/dev",
            "o",
        ] {
            // What a filter refuses is no error for who sends.
            here.send(other.as_bytes()).unwrap();
            assert_eq!(there.recv(&mut room).unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "{other}");
        }
    }
}
