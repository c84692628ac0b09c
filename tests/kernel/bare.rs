//! Somebody takes the programs off, and they cannot be attached anew: that is said, counted and tried again, and what
//! crosses the interface meanwhile is named.

use anyhow::ensure;
use collector_tests::{
    Result,
    collector::{Finished, Running, often},
    events,
    frames::UDP,
    lab::Wire,
    traffic::{Datagrams, Host, send_and_settle},
};
use collector_user::{
    daemon::Options,
    event::Unseen,
    kernel::attach::{Choice, Mechanism},
};

const PORT: u16 = 5001;
const COUNT: u64 = 2000;

fn by_clsact() -> Options {
    Options { attach: Choice::Only(Mechanism::Clsact), ..often() }
}

/// In the place of the filters comes what keeps them out, before the daemon hears of either; returns what it says then.
fn shut_out(collector: &Running, wire: &Wire) -> Result<Vec<String>> {
    let (place, dev) = (&wire.b.place, &wire.b.dev);
    let held = collector.hold()?;
    place.run(&format!("tc qdisc del dev {dev} clsact"))?;
    place.run(&format!("tc qdisc add dev {dev} ingress"))?;
    drop(held);
    let off = format!("{dev}: somebody has taken our programs away; nothing is counted there");
    let said = collector.wait_to_say(&off)?;
    ensure!(place.run(&format!("tc qdisc show dev {dev}"))?.contains("qdisc ingress"), "it is another's");
    Ok(said)
}

/// What the interface has counted is counted or named.
fn assert_named(finished: &Finished, wire: &Wire, hook: &str) -> Unseen {
    let status = finished.status.interfaces.iter().find(|it| it.name == wire.b.dev);
    assert_eq!(status.map(|it| (&*it.role, &*it.hook)), Some(("uplink", hook)));
    let unseen = status.and_then(|it| it.unseen).unwrap_or_default();
    let [received, _, sent, _] = events::all_units(&finished.events);
    assert_eq!(
        [received + unseen.received, sent + unseen.sent],
        [finished.link.rx_packets, finished.link.tx_packets],
        "{unseen:?}"
    );
    assert_eq!(unseen.dropped_behind, 0);
    assert_eq!(finished.status.ledger.taken_off, 1);
    assert_eq!(finished.status.ledger.seen, finished.status.ledger.explained());
    unseen
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_crosses_where_attaching_anew_fails_is_named_until_it_succeeds() -> Result<()> {
    for comes_back in [false, true] {
        let wire = Wire::silent()?;
        let (place, dev) = (&wire.b.place, &wire.b.dev);
        let collector = Running::start_beside(place, by_clsact(), Some(dev))?;
        let host = Host::new(&wire.b, &[PORT])?;
        let send = |port| {
            let datagrams = Datagrams { to: host.address(4, PORT), count: COUNT, size: 100 };
            send_and_settle(&wire.a, port, &host, &[datagrams])
        };
        send(40_000)?;
        let said = shut_out(&collector, &wire)?;
        assert!(said.iter().any(|it| it.contains("of kind `ingress`")), "{said:#?}");
        send(40_001)?;
        let mut want = COUNT;
        if comes_back {
            // Tried again when something changes, in vain, which is not said twice; and again.
            place.ip("link add mark0 type bridge")?;
            let mut said = collector
                .wait_to_say("mark0 is stacked: a bridge: its packets are seen on the interfaces below")?;
            place.run(&format!("tc qdisc del dev {dev} ingress"))?;
            place.ip("link del mark0")?;
            said.extend(collector.wait_to_say(&format!(
                "{dev}: our programs are there again; packets in between were not counted"
            ))?);
            assert!(!said.iter().any(|it| it.contains("of kind `ingress`")), "again: {said:#?}");
            send(40_002)?;
            want += COUNT;
        }
        let finished = collector.stop()?;
        let unseen = assert_named(&finished, &wire, if comes_back { "ingress+egress" } else { "" });
        // Each time with a question whether all has arrived, and its answer.
        assert_eq!((unseen.received, unseen.sent), (COUNT + 1, 1));
        assert_eq!(events::total(&finished.events, |flow| events::is_to(flow, UDP, PORT)).packets, want);
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn an_interface_that_goes_with_its_filters_is_gone_and_nothing_was_taken_off() -> Result<()> {
    let wire = Wire::silent()?;
    let (place, dev) = (&wire.b.place, &wire.b.dev);
    let collector = Running::start(place, by_clsact())?;
    let held = collector.hold()?;
    place.run(&format!("tc qdisc del dev {dev} clsact"))?;
    place.ip(&format!("link del {dev}"))?;
    drop(held);
    let said = collector.wait_to_say(&format!("{dev} is gone"))?;
    assert!(!said.iter().any(|it| it.contains("attach") || it.contains("taken")), "{said:#?}");
    let finished = collector.stop()?;
    assert_eq!(finished.status.ledger.taken_off, 0);
    assert!(finished.status.interfaces.iter().all(|it| it.name == "lo"), "{:?}", finished.status.interfaces);
    Ok(())
}
