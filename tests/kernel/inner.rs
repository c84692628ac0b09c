//! What tunnels carry, where that is wanted: flows of their own beside the tunnel's, in no unit's totals.

use std::net::IpAddr;

use collector_ebpf::abi::{
    flow::{RX, TX, how},
    network,
    pu::{Role, index, role},
};
use collector_tests::{
    Result,
    frames::{C_TAG, ENDS_4, ENDS_6, Ends, GRE, IPV4, IPV6, TCP, UDP, ethernet, tcp, udp},
    testrun::{Context, Counted, Datapath, Hook, NOTHING, UNIT, uplink},
};
use collector_user::{drain::flow::FlowDelta, kernel::settings::Settings};

const VXLAN_PORT: u16 = 4789;
const GENEVE_PORT: u16 = 6081;

/// Ends inside of a tunnel.
fn inside(version: u8) -> Ends {
    let address = |last: u8| -> IpAddr {
        if version == 4 { [10, 66, 0, last].into() } else { [0xFD66, 0, 0, 0, 0, 0, 0, last.into()].into() }
    };
    Ends { source: address(1), destination: address(2), ..ENDS_4 }
}

fn over_udp(outer: Ends, port: u16, header: &[u8], payload: &[u8]) -> Vec<u8> {
    let outer = Ends { destination_port: port, ..outer };
    let mut datagram = udp(outer.ports(), header.len() + payload.len());
    datagram.truncate(8);
    outer.frame(UDP, &[&datagram, header, payload].concat())
}

fn vxlan(outer: Ends, id: u32, frame: &[u8]) -> Vec<u8> {
    let [_, i0, i1, i2] = id.to_be_bytes();
    over_udp(outer, VXLAN_PORT, &[8, 0, 0, 0, i0, i1, i2, 0], frame)
}

