use aya::{
    maps::{Array, Map, MapData, MapInfo},
    programs::loaded_programs,
};
use collector_ebpf::abi::control::Control;

use crate::process::{Wire, json};

/// The control maps of programs that count, by program name; those of other processes too.
fn controls() -> Vec<Array<MapData, Control>> {
    let programs = loaded_programs().filter_map(Result::ok);
    let ours = programs.filter(|program| program.name_as_str() == Some("tc_ingress"));
    ours.filter_map(|program| program.map_ids().ok().flatten())
        .flatten()
        .filter(|id| MapInfo::from_id(*id).is_ok_and(|info| info.name_as_str() == Some("CONTROL")))
        .filter_map(|id| Map::from_map_data(MapData::from_id(id).ok()?).ok()?.try_into().ok())
        .collect()
}

/// Our filters on the ingress hook.
fn ingress_filters(wire: &Wire) -> usize {
    wire.filters().lines().filter(|line| line.contains("tc_ingress")).count()
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn tcx_links_go_with_their_owner() {
    let wire = Wire::new();
    let before = controls().len();
    let running = wire.start(&["--output", "json", "--attach", "tcx"]);
    assert_eq!(controls().len(), before + 1);
    running.signal("KILL");
    let (code, ..) = running.end();
    assert_eq!(code, None, "killed");
    wire.ping(3);
    assert_eq!(controls().len(), before, "the programs are gone");
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
    let known = controls().len();
    let running = wire.start(&["--output", "json", "--attach", "clsact"]);
    running.signal("KILL");
    running.end();
    let left = wire.filters();
    assert!(
        left.contains("tc_ingress") && left.contains("tc_egress"),
        "filters outlive their process: {left}"
    );
    wire.ping(3);

    // A lease that still runs protects them: this might be a second collector.
    let second = wire.start(&["--output", "json", "--attach", "clsact"]);
    assert_eq!(ingress_filters(&wire), 2);
    second.signal("INT");
    assert_eq!(second.end().0, Some(0));
    assert_eq!(wire.filters(), left, "it has removed its own");

    // The lease runs out: not waited for, written.
    let mut orphans = controls();
    assert_eq!(orphans.len(), known + 1);
    let orphan =
        orphans.iter_mut().find(|control| control.get(&0, 0).is_ok_and(|control| control.lease != 0));
    let orphan = orphan.expect("a lease was given");
    let expired = Control { lease: 0, ..orphan.get(&0, 0).expect("the map is readable") };
    orphan.set(0, expired, 0).expect("the map is writable");
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
