//! What policies say of a flow, on bytes: looked up at its first packet, remembered, dropped where that is enforced, counted.

use std::net::IpAddr;

use collector_ebpf::{
    abi::{
        control::Anchor,
        flow::{RX, TX},
        policy::{UnitPolicy, verdict},
        pu::{Role, index, role},
    },
    wire::tcp::{ACK, FIN, SYN},
};
use collector_tests::{
    Result,
    frames::{
        self, ENDS_4, ENDS_6, Ends, ICMP, ICMPV6, IPV4, TCP, UDP, ethernet, fragment_6, icmp, icmp_error,
        ipv4,
    },
    policies::{Set, dropped, rejected},
    testrun::{Datapath, Hook, IFINDEX, INTERFACE, PASS_ON, UNIT, explained_without_flow},
};
use collector_user::{
    drain::flow::FlowDelta,
    kernel::{error::KernelError, requirements::is_preempt_rt, settings::Settings},
};

/// `TC_ACT_SHOT`.
const SHOT: i32 = 2;
/// The numbers of verdicts.
const ALLOWED: u16 = 5;
const OTHERWISE: u16 = 9;

/// What is allowed of what comes from `192.0.2.0/24`, `2001:db8::/64`: TCP to 443 and to 8064 up to 8191, echo requests.
fn some(number: u32) -> Result<Set> {
    let set = Set::new(number).remote("192.0.2.0/24", 1)?.remote("2001:db8::/64", 1)?;
    Ok(set
        .remote("198.51.100.0/24", 1)?
        .service(TCP, (443, 16), 1)
        .service(TCP, (8064, 9), 1)
        .service(ICMP, (0x0800, 16), 1)
        .service(ICMPV6, (0x8000, 16), 1)
        .says(1, 1, ALLOWED.into()))
}

/// The programs; a unit has a set in each direction, of which 0 is none, and what none of its rules says is dropped.
fn with(settings: &Settings, sets: [Option<Set>; 2]) -> Result<Datapath> {
    let mut datapath = Datapath::load(settings)?;
    give(&mut datapath, UNIT, sets)?;
    datapath.controller.hold_policies(1);
    Ok(datapath)
}

fn give(datapath: &mut Datapath, unit: u16, sets: [Option<Set>; 2]) -> Result<()> {
    let mut policy = UnitPolicy { otherwise: [dropped(OTHERWISE); 2], ..UnitPolicy::default() };
    for (number, set) in policy.sets.iter_mut().zip(sets) {
        if let Some(set) = set {
            *number = set.number();
            datapath.controller.policies().write(&set.entries())?;
        }
    }
    Ok(datapath.controller.policies().give(unit, policy)?)
}

fn run(datapath: &mut Datapath, hook: Hook, frame: &[u8]) -> Result<i32> {
    Ok(datapath.run(hook, frame)?.action)
}

