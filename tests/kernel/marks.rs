//! Marks of others: nothing that is counted depends on them, and their bits stay theirs.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::Context as _;
use collector_tests::{
    Result,
    books::{Books, assert_sum_at_uplinks},
    cgroups::Cgroup,
    collector::{Running, declared, often, options},
    command, events,
    lab::{End, Wire, silent_host},
    lives::wait_for_step,
    netns::{Place, unique},
    site::Site,
    talk::{self, ask, asker, converse, set_mark, talk},
    traffic::{ANSWERS, Host},
};
use collector_user::{config::Discover, daemon::Options, kernel::requirements::is_preempt_rt};

use crate::assert_balanced;

/// The first declared unit's mark, in the bits of the default mask.
const OURS: u32 = 101 << 18;
/// A mark in the same bits that is no unit's of these tests.
const FOREIGN: u32 = 404 << 18;
/// Bits that are not ours.
const THEIRS: u32 = 0x155;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn marks_in_our_bits_change_nothing_that_is_counted() -> Result<()> {
    // As rules do that keep a connection's mark: into our bits, and on all that leaves or passes.
    let restored = format!(
        "table inet restored {{ \
         chain arriving {{ type filter hook prerouting priority mangle; meta mark set ct mark; }}; \
         chain leaving {{ type filter hook output priority mangle; ct mark set {FOREIGN}; }}; \
         chain through {{ type filter hook forward priority mangle; ct mark set {FOREIGN}; meta mark set ct mark; }}; }}"
    );
    // The whole mark, behind the programs of the interface that it came in by, and before those of the one that it leaves by.
    let overwritten = "table inet overwritten { \
         chain arriving { type filter hook prerouting priority mangle; ct mark set 0x80; meta mark set ct mark & 0x80; }; \
         chain leaving { type filter hook output priority mangle; ct mark set 0x80; meta mark set ct mark & 0x80; }; \
         chain behind { type filter hook postrouting priority mangle; meta mark set ct mark & 0x80; }; }";
    for rules in [&*restored, overwritten] {
        let site = Site::new(1)?;
        site.translate()?;
        site.host().nft(rules)?;
        let web = &site.containers[0];
        let answering = [Host::new(web, &[])?, Host::new(&site.peer, &[])?];
        let units = vec![declared("web", &[&site.ports[0].dev], &[])?];
        let options = Options { units, forwarded: true, ..options() };
        let collector = Running::start_beside(site.host(), options, Some(&site.uplink.dev))?;
        let mut books = Books::new();
        let peer = talk::answers(&answering[1], 4);
        let out = talk(&web.place, (web.v4, 40_000).into(), peer)?;
        books.asked("web", &out).asked("forwarded", &out.between((site.uplink.v4, 40_000).into(), peer));
        let into = talk(&site.peer.place, (site.peer.v4, 40_001).into(), site.published(0))?;
        books
            .was_asked("web", &into.between(into.source, (web.v4, ANSWERS).into()))
            .was_asked("forwarded", &into);
        // A program of the host's, and one of the container's, that set the mark themselves.
        let marked = |place, from: SocketAddr| {
            let socket = asker(place, from, peer)?;
            set_mark(&socket, FOREIGN | THEIRS)?;
            ask(&socket, 100, 100)
        };
        books.asked("host", &marked(site.host(), (site.uplink.v4, 40_002).into())?);
        let out = marked(&web.place, (web.v4, 40_003).into())?;
        books.asked("web", &out).asked("forwarded", &out.between((site.uplink.v4, 40_003).into(), peer));
        let finished = collector.stop()?;
        assert_balanced(&finished);
        books.assert_kept(&finished);
        assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[finished.link]);
    }
    Ok(())
}

