//! Frames that mean nothing, of any length that a device takes: counted as what they are, and nothing else is.

use anyhow::ensure;
use collector_tests::{
    PATIENCE, Result,
    books::assert_explained,
    collector::{Running, options},
    events::{self, Totals},
    frames::{IPV4, IPV6, UDP, checksum, ipv4, udp},
    lab::{Wire, silent_host},
    talk::listener,
    traffic::PacketSocket,
    tun::Tun,
};

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn frames_of_one_octet_repeated_are_counted_and_not_understood() -> Result<()> {
    const EACH: u64 = 10;
    const MTU: usize = 65_535;
    let lengths = || (14..80).chain([255, 256, 257, 1514, 14 + MTU]);
    let wire = Wire::silent()?;
    for end in [&wire.a, &wire.b] {
        end.place.ip(&format!("link set {} mtu {MTU}", end.dev))?;
    }
    let [leaving, coming] = [&wire.a, &wire.b].map(|end| Running::start(&end.place, options()));
    let (leaving, coming) = (leaving?, coming?);
    let socket = PacketSocket::new(&wire.a)?;
    for octet in [0x00, 0xFF] {
        for length in lengths() {
            for _ in 0..EACH {
                socket.send(&vec![octet; length])?;
            }
        }
    }
    let packets = 2 * EACH * lengths().count() as u64;
    let octets = 2 * EACH * lengths().sum::<usize>() as u64;
    for (collector, want) in [(leaving, [0, 0, packets, octets]), (coming, [packets, octets, 0, 0])] {
        let finished = collector.stop()?;
        assert_explained(&finished);
        let ledger = &finished.status.ledger;
        assert_eq!(events::unit(&finished.events, "host"), want, "{ledger:?}");
        // A length where an Ethertype stands, with three octets of LLC behind it or not; and an Ethertype that is nobody's.
        let unparsed =
            ["truncated", "llc", "ethertype"].map(|reason| ledger.unparsed.get(reason).copied().unwrap_or(0));
        assert_eq!(unparsed, [3 * EACH, packets / 2 - 3 * EACH, packets / 2], "{ledger:?}");
        assert_eq!((ledger.seen, ledger.flows), (packets, 0), "{ledger:?}");
    }
    Ok(())
}

/// Without a link layer a packet may be shorter than any header.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn packets_of_a_few_octets_are_counted_and_not_understood_and_a_datagram_beside_them_is() -> Result<()> {
    const EACH: u64 = 10;
    const PORT: u16 = 5001;
    const SIZE: usize = 60;
    /// Of a version that there is not, and of both that there are, cut in their headers.
    const OCTETS: [u8; 4] = [0x00, 0xFF, 0x45, 0x66];
    let lengths = || 1..20_usize;
    let alone = silent_host()?;
    let tun = Tun::new(alone.place())?;
    let receiver = listener(alone.place(), tun.end.at(4, PORT))?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    let collector = Running::start(alone.place(), options())?;
    for octet in OCTETS {
        for ethertype in [IPV4, IPV6] {
            for length in lengths() {
                for _ in 0..EACH {
                    tun.write(ethertype, &vec![octet; length])?;
                }
            }
        }
    }
    let [high, low] = PORT.to_be_bytes();
    let mut whole =
        ipv4(([10, 66, 0, 2].into(), tun.end.v4), &[], 0x4000, UDP, &udp([0x9C, 0x40, high, low], SIZE));
    let sum = checksum(&whole[..20]).to_be_bytes();
    whole[10..12].copy_from_slice(&sum);
    for _ in 0..EACH {
        tun.write(IPV4, &whole)?;
        let length = receiver.recv(&mut [0; 100])?;
        ensure!(length == SIZE, "another datagram of {length} octets");
    }
    let finished = collector.stop()?;
    assert_explained(&finished);
    let ledger = &finished.status.ledger;
    let role = finished.status.interfaces.iter().find(|it| it.name == tun.end.dev).map(|it| &*it.role);
    assert_eq!(role, Some("overlay"));
    // Of each octet, told to be of either family.
    let packets = 2 * EACH * lengths().count() as u64;
    let octets = 2 * EACH * lengths().sum::<usize>() as u64;
    let unparsed =
        ["ip_version", "truncated"].map(|reason| ledger.unparsed.get(reason).copied().unwrap_or(0));
    assert_eq!(unparsed, [2 * packets, 2 * packets], "{ledger:?}");
    assert_eq!((ledger.seen, ledger.flows), (4 * packets + EACH, EACH), "{ledger:?}");
    let bytes = EACH * whole.len() as u64;
    assert_eq!(
        events::total(&finished.events, |flow| events::is_to(flow, UDP, PORT)),
        Totals { packets: EACH, bytes, count: 1, ..Totals::default() }
    );
    let want = [4 * packets + EACH, 4 * octets + bytes, 0, 0];
    assert_eq!(events::unit(&finished.events, "overlay"), want, "{ledger:?}");
    Ok(())
}
