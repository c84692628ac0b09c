//! A device without a link layer, whose other end a test holds: what is written there comes in by the device.

use std::{
    fs::File,
    io::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd as _,
};

use anyhow::{Context as _, ensure};

use crate::{
    Result,
    lab::End,
    netns::{Place, unique},
};

/// A tun device on a host; gone when this is dropped.
#[derive(Debug)]
pub struct Tun {
    /// The host's end.
    pub end: End,
    device: File,
}

impl Tun {
    /// Makes one, with addresses of the host's: `10.66.0.1/24`, `fd66::1/64`.
    pub fn new(place: &Place) -> Result<Self> {
        let dev = unique("t");
        let device = place.within(|| open(&dev))?;
        place.ip(&format!("link set {dev} up"))?;
        let mut end = End {
            place: place.clone(),
            dev,
            ifindex: 0,
            mac: [0; 6],
            v4: Ipv4Addr::new(10, 66, 0, 1),
            v6: Ipv6Addr::new(0xFD66, 0, 0, 0, 0, 0, 0, 1),
        };
        end.ifindex = end.index()?;
        end.has_its_addresses()?;
        Ok(Self { end, device })
    }

    /// Lets a packet come in. Its Ethertype is what the kernel is told of it, whatever the packet is.
    pub fn write(&self, ethertype: u16, packet: &[u8]) -> Result<()> {
        // `struct tun_pi` (include/uapi/linux/if_tun.h): flags, and the Ethertype as on the wire.
        let told = [&[0, 0][..], &ethertype.to_be_bytes(), packet].concat();
        let written = (&self.device).write(&told).context("a packet was not taken")?;
        ensure!(written == told.len(), "a packet of {} octets was cut to {written}", told.len());
        Ok(())
    }
}

/// Makes a device of this name, in the namespace of the calling thread.
fn open(dev: &str) -> Result<File> {
    const TUN: &str = "/dev/net/tun";
    let device = File::options().read(true).write(true).open(TUN).context(TUN)?;
    // SAFETY: integers and a pointer, for all of which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (into, from) in request.ifr_name.iter_mut().zip(dev.bytes()) {
        *into = from as libc::c_char;
    }
    // Without IFF_NO_PI, under which the kernel goes by a packet's first octet, and refuses what is neither of IPv4 nor of IPv6.
    request.ifr_ifru.ifru_flags = libc::IFF_TUN as libc::c_short;
    // SAFETY: the kernel reads the request, and writes one back, which is no longer.
    let made = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    ensure!(made == 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
    Ok(device)
}