/// What its sockets have said to each other is in the same books, whether rules overwrite the whole mark or not: of what leaves,
/// before the programs see it, and of what comes in, behind them.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_mark_that_is_overwritten_on_both_sides_of_the_programs_changes_nothing_that_is_counted() -> Result<()> {
    /// Each with an answer: 10,000 packets.
    const COUNT: u64 = 5_000;
    for is_overwritten in [false, true] {
        let wire = Wire::silent()?;
        let near = &wire.a;
        if is_overwritten {
            near.place.nft(&format!(
                "table inet seen {{ counter theirs {{ }}; counter ours {{ }}; \
                 chain arriving {{ type filter hook prerouting priority mangle; meta mark {OURS} counter name ours; \
                 meta mark set ct mark & 0x80; }}; \
                 chain leaving {{ type filter hook output priority mangle; meta mark {} counter name theirs; \
                 ct mark set 0x80; meta mark set ct mark & 0x80; }}; \
                 chain last {{ type filter hook postrouting priority mangle; meta mark set ct mark & 0x80; }}; }}",
                FOREIGN | THEIRS
            ))?;
        }
        let units = vec![declared("web", &[], &[format!("{}/32", near.v4)])?];
        let at: SocketAddr = (wire.b.v4, ANSWERS).into();
        let answering = talk::listener(&wire.b.place, at)?;
        let asking = asker(&near.place, (near.v4, 40_000).into(), at)?;
        set_mark(&asking, FOREIGN | THEIRS)?;
        let options = Options { units, ..options() };
        let collector = Running::start_beside(&near.place, options, Some(&near.dev))?;
        let said = converse(&asking, &answering, COUNT, 100)?;
        let finished = collector.stop()?;
        assert_balanced(&finished);
        let mut books = Books::new();
        books.asked("web", &said);
        books.assert_kept(&finished);
        assert_sum_at_uplinks(&finished, &["web", "host", "unknown"], &[finished.link]);
        if is_overwritten {
            let seen = ["theirs", "ours"].map(|name| counted(near, name));
            let [theirs, ours] = seen;
            assert_eq!((theirs?, ours?), (COUNT, COUNT), "a mark was there to be overwritten");
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn bits_of_others_survive_ours() -> Result<()> {
    const COUNT: u64 = 10_000;
    let alone = silent_host()?;
    let lo = End::loopback(alone.place());
    // What loopback hands over still has the mark that it left with.
    lo.place.nft(&format!(
        "table inet seen {{ counter marked {{ }}; chain arriving {{ type filter hook input priority 0; \
         meta mark {} counter name marked; }}; }}",
        OURS | THEIRS
    ))?;
    let units = vec![declared("web", &[], &["127.0.0.1/32".to_owned()])?];
    let options = Options { units, ifaces: vec!["lo".parse()?], ..options() };
    let at: SocketAddr = (lo.v4, ANSWERS).into();
    let answering = talk::listener(&lo.place, at)?;
    let collector = Running::start(&lo.place, options)?;
    let asking = asker(&lo.place, (lo.v4, 40_000).into(), at)?;
    set_mark(&asking, FOREIGN | THEIRS)?;
    let talk = converse(&asking, &answering, COUNT, 100)?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    Books::new()
        .flow("web", &talk)
        .asked_here("web", &talk)
        .was_asked_here("web", &talk)
        .assert_kept(&finished);
    assert_eq!(
        counted(&lo, "marked")?,
        COUNT,
        "our mark in place of the other one in our bits, and their bits as they were"
    );
    Ok(())
}

/// What nft has counted.
fn counted(end: &End, name: &str) -> Result<u64> {
    let text = end.place.within(|| command::run("nft", &["list", "counter", "inet", "seen", name]))?;
    let packets = text.split_whitespace().skip_while(|word| *word != "packets").nth(1);
    Ok(packets.context("nft has another form of counter")?.parse()?)
}

/// The marks that arrived, with the packets of each.
fn arrived(place: &Place) -> Result<BTreeMap<u32, u64>> {
    let text = place.run("nft list set inet seen marks")?;
    let (_, elements) = text.split_once("elements = {").unwrap_or_default();
    let element = |element: &str| -> Result<(u32, u64)> {
        let mut words = element.split_whitespace();
        let mark = words.next().and_then(|word| u32::from_str_radix(word.strip_prefix("0x")?, 16).ok());
        let packets = words.skip_while(|word| *word != "packets").nth(1);
        let form = || format!("nft has another form of set: {text}");
        Ok((mark.with_context(form)?, packets.with_context(form)?.parse()?))
    };
    let elements = elements.split_once('}').map_or("", |(elements, _)| elements);
    elements.split(',').map(str::trim).filter(|it| !it.is_empty()).map(element).collect()
}

/// A service, and its cgroup.
fn service_of_its_own() -> Result<(String, Cgroup)> {
    let id = format!("{}.service", unique("ct").replace('.', "_"));
    let group = Cgroup::new(&format!("system.slice/{id}"))?;
    Ok((id, group))
}

/// What is sent before its unit is known has the mark of the unit, if the unit is found by that; and as soon as it is known, if
/// the unit was there before: in one record of one flow.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_flow_that_began_before_its_unit_was_known_has_its_mark() -> Result<()> {
    const COUNT: u64 = 100;
    const OTHER: u16 = ANSWERS + 1;
    let alone = silent_host()?;
    let lo = End::loopback(alone.place());
    // What loopback hands over still has the mark that it left with.
    lo.place.nft(&format!(
        "table inet seen {{ set marks {{ type mark; size 16; flags dynamic; }}; \
         chain arriving {{ type filter hook input priority 0; udp dport {{ {ANSWERS}, {OTHER} }} update @marks {{ meta mark counter }}; }}; }}"
    ))?;
    let options = Options { ifaces: vec!["lo".parse()?], discover: Discover::On, ..often() };
    let collector = Running::start(&lo.place, options)?;
    // The lesser port stands for the flow: that of who answers.
    let asked = |group: &Cgroup, port: u16| -> Result<_> {
        let at: SocketAddr = (lo.v4, port).into();
        let answering = group.within(|| Host::at(&lo, &[], at))?;
        let socket = asker(&lo.place, (lo.v4, 40_000 + port).into(), at)?;
        Ok((ask(&socket, COUNT, 100)?, socket, answering))
    };
    let held = collector.hold()?;
    let (service, group) = service_of_its_own()?;
    let (talked, socket, _answering) = asked(&group, ANSWERS)?;
    drop(held);
    wait_for_step(&collector, &service, "create");
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let units = runtime.block_on(collector.started.inquirer.units())?;
    let mark = units.iter().find(|unit| *unit.context_id == *service).and_then(|unit| unit.mark);
    let mark = u32::from(mark.context("it was found")?) << 18;
    ask(&socket, COUNT, 100)?;
    let first = arrived(&lo.place)?;
    let held = collector.hold()?;
    let below = Cgroup::new(&format!("system.slice/{service}/below"))?;
    let (_, socket, _answering_too) = asked(&below, OTHER)?;
    // Of what is told of cgroups it is the last.
    let (last, _group) = service_of_its_own()?;
    drop(held);
    wait_for_step(&collector, &last, "create");
    // Whoever is asked has done with what was told.
    runtime.block_on(collector.started.inquirer.units())?;
    ask(&socket, COUNT, 100)?;
    let marks = arrived(&lo.place)?;
    let finished = collector.stop()?;
    if is_preempt_rt() {
        // There the programs give no group a number that nobody has seen: what came before is the host's.
        let losses = finished.status.ledger.losses();
        assert!(losses.iter().all(|(name, _)| name == "units_exhausted") && !losses.is_empty(), "{losses:?}");
        assert_eq!(first, BTreeMap::from([(0, COUNT), (mark, COUNT)]), "from when it is known");
        assert_eq!(marks, BTreeMap::from([(0, 2 * COUNT), (mark, 2 * COUNT)]), "{marks:x?}");
        return Ok(());
    }
    assert_balanced(&finished);
    assert_eq!(first, BTreeMap::from([(mark, 2 * COUNT)]), "from the first packet on");
    assert_eq!(marks.get(&mark), Some(&(3 * COUNT)), "from when it is known: {marks:x?}");
    assert_eq!(marks.values().sum::<u64>(), 4 * COUNT, "{marks:x?}");
    let records = events::flows(&finished.events);
    let told: Vec<_> = records.map(|it| (&*it.context_id, it.count, it.packets, it.bytes)).collect();
    let each = (&*service, 1, 2 * COUNT, 2 * talked.forth.bytes);
    assert_eq!(told, [each; 2], "one record of each flow");
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_units_mark_is_on_its_connections_by_the_rule_of_the_readme() -> Result<()> {
    const COUNT: u64 = 50;
    const README: &str = include_str!("../../README.md");
    let rule = README.split_once("```nft\n").and_then(|(_, rest)| rest.split_once("```"));
    let (rule, _) = rule.context("the README has no such rule")?;
    let wire = Wire::new()?;
    let near = &wire.a;
    near.place.nft(rule)?;
    // What leaves has no mark of its own yet.
    near.place.nft(&format!(
        "table inet seen {{ counter in {{ }}; counter out {{ }}; counter bare {{ }}; \
         chain arriving {{ type filter hook input priority 0; ct mark {OURS} counter name in; }}; \
         chain leaving {{ type filter hook output priority 0; ct mark {OURS} counter name out; \
         ct mark {OURS} meta mark 0 counter name bare; }}; }}"
    ))?;
    let units = vec![declared("web", &[], &[format!("{}/32", near.v4)])?];
    let at: SocketAddr = (near.v4, ANSWERS).into();
    let _answering = Host::at(near, &[], at)?;
    let collector = Running::start_beside(&near.place, Options { units, ..options() }, Some(&near.dev))?;
    ask(&asker(&wire.b.place, (wire.b.v4, 40_000).into(), at)?, COUNT, 100)?;
    assert_balanced(&collector.stop()?);
    let seen = ["in", "out", "bare"].map(|name| counted(near, name));
    let [arriving, leaving, bare] = seen;
    assert_eq!((arriving?, leaving?, bare?), (COUNT, COUNT, COUNT));
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn who_else_uses_our_bits_is_said() -> Result<()> {
    let wire = Wire::new()?;
    let said = || -> Result<Vec<String>> {
        let collector = Running::start(&wire.a.place, options())?;
        let missing = collector.started.missing.clone();
        collector.stop()?;
        Ok(missing.into_iter().filter(|sentence| sentence.starts_with("marks ")).collect())
    };
    wire.a.place.ip("rule add fwmark 0x1/0xff table 100")?;
    assert_eq!(said()?, [""; 0], "those are others");
    wire.a.place.ip("rule add fwmark 0xca6c table 101 priority 77")?;
    wire.a.place.ip("link add cali12 type veth peer name c12")?;
    let said = said()?;
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].contains("Calico (cali12)") && said[1].contains("`ip rule` 77 compares the whole mark"),
        "{said:?}"
    );
    Ok(())
}
