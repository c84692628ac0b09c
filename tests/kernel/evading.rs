//! What could go round policies, on bytes: packets that are not understood, answers that nobody asked for, flows beyond the
//! budget.

use collector_ebpf::{
    abi::{
        counter::Unparsed,
        flow::{RX, TX},
        policy::{INCOMING, UnitPolicy, WHOEVER},
        pu::{Role, index, role},
    },
    wire::{
        UNKNOWN,
        tcp::{ACK, SYN},
    },
};
use collector_tests::{
    Result,
    books::{assert_balanced, assert_sum_at_uplinks},
    collector::Running,
    frames::{
        self, ENDS_4, ENDS_6, Ends, ICMP, ICMPV6, IPV4, ONE_4, TCP, TWO_4, UDP, destination_options,
        ethernet, fragment_6, icmp, ipv4, tcp, udp,
    },
    lab::Wire,
    policies::{Set, dropped, rejected},
    talk::listener,
    testrun::{Datapath, Hook, IFINDEX, INTERFACE, PASS_ON, UNIT, explained_without_flow, uplink},
    traffic::{Host, PacketSocket, pin, settle},
};
use collector_user::{event::DropClass, kernel::settings::Settings};

use crate::enforced;

/// `TC_ACT_SHOT`.
const SHOT: i32 = 2;
/// The numbers of verdicts.
const ALLOWED: u16 = 5;
const OTHERWISE: u16 = 9;

/// Units and their sets, by direction; what none of a set's rules says is dropped.
fn with(units: &[(u16, [Option<Set>; 2])], otherwise: u32) -> Result<Datapath> {
    let mut datapath = Datapath::load(&Settings::default())?;
    for (unit, sets) in units {
        let mut policy = UnitPolicy { otherwise: [otherwise; 2], ..UnitPolicy::default() };
        for (number, set) in policy.sets.iter_mut().zip(sets) {
            if let Some(set) = set {
                *number = set.number();
                datapath.controller.policies().write(&set.clone().entries())?;
            }
        }
        datapath.controller.policies().give(*unit, policy)?;
    }
    datapath.controller.hold_policies(1);
    Ok(datapath)
}

fn run(datapath: &mut Datapath, hook: Hook, frame: &[u8]) -> Result<i32> {
    Ok(datapath.run(hook, frame)?.action)
}

/// A UDP datagram over IPv6 without a length, which the kernel takes for one that reaches to the end.
fn without_length(ends: Ends) -> Vec<u8> {
    let mut datagram = udp(ends.ports(), 9);
    datagram[4..6].fill(0);
    ends.frame(UDP, &datagram)
}

/// A datagram behind more extension headers than are followed.
fn deep(ends: Ends) -> Vec<u8> {
    let mut headers: Vec<u8> = (0..8).flat_map(|_| destination_options(60)).collect();
    headers.extend(destination_options(UDP));
    headers.extend(udp(ends.ports(), 9));
    ends.frame(60, &headers)
}

/// The first fragment of a connection's first segment, without the flags.
fn cut(ends: Ends) -> Vec<u8> {
    let segment = &tcp(ends.ports(), SYN, &[], 0)[..8];
    if ends == ENDS_4 {
        ethernet(&[], IPV4, &ipv4((ONE_4, TWO_4), &[], 0x2000, TCP, segment))
    } else {
        ends.frame(44, &[&fragment_6(TCP, 0, true), segment].concat())
    }
}

