//! Frames that mean nothing, of any length that a device takes: counted as what they are, and nothing else is.

use collector_tests::{
    Result,
    books::assert_explained,
    collector::{Running, options},
    events,
    lab::Wire,
    traffic::PacketSocket,
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
