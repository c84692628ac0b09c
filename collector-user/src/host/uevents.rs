//! Tells when CPUs come and go, by the kernel's messages about its devices (`NETLINK_KOBJECT_UEVENT`).
#![expect(unsafe_code, reason = "tokio wants a promise about the descriptor that it registers")]

use std::{io, os::fd::OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind,
    netlink::{self, SocketAddrNetlink},
    recvfrom, socket_with,
};
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
    use super::{CpuChange, change};

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
}
