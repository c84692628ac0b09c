use std::collections::{BTreeMap, BTreeSet};

use collector_ebpf::abi::pu::{index, role};

use super::{Chosen, Decision, Kind, Said, decide, doubled, for_others, for_programs, inside};
use crate::{
    host::links::{Address, Link},
    pu::registry::{Declared, Registry, Side},
};

fn link(kind: &str) -> Link {
    Link { index: 7, name: "x0".into(), kind: kind.into(), up: true, ..Link::default() }
}

fn with_address(mut link: Link) -> Link {
    link.addresses.push(Address { ip: [10, 0, 0, 1].into(), routable: true });
    link
}

fn kind(link: &Link, chosen: Chosen) -> Kind {
    decide(link, &BTreeMap::new(), Said { unit: None, found: None, chosen }).kind
}

#[test]
fn the_list_in_its_order() {
    assert_eq!(kind(&link("bridge"), Chosen::Unsaid), Kind::Stacked);
    assert_eq!(kind(&with_address(link("bridge")), Chosen::Unsaid), Kind::Stacked, "even with an address");
    assert_eq!(kind(&with_address(link("wireguard")), Chosen::Unsaid), Kind::Overlay);
    assert_eq!(kind(&link("vxlan"), Chosen::Unsaid), Kind::Stacked);
    assert_eq!(kind(&with_address(link("veth")), Chosen::Unsaid), Kind::Uplink);
    assert_eq!(kind(&link("veth"), Chosen::Unsaid), Kind::Unknown);
    assert_eq!(kind(&Link { bus: "pci".into(), ..link("") }, Chosen::Unsaid), Kind::Uplink);
    assert_eq!(kind(&Link { raw_ip: true, ..with_address(link("tun")) }, Chosen::Unsaid), Kind::Overlay);
    assert_eq!(kind(&link("tun"), Chosen::Unsaid), Kind::Unknown, "a tap of a virtual machine");
}

#[test]
fn an_end_waits_until_it_is_up_or_its_other_end_is_elsewhere() {
    let down = Link { up: false, ..link("veth") };
    assert_eq!(kind(&down, Chosen::Unsaid), Kind::Idle);
    assert_eq!(kind(&Link { lower_namespace: Some(0), ..down.clone() }, Chosen::Unsaid), Kind::Unknown);
    assert_eq!(kind(&down, Chosen::ByName), Kind::Unknown, "watched whatever it is");
    assert_eq!(kind(&Link { up: false, ..link("tun") }, Chosen::Unsaid), Kind::Unknown);
}

#[test]
fn what_is_named_is_attached_and_nothing_else() {
    assert_eq!(kind(&with_address(link("bridge")), Chosen::ByName), Kind::Uplink);
    assert_eq!(kind(&link("bridge"), Chosen::ByName), Kind::Uplink);
    assert_eq!(kind(&with_address(link("veth")), Chosen::Others), Kind::NotSelected);
    let lo = Link { loopback: true, ..with_address(link("")) };
    assert_eq!(kind(&lo, Chosen::Unsaid), Kind::NotSelected);
    assert_eq!(kind(&lo, Chosen::ByName), Kind::Loopback);
}

#[test]
fn a_pattern_takes_no_packet_twice() {
    assert_eq!(kind(&with_address(link("bridge")), Chosen::ByPattern), Kind::Stacked);
    assert_eq!(kind(&with_address(link("veth")), Chosen::ByPattern), Kind::Uplink);
    assert_eq!(kind(&link("vxlan"), Chosen::ByName), Kind::Overlay, "named, and so watched");
}

#[test]
fn what_lies_above_another_device_is_stacked() {
    let upper = Link { lower: Some(3), ..with_address(link("macvlan")) };
    let lower = Link { index: 3, name: "eth0".into(), ..Link::default() };
    let links = BTreeMap::from([(3, lower)]);
    let decision = decide(&upper, &links, Said { unit: None, found: None, chosen: Chosen::Unsaid });
    assert_eq!(decision, Decision::new(Kind::Stacked, "above eth0"));
    // Inside a container the parent is in another namespace, and the macvlan is all there is.
    let alone = Link { lower_namespace: Some(0), ..upper };
    assert_eq!(
        decide(&alone, &links, Said { unit: None, found: None, chosen: Chosen::Unsaid }).kind,
        Kind::Uplink
    );
}

