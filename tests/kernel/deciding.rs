//! What comes in is a guess until an answer leaves; sockets of this host, asked at a flow's first packet.

use std::net::{IpAddr, TcpListener, UdpSocket};

use collector_ebpf::{
    abi::{
        flow::how,
        pu::{Role, index, role},
    },
    wire::tcp::{ACK, RST, SYN},
};
use collector_tests::{
    Result,
    frames::{ENDS_4, ENDS_6, Ends},
    testrun::{
        Context, Counted, Datapath, Hook, IFINDEX, INTERFACE, NOTHING, UNIT, lacks_ingress_ifindex, own,
        uplink,
    },
};
use collector_user::kernel::settings::Settings;

/// A bridge whose ports are host-side ends.
const INSIDE: u32 = 6;

/// Packets for one unit: received, sent, and whether the programs have counted them for it.
type Part = (u16, [u64; 2], bool);

fn parts(datapath: &mut Datapath) -> Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    for delta in datapath.deltas()? {
        parts.push((delta.pu, delta.packets, delta.how & how::PROVISIONAL == 0));
    }
    parts.sort_unstable();
    Ok(parts)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn the_first_packet_that_leaves_decides() -> Result<()> {
    if lacks_ingress_ifindex() {
        return Ok(());
    }
    let mut datapath = Datapath::load(&Settings::default())?;
    datapath.controller.set_role(uplink(index::HOST, 0))?;
    for ends in [ENDS_4, ENDS_6] {
        datapath.controller.add_local(ends.destination, index::HOST)?;
        for (from, pu, by) in [(0, index::HOST, how::BY_ADDRESS), (INSIDE, index::FORWARDED, how::BY_ROUTE)] {
            let name = format!("an answer from {from}, {}", ends.source);
            let answer = Context { ingress_ifindex: from, ..Context::default() };
            for _ in 0..3 {
                datapath.run(Hook::Ingress, &ends.udp(10))?;
            }
            datapath.run_with(Hook::Egress, &ends.back().udp(10), answer)?;
            datapath.run(Hook::Ingress, &ends.udp(10))?;
            let deltas = datapath.deltas()?;
            let guessed = deltas.iter().find(|delta| delta.how & how::PROVISIONAL != 0);
            let decided = deltas.iter().find(|delta| delta.how & how::PROVISIONAL == 0);
            let (Some(guessed), Some(decided)) = (guessed, decided) else { panic!("{name}: {deltas:#?}") };
            assert_eq!((guessed.pu, guessed.packets), (index::UNKNOWN, [3, 0]), "{name}");
            assert_eq!((decided.pu, decided.packets), (pu, [1, 1]), "{name}");
            assert_eq!(how::attributed_by(decided.how), by, "{name}");
            // In a later epoch, too, and whatever comes in.
            datapath.run(Hook::Ingress, &ends.udp(10))?;
            datapath.controller.next_generation();
            datapath.run(Hook::Ingress, &ends.udp(10))?;
            let later = parts(&mut datapath)?;
            assert_eq!(later, [(pu, [2, 0], true)], "{name}");
            for unit in [pu, index::UNKNOWN] {
                assert_eq!(datapath.unit(unit)?.flowless, NOTHING, "{name}: flows hold all");
            }
            datapath.begin_anew(&[(decided.id, Counted::default())].into())?;
        }
    }
    Ok(())
}

