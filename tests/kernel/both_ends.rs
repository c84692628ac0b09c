//! Flows of which more than one end is a socket of this host, by the control groups that these were made in.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::Context as _;
use collector_ebpf::abi::{
    counter::DirectionCounters,
    flow::{FIRST_BOUNDARY, LOOPBACK_BOUNDARY, how},
    pu::{Role, index, role},
};
use collector_tests::{
    Result,
    attached::{Attached, Sum},
    cgroups::Cgroup,
    lab::{Addressed, End, host, join, silent_host},
    netns::NetNs,
    talk::{Talk, ask, asker, connect},
    testrun::{INTERFACE, UNIT},
    traffic::{ANSWERS, Host, transfer},
};
use collector_user::kernel::settings::Settings;

/// The units of the groups.
const CLIENT: u16 = UNIT;
const SERVER: u16 = UNIT + 1;
/// That of what lies behind a host-side end.
const CONTAINER: u16 = UNIT + 2;
/// Octets of a question of 100 octets over each family.
const FRAME: [u64; 2] = [142, 162];
const COUNT: u64 = 100;

/// A group that is known as a unit.
fn group(attached: &mut Attached, unit: u16) -> Result<Cgroup> {
    let group = Cgroup::unique()?;
    attached.datapath.cgroups.as_mut().context("groups were asked for")?.set(group.id()?, unit)?;
    Ok(group)
}

/// A host with nothing but loopback, which is named.
fn loopback() -> Result<(NetNs, End, Attached)> {
    let alone = host()?;
    let lo = End::loopback(alone.place());
    let attached = Attached::at(&lo, LOOPBACK, &Settings::default())?;
    Ok((alone, lo, attached))
}

