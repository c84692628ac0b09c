//! Each mechanism counts the same, and leaves nothing of ours and all of others'.

use std::collections::BTreeSet;

use aya::programs::{SchedClassifier, TcAttachType};
use collector_tests::{
    Result,
    collector::{Running, options},
    command,
    events::{self, Totals},
    frames::UDP,
    lab::{End, Wire},
    release,
    traffic::{Datagrams, Host, send_and_settle},
};
use collector_user::{
    daemon::Options,
    kernel::attach::{Choice, Mechanism},
};

use serde_json::Value;

use crate::assert_balanced;

const PORT: u16 = 5001;
const COUNT: u64 = 2000;

/// The filters on both hooks of clsact, as `tc` shows them.
fn filters(end: &End) -> Result<String> {
    let mut all = String::new();
    for hook in ["ingress", "egress"] {
        all += &end.place.run(&format!("tc filter show dev {} {hook}", end.dev))?;
    }
    Ok(all)
}

fn qdiscs(end: &End) -> Result<String> {
    end.place.run(&format!("tc qdisc show dev {}", end.dev))
}

/// What is taken where nothing is asked for.
fn by_default() -> Mechanism {
    if release::is_at_least(release::TCX) { Mechanism::Tcx } else { Mechanism::Clsact }
}

/// The names of the programs on both hooks of TCX.
fn tcx(end: &End) -> Result<Vec<String>> {
    if !release::is_at_least(release::TCX) {
        return Ok(Vec::new());
    }
    end.place.within(|| {
        let mut names = Vec::new();
        for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
            let (_, programs) = SchedClassifier::query_tcx(&end.dev, hook)?;
            names.extend(programs.iter().map(|it| it.name_as_str().unwrap_or_default().to_owned()));
        }
        Ok(names)
    })
}