/// Packets that no receiver's kernel refuses, and that are not understood here: by their protocol, or by their addresses alone.
fn not_understood() -> [(&'static str, Vec<u8>, u8, Unparsed); 4] {
    [
        ("without length", without_length(ENDS_6), UDP, Unparsed::UdpLength),
        ("deep", deep(ENDS_6), UNKNOWN, Unparsed::ExtensionDepth),
        ("cut, IPv4", cut(ENDS_4), TCP, Unparsed::Truncated),
        ("cut, IPv6", cut(ENDS_6), UNKNOWN, Unparsed::Truncated),
    ]
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_not_understood_is_rejected_by_who_rejects_everything() -> Result<()> {
    let mut datapath = with(&[(UNIT, [Some(Set::new(1)), None])], dropped(OTHERWISE))?;
    let before = datapath.ledger()?;
    for (name, frame, _, reason) in not_understood() {
        let (ledger, unit) = (datapath.ledger()?, datapath.unit(UNIT)?);
        assert_eq!(run(&mut datapath, Hook::Ingress, &frame)?, SHOT, "{name}");
        let (ledger_after, after) = (datapath.ledger()?, datapath.unit(UNIT)?);
        let unparsed = |ledger: &collector_ebpf::abi::counter::Ledger| ledger.unparsed[reason as usize];
        assert_eq!(unparsed(&ledger_after) - unparsed(&ledger), 1, "{name}: it came in, and is counted so");
        assert_eq!(after.rejected[RX] - unit.rejected[RX], 1, "{name}");
        assert_eq!(after.flowless[RX].packets - unit.flowless[RX].packets, 1, "{name}");
        // What the unit sends meets no rules, and may be as it likes.
        assert_eq!(run(&mut datapath, Hook::Egress, &frame)?, PASS_ON, "{name}");
    }
    assert_eq!(run(&mut datapath, Hook::Ingress, &ethernet(&[], 0x88CC, &[0; 50]))?, PASS_ON, "no IP");
    assert_eq!(datapath.deltas()?, [], "no flow");
    let ledger = datapath.ledger()?;
    assert_eq!(ledger.seen - before.seen, explained_without_flow(&ledger) - explained_without_flow(&before));
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_not_understood_and_does_not_leave_is_counted_as_rejected_alone() -> Result<()> {
    let mut datapath = with(&[(UNIT, [None, Some(Set::new(1))])], dropped(OTHERWISE))?;
    let before = datapath.ledger()?;
    for (name, frame, ..) in not_understood() {
        assert_eq!(run(&mut datapath, Hook::Egress, &frame)?, SHOT, "{name}");
    }
    let (ledger, unit) = (datapath.ledger()?, datapath.unit(UNIT)?);
    assert_eq!((ledger.seen - before.seen, ledger.rejected - before.rejected), (4, 4));
    assert_eq!(ledger.unparsed, before.unparsed);
    assert_eq!((unit.rejected[TX], unit.flowless[TX].packets), (4, 0));
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_not_understood_meets_what_is_said_of_its_addresses_and_protocol() -> Result<()> {
    // From one network everything of this protocol may come, from elsewhere nothing.
    for protocol in [UDP, TCP, UNKNOWN] {
        let set = |number| {
            let set = Set::new(number).remote("192.0.2.0/24", 1)?.remote("2001:db8::/64", 1)?;
            Ok::<_, anyhow::Error>(set.unread(protocol, 1).says(1, 1, ALLOWED.into()))
        };
        let mut datapath = with(&[(UNIT, [Some(set(1)?), None])], dropped(OTHERWISE))?;
        for (name, mut frame, of, _) in not_understood() {
            let want = if of == protocol { PASS_ON } else { SHOT };
            assert_eq!(run(&mut datapath, Hook::Ingress, &frame)?, want, "{name}, {protocol}");
            // The first octet of the source.
            let at = if frame[12..14] == IPV4.to_be_bytes() { 26 } else { 22 };
            frame[at] = 0x40;
            assert_eq!(run(&mut datapath, Hook::Ingress, &frame)?, SHOT, "{name} from elsewhere");
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_only_said_to_be_rejected_passes_though_it_is_not_understood() -> Result<()> {
    let mut datapath = with(&[(UNIT, [Some(Set::new(1)), Some(Set::new(2))])], rejected(OTHERWISE))?;
    for (name, frame, ..) in not_understood() {
        for hook in Hook::BOTH {
            assert_eq!(run(&mut datapath, hook, &frame)?, PASS_ON, "{name}");
        }
    }
    assert_eq!(datapath.unit(UNIT)?.rejected, [0; 2]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_comes_for_the_host_and_shows_no_port_is_judged_for_whoever_would_take_it() -> Result<()> {
    let mut datapath = with(&[(WHOEVER, [Some(Set::new(1)), None])], dropped(OTHERWISE))?;
    datapath.controller.set_role(uplink(index::HOST, 0))?;
    for ends in [ENDS_4, ENDS_6] {
        datapath.controller.add_local(ends.destination, index::HOST)?;
    }
    for (name, frame, ..) in not_understood() {
        assert_eq!(run(&mut datapath, Hook::Ingress, &frame)?, SHOT, "{name}");
        assert_eq!(run(&mut datapath, Hook::Egress, &frame)?, PASS_ON, "{name}: what the host sends");
    }
    assert_eq!(datapath.unit(index::HOST)?.rejected, [4, 0]);
    // What shows its port is for the host itself, which has no rules.
    assert_eq!(run(&mut datapath, Hook::Ingress, &ENDS_4.tcp(SYN, 0))?, PASS_ON);
    // What comes from behind a boundary for the host is, too.
    let behind = Role {
        ifindex: IFINDEX,
        boundary: 4096,
        pu: UNIT,
        interface: INTERFACE,
        flags: role::FAR | role::OWN,
        ..Role::default()
    };
    datapath.controller.set_role(behind)?;
    for (name, frame, ..) in not_understood() {
        assert_eq!(run(&mut datapath, Hook::Ingress, &frame)?, SHOT, "{name}");
    }
    // Where nobody is asked for the host, nothing is rejected.
    datapath.controller.policies().give(WHOEVER, UnitPolicy::default())?;
    for (name, frame, ..) in not_understood() {
        assert_eq!(run(&mut datapath, Hook::Ingress, &frame)?, PASS_ON, "{name}");
    }
    assert_eq!(INCOMING, 0);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn an_echo_that_nobody_asked_for_opens_no_door_for_requests() -> Result<()> {
    let mut datapath = with(&[(UNIT, [Some(Set::new(1)), None])], dropped(OTHERWISE))?;
    for (ends, protocol, request, reply) in [(ENDS_4, ICMP, 8, 0), (ENDS_6, ICMPV6, 128, 129)] {
        let (asks, answers) =
            (ends.frame(protocol, &icmp(request, 0)), ends.frame(protocol, &icmp(reply, 0)));
        for _ in 0..3 {
            assert_eq!(run(&mut datapath, Hook::Ingress, &answers)?, PASS_ON, "the unit may have asked");
        }
        for _ in 0..3 {
            assert_eq!(run(&mut datapath, Hook::Ingress, &asks)?, SHOT, "nobody may ask it");
        }
        // It may itself, and is answered, by the same number.
        let own = ends.back().frame(protocol, &icmp(request, 0));
        for frame in [(Hook::Egress, &own), (Hook::Ingress, &answers)] {
            assert_eq!(run(&mut datapath, frame.0, frame.1)?, PASS_ON);
        }
        assert_eq!(run(&mut datapath, Hook::Ingress, &asks)?, SHOT);
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn beyond_the_budget_an_answer_is_not_taken_for_a_question() -> Result<()> {
    // Nothing refills it, however long a slow guest takes.
    let settings = Settings { new_flows_per_second: 0, new_flows_burst: 0, ..Settings::default() };
    let mut datapath = Datapath::load(&settings)?;
    datapath.controller.policies().write(&Set::new(1).entries())?;
    let policy = UnitPolicy { sets: [1, 0], otherwise: [dropped(OTHERWISE), 0] };
    datapath.controller.policies().give(UNIT, policy)?;
    datapath.controller.hold_policies(1);
    for ends in [ENDS_4, ENDS_6] {
        for port in 1..=10 {
            let asked = ends.from_port(port);
            assert_eq!(run(&mut datapath, Hook::Egress, &asked.back().udp(9))?, PASS_ON, "{port}");
            assert_eq!(run(&mut datapath, Hook::Ingress, &asked.udp(9))?, PASS_ON, "{port}: its answer");
        }
        // What says who opened it is no guess.
        for port in 11..=20 {
            assert_eq!(run(&mut datapath, Hook::Ingress, &ends.from_port(port).tcp(SYN, 0))?, SHOT, "{port}");
            let answer = ends.from_port(port).tcp(SYN | ACK, 0);
            assert_eq!(run(&mut datapath, Hook::Ingress, &answer)?, PASS_ON, "{port}");
        }
    }
    assert!(datapath.ledger()?.rate_limited >= 38);
    Ok(())
}

/// A UDP datagram over IPv6 with a checksum as it must be, behind so many headers, whose length field says nothing where
/// `is_endless`.
fn datagram_6(wire: &Wire, port: u16, headers: usize, is_endless: bool) -> Vec<u8> {
    let [p0, p1] = port.to_be_bytes();
    let mut datagram = udp([0x9C, 0x40, p0, p1], 9);
    let length = (datagram.len() as u32).to_be_bytes();
    if is_endless {
        datagram[4..6].fill(0);
    }
    let ends = [wire.b.v6.octets(), wire.a.v6.octets()].concat();
    let sum = frames::checksum(&[&*ends, &length, &[0, 0, 0, UDP], &datagram].concat());
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    let mut packet: Vec<u8> =
        (0..headers).flat_map(|at| destination_options(if at + 1 == headers { UDP } else { 60 })).collect();
    packet.extend(datagram);
    let packet = frames::ipv6((wire.b.v6, wire.a.v6), if headers == 0 { UDP } else { 60 }, &packet);
    frames::ethernet_between(wire.b.mac, wire.a.mac, &[], frames::IPV6, &packet)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_the_kernel_understands_and_the_programs_do_not_does_not_arrive() -> Result<()> {
    const COUNT: u64 = 20;
    let wire = Wire::new()?;
    pin(0)?;
    let answering = Host::new(&wire.a, &[])?;
    let closed = listener(&wire.a.place, (wire.a.v6, enforced::CLOSED).into())?;
    let socket = PacketSocket::new(&wire.b)?;
    let frames = [(0, true), (9, false)]
        .map(|(headers, is_endless)| datagram_6(&wire, enforced::CLOSED, headers, is_endless));
    let send = || -> Result<()> {
        for frame in &frames {
            (0..COUNT).try_for_each(|_| socket.send(frame))?;
        }
        settle(&wire.b, &answering)
    };
    send()?;
    assert_eq!(enforced::arrived(&closed)?, 2 * COUNT, "the kernel takes them");
    let options = enforced::enforcing(enforced::strict("host")?);
    let collector = Running::start_beside(&wire.a.place, options, Some(&wire.a.dev))?;
    send()?;
    let finished = collector.stop()?;
    assert_eq!(enforced::arrived(&closed)?, 0);
    assert_balanced(&finished);
    assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[finished.link]);
    assert_eq!(enforced::dropped(&finished, "host"), (2 * COUNT, 0), "{:#?}", finished.status.drops);
    let reports = enforced::reports(&finished);
    assert_eq!(reports.len() as u64, 2 * COUNT);
    for report in reports {
        assert_eq!((&*report.drop_reason, report.drop_class), ("policy", DropClass::Policy));
        assert!(report.advice.contains("this collector"), "{report:?}");
    }
    Ok(())
}