/// A tunnel's packet: what it is, its octets, kind and identifier, and how many of the octets are what it carries.
type Tunnelled = (&'static str, Vec<u8>, (u8, u32), usize);

/// The frame `inner` in every kind of tunnel.
fn tunnels(outer: Ends, inner: &[u8], ethertype: u16) -> Vec<Tunnelled> {
    let packet = &inner[14..];
    let [e0, e1] = ethertype.to_be_bytes();
    let geneve = |protocol: u16, payload: &[u8]| {
        let [p0, p1] = protocol.to_be_bytes();
        over_udp(outer, GENEVE_PORT, &[1, 0, p0, p1, 0, 0, 9, 0, 1, 2, 3, 4], payload)
    };
    let tagged = [&inner[..12], &C_TAG.to_be_bytes(), &[0, 7], &inner[12..]].concat();
    let ip_in_ip = if ethertype == IPV4 { (4, network::IPIP) } else { (41, network::SIT) };
    vec![
        ("VXLAN", vxlan(outer, 0x12_3456, inner), (network::VXLAN, 0x12_3456), inner.len()),
        ("VXLAN with a tag inside", vxlan(outer, 7, &tagged), (network::VXLAN, 7), tagged.len()),
        ("GENEVE of frames", geneve(0x6558, inner), (network::GENEVE, 9), inner.len()),
        ("GENEVE of packets", geneve(ethertype, packet), (network::GENEVE, 9), packet.len()),
        ("GRE", outer.frame(GRE, &[&[0, 0, e0, e1], packet].concat()), (network::GRE, 0), packet.len()),
        (
            "GRE with all fields",
            outer.frame(GRE, &[&[0xB0, 0, e0, e1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1], packet].concat()),
            (network::GRE, 5),
            packet.len(),
        ),
        (
            "GRE of frames",
            outer.frame(GRE, &[&[0x20, 0, 0x65, 0x58, 0, 0, 0, 6], inner].concat()),
            (network::GRE, 6),
            inner.len(),
        ),
        ("IP in IP", outer.frame(ip_in_ip.0, packet), (ip_in_ip.1, 0), packet.len()),
    ]
}

/// An uplink at which what is inside of tunnels is wanted.
fn looking() -> Role {
    Role { flags: role::UPLINK | role::INNER, ..uplink(index::HOST, 0) }
}

fn split(deltas: Vec<FlowDelta>) -> (Vec<FlowDelta>, Vec<FlowDelta>) {
    deltas.into_iter().partition(|delta| !network::is_inside(delta.id.boundary))
}

fn one(deltas: &[FlowDelta], name: &str) -> FlowDelta {
    assert_eq!(deltas.len(), 1, "{name}: {deltas:#?}");
    deltas[0]
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn every_tunnel_is_a_flow_and_what_it_carries_another_one() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    datapath.controller.set_role(looking())?;
    for ends in [ENDS_4, ENDS_6] {
        datapath.controller.add_local(ends.source, index::HOST)?;
    }
    // Of what is inside, one version has an address of this host's, the other a declared one.
    datapath.controller.add_local(inside(4).source, index::HOST)?;
    datapath.controller.add_range(inside(6).source, 128, UNIT)?;
    let mut numbers = network_numbers(&mut datapath)?;
    for outer in [ENDS_4, ENDS_6] {
        for (version, ethertype, unit) in [(4, IPV4, index::OVERLAY), (6, IPV6, UNIT)] {
            let inner = inside(version);
            for (name, there, network, carried) in tunnels(outer, &inner.udp(30), ethertype) {
                let name = format!("{name}, {version} in {}", outer.source);
                let back = tunnels(outer.back(), &inner.back().udp(30), ethertype);
                let (_, back, ..) =
                    back.iter().find(|it| it.1.len() == there.len() && it.2 == network).expect("the same");
                for (hook, frame) in [(Hook::Egress, &there), (Hook::Egress, &there), (Hook::Ingress, back)] {
                    datapath.run(hook, frame)?;
                }
                let all = datapath.deltas()?;
                let (own, carries) = split(all.clone());
                let own_packets: u64 = own.iter().map(|delta| delta.packets[TX] + delta.packets[RX]).sum();
                let own_bytes: u64 = own.iter().map(|delta| delta.bytes[TX] + delta.bytes[RX]).sum();
                assert_eq!((own_packets, own_bytes), (3, 3 * there.len() as u64), "{name}: {own:#?}");
                let found = one(&carries, &name);
                let ends = (found.id.local, found.id.remote, found.id.local_port, found.id.remote_port);
                assert_eq!(
                    ends,
                    (inner.source, inner.destination, inner.source_port, inner.destination_port),
                    "{name}"
                );
                assert_eq!((found.packets, found.skbs), ([1, 2], [1, 2]), "{name}");
                assert_eq!(found.bytes, [carried as u64, 2 * carried as u64], "{name}");
                assert_eq!((found.pu, found.how & how::HOST_END), (unit, 0), "{name}");
                numbers.extend(network_numbers(&mut datapath)?);
                assert_eq!(numbers.get(&found.id.boundary), Some(&network), "{name}");
                let ledger = datapath.ledger()?;
                assert_eq!((ledger.seen, ledger.inner_seen), (3, 3), "{name}: {ledger:?}");
                assert_eq!((ledger.inner_unparsed, ledger.inner_lost), (0, 0), "{name}: {ledger:?}");
                for unit in [index::HOST, index::OVERLAY, UNIT] {
                    assert_eq!(datapath.unit(unit)?.flowless, NOTHING, "{name}: the flows hold all");
                }
                datapath.begin_anew(&all.iter().map(|delta| (delta.id, Counted::default())).collect())?;
            }
        }
    }
    Ok(())
}

fn network_numbers(datapath: &mut Datapath) -> Result<collector_user::kernel::networks::Numbers> {
    Ok(datapath.networks.news()?.unwrap_or_default())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn the_same_addresses_in_another_network_are_another_flow() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    datapath.controller.set_role(looking())?;
    let inner = inside(4).udp(30);
    for (id, times) in [(1, 3), (2, 5), (1, 2)] {
        for _ in 0..times {
            datapath.run(Hook::Egress, &vxlan(ENDS_4, id, &inner))?;
        }
    }
    let (own, carries) = split(datapath.deltas()?);
    assert_eq!(one(&own, "the tunnel").packets, [0, 10]);
    let numbers = network_numbers(&mut datapath)?;
    let mut found: Vec<_> =
        carries.iter().map(|delta| (numbers[&delta.id.boundary].1, delta.packets[TX], delta.pu)).collect();
    found.sort_unstable();
    assert_eq!(found, [(1, 5, index::FORWARDED), (2, 5, index::FORWARDED)]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_super_packet_of_a_tunnel_is_segments_inside_as_well() -> Result<()> {
    const SEGMENTS: usize = 10;
    const SIZE: usize = 300;
    let mut datapath = Datapath::load(&Settings::default())?;
    datapath.controller.set_role(looking())?;
    let inner = inside(4);
    let frame = inner.frame(TCP, &tcp(inner.ports(), 0x10, &[], SEGMENTS * SIZE));
    let context = Context { gso_size: SIZE as u32, gso_segs: SEGMENTS as u32, ..Context::default() };
    let whole = vxlan(ENDS_4, 1, &frame);
    datapath.run_with(Hook::Egress, &whole, context)?;
    let (own, carries) = split(datapath.deltas()?);
    let (outer, within) = (one(&own, "the tunnel"), one(&carries, "inside"));
    // Ethernet, IPv4, UDP, VXLAN; then Ethernet, IPv4, TCP.
    let (around, headers) = (14 + 20 + 8 + 8, 14 + 20 + 20);
    let each = SIZE + headers;
    assert_eq!((outer.packets[TX], outer.bytes[TX]), (10, (SEGMENTS * (each + around)) as u64));
    assert_eq!((within.packets[TX], within.bytes[TX], within.skbs[TX]), (10, (SEGMENTS * each) as u64, 1));
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_inside_and_cannot_be_told_is_said() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    datapath.controller.set_role(looking())?;
    let inner = inside(4).udp(30);
    let mut lying = inner.clone();
    lying[16] = 0x40;
    let arp = ethernet(&[], 0x0806, &[0; 28]);
    for frame in [
        over_udp(ENDS_4, VXLAN_PORT, &[0; 8], &inner),
        over_udp(ENDS_4, VXLAN_PORT, &[8, 0, 0], &[]),
        vxlan(ENDS_4, 1, &lying),
        vxlan(ENDS_4, 1, &arp),
        vxlan(ENDS_4, 1, &inner[..30]),
        ENDS_4.frame(GRE, &[0x30, 1, 0x88, 0x0B, 0, 0, 0, 1]),
        ENDS_4.frame(4, &[0x45]),
    ] {
        datapath.run(Hook::Ingress, &frame)?;
    }
    let (own, carries) = split(datapath.deltas()?);
    assert_eq!(
        own.iter().map(|delta| delta.packets[RX]).sum::<u64>(),
        7,
        "the tunnels are counted all the same"
    );
    assert!(carries.is_empty(), "{carries:#?}");
    let ledger = datapath.ledger()?;
    assert_eq!((ledger.inner_seen, ledger.inner_unparsed, ledger.inner_lost), (7, 7, 0));
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_inside_and_finds_no_room_is_lost_by_name() -> Result<()> {
    const FLOWS: u64 = 500;
    let tight = Settings { new_flows_per_second: 1, new_flows_burst: 64, ..Settings::default() };
    let mut datapath = Datapath::load(&tight)?;
    datapath.controller.set_role(looking())?;
    for port in 0..FLOWS {
        let inner = inside(4).from_port(1024 + port as u16).udp(30);
        datapath.run(Hook::Egress, &vxlan(ENDS_4, 1, &inner))?;
    }
    let (own, carries) = split(datapath.deltas()?);
    assert_eq!(own.iter().map(|delta| delta.skbs[TX]).sum::<u64>(), FLOWS);
    let counted: u64 = carries.iter().map(|delta| delta.skbs[TX]).sum();
    let ledger = datapath.ledger()?;
    assert!(ledger.inner_lost > 0 && counted >= 64, "{ledger:?}");
    assert_eq!((ledger.inner_seen, counted + ledger.inner_lost), (FLOWS, FLOWS), "{ledger:?}");
    assert_eq!((ledger.rate_limited, ledger.table_full), (0, 0), "the tunnel's own packets lost nothing");
    assert_eq!(
        datapath.unit(index::FORWARDED)?.inner_lost,
        ledger.inner_lost,
        "the unit's counters say whose"
    );
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn without_being_asked_nobody_looks_inside() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    datapath.controller.set_role(uplink(index::HOST, 0))?;
    for (name, frame, ..) in tunnels(ENDS_4, &inside(4).udp(30), IPV4) {
        datapath.run(Hook::Egress, &frame)?;
        let (own, carries) = split(datapath.deltas()?);
        assert_eq!((own.len(), carries.len()), (1, 0), "{name}");
    }
    assert_eq!(datapath.ledger()?.inner_seen, 0);
    Ok(())
}