/// Counts datagrams both ways round, by one mechanism, and checks what it hangs by.
fn count_by(wire: &Wire, attach: Choice, mechanism: Mechanism) -> Result<()> {
    let collector = Running::start(&wire.b.place, Options { attach, ..options() })?;
    let status = collector.started.interfaces.iter().find(|it| it.name == wire.b.dev);
    let said = status.map(|it| (it.mechanism.as_str(), it.hook.as_str(), it.role.as_str()));
    assert_eq!(said, Some((mechanism.to_string().as_str(), "ingress+egress", "uplink")));
    let host = Host::new(&wire.b, &[PORT])?;
    let datagrams = Datagrams { to: host.address(4, PORT), count: COUNT, size: 100 };
    send_and_settle(&wire.a, 40_000, &host, &[datagrams])?;
    let (shown, linked) = (filters(&wire.b)?, tcx(&wire.b)?);
    match mechanism {
        Mechanism::Tcx => assert_eq!(linked, ["tc_ingress", "tc_egress"]),
        Mechanism::Clsact => assert!(shown.contains("tc_ingress") && shown.contains("tc_egress"), "{shown}"),
    }
    let finished = collector.stop()?;
    assert_balanced(&finished);
    assert_eq!(
        events::total(&finished.events, |flow| events::is_to(flow, UDP, PORT)),
        Totals { packets: COUNT, bytes: COUNT * 142, count: 1, ..Totals::default() }
    );
    assert!(tcx(&wire.b)?.is_empty());
    assert!(!filters(&wire.b)?.contains("tc_"), "{}", filters(&wire.b)?);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn every_mechanism_counts_the_same_and_leaves_nothing() -> Result<()> {
    let wire = Wire::new()?;
    let before = qdiscs(&wire.b)?;
    for (choice, mechanism) in [
        (Choice::Auto, by_default()),
        (Choice::Only(Mechanism::Clsact), Mechanism::Clsact),
        // Once more: what the first left would be in its way.
        (Choice::Only(Mechanism::Clsact), Mechanism::Clsact),
    ] {
        count_by(&wire, choice, mechanism)?;
        assert_eq!(qdiscs(&wire.b)?, before, "{choice:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn tcx_that_is_asked_for_counts_the_same_and_leaves_nothing() -> Result<()> {
    if release::lacks("TCX", release::TCX) {
        return Ok(());
    }
    let wire = Wire::new()?;
    let before = qdiscs(&wire.b)?;
    count_by(&wire, Choice::Only(Mechanism::Tcx), Mechanism::Tcx)?;
    assert_eq!(qdiscs(&wire.b)?, before);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn filters_and_qdiscs_of_others_survive() -> Result<()> {
    let wire = Wire::new()?;
    wire.b.place.run(&format!("tc qdisc add dev {} clsact", wire.b.dev))?;
    let bare = qdiscs(&wire.b)?;
    count_by(&wire, Choice::Only(Mechanism::Clsact), Mechanism::Clsact)?;
    assert_eq!(qdiscs(&wire.b)?, bare, "a qdisc without filters that others made");
    // A filter for an address that nobody has; one before ours, one with our very preference.
    for (hook, preference) in [("ingress", 10), ("egress", 60_000)] {
        wire.b.place.run(&format!(
            "tc filter add dev {} {hook} pref {preference} protocol ip u32 match ip src 203.0.113.1/32 flowid 1:1",
            wire.b.dev
        ))?;
    }
    let before = filters(&wire.b)?;
    assert!(before.contains("u32"), "{before}");
    for (choice, mechanism) in
        [(Choice::Only(Mechanism::Clsact), Mechanism::Clsact), (Choice::Auto, by_default())]
    {
        count_by(&wire, choice, mechanism)?;
        assert_eq!((filters(&wire.b)?, qdiscs(&wire.b)?), (before.clone(), bare.clone()), "{choice:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn filters_that_somebody_takes_away_are_attached_again_and_the_ledger_says_so() -> Result<()> {
    let wire = Wire::new()?;
    let clsact = Options { attach: Choice::Only(Mechanism::Clsact), ..options() };
    let collector = Running::start(&wire.b.place, clsact)?;
    let host = Host::new(&wire.b, &[PORT])?;
    let datagrams = Datagrams { to: host.address(4, PORT), count: COUNT, size: 100 };
    send_and_settle(&wire.a, 40_000, &host, &[datagrams])?;
    let dev = &wire.b.dev;
    let again = format!(
        "{dev}: somebody had taken our programs away, and they are there again; packets in between were not counted"
    );
    // All that there is; then those of one hook; and in between somebody else's, which is no matter.
    for command in [
        format!("tc qdisc del dev {dev} clsact"),
        format!(
            "tc filter add dev {dev} egress pref 10 protocol ip u32 match ip src 203.0.113.1/32 flowid 1:1"
        ),
        format!("tc filter del dev {dev} egress pref 10"),
        format!("tc filter del dev {dev} ingress"),
    ] {
        wire.b.place.run(&command)?;
        if command.ends_with("clsact") || command.ends_with("ingress") {
            collector.wait_to_say(&again)?;
        }
        let shown = filters(&wire.b)?;
        assert!(shown.contains("tc_ingress") && shown.contains("tc_egress"), "{command}: {shown}");
    }
    send_and_settle(&wire.a, 40_001, &host, &[datagrams])?;
    let finished = collector.stop()?;
    assert_eq!(
        events::total(&finished.events, |flow| events::is_to(flow, UDP, PORT)),
        Totals { packets: 2 * COUNT, bytes: 2 * COUNT * 142, count: 2, ..Totals::default() }
    );
    assert_eq!(finished.status.ledger.taken_off, 2);
    assert!(!filters(&wire.b)?.contains("tc_"), "{}", filters(&wire.b)?);
    assert!(!qdiscs(&wire.b)?.contains("clsact"), "it was ours to the end");
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_somebody_puts_in_our_filters_place_stays() -> Result<()> {
    let wire = Wire::new()?;
    let dev = &wire.b.dev;
    // Then ours have the handles that the kernel allots, as others'.
    wire.b.place.run(&format!("tc qdisc add dev {dev} clsact"))?;
    let clsact = Options { attach: Choice::Only(Mechanism::Clsact), ..options() };
    let collector = Running::start(&wire.b.place, clsact)?;
    let replace = format!(
        "tc filter replace dev {dev} ingress pref 1 handle 1 protocol all bpf bytecode '1,6 0 0 4294967295,' classid 1:1"
    );
    wire.b.place.within(|| command::run("sh", &["-c", &replace]))?;
    collector.wait_to_say(&format!(
        "{dev}: somebody had taken our programs away, and they are there again; packets in between were not counted"
    ))?;
    let foreign = |shown: &str| shown.contains("bytecode") || shown.contains("flowid 1:1");
    let shown = filters(&wire.b)?;
    assert!(foreign(&shown) && shown.contains("tc_ingress") && shown.contains("tc_egress"), "{shown}");
    collector.stop()?;
    let left = filters(&wire.b)?;
    assert!(foreign(&left) && !left.contains("tc_"), "{left}");
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_link_that_somebody_takes_off_is_made_anew() -> Result<()> {
    if release::lacks("TCX", release::TCX) {
        return Ok(());
    }
    let wire = Wire::new()?;
    let collector = Running::start(&wire.b.place, options())?;
    let links = links(&wire.b)?;
    assert_eq!(links.len(), 2);
    for link in links {
        command::line(&format!("bpftool link detach id {link}"))?;
    }
    assert!(tcx(&wire.b)?.is_empty(), "both are off");
    // Nobody is told; that is looked at once a minute, and whenever something else changes there.
    let dev = &wire.b.dev;
    wire.b.place.run(&format!("tc qdisc add dev {dev} clsact"))?;
    wire.b.place.run(&format!(
        "tc filter add dev {dev} egress pref 10 protocol ip u32 match ip src 203.0.113.1/32 flowid 1:1"
    ))?;
    collector.wait_to_say(&format!(
        "{dev}: somebody had taken our programs away, and they are there again; packets in between were not counted"
    ))?;
    assert_eq!(tcx(&wire.b)?, ["tc_ingress", "tc_egress"]);
    assert_eq!(collector.stop()?.status.ledger.taken_off, 1);
    Ok(())
}

/// The numbers of the links of the programs that hang on an interface by TCX.
fn links(end: &End) -> Result<Vec<u64>> {
    let programs: BTreeSet<u64> = end.place.within(|| {
        let hooks = [TcAttachType::Ingress, TcAttachType::Egress];
        let found =
            hooks.map(|hook| SchedClassifier::query_tcx(&end.dev, hook).map(|(_, programs)| programs));
        let mut ids = BTreeSet::new();
        for programs in found {
            ids.extend(programs?.iter().map(|program| u64::from(program.id())));
        }
        Ok(ids)
    })?;
    let shown: Vec<Value> = serde_json::from_str(&command::line("bpftool -j link")?)?;
    let is_theirs = |link: &&Value| link["prog_id"].as_u64().is_some_and(|id| programs.contains(&id));
    Ok(shown.iter().filter(is_theirs).filter_map(|link| link["id"].as_u64()).collect())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn an_ingress_qdisc_is_no_clsact() -> Result<()> {
    let wire = Wire::new()?;
    wire.b.place.run(&format!("tc qdisc add dev {} ingress", wire.b.dev))?;
    let clsact = Options { attach: Choice::Only(Mechanism::Clsact), ..options() };
    let error =
        Running::start(&wire.b.place, clsact).err().map(|error| format!("{error:#}")).unwrap_or_default();
    assert!(error.contains("of kind `ingress`"), "{error}");
    assert!(!filters(&wire.b)?.contains("tc_"), "{}", filters(&wire.b)?);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_filter_that_came_meanwhile_keeps_its_qdisc() -> Result<()> {
    let wire = Wire::new()?;
    let clsact = Options { attach: Choice::Only(Mechanism::Clsact), ..options() };
    let collector = Running::start(&wire.b.place, clsact)?;
    wire.b.place.run(&format!(
        "tc filter add dev {} egress pref 10 protocol ip u32 match ip src 203.0.113.1/32 flowid 1:1",
        wire.b.dev
    ))?;
    collector.stop()?;
    let left = filters(&wire.b)?;
    assert!(left.contains("u32") && !left.contains("tc_"), "{left}");
    assert!(qdiscs(&wire.b)?.contains("clsact"));
    Ok(())
}
