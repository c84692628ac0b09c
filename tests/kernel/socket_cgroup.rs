//! Whose packets are by the control group that their socket was made in: real sockets of real groups, to the last packet.

use std::{net::UdpSocket, sync::Barrier, thread};

use anyhow::Context as _;
use collector_ebpf::abi::{flow::how, pu::index};
use collector_tests::{
    Result,
    attached::{Attached, FIRST_FREE, Sum},
    cgroups::Cgroup,
    frames::UDP,
    lab::{End, Wire},
    talk::{self, ask, asker},
    testrun::UNIT,
    traffic::{ANSWERS, Datagrams, Host, pin, send, sender, transfer},
};
use collector_user::{
    host::links::Tunnel,
    kernel::{cgroups::Cgroups, settings::Settings},
};

const PORT: u16 = 5001;

/// A host at whose uplink the programs are, its peer, and a group that is known as [`UNIT`].
struct Lab {
    wire: Wire,
    group: Cgroup,
    attached: Attached,
}

impl Lab {
    fn new() -> Result<Self> {
        let wire = Wire::unsegmented()?;
        let group = Cgroup::unique()?;
        let mut attached = Attached::at_uplink(&wire.b, &Settings::default())?;
        groups(&mut attached)?.set(group.id()?, UNIT)?;
        Ok(Self { wire, group, attached })
    }

    fn host(&self) -> &End {
        &self.wire.b
    }

    fn peer(&self) -> &End {
        &self.wire.a
    }
}

fn groups(attached: &mut Attached) -> Result<&mut Cgroups> {
    attached.datapath.cgroups.as_mut().context("groups were asked for")
}