/// What one flow counted, in the epoch that ends here.
fn one(datapath: &mut Datapath) -> Result<FlowDelta> {
    let deltas = datapath.deltas()?;
    assert_eq!(deltas.len(), 1, "{deltas:#?}");
    Ok(deltas[0])
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn rules_are_by_remote_address_and_service() -> Result<()> {
    let mut datapath = with(&Settings::default(), [Some(some(1)?), None])?;
    let echo = |ends: Ends, kind: u8| {
        let protocol = if ends.source.is_ipv4() { ICMP } else { ICMPV6 };
        ends.frame(protocol, &icmp(kind, 0))
    };
    for ends in [ENDS_4, ENDS_6] {
        let to = |destination_port| Ends { destination_port, ..ends };
        let foreign = Ends {
            source: if ends.source.is_ipv4() { "203.0.113.9".parse()? } else { "2001:db8:1::9".parse()? },
            ..ends
        };
        let request = if ends.source.is_ipv4() { 8 } else { 128 };
        // Timestamp (RFC 792 page 16), node information (RFC 4620): neither error nor neighbour discovery.
        let other = if ends.source.is_ipv4() { 13 } else { 139 };
        for (name, frame, want) in [
            ("443", ends.tcp(SYN, 0), Some(ALLOWED)),
            ("442", to(442).tcp(SYN, 0), None),
            ("444", to(444).tcp(SYN, 0), None),
            ("the first of a range", to(8064).tcp(SYN, 0), Some(ALLOWED)),
            ("the last of a range", to(8191).tcp(SYN, 0), Some(ALLOWED)),
            ("below a range", to(8063).tcp(SYN, 0), None),
            ("beyond a range", to(8192).tcp(SYN, 0), None),
            ("the other protocol", ends.udp(9), None),
            ("from elsewhere", foreign.tcp(SYN, 0), None),
            ("an echo", echo(ends, request), Some(ALLOWED)),
            ("an echo from elsewhere", echo(foreign, request), None),
            ("a question by ICMP", echo(ends, other), None),
        ] {
            let name = format!("{name}, {}", ends.source);
            let (action, number, packets) = match want {
                Some(number) => (PASS_ON, number, [0; 2]),
                None => (SHOT, OTHERWISE, [2, 0]),
            };
            for _ in 0..2 {
                assert_eq!(run(&mut datapath, Hook::Ingress, &frame)?, action, "{name}");
            }
            let delta = one(&mut datapath)?;
            assert_eq!((delta.verdict, delta.rejected), (number, packets), "{name}");
            assert_eq!((delta.packets, delta.begun), ([2, 0], 1), "{name}: it came in");
            assert_eq!(delta.bytes, [2 * frame.len() as u64, 0], "{name}");
        }
        // What the unit itself opens is another direction, in which it has no rules.
        assert_eq!(run(&mut datapath, Hook::Egress, &to(81).tcp(SYN, 0))?, PASS_ON);
        assert_eq!(one(&mut datapath)?.verdict, 0);
    }
    let ledger = datapath.ledger()?;
    assert_eq!((ledger.rejected, explained_without_flow(&ledger)), (0, 0));
    assert_eq!(datapath.unit(UNIT)?.rejected, [2 * 2 * 8, 0]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_never_leaves_is_counted_as_rejected_alone() -> Result<()> {
    let mut datapath = with(&Settings::default(), [None, Some(some(1)?)])?;
    for ends in [ENDS_4, ENDS_6] {
        let before = datapath.ledger()?;
        for _ in 0..3 {
            assert_eq!(run(&mut datapath, Hook::Egress, &ends.back().tcp(SYN, 0))?, SHOT);
        }
        let delta = one(&mut datapath)?;
        assert_eq!((delta.verdict, delta.rejected, delta.begun), (OTHERWISE, [0, 3], 1));
        assert_eq!((delta.packets, delta.bytes, delta.skbs), ([0; 2], [0; 2], [0; 2]));
        // Later epochs begin no flow.
        assert_eq!(run(&mut datapath, Hook::Egress, &ends.back().tcp(SYN, 0))?, SHOT);
        // What comes in for the same flow is rejected, too, and came.
        assert_eq!(run(&mut datapath, Hook::Ingress, &ends.tcp(ACK, 9))?, SHOT);
        let delta = one(&mut datapath)?;
        assert_eq!((delta.packets, delta.rejected, delta.begun), ([1, 0], [1, 1], 0));
        let ledger = datapath.ledger()?;
        assert_eq!((ledger.seen - before.seen, ledger.rejected - before.rejected), (5, 4));
    }
    assert_eq!(datapath.unit(UNIT)?.rejected, [2, 8]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn who_sends_what_is_rejected_decides_nothing_for_the_other_end() -> Result<()> {
    let mut datapath = with(&Settings::default(), [Some(Set::new(1)), None])?;
    for ends in [ENDS_4, ENDS_6] {
        let at = |port| (ends.from_port(port), ends.from_port(port).back());
        // Somebody sends what looks as if it came from a server that the unit asks afterwards.
        let (from, back) = at(1);
        assert_eq!(run(&mut datapath, Hook::Ingress, &from.udp(9))?, SHOT);
        assert_eq!(run(&mut datapath, Hook::Egress, &back.udp(9))?, PASS_ON);
        assert_eq!(run(&mut datapath, Hook::Ingress, &from.udp(9))?, PASS_ON, "the answer");
        let (from, back) = at(2);
        assert_eq!(run(&mut datapath, Hook::Ingress, &from.tcp(SYN, 0))?, SHOT);
        assert_eq!(run(&mut datapath, Hook::Egress, &back.tcp(ACK, 0))?, SHOT, "that opens nothing");
        assert_eq!(run(&mut datapath, Hook::Egress, &back.tcp(SYN, 0))?, PASS_ON);
        for flags in [SYN | ACK, ACK] {
            assert_eq!(run(&mut datapath, Hook::Ingress, &from.tcp(flags, 0))?, PASS_ON);
        }
        // Nor does a packet that no socket takes open a door for a connection.
        for (port, before) in [(3, SYN | ACK), (4, ACK)] {
            let (from, back) = at(port);
            assert_eq!(run(&mut datapath, Hook::Ingress, &from.tcp(before, 0))?, PASS_ON);
            for _ in 0..2 {
                assert_eq!(run(&mut datapath, Hook::Ingress, &from.tcp(SYN, 0))?, SHOT);
            }
            assert_eq!(run(&mut datapath, Hook::Egress, &back.tcp(SYN, 0))?, PASS_ON, "it may itself");
        }
        datapath.deltas()?;
    }
    // What has passed and is rejected by now is not opened anew by an answer.
    give(&mut datapath, UNIT, [None, None])?;
    let (from, back) = (ENDS_4.from_port(5).udp(9), ENDS_4.from_port(5).back().udp(9));
    assert_eq!(run(&mut datapath, Hook::Ingress, &from)?, PASS_ON);
    assert_eq!(run(&mut datapath, Hook::Egress, &back)?, PASS_ON);
    give(&mut datapath, UNIT, [Some(Set::new(3)), None])?;
    datapath.deltas()?;
    for (hook, frame) in [(Hook::Egress, &back), (Hook::Ingress, &from), (Hook::Egress, &back)] {
        assert_eq!(run(&mut datapath, hook, frame)?, SHOT);
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn who_opened_a_flow_by_a_guess_is_not_rejected() -> Result<()> {
    let mut datapath = with(&Settings::default(), [Some(Set::new(1)), Some(Set::new(2))])?;
    for ends in [ENDS_4, ENDS_6] {
        // Met midway, and nobody listens: either end may have opened it.
        for hook in Hook::BOTH {
            assert_eq!(run(&mut datapath, hook, &ends.from_port(1).tcp(ACK, 9))?, PASS_ON);
            assert_eq!(run(&mut datapath, hook, &ends.from_port(2).tcp(FIN | ACK, 0))?, PASS_ON);
        }
        // Once it is rejected, all of it is.
        for flags in [SYN, ACK, FIN | ACK] {
            assert_eq!(run(&mut datapath, Hook::Ingress, &ends.from_port(3).tcp(flags, 0))?, SHOT);
        }
        // The answer tells who asked.
        assert_eq!(run(&mut datapath, Hook::Ingress, &ends.from_port(4).tcp(SYN | ACK, 0))?, SHOT);
        // Before anyone has looked for long, the first packet that is seen may be an answer.
        datapath.controller.hold_policies(u64::MAX);
        assert_eq!(run(&mut datapath, Hook::Ingress, &ends.from_port(5).udp(9))?, PASS_ON);
        assert_eq!(run(&mut datapath, Hook::Ingress, &ends.from_port(6).tcp(SYN, 0))?, SHOT);
        datapath.controller.hold_policies(1);
        assert_eq!(run(&mut datapath, Hook::Ingress, &ends.from_port(7).udp(9))?, SHOT);
        let deltas = datapath.deltas()?;
        let guessed = deltas.iter().find(|delta| delta.id.remote_port == 5).map(|delta| delta.verdict);
        assert_eq!(guessed, Some(0));
        // It stays what it was.
        assert_eq!(run(&mut datapath, Hook::Ingress, &ends.from_port(5).udp(9))?, PASS_ON);
        datapath.deltas()?;
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_keeps_a_network_alive_meets_no_policy() -> Result<()> {
    let mut datapath = with(&Settings::default(), [Some(Set::new(1)), Some(Set::new(2))])?;
    let (source, destination) = (frames::ONE_4, frames::TWO_4);
    let piece_4 = ethernet(&[], IPV4, &ipv4((source, destination), &[], 100, UDP, &[0; 64]));
    let piece_6 = ENDS_6.frame(44, &[fragment_6(UDP, 100, false), vec![0; 64]].concat());
    for hook in Hook::BOTH {
        // Groups, neighbours and routers: RFC 2710, RFC 9777, RFC 4861, RFC 4890.
        for kind in (130..=137).chain([143]) {
            assert_eq!(run(&mut datapath, hook, &ENDS_6.frame(ICMPV6, &icmp(kind, 0)))?, PASS_ON, "{kind}");
        }
        assert_eq!(run(&mut datapath, hook, &ENDS_6.frame(ICMPV6, &icmp(138, 0)))?, SHOT);
        // Answers by DHCP come from another address than was asked.
        for (ends, ports) in [(ENDS_4, (67, 68)), (ENDS_6, (547, 546))] {
            let server = Ends { source_port: ports.0, destination_port: ports.1, ..ends };
            let frame = if hook == Hook::Ingress { server.udp(9) } else { server.back().udp(9) };
            assert_eq!(run(&mut datapath, hook, &frame)?, PASS_ON, "{ports:?}");
        }
        // IGMP (RFC 9776).
        assert_eq!(run(&mut datapath, hook, &ENDS_4.frame(2, &[0x16; 8]))?, PASS_ON);
        // A piece without the first one shows no ports.
        assert_eq!(run(&mut datapath, hook, &piece_4)?, PASS_ON);
        assert_eq!(run(&mut datapath, hook, &piece_6)?, PASS_ON);
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn errors_about_what_is_accepted_are_accepted() -> Result<()> {
    let mut datapath = with(&Settings::default(), [Some(some(1)?), Some(some(2)?)])?;
    let far = Role {
        ifindex: IFINDEX,
        boundary: 4096,
        pu: UNIT,
        interface: INTERFACE,
        flags: role::FAR | role::OWN,
        ..Role::default()
    };
    for is_far in [false, true] {
        if is_far {
            datapath.controller.set_role(far)?;
        }
        let hooks = if is_far { [Hook::Egress, Hook::Ingress] } else { [Hook::Ingress, Hook::Egress] };
        let [to_unit, from_unit] = hooks;
        for ends in [ENDS_4, ENDS_6] {
            let error = |about: &[u8], sender: Ends| {
                let (protocol, message) = match sender.source {
                    IpAddr::V4(_) => (ICMP, icmp_error(3, 4, &about[14..14 + 28])),
                    IpAddr::V6(_) => (ICMPV6, icmp_error(2, 0, &about[14..])),
                };
                sender.back().frame(protocol, &message)
            };
            // One that is accepted, one that is not, one that nobody knows; opened by the remote end.
            let (accepted, refused, unknown) =
                (ends.from_port(1), Ends { destination_port: 444, ..ends }, ends.from_port(9));
            assert_eq!(run(&mut datapath, to_unit, &accepted.tcp(SYN, 0))?, PASS_ON);
            assert_eq!(run(&mut datapath, to_unit, &refused.tcp(SYN, 0))?, SHOT);
            for (about, sender, want) in [
                // The remote end's packet is quoted by the unit's host; the unit's answer by the remote end.
                (accepted, from_unit, PASS_ON),
                (accepted.back(), to_unit, PASS_ON),
                (refused, from_unit, SHOT),
                (unknown, from_unit, SHOT),
                (unknown.back(), to_unit, SHOT),
                (accepted, from_unit, PASS_ON),
            ] {
                let frame = error(&about.tcp(SYN, 0), about);
                assert_eq!(run(&mut datapath, sender, &frame)?, want, "{about:?}, far: {is_far}");
            }
            let drained = datapath.drain()?;
            datapath.begin_anew(&drained)?;
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_reload_changes_what_lives() -> Result<()> {
    let mut datapath = with(&Settings::default(), [Some(some(1)?), None])?;
    for (first, ends) in [(10, ENDS_4), (20, ENDS_6)] {
        give(&mut datapath, UNIT, [Some(some(first)?), None])?;
        assert_eq!(run(&mut datapath, Hook::Ingress, &ends.tcp(SYN, 0))?, PASS_ON);
        for _ in 0..4 {
            assert_eq!(run(&mut datapath, Hook::Ingress, &ends.tcp(ACK, 9))?, PASS_ON);
        }
        give(&mut datapath, UNIT, [Some(Set::new(first + 1)), None])?;
        // What holds a slot passes until the epoch ends where it is not looked at anyway (a FIN); then it does not. Where
        // none do, the next packet meets the rules.
        let (last, passed) = if is_preempt_rt() { (SHOT, 5) } else { (PASS_ON, 6) };
        assert_eq!(run(&mut datapath, Hook::Ingress, &ends.tcp(ACK, 9))?, last);
        assert_eq!(run(&mut datapath, Hook::Ingress, &ends.tcp(FIN | ACK, 9))?, SHOT);
        assert_eq!(run(&mut datapath, Hook::Ingress, &ends.tcp(ACK, 9))?, SHOT, "it has lost its slot");
        let mut parts: Vec<_> =
            datapath.deltas()?.iter().map(|delta| (delta.verdict, delta.packets, delta.rejected)).collect();
        parts.sort_unstable();
        let refused = [8 - passed, 0];
        assert_eq!(parts, [(ALLOWED, [passed, 0], [0; 2]), (OTHERWISE, refused, refused)]);
        assert_eq!(run(&mut datapath, Hook::Egress, &ends.back().tcp(ACK, 9))?, SHOT, "both ways");
        // And back.
        give(&mut datapath, UNIT, [Some(some(first + 2)?), None])?;
        datapath.deltas()?;
        assert_eq!(run(&mut datapath, Hook::Ingress, &ends.tcp(ACK, 9))?, PASS_ON);
        assert_eq!(one(&mut datapath)?.verdict, ALLOWED);
        // No policies at all.
        give(&mut datapath, UNIT, [Some(Set::new(first + 3)), None])?;
        assert_eq!(run(&mut datapath, Hook::Ingress, &ends.tcp(ACK, 9))?, SHOT);
        datapath.controller.lift_policies();
        assert_eq!(run(&mut datapath, Hook::Ingress, &ends.tcp(ACK, 9))?, PASS_ON);
        datapath.controller.hold_policies(1);
        datapath.deltas()?;
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_connection_that_the_other_end_opens_anew_meets_the_other_rules() -> Result<()> {
    let mut datapath = with(&Settings::default(), [Some(some(1)?), Some(Set::new(2))])?;
    for ends in [ENDS_4, ENDS_6] {
        let segments =
            [(ends, SYN), (ends.back(), SYN | ACK), (ends, ACK), (ends, FIN | ACK), (ends.back(), FIN | ACK)];
        for (ends_of_segment, flags) in segments {
            let hook = if ends_of_segment == ends { Hook::Ingress } else { Hook::Egress };
            assert_eq!(run(&mut datapath, hook, &ends_of_segment.tcp(flags, 0))?, PASS_ON);
        }
        // The same four numbers the other way round.
        assert_eq!(run(&mut datapath, Hook::Egress, &ends.back().tcp(SYN, 0))?, SHOT);
        datapath.deltas()?;
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn the_end_on_this_host_has_a_say_too() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    // Behind the interface lies the unit; what it sends to this host is the host's, too.
    let role = Role {
        ifindex: IFINDEX,
        boundary: 4097,
        pu: UNIT,
        interface: INTERFACE,
        flags: role::FAR | role::OWN,
        ..Role::default()
    };
    datapath.controller.set_role(role)?;
    datapath.controller.hold_policies(1);
    give(&mut datapath, index::HOST, [None, Some(some(1)?)])?;
    for ends in [ENDS_4, ENDS_6] {
        datapath.controller.add_local(ends.source, index::HOST)?;
        // The host opens a connection to what lies behind the interface: its own rules hold for what it opens.
        assert_eq!(run(&mut datapath, Hook::Egress, &ends.tcp(SYN, 0))?, PASS_ON, "to 443");
        let denied = Ends { destination_port: 80, ..ends };
        let before = datapath.unit(index::HOST)?.rejected;
        assert_eq!(run(&mut datapath, Hook::Egress, &denied.tcp(SYN, 0))?, SHOT);
        let deltas = datapath.deltas()?;
        let of = |port: u16| deltas.iter().find(|delta| delta.id.local_port == port);
        assert_eq!(of(443).map(|delta| (delta.pu, delta.verdict)), Some((UNIT, ALLOWED)), "{deltas:#?}");
        let refused = of(80).map(|delta| (delta.pu, delta.verdict, delta.packets, delta.rejected));
        assert_eq!(refused, Some((UNIT, OTHERWISE, [0; 2], [1, 0])));
        // It was about to leave the host, and is the host's own to have rejected.
        let after = datapath.unit(index::HOST)?.rejected;
        assert_eq!((after[RX] - before[RX], after[TX] - before[TX]), (0, 1));
    }
    assert_eq!(datapath.unit(UNIT)?.rejected, [0; 2]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_flow_beyond_the_budget_is_rejected_all_the_same() -> Result<()> {
    let settings = Settings { new_flows_per_second: 1, new_flows_burst: 1, ..Settings::default() };
    let mut datapath = with(&settings, [Some(Set::new(1)), Some(Set::new(2))])?;
    for port in 1..=20 {
        assert_eq!(run(&mut datapath, Hook::Ingress, &ENDS_4.from_port(port).udp(10))?, SHOT);
        assert_eq!(run(&mut datapath, Hook::Egress, &ENDS_4.back().from_port(port).udp(10))?, SHOT);
    }
    let (deltas, ledger, unit) = (datapath.deltas()?, datapath.ledger()?, datapath.unit(UNIT)?);
    let skbs: u64 = deltas.iter().map(|delta| delta.skbs.iter().sum::<u64>()).sum();
    assert!(ledger.rate_limited >= 38, "{ledger:?}");
    assert_eq!(ledger.seen, skbs + explained_without_flow(&ledger), "{ledger:?}");
    assert_eq!(unit.rejected, [20, 20]);
    // What came in is in the totals, and what did not leave is not.
    let flows: [u64; 2] =
        [RX, TX].map(|direction| deltas.iter().map(|delta| delta.packets[direction]).sum::<u64>());
    assert_eq!([flows[RX] + unit.flowless[RX].packets, flows[TX] + unit.flowless[TX].packets], [20, 0]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_only_said_to_be_rejected_passes() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    let policy = UnitPolicy { sets: [1; 2], otherwise: [rejected(OTHERWISE); 2] };
    datapath.controller.policies().give(UNIT, policy)?;
    datapath.controller.hold_policies(1);
    for ends in [ENDS_4, ENDS_6] {
        assert_eq!(run(&mut datapath, Hook::Ingress, &ends.tcp(SYN, 0))?, PASS_ON);
        for _ in 0..3 {
            assert_eq!(run(&mut datapath, Hook::Ingress, &ends.tcp(ACK, 9))?, PASS_ON);
            assert_eq!(run(&mut datapath, Hook::Egress, &ends.back().tcp(ACK, 9))?, PASS_ON);
        }
        let delta = one(&mut datapath)?;
        assert_eq!((delta.verdict, delta.packets, delta.rejected), (OTHERWISE, [4, 3], [0; 2]));
    }
    assert_eq!(datapath.unit(UNIT)?.rejected, [0; 2]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_set_that_finds_no_room_leaves_nothing_behind() -> Result<()> {
    let mut datapath = Datapath::load(&Settings { verdicts: 8, ..Settings::default() })?;
    let set = |number, count: u16| {
        (1..=count).try_fold(Set::new(number).service(TCP, (443, 16), 1), |set, class| {
            Ok::<_, anyhow::Error>(set.remote(&format!("10.0.{class}.0/24"), class)?.says(class, 1, 7))
        })
    };
    let policies = datapath.controller.policies();
    let error = policies.write(&set(1, 30)?.entries()).err();
    assert!(matches!(error, Some(KernelError::Policy { map: "VERDICTS", entries: 30, .. })), "{error:?}");
    // There is room for as many as before.
    let whole = set(2, 8)?.entries();
    policies.write(&whole)?;
    policies.remove(&whole)?;
    policies.write(&set(3, 8)?.entries())?;
    assert!(policies.give(u16::MAX, UnitPolicy::default()).is_err(), "no such unit");
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn programs_whose_collector_has_died_let_all_pass() -> Result<()> {
    let mut datapath = with(&Settings::default(), [Some(Set::new(1)), Some(Set::new(2))])?;
    for hook in Hook::BOTH {
        assert_eq!(run(&mut datapath, hook, &ENDS_4.udp(9))?, SHOT);
    }
    // The lease of a collector that was killed has run out: not waited for, written.
    datapath.controller.renew_lease(&Anchor::default());
    for hook in Hook::BOTH {
        assert_eq!(run(&mut datapath, hook, &ENDS_4.udp(9))?, PASS_ON);
    }
    Ok(())
}

/// A verdict is a number in records, and a few bits for the programs.
#[test]
fn numbers_and_bits_do_not_meet() {
    let bits =
        [verdict::DROP, verdict::REJECT, verdict::GUESSED, verdict::OTHER_END, verdict::NOTHING_PASSED];
    assert!(bits.iter().all(|bit| bit & verdict::NUMBER == 0));
    assert_eq!(bits.iter().sum::<u32>(), bits.iter().fold(0, |all, bit| all | bit));
    assert_eq!(dropped(7) & verdict::NUMBER, 7);
}
