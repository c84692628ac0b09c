use std::collections::BTreeSet;

use aya::{
    maps::{Array, Map, MapData, MapInfo},
    programs::loaded_programs,
};
use collector_ebpf::abi::control::Control;

use crate::{
    process::{Wire, json},
    release,
};

/// The loaded programs that count what comes in; those of other collectors on this machine too.
fn programs() -> BTreeSet<u32> {
    let programs = loaded_programs().filter_map(Result::ok);
    programs
        .filter(|program| program.name_as_str() == Some("tc_ingress"))
        .map(|program| program.id())
        .collect()
}

/// The control map of a program.
fn control_of(id: u32) -> Option<Array<MapData, Control>> {
    let program = loaded_programs().filter_map(Result::ok).find(|program| program.id() == id)?;
    let maps = program.map_ids().ok()??;
    let is_control = |id: &u32| MapInfo::from_id(*id).is_ok_and(|info| info.name_as_str() == Some("CONTROL"));
    let map = maps.into_iter().find(is_control)?;
    Map::from_map_data(MapData::from_id(map).ok()?).ok()?.try_into().ok()
}

/// Our filters on the ingress hook.
fn ingress_filters(wire: &Wire) -> usize {
    wire.filters().lines().filter(|line| line.contains("tc_ingress")).count()
}

/// The lease of the collector whose filters these are has run out: not waited for, written.
pub(crate) fn expire(filters: &str) {
    lease(filters, 0);
}

/// Its lease ends at this tick.
pub(crate) fn lease(filters: &str, lease: u64) {
    let line = filters.lines().find(|line| line.contains("tc_ingress")).expect("its filter stands there");
    let id = line
        .split(" id ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .expect("tc prints the program's id");
    let mut orphan = control_of(id.parse().expect("an id is a number")).expect("its program is still loaded");
    for cpu in 0..orphan.len() {
        let control = Control { lease, ..orphan.get(&cpu, 0).expect("the map is readable") };
        orphan.set(cpu, control, 0).expect("the map is writable");
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn tcx_links_go_with_their_owner() {
    if release::lacks("TCX", release::TCX) {
        return;
    }
    let wire = Wire::new();
    let before = programs();
    let running = wire.start(&["--output", "json", "--attach", "tcx"]);
    let new: Vec<u32> = programs().difference(&before).copied().collect();
    assert!(!new.is_empty());
    running.signal("KILL");
    let (code, ..) = running.end();
    assert_eq!(code, None, "killed");
    wire.ping(3);
    let left = programs();
    assert!(new.iter().any(|id| !left.contains(id)), "the program is gone");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn the_link_of_xdp_goes_with_its_process() {
    let wire = Wire::new();
    let shown = || crate::process::sh(&format!("ip -n {} -d link show {}", wire.near, wire.interface));
    for mode in ["generic", "native"] {
        let running = wire.start(&["--output", "json", "--xdp", mode]);
        assert!(shown().contains("xdp"), "{}", shown());
        running.signal("KILL");
        let (code, ..) = running.end();
        assert_eq!(code, None, "killed");
        wire.ping(3);
        assert!(!shown().contains("xdp"), "{mode}: {}", shown());
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn clsact_filters_of_a_killed_collector_are_removed_at_the_next_start() {
    let wire = Wire::new();
    let Wire { near, interface, .. } = &wire;
    // Somebody else's qdisc and filter stay, whatever happens here.
    crate::process::sh(&format!(
        "tc -n {near} qdisc add dev {interface} clsact
         tc -n {near} filter add dev {interface} ingress pref 100 handle 800::800 protocol ip u32 match u32 0 0 classid 1:1"
    ));
    let foreign = wire.filters();
    let running = wire.start(&["--output", "json", "--attach", "clsact"]);
    running.signal("KILL");
    running.end();
    let left = wire.filters();
    assert!(
        left.contains("tc_ingress") && left.contains("tc_egress"),
        "filters outlive their process: {left}"
    );
    wire.ping(3);

    // A lease that still runs protects them: this might be a second collector. However long the next one takes to load.
    lease(&left, u64::MAX);
    let second = wire.start(&["--output", "json", "--attach", "clsact"]);
    assert_eq!(ingress_filters(&wire), 2);
    second.signal("INT");
    assert_eq!(second.end().0, Some(0));
    assert_eq!(wire.filters(), left, "it has removed its own");

    expire(&left);
    let third = wire.start(&["--output", "json", "--attach", "clsact"]);
    assert_eq!(ingress_filters(&wire), 1, "only the one that runs");
    wire.ping(4);
    third.signal("INT");
    let (code, lines, _) = third.end();
    assert_eq!(code, Some(0));
    let flow = lines.iter().map(|line| json(line)).find(|event| event["type"] == "flow").expect("a flow");
    assert_eq!(flow["record"]["packets"], 4);
    assert_eq!(wire.filters(), foreign, "what is not ours is as it was");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_qdisc_of_our_own_goes_with_the_filters() {
    // Without it the next collector needs a qdisc itself.
    if release::lacks("TCX", release::TCX) {
        return;
    }
    let wire = Wire::new();
    let qdiscs = || crate::process::sh(&format!("tc -n {} qdisc show dev {}", wire.near, wire.interface));
    let killed = wire.start(&["--output", "json", "--attach", "clsact"]);
    killed.signal("KILL");
    killed.end();
    assert!(qdiscs().contains("clsact"), "it outlives its process");
    expire(&wire.filters());
    let next = wire.start(&["--output", "json", "--attach", "tcx"]);
    assert!(!qdiscs().contains("clsact"), "{}", qdiscs());
    next.signal("INT");
    assert_eq!(next.end().0, Some(0));
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn whoever_attaches_beside_filters_of_a_killed_one_takes_its_qdisc_along() {
    // Without it the third collector needs a qdisc itself.
    if release::lacks("TCX", release::TCX) {
        return;
    }
    let wire = Wire::new();
    let has_qdisc = || {
        crate::process::sh(&format!("tc -n {} qdisc show dev {}", wire.near, wire.interface))
            .contains("clsact")
    };
    let killed = wire.start(&["--output", "json", "--attach", "clsact"]);
    killed.signal("KILL");
    killed.end();
    let left = wire.filters();
    // It was killed a moment ago.
    lease(&left, u64::MAX);
    let next = wire.start(&["--output", "json", "--attach", "clsact"]);
    assert_eq!(ingress_filters(&wire), 2);
    expire(&left);
    let third = wire.start(&["--output", "json", "--attach", "tcx"]);
    assert_eq!(ingress_filters(&wire), 1, "the killed one's are gone");
    third.signal("INT");
    assert_eq!(third.end().0, Some(0));
    assert!(has_qdisc(), "one hangs there still");
    next.signal("INT");
    let (code, _, errors) = next.end();
    assert_eq!(code, Some(0));
    assert!(!errors.contains("filters of others"), "{errors}");
    assert!(!has_qdisc(), "it was the last");
}