/// All that was counted is one unit's, by its sockets.
fn assert_all_of(attached: &mut Attached, unit: u16, received: u64, sent: u64) -> Result<()> {
    let sums = attached.sums()?;
    assert_eq!(sums, [((unit, how::BY_SOCKET), Sum { received, sent })].into());
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn the_kernel_says_where_a_sockets_group_is() -> Result<()> {
    let mut lab = Lab::new()?;
    assert!(groups(&mut lab.attached)?.missing.is_none());
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_a_groups_socket_sends_and_takes_is_its_units() -> Result<()> {
    let mut lab = Lab::new()?;
    for version in [4, 6] {
        let at_host = (lab.host().address(version), PORT).into();
        let at_peer = (lab.peer().address(version), PORT).into();
        // Nobody answers.
        let taking = lab.group.within(|| talk::listener(&lab.host().place, at_host))?;
        let sending = asker(&lab.peer().place, at_peer, at_host)?;
        talk::tell(&sending, &taking, 100, 100)?;
        assert_all_of(&mut lab.attached, UNIT, 100, 0)?;
        drop((taking, sending));
        // Nobody is heard.
        let taking = talk::listener(&lab.peer().place, at_peer)?;
        let sending = lab.group.within(|| asker(&lab.host().place, at_host, at_peer))?;
        talk::tell(&sending, &taking, 50, 100)?;
        assert_all_of(&mut lab.attached, UNIT, 0, 50)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_a_groups_socket_answers_is_its_units() -> Result<()> {
    let mut lab = Lab::new()?;
    for version in [4, 6] {
        let serving = lab.group.within(|| Host::new(lab.host(), &[]))?;
        let from = (lab.peer().address(version), 40_000).into();
        ask(&asker(&lab.peer().place, from, serving.address(version, ANSWERS))?, 100, 100)?;
        assert_all_of(&mut lab.attached, UNIT, 100, 100)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_connection_is_its_sockets_units_from_its_first_packet_to_its_last() -> Result<()> {
    let mut lab = Lab::new()?;
    for version in [4, 6] {
        let (host, peer) = (lab.host().clone(), lab.peer().clone());
        let served = lab.group.within(|| transfer(&peer, &host, version, PORT, 100_000, 200_000))?;
        // The answer to a SYN is sent before there is a socket that counts it.
        let (in_, out) = (served.server_info.segs_in, served.server_info.segs_out + 1);
        assert_all_of(&mut lab.attached, UNIT, in_, out)?;
        let asked = lab.group.within(|| transfer(&host, &peer, version, PORT, 100_000, 200_000))?;
        let (in_, out) = (asked.client_info.segs_in, asked.client_info.segs_out);
        assert_all_of(&mut lab.attached, UNIT, in_, out)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_group_that_nobody_knows_has_a_unit_at_once() -> Result<()> {
    let mut lab = Lab::new()?;
    let new = Cgroup::unique()?;
    let at_host = (lab.host().address(4), PORT).into();
    let at_peer = (lab.peer().address(4), PORT).into();
    let taking = talk::listener(&lab.peer().place, at_peer)?;
    let sending = new.within(|| asker(&lab.host().place, at_host, at_peer))?;
    talk::tell(&sending, &taking, 100, 100)?;
    let given = lab.attached.refill()?;
    let [(group, unit)] = given[..] else { panic!("one group was expected: {given:?}") };
    assert_eq!(group, new.id()?);
    assert!(unit >= FIRST_FREE);
    assert_all_of(&mut lab.attached, unit, 0, 100)?;
    // It is told once.
    assert_eq!(lab.attached.refill()?, []);
    // What comes to another socket of the same group is the same unit's.
    let taking =
        new.within(|| talk::listener(&lab.host().place, (lab.host().address(4), PORT + 1).into()))?;
    let asking = asker(&lab.peer().place, (lab.peer().address(4), 40_001).into(), taking.local_addr()?)?;
    talk::tell(&asking, &taking, 10, 100)?;
    assert_all_of(&mut lab.attached, unit, 10, 0)?;
    assert_eq!(lab.attached.datapath.ledger()?.units_exhausted, 0);
    Ok(())
}

/// Groups that are met on two CPUs at once.
const MET_AT_ONCE: usize = 60;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn two_cpus_give_a_new_group_one_unit() -> Result<()> {
    let mut lab = Lab::new()?;
    let to = (lab.peer().address(4), PORT).into();
    let _taking = Host::new(lab.peer(), &[PORT])?;
    let groups: Vec<_> = (0..MET_AT_ONCE).map(|_| Cgroup::unique()).collect::<Result<_>>()?;
    let mut sockets: [Vec<UdpSocket>; 2] = Default::default();
    for group in &groups {
        for sockets in &mut sockets {
            sockets.push(group.within(|| sender(lab.host(), 4, 0))?);
        }
    }
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        let senders = [0, 1].map(|cpu| {
            let (sockets, barrier) = (&sockets[cpu], &barrier);
            scope.spawn(move || -> Result<()> {
                pin(cpu)?;
                for socket in sockets {
                    barrier.wait();
                    send(socket, &Datagrams { to, count: 1, size: 100 })?;
                }
                Ok(())
            })
        });
        senders.into_iter().try_for_each(|it| it.join().expect("a sender panics"))
    })?;
    let given = lab.attached.refill()?;
    assert_eq!(given.len(), MET_AT_ONCE, "{given:?}");
    let sums = lab.attached.sums()?;
    for group in &groups {
        let id = group.id()?;
        let units: Vec<_> = given.iter().filter(|(group, _)| *group == id).collect();
        let [(_, unit)] = units[..] else { panic!("one unit was expected for {id}: {units:?}") };
        assert_eq!(sums.get(&(*unit, how::BY_SOCKET)), Some(&Sum { received: 0, sent: 2 }), "{id}");
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_socket_is_its_makers_whoever_uses_it() -> Result<()> {
    let mut lab = Lab::new()?;
    let worker = Cgroup::unique()?;
    groups(&mut lab.attached)?.set(worker.id()?, UNIT + 1)?;
    // Made in one group, answering in a thread of a process that is in another.
    let at_host = (lab.host().address(4), PORT).into();
    let made = lab.group.within(|| talk::listener(&lab.host().place, at_host))?;
    let sending = asker(&lab.peer().place, (lab.peer().address(4), 40_000).into(), at_host)?;
    worker.within(|| talk::tell(&sending, &made, 50, 100))?;
    worker.within(|| {
        made.connect(sending.local_addr()?)?;
        talk::tell(&made, &sending, 50, 100)
    })?;
    assert_all_of(&mut lab.attached, UNIT, 50, 50)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_listeners_connections_are_its_makers_whoever_accepts() -> Result<()> {
    use std::io::{Read as _, Write as _};
    let mut lab = Lab::new()?;
    let worker = Cgroup::unique()?;
    groups(&mut lab.attached)?.set(worker.id()?, UNIT + 1)?;
    let at = std::net::SocketAddr::from((lab.host().address(4), PORT));
    let listener = lab.group.within(|| lab.host().place.within(|| Ok(std::net::TcpListener::bind(at)?)))?;
    let mut asking = lab.peer().place.within(|| Ok(std::net::TcpStream::connect(at)?))?;
    worker.within(|| {
        let (mut accepted, _) = listener.accept()?;
        accepted.write_all(&[0x55; 10_000])?;
        Ok(asking.read_exact(&mut [0; 10_000])?)
    })?;
    let sums = lab.attached.sums()?;
    assert_eq!(sums.keys().collect::<Vec<_>>(), [&(UNIT, how::BY_SOCKET)]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn processes_that_live_for_one_datagram_are_their_groups() -> Result<()> {
    const PROCESSES: u32 = 1_000;
    let mut lab = Lab::new()?;
    let _taking = Host::new(lab.peer(), &[PORT])?;
    let to = std::net::SocketAddrV4::new(lab.peer().v4, PORT);
    // The programs count as long as somebody says so: a thousand processes may take longer on a busy machine.
    for _ in 0..10 {
        lab.attached.datapath.renew()?;
        let _there = lab.host().place.enter()?;
        lab.group.send_once_each(PROCESSES / 10, to)?;
    }
    assert_all_of(&mut lab.attached, UNIT, 0, PROCESSES.into())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn groups_beyond_the_list_are_the_hosts_and_the_ledger_says_how_often() -> Result<()> {
    let mut lab = Lab::new()?;
    lab.attached.spare();
    let to = (lab.peer().address(4), PORT).into();
    let _taking = Host::new(lab.peer(), &[PORT])?;
    let count = FREE_OF_ONE + 5;
    let groups: Vec<_> = (0..count).map(|_| Cgroup::unique()).collect::<Result<_>>()?;
    let sockets: Vec<_> =
        groups.iter().map(|group| group.within(|| sender(lab.host(), 4, 0))).collect::<Result<_>>()?;
    let sending = || {
        pin(0)?;
        sockets.iter().try_for_each(|socket| send(socket, &Datagrams { to, count: 2, size: 100 }))
    };
    thread::scope(|scope| scope.spawn(sending).join().expect("the sender panics"))?;
    let given = lab.attached.refill()?;
    assert_eq!(given.len(), FREE_OF_ONE);
    let sums = lab.attached.sums()?;
    let of_host = Sum { received: 0, sent: 2 * 5 };
    assert_eq!(sums.get(&(index::HOST, how::BY_ADDRESS)), Some(&of_host));
    assert_eq!(sums.len(), FREE_OF_ONE + 1);
    assert_eq!(lab.attached.datapath.ledger()?.units_exhausted, 5);
    Ok(())
}

/// Free indexes of one CPU, where there are not so many CPUs that they have to share.
const FREE_OF_ONE: usize = collector_ebpf::abi::pu::FREE_UNITS as usize;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_declared_address_comes_before_a_group_and_a_tunnel_is_the_hosts() -> Result<()> {
    const DECLARED: u16 = UNIT + 2;
    let mut lab = Lab::new()?;
    let at = |end: &End| std::net::SocketAddr::from((end.address(4), PORT));
    let (at_host, at_peer) = (at(lab.host()), at(lab.peer()));
    let taking = talk::listener(&lab.peer().place, at_peer)?;
    let sending = lab.group.within(|| asker(&lab.host().place, at_host, at_peer))?;
    // Whatever goes to that port is a tunnel's.
    lab.attached.datapath.controller.add_tunnel(Tunnel { protocol: UDP, port: PORT })?;
    lab.attached.datapath.controller.next_generation();
    talk::tell(&sending, &taking, 10, 100)?;
    talk::tell(&taking_back(&taking, &sending)?, &sending, 10, 100)?;
    let sums = lab.attached.sums()?;
    let units: Vec<_> = sums.keys().map(|(unit, _)| *unit).collect();
    assert_eq!(units, [index::HOST], "{sums:?}");
    lab.attached.datapath.controller.add_local(at_host.ip(), DECLARED)?;
    lab.attached.datapath.controller.remove_tunnel(Tunnel { protocol: UDP, port: PORT })?;
    lab.attached.datapath.controller.next_generation();
    talk::tell(&sending, &taking, 10, 100)?;
    let sums = lab.attached.sums()?;
    assert_eq!(sums, [((DECLARED, how::BY_CIDR), Sum { received: 0, sent: 10 })].into());
    Ok(())
}

/// The socket that takes, connected to the one that sends.
fn taking_back(taking: &UdpSocket, sending: &UdpSocket) -> Result<UdpSocket> {
    let taking = taking.try_clone()?;
    taking.connect(sending.local_addr()?)?;
    Ok(taking)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_nobody_took_is_nobodys_and_what_the_kernel_answers_the_hosts() -> Result<()> {
    let mut lab = Lab::new()?;
    // This namespace, and the kernel's own sockets in it, were made by a process in no group but the root.
    let at = std::net::SocketAddr::from((lab.host().address(4), 9));
    let refused = lab.peer().place.within(|| Ok(std::net::TcpStream::connect(at)))?;
    assert!(refused.is_err());
    let sums = lab.attached.sums()?;
    assert_eq!(sums.get(&(index::HOST, how::BY_ADDRESS)).map(|sum| sum.sent), Some(1), "{sums:?}");
    Ok(())
}
