//! Switches off that a device makes and joins segments, as `ethtool -K DEV gso off tso off gro off tx off` does.
#![expect(unsafe_code, reason = "an ioctl with a structure of its own")]

use std::{io, os::fd::AsRawFd as _};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// `SIOCETHTOOL` (`include/uapi/linux/sockios.h`).
const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// `ETHTOOL_STSO`, `ETHTOOL_SGSO`, `ETHTOOL_SGRO`, `ETHTOOL_STXCSUM` (`include/uapi/linux/ethtool.h`).
const SWITCHES: [u32; 4] = [0x1F, 0x24, 0x2C, 0x17];

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ifreq` with the member that is used.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    value: *mut Value,
    _rest: [u64; 2],
}

/// Switches them off on an interface of the calling thread's namespace.
///
/// # Errors
///
/// What ioctl(2) says; `InvalidInput` for a name that is too long.
pub(super) fn switch_off(interface: &str) -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut name = [0; libc::IFNAMSIZ];
    let place = name.get_mut(..interface.len()).filter(|_| interface.len() < libc::IFNAMSIZ);
    place.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(interface.as_bytes());
    for command in SWITCHES {
        let mut value = Value { command, data: 0 };
        let mut request = Request { name, value: &raw mut value, _rest: [0; 2] };
        // SAFETY: both structures are the kernel's, and live for the call.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