const LOOPBACK: Role = Role {
    ifindex: 1,
    boundary: LOOPBACK_BOUNDARY,
    pu: index::HOST,
    interface: INTERFACE,
    flags: role::LOOPBACK,
    uplink: 0,
};

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn loopback_is_counted_for_the_groups_at_both_ends() -> Result<()> {
    let (_alone, lo, mut attached) = loopback()?;
    let (client, server) = (group(&mut attached, CLIENT)?, group(&mut attached, SERVER)?);
    let serving = server.within(|| Host::new(&lo, &[]))?;
    for version in [4, 6] {
        // The lesser port stands for the flow: the server's.
        let from = (lo.address(version), 40_000).into();
        let asking = client.within(|| asker(&lo.place, from, serving.address(version, ANSWERS)))?;
        ask(&asking, COUNT, 100)?;
    }
    let bytes = FRAME.iter().sum::<u64>() * COUNT;
    let all = DirectionCounters { packets: 2 * COUNT, bytes, skbs: 2 * COUNT };
    for unit in [CLIENT, SERVER] {
        assert_eq!(attached.datapath.unit(unit)?.local, [all; 2], "unit {unit}");
    }
    assert_eq!(attached.datapath.unit(index::HOST)?.local, [DirectionCounters::default(); 2]);
    // A flow may hop between CPUs, each of which counts it.
    let mut packets = [0; 2];
    for delta in attached.datapath.deltas()? {
        assert_eq!((delta.pu, delta.host_pu), (SERVER, CLIENT), "{delta:?}");
        assert_eq!(how::attributed_by(delta.how), how::BY_SOCKET);
        packets = [0, 1].map(|direction| packets[direction] + delta.packets[direction]);
    }
    assert_eq!(packets, [2 * COUNT; 2]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_connection_over_loopback_is_its_two_groups() -> Result<()> {
    let (_alone, lo, mut attached) = loopback()?;
    let client = group(&mut attached, CLIENT)?;
    lo.without_offloads()?;
    // Both its sockets are of one group, which sends and receives each packet.
    let done = client.within(|| transfer(&lo, &lo, 4, 5_001, 100_000, 200_000))?;
    let packets = done.client_info.segs_out + done.server_info.segs_out + 1;
    let [received, sent] = attached.datapath.unit(CLIENT)?.local;
    assert_eq!((received.packets, sent.packets), (packets, packets));
    assert_eq!(received.bytes, sent.bytes);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn an_end_on_loopback_that_has_a_declared_address_is_whose_that_is() -> Result<()> {
    let (_alone, lo, mut attached) = loopback()?;
    let client = group(&mut attached, CLIENT)?;
    let declared = [127, 0, 0, 9];
    attached.datapath.controller.add_range(declared.into(), 32, CONTAINER)?;
    let at = End { v4: declared.into(), ..lo.clone() };
    let serving = client.within(|| Host::at(&at, &[], (declared, ANSWERS).into()))?;
    let asking =
        client.within(|| asker(&lo.place, (lo.address(4), 40_000).into(), serving.address(4, ANSWERS)))?;
    ask(&asking, COUNT, 100)?;
    let all = DirectionCounters { packets: COUNT, bytes: COUNT * FRAME[0], skbs: COUNT };
    for unit in [CLIENT, CONTAINER] {
        assert_eq!(attached.datapath.unit(unit)?.local, [all; 2], "unit {unit}");
    }
    Ok(())
}

/// A host-side end, what is behind it, and a group of the host's.
struct Behind {
    attached: Attached,
    group: Cgroup,
    outside: End,
    inside: End,
    _hosts: [NetNs; 2],
}

impl Behind {
    fn new() -> Result<Self> {
        Self::with(&Settings::default())
    }

    fn with(settings: &Settings) -> Result<Self> {
        let hosts = [silent_host()?, silent_host()?];
        let (outside, inside) = join(&hosts[0], &hosts[1], 0, Addressed::Both)?;
        let role = Role {
            ifindex: outside.ifindex,
            boundary: FIRST_BOUNDARY + 1,
            pu: CONTAINER,
            interface: INTERFACE,
            flags: role::FAR,
            uplink: 0,
        };
        let mut attached = Attached::at(&outside, role, settings)?;
        for end in [&outside, &inside] {
            end.without_offloads()?;
        }
        for version in [4, 6] {
            attached.datapath.controller.add_local(outside.address(version), index::HOST)?;
        }
        let group = group(&mut attached, CLIENT)?;
        Ok(Self { attached, group, outside, inside, _hosts: hosts })
    }

    /// What the container received and sent, by the unit at the host's end.
    fn by_host_end(&mut self) -> Result<BTreeMap<u16, Sum>> {
        let mut sums = BTreeMap::<_, Sum>::new();
        for delta in self.attached.datapath.deltas()? {
            assert_eq!((delta.pu, delta.how & how::HOST_END), (CONTAINER, how::HOST_END), "{delta:?}");
            let sum = sums.entry(delta.host_pu).or_default();
            let [received, sent] = delta.packets;
            (sum.received, sum.sent) = (sum.received + received, sum.sent + sent);
        }
        self.attached.datapath.renew()?;
        Ok(sums)
    }
}

const EACH: Sum = Sum { received: COUNT, sent: COUNT };

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn the_hosts_end_of_a_containers_flow_is_its_sockets_groups() -> Result<()> {
    let mut behind = Behind::new()?;
    let (outside, inside) = (behind.outside.clone(), behind.inside.clone());
    for version in [4, 6] {
        // The host asks, then the container does.
        let serving = Host::new(&inside, &[])?;
        let from = (outside.address(version), 40_000).into();
        let asking =
            behind.group.within(|| asker(&outside.place, from, serving.address(version, ANSWERS)))?;
        ask(&asking, COUNT, 100)?;
        assert_eq!(behind.by_host_end()?, [(CLIENT, EACH)].into(), "IPv{version}, the host asks");
        let serving = behind.group.within(|| Host::new(&outside, &[]))?;
        let from = (inside.address(version), 40_001).into();
        ask(&asker(&inside.place, from, serving.address(version, ANSWERS))?, COUNT, 100)?;
        assert_eq!(behind.by_host_end()?, [(CLIENT, EACH)].into(), "IPv{version}, the container asks");
    }
    Ok(())
}

/// Whether the programs have slots to count in, or only tables.
fn slots(are_there: bool) -> Settings {
    Settings { slots_on: (!are_there).then(Vec::new), ..Settings::default() }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_was_counted_for_one_host_end_is_not_added_to_that_of_another() -> Result<()> {
    for with_slots in [true, false] {
        let mut behind = Behind::with(&slots(with_slots))?;
        let (outside, inside) = (behind.outside.clone(), behind.inside.clone());
        let at = SocketAddr::new(inside.address(4), 31_000);
        let from = outside.address(4);
        let mut open = behind.group.within(|| connect(&outside.place, from, at, &inside.place, at))?;
        open.ask()?;
        // The group turns out to be another unit's, in the midst of an epoch.
        let id = behind.group.id()?;
        behind.attached.datapath.cgroups.as_mut().context("groups were asked for")?.set(id, SERVER)?;
        behind.attached.datapath.controller.next_generation();
        // The flow's slot is steady until an end of the connection comes.
        let Talk { forth, back, .. } = open.close()?;
        let sums = behind.by_host_end()?;
        let all = sums.values().fold(Sum::default(), |all, sum| Sum {
            received: all.received + sum.received,
            sent: all.sent + sum.sent,
        });
        assert_eq!(all, Sum { received: forth.packets, sent: back.packets });
        assert_eq!(sums.keys().collect::<Vec<_>>(), [&CLIENT, &SERVER], "with slots: {with_slots}");
    }
    Ok(())
}
