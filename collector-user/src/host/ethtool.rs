//! The bus of a device, from its driver: before Linux 5.14 netlink does not tell it (`IFLA_PARENT_DEV_BUS_NAME`).
#![expect(unsafe_code, reason = "an ioctl(2) takes a pointer, and writes where it points")]

use std::{ffi::c_char, os::fd::AsRawFd as _};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// `ETHTOOL_GDRVINFO` and its answer (`struct ethtool_drvinfo`, include/uapi/linux/ethtool.h), as far as the bus.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    rest: [u8; 64],
}

const GET_DRIVER_INFO: u32 = 3;

/// The bus that an interface's device sits on, as `pci`, `virtio`, `usb`; none for one that exists in software only, and where
/// the kernel does not say.
#[must_use]
pub(super) fn bus(name: &str) -> Option<String> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    let mut info = DriverInfo {
        command: GET_DRIVER_INFO,
        driver: [0; 32],
        version: [0; 32],
        firmware: [0; 32],
        bus: [0; 32],
        rest: [0; 64],
    };
    // SAFETY: integers and a pointer, for all of which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last octet stays 0.
    let room = request.ifr_name.len().checked_sub(1)?;
    for (into, from) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
        *into = from as c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: the kernel reads the request, and writes an answer of the structure's length, which `rest` completes.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if result < 0 {
        return None;
    }
    let place = info.bus.split(|octet| *octet == 0).next()?;
    kind(str::from_utf8(place).ok()?)
}

/// `0000:00:03.0` is a place on PCI; others begin with their bus's name.
fn kind(place: &str) -> Option<String> {
    // What drivers of software write.
    if place.is_empty() || place == "N/A" || place == "tun" || place == "tap" {
        return None;
    }
    let name: String = place.chars().take_while(char::is_ascii_alphabetic).collect();
    Some(if name.is_empty() || place.matches(':').count() == 2 && !place.contains('-') {
        "pci".to_owned()
    } else {
        name
    })
}

// The fields before `rest`, and what the kernel may write behind them.
const _: () = assert!(size_of::<DriverInfo>() == 196);

#[cfg(test)]
mod tests {
    use super::{bus, kind};

    #[test]
    fn places_name_their_bus() {
        for (place, bus) in [
            ("", None),
            ("N/A", None),
            ("tap", None),
            ("0000:00:03.0", Some("pci")),
            ("a000:00:03.0", Some("pci")),
            ("virtio2", Some("virtio")),
            ("usb-0000:00:14.0-1", Some("usb")),
        ] {
            assert_eq!(kind(place).as_deref(), bus, "{place}");
        }
    }

    #[test]
    fn loopback_and_what_is_not_there_are_on_none() {
        assert_eq!(
            [bus("lo"), bus("no-such-device"), bus("a-name-that-is-much-too-long")],
            [None, None, None]
        );
    }
}