/// A UDP socket and a TCP listener of this host, each at an address of its own port.
fn sockets(address: IpAddr) -> Result<(UdpSocket, TcpListener)> {
    Ok((UdpSocket::bind((address, 0))?, TcpListener::bind((address, 0))?))
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_socket_that_waits_says_whose_it_is_where_nobody_answers() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    datapath.controller.set_role(uplink(index::HOST, 0))?;
    for (ends, local) in [(ENDS_4, "127.0.0.1".parse()?), (ENDS_6, "::1".parse::<IpAddr>()?)] {
        datapath.controller.add_local(local, index::HOST)?;
        let (udp, tcp) = sockets(local)?;
        for (port, want) in [
            (udp.local_addr()?.port(), (index::HOST, how::BY_SOCKET)),
            // Nobody's: the port of the TCP socket, most likely, and by UDP.
            (1, (index::UNKNOWN, how::BY_SILENCE)),
        ] {
            let ends = Ends { destination: local, destination_port: port, ..ends };
            datapath.run(Hook::Ingress, &ends.udp(10))?;
            let (id, counted) = datapath.drain_one()?;
            assert_eq!((counted.pu, how::attributed_by(counted.how)), want, "{ends:?}");
            assert_ne!(counted.how & how::PROVISIONAL, 0, "it may be translated all the same");
            datapath.begin_anew(&[(id, counted)].into())?;
        }
        let ends = Ends { destination: local, destination_port: tcp.local_addr()?.port(), ..ends };
        datapath.run(Hook::Ingress, &ends.tcp(SYN, 0))?;
        let (id, counted) = datapath.drain_one()?;
        assert_eq!((counted.pu, how::attributed_by(counted.how)), (index::HOST, how::BY_SOCKET));
        assert_eq!(how::initiator_by(counted.how), how::BY_SYN);
        datapath.begin_anew(&[(id, counted)].into())?;
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_was_nobodys_is_a_sockets_that_comes_to_wait_for_it() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    datapath.controller.set_role(uplink(index::HOST, 0))?;
    for (ends, local) in [(ENDS_4, "127.0.0.1".parse()?), (ENDS_6, "::1".parse::<IpAddr>()?)] {
        datapath.controller.add_local(local, index::HOST)?;
        let at = UdpSocket::bind((local, 0))?.local_addr()?;
        let frame = Ends { destination: local, destination_port: at.port(), ..ends }.udp(10);
        // Nobody ever answers, and the flow goes on.
        for _ in 0..3 {
            datapath.run(Hook::Ingress, &frame)?;
            assert_eq!(parts(&mut datapath)?, [(index::UNKNOWN, [1, 0], false)]);
        }
        let waiting = UdpSocket::bind(at)?;
        for _ in 0..2 {
            datapath.run(Hook::Ingress, &frame)?;
            assert_eq!(parts(&mut datapath)?, [(index::HOST, [1, 0], false)], "{at}");
        }
        // It had it, as long as the flow lives.
        drop(waiting);
        datapath.run(Hook::Ingress, &frame)?;
        assert_eq!(parts(&mut datapath)?, [(index::HOST, [1, 0], false)]);
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn who_listens_was_called() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    let far = Role {
        ifindex: IFINDEX,
        boundary: 4096,
        pu: index::UNKNOWN,
        interface: INTERFACE,
        flags: role::FAR,
        uplink: 0,
    };
    for (ends, local) in [(ENDS_4, "127.0.0.1".parse()?), (ENDS_6, "::1".parse::<IpAddr>()?)] {
        let (_udp, tcp) = sockets(local)?;
        let ends = Ends { destination: local, destination_port: tcp.local_addr()?.port(), ..ends };
        // At an uplink the host is the local end; behind a host-side end it is the remote one.
        for (role, local_initiated) in [(uplink(UNIT, 0), false), (own(), false), (far, true)] {
            datapath.controller.set_role(role)?;
            for (hook, frame) in [(Hook::Ingress, ends.tcp(ACK, 9)), (Hook::Egress, ends.back().tcp(ACK, 9))]
            {
                datapath.run(hook, &frame)?;
                let (id, counted) = datapath.drain_one()?;
                let found = (how::initiator_by(counted.how), counted.how & how::LOCAL_INITIATED != 0);
                assert_eq!(found, (how::BY_LISTENER, local_initiated), "{hook:?}, {role:?}, {id:?}");
                datapath.begin_anew(&[(id, counted)].into())?;
            }
        }
        // Where nobody listens, the sender of the first packet is all there is.
        datapath.controller.set_role(own())?;
        drop(tcp);
        datapath.run(Hook::Egress, &ends.back().tcp(ACK, 9))?;
        let (id, counted) = datapath.drain_one()?;
        let found = (how::initiator_by(counted.how), counted.how & how::LOCAL_INITIATED != 0);
        assert_eq!(found, (how::BY_FIRST_PACKET, true));
        datapath.begin_anew(&[(id, counted)].into())?;
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_comes_in_does_not_undo_what_left_of_the_hosts_end() -> Result<()> {
    if lacks_ingress_ifindex() {
        return Ok(());
    }
    let mut datapath = Datapath::load(&Settings::default())?;
    let role = Role { boundary: 4096, pu: UNIT, flags: role::FAR | role::OWN, ..own() };
    datapath.controller.set_role(role)?;
    let local: IpAddr = "127.0.0.1".parse()?;
    datapath.controller.add_local(local, index::HOST)?;
    let (udp, _tcp) = sockets(local)?;
    // Towards a socket of this host that a rule takes the packets from; and towards none, from which one has sent to an
    // address that is translated.
    for (port, from, want) in [(udp.local_addr()?.port(), INSIDE, 0), (1, 0, how::HOST_END)] {
        let ends = Ends { destination: local, destination_port: port, ..ENDS_4 };
        let leaving = Context { ingress_ifindex: from, ..Context::default() };
        datapath.run_with(Hook::Egress, &ends.back().udp(10), leaving)?;
        datapath.controller.next_generation();
        datapath.run(Hook::Ingress, &ends.udp(10))?;
        let (id, counted) = datapath.drain_one()?;
        assert_eq!((counted.how & how::HOST_END, counted.packets), (want, [1, 1]), "port {port}");
        datapath.begin_anew(&[(id, counted)].into())?;
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn another_connection_with_the_same_four_numbers_is_asked_about_anew() -> Result<()> {
    if lacks_ingress_ifindex() {
        return Ok(());
    }
    let mut datapath = Datapath::load(&Settings::default())?;
    datapath.controller.set_role(uplink(index::HOST, 0))?;
    for ends in [ENDS_4, ENDS_6] {
        datapath.controller.add_local(ends.source, index::HOST)?;
        // A translated connection that is reset, one of the host's own, a translated one that the other side opens.
        for (from, pu) in [(INSIDE, index::FORWARDED), (0, index::HOST), (INSIDE, index::FORWARDED)] {
            let leaving = Context { ingress_ifindex: from, ..Context::default() };
            datapath.run_with(Hook::Egress, &ends.tcp(SYN, 0), leaving)?;
            datapath.run(Hook::Ingress, &ends.back().tcp(SYN | ACK, 0))?;
            datapath.run_with(Hook::Egress, &ends.tcp(RST, 0), leaving)?;
            assert_eq!(parts(&mut datapath)?, [(pu, [1, 2], true)], "from {from}, {}", ends.source);
        }
        datapath.run(Hook::Ingress, &ends.back().tcp(SYN, 0))?;
        let answer = Context { ingress_ifindex: 0, ..Context::default() };
        datapath.run_with(Hook::Egress, &ends.tcp(SYN | ACK, 0), answer)?;
        let parts = parts(&mut datapath)?;
        assert_eq!(parts, [(index::HOST, [0, 1], true), (index::UNKNOWN, [1, 0], false)], "{}", ends.source);
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_an_ifb_hands_back_is_not_counted_again() -> Result<()> {
    const IFB: u32 = 7;
    if lacks_ingress_ifindex() {
        return Ok(());
    }
    let mut datapath = Datapath::load(&Settings::default())?;
    datapath.controller.set_role(Role { ifindex: IFB, flags: role::IFB, ..Role::default() })?;
    let mirrored = Role { flags: own().flags | role::MIRRORED, ..own() };
    datapath.controller.set_role(mirrored)?;
    for from in [0, IFB, INSIDE, IFB] {
        let context = Context { ingress_ifindex: from, ..Context::default() };
        datapath.run_with(Hook::Egress, &ENDS_4.udp(10), context)?;
    }
    let (_, counted) = datapath.drain_one()?;
    let ledger = datapath.ledger()?;
    assert_eq!((counted.skbs, ledger.seen, ledger.second_pass), ([0, 2], 4, 2));
    assert_eq!((counted.pu, datapath.unit(UNIT)?.flowless), (UNIT, NOTHING));
    Ok(())
}