#[test]
fn what_is_routed_to_a_bridge_of_host_side_ends_is_inside() {
    let link = |index, kind: &str, master, lower| {
        (index, Link { index, kind: kind.into(), master, lower, ..Link::default() })
    };
    let links: BTreeMap<_, _> = [
        link(1, "", None, None),
        link(2, "bridge", None, None),
        link(3, "veth", Some(2), Some(9)),
        link(4, "vlan", None, Some(2)),
        link(5, "bridge", None, None),
        link(6, "", Some(5), None),
        link(7, "macvlan", None, Some(1)),
        link(8, "vrf", None, None),
        link(9, "vlan", Some(8), Some(4)),
    ]
    .into();
    let found = inside(&links, |index| index == 3);
    assert_eq!(found, BTreeSet::from([2, 4, 8, 9]));
    assert_eq!(for_others(&links[&2], &found).map(|role| role.flags), Some(role::INSIDE));
    assert_eq!(for_others(&links[&5], &found), None);
    let ifb = Link { index: 10, kind: "ifb".into(), ..Link::default() };
    assert_eq!(for_others(&ifb, &found).map(|role| (role.ifindex, role.flags)), Some((10, role::IFB)));
}

#[test]
fn what_is_watched_above_what_is_watched_counts_twice() {
    let link = |index, kind: &str, master, lower| {
        (index, Link { index, kind: kind.into(), master, lower, ..Link::default() })
    };
    let links: BTreeMap<_, _> = [
        link(1, "", None, None),
        link(2, "bridge", None, None),
        link(3, "veth", Some(2), Some(4)),
        link(4, "veth", None, Some(3)),
        link(5, "vlan", None, Some(1)),
        link(6, "vxlan", None, Some(1)),
        link(7, "macvlan", None, Some(1)),
    ]
    .into();
    let kind = |index| Some(if index == 6 { Kind::Overlay } else { Kind::Declared });
    assert_eq!(doubled(&links, kind), [(2, 3), (5, 1), (7, 1)]);
    // One of the two, whichever it is.
    assert_eq!(doubled(&links, |index| kind(index).filter(|_| index != 1 && index != 3)), []);
    assert_eq!(
        doubled(&links, |index| Some(if index == 2 { Kind::Stacked } else { Kind::Unknown })),
        [(5, 1), (6, 1), (7, 1)]
    );
}

#[test]
fn a_declared_unit_is_where_it_is_said_to_be_or_where_the_interface_says() {
    let unit = |side| {
        let declared =
            Declared { id: "web".into(), interfaces: vec!["x0".into()], side, ..Declared::default() };
        Registry::new(&[declared]).unwrap()
    };
    let bare = link("veth");
    let addressed = with_address(link("veth"));
    let device = Link { bus: "pci".into(), ..link("") };
    for (side, link, is_far, why) in [
        (None, &bare, true, "behind it, for it has no address of this host"),
        (None, &addressed, false, "on the host's side of it, for it has an address of this host"),
        (None, &device, false, "on the host's side of it, for it is a device of this host's"),
        (Some(Side::Behind), &addressed, true, "behind it, as it is said"),
        (Some(Side::Host), &bare, false, "on the host's side of it, as it is said"),
    ] {
        let registry = unit(side);
        let unit = registry.of_interface("x0");
        let decision = decide(link, &BTreeMap::new(), Said { unit, found: None, chosen: Chosen::Unsaid });
        assert_eq!(decision, Decision::new(Kind::Declared, format!("declared by web, which is {why}")));
        assert_eq!(super::is_far(link, &decision, unit), Some(is_far), "{why}");
        let flags = for_programs(link, &decision, unit, 4096, 1, 3).flags;
        assert_eq!(flags, if is_far { role::OWN | role::FAR } else { role::OWN }, "{why}");
    }
}

#[test]
fn directions_are_the_units() {
    let behind = for_programs(&link("veth"), &Decision::new(Kind::Unknown, ""), None, 4096, 1, 101);
    assert_eq!((behind.flags, behind.pu, behind.boundary), (role::FAR, 101, 4096));
    let uplink =
        for_programs(&with_address(link("veth")), &Decision::new(Kind::Uplink, ""), None, 4097, 2, 101);
    assert_eq!((uplink.flags, uplink.pu, uplink.boundary), (role::UPLINK, index::HOST, 0));
}
