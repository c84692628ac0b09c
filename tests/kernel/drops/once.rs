//! What is dropped is one drop, though it is in pieces, and whoever cannot be told from this host is not taken for it.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::ensure;
use collector_tests::{Result, frames, lab::End, release, talk::listener, traffic::sender};
use collector_user::event::DropClass;
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto};

use super::cause::{assert_dropped, caused};

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_datagram_in_pieces_is_one_drop() -> Result<()> {
    const COUNT: u64 = 100;
    /// Since then pieces are freed where nothing else is.
    const TOLD_APART: (u32, u32) = (6, 1);
    let finished = caused(|wire| {
        let socket = sender(&wire.b, 4, 0)?;
        // Until the answers that nobody is there are let through no more.
        for _ in 0..COUNT {
            let _ = socket.send_to(&[0x55; 4000], SocketAddr::new(wire.a.v4.into(), 6001));
        }
        Ok(())
    })?;
    if release::lacks("pieces of a packet that are told apart", TOLD_APART) {
        return Ok(());
    }
    assert_dropped(&finished, "host", &["NO_SOCKET"], DropClass::NoSocket, COUNT);
    let all = finished.status.drops.iter().filter(|row| &*row.puid == "host");
    assert_eq!(all.map(|row| row.packets).sum::<u64>(), COUNT, "{:#?}", finished.status.drops);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_waited_on_the_loopback_of_another_host_is_not_this_hosts() -> Result<()> {
    const COUNT: u64 = 50;
    let finished = caused(|wire| {
        let lo = End::loopback(&wire.b.place);
        wire.b.place.ip("link set lo up")?;
        let reader = listener(&wire.b.place, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 6001).into())?;
        let to = SocketAddr::new(lo.v4.into(), 6001);
        wire.b.place.within(|| {
            let socket = rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::UDP))?;
            let mut datagram = frames::udp([0x9C, 0x40, 0x17, 0x71], 60);
            datagram[6..8].copy_from_slice(&[0xBA, 0xD1]);
            for _ in 0..COUNT {
                rustix::net::sendto(&socket, &datagram, SendFlags::empty(), &to)?;
            }
            Ok(())
        })?;
        // Nobody knows that they are wrong until they are read.
        reader.set_nonblocking(true)?;
        let read = reader.recv(&mut [0; 100]);
        ensure!(read.is_err(), "nothing is whole: {read:?}");
        Ok(())
    })?;
    if release::is_at_least((5, 18)) {
        assert_dropped(&finished, "", &["UDP_CSUM"], DropClass::Malformed, COUNT);
    }
    let host = finished.status.drops.iter().filter(|row| &*row.puid == "host");
    assert_eq!(host.map(|row| row.packets).sum::<u64>(), 0, "{:#?}", finished.status.drops);
    Ok(())
}
