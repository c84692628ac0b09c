//! Drops, caused for real: each is a row with the kernel's own reason, and the count is exact.

pub(crate) mod cause;
mod full;
mod once;
mod rules;
mod taken;
mod uncounted;
mod way;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::ensure;
use cause::{Packet, assert_dropped, caused};
use collector_tests::{
    Result,
    books::assert_balanced,
    collector::{Running, declared, options},
    frames,
    lab::Wire,
    program::{Dropping, Hook},
    release,
    talk::listener,
    traffic::{PacketSocket, sender},
};
use collector_user::{
    daemon::Options,
    event::{DeviceDrops, DropClass},
};

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_nobody_listens_for() -> Result<()> {
    let finished = caused(|wire| {
        for version in [4, 6] {
            let socket = sender(&wire.b, version, 40_000)?;
            for _ in 0..50 {
                let to = SocketAddr::new(wire.a.address(version), 6001);
                ensure!(socket.send_to(&[0; 64], to)? == 64, "all of it is sent");
            }
        }
        Ok(())
    })?;
    assert_dropped(&finished, "host", &["NO_SOCKET"], DropClass::NoSocket, 100);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_a_rule_drops() -> Result<()> {
    let finished = caused(|wire| {
        wire.a.place.nft(
            "table inet t { chain i { type filter hook input priority 0; udp dport 6001 drop; \
             ct state invalid drop; }; }",
        )?;
        Packet::udp(&wire.b, wire.a.v4).send(70, &wire.b, &wire.a)?;
        // A segment that neither opens nor belongs to a connection.
        let segment = frames::tcp([0x9C, 0x40, 0, 80], frames::SYN | frames::FIN, &[], 0);
        let ends = (wire.b.v4, wire.a.v4);
        let segment = frames::with_checksums(&frames::ipv4(ends, &[], 0x4000, frames::TCP, &segment));
        let frame = frames::ethernet_between(wire.b.mac, wire.a.mac, &[], frames::IPV4, &segment);
        let socket = PacketSocket::new(&wire.b)?;
        (0..30).try_for_each(|_| socket.send(&frame))
    })?;
    assert_dropped(&finished, "host", &["NETFILTER_DROP"], DropClass::Policy, 100);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_broken() -> Result<()> {
    let finished = caused(|wire| {
        let whole = Packet::udp(&wire.b, wire.a.v4);
        let reader = listener(&wire.a.place, SocketAddr::new(wire.a.v4.into(), 6001))?;
        Packet { error: 1, ..whole }.send(11, &wire.b, &wire.a)?;
        Packet { checksum: 0xBAD1, ..whole }.send(22, &wire.b, &wire.a)?;
        // Its reader finds that out, where the kernel does not do it at once.
        reader.set_nonblocking(true)?;
        let read = reader.recv(&mut [0; 100]);
        ensure!(read.is_err(), "nothing is whole: {read:?}");
        Packet { protocol: 253, ..whole }.send(33, &wire.b, &wire.a)?;
        let frame = frames::ethernet_between(wire.b.mac, wire.a.mac, &[], 0x88B5, &[0; 60]);
        let socket = PacketSocket::new(&wire.b)?;
        (0..44).try_for_each(|_| socket.send(&frame))
    })?;
    assert_balanced(&finished);
    if release::is_at_least((5, 18)) {
        for (reason, count) in
            [("IP_CSUM", 11), ("UDP_CSUM", 22), ("IP_NOPROTO", 33), ("UNHANDLED_PROTO", 44)]
        {
            assert_dropped(&finished, "host", &[reason], DropClass::Malformed, count);
        }
    }
    // The device counts what no protocol takes, and what the stack finds broken is none of its business.
    let drops = finished.status.interfaces.iter().find_map(|interface| interface.device_drops);
    assert_eq!(drops, Some(DeviceDrops { received: 44, ..DeviceDrops::default() }));
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_a_program_of_anothers_drops_at_xdp() -> Result<()> {
    /// Since then the kernel says why it drops.
    const SAYS_WHY: (u32, u32) = (5, 18);
    if release::lacks("reasons of drops at XDP", SAYS_WHY) {
        return Ok(());
    }
    let finished = caused(|wire| {
        let _program = Dropping::at(&wire.a, Hook::Xdp)?;
        Packet::udp(&wire.b, wire.a.v4).send(60, &wire.b, &wire.a)
    })?;
    assert_dropped(&finished, "host", &["XDP"], DropClass::Policy, 60);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_programs_of_others_drop_at_tc() -> Result<()> {
    if release::lacks("for the test, programs of others by TCX", release::TCX) {
        return Ok(());
    }
    for (hook, reason) in [(Hook::TcIngress, "TC_INGRESS"), (Hook::TcEgress, "TC_EGRESS")] {
        let finished = caused(|wire| {
            let _program = Dropping::at(&wire.a, hook)?;
            if hook == Hook::TcEgress {
                let socket = sender(&wire.a, 4, 40_000)?;
                for _ in 0..60 {
                    // That it is dropped may be told to the sender.
                    let _ = socket.send_to(&[0; 10], (IpAddr::V4(wire.b.v4), 6001));
                }
                return Ok(());
            }
            Packet::udp(&wire.b, wire.a.v4).send(60, &wire.b, &wire.a)
        })?;
        assert_dropped(&finished, "host", &[reason], DropClass::Policy, 60);
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn drops_belong_to_the_unit_that_declares_an_end() -> Result<()> {
    let wire = Wire::new()?;
    let units = vec![declared("peer", &[], &[format!("{}/32", wire.b.v4)])?];
    let collector = Running::start(&wire.a.place, Options { units, ..options() })?;
    // It comes to the host, whose drop it is, from a unit's address.
    Packet::udp(&wire.b, wire.a.v4).send(20, &wire.b, &wire.a)?;
    // Nobody of ours has this address, and the host passes nothing on: the sender's.
    Packet::udp(&wire.b, Ipv4Addr::new(203, 0, 113, 1)).send(30, &wire.b, &wire.a)?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let of = |unit: &str| {
        finished.status.drops.iter().filter(|row| &*row.puid == unit).map(|row| row.packets).sum::<u64>()
    };
    assert_eq!((of("host"), of("peer")), (20, 30), "{:#?}", finished.status.drops);
    Ok(())
}
