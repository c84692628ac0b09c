//! Who a flow belongs to, by role, address, range and way.

use std::net::IpAddr;

use collector_ebpf::abi::{
    flow::{RX, TX, how},
    pu::{Role, index, role},
};
use collector_tests::{
    Result,
    frames::{ENDS_4, ENDS_6, Ends, ICMPV6, icmp},
    testrun::{Context, Datapath, Hook, IFINDEX, INTERFACE, NOTHING, UNIT, lacks_ingress_ifindex, uplink},
};
use collector_user::kernel::settings::Settings;

/// An interface of which nothing is known.
const ELSEWHERE: u32 = 5;
/// A bridge whose ports are host-side ends.
const INSIDE: u32 = 6;

/// What is asked for a frame from the first of `ends` to the second.
struct Case {
    name: &'static str,
    role: Role,
    hook: Hook,
    ingress_ifindex: u32,
    /// Addresses of this host.
    locals: Vec<IpAddr>,
    /// Declared ranges of [`UNIT`].
    ranges: Vec<(IpAddr, u8)>,
    want: (u16, u8, usize),
    /// An answer may say otherwise: the programs have counted it for nobody.
    provisional: bool,
}

fn cases(ends: Ends) -> Vec<Case> {
    let host = uplink(index::HOST, 0);
    let case = |name, role, hook, want| Case {
        name,
        role,
        hook,
        ingress_ifindex: 0,
        locals: Vec::new(),
        ranges: Vec::new(),
        want,
        provisional: false,
    };
    let behind = Role {
        ifindex: IFINDEX,
        boundary: 4096,
        pu: index::UNKNOWN,
        interface: INTERFACE,
        flags: role::FAR,
        uplink: 0,
    };
    let declared = Role { pu: UNIT, flags: role::FAR | role::OWN, ..behind };
    let (source, destination) = (ends.source, ends.destination);
    let bits = if source.is_ipv4() { 32 } else { 128 };
    vec![
        Case {
            locals: vec![destination],
            provisional: true,
            ..case("to no socket here", host, Hook::Ingress, (index::UNKNOWN, how::BY_SILENCE, RX))
        },
        case("to nobody known", host, Hook::Ingress, (index::FORWARDED, how::BY_NONE, RX)),
        Case {
            locals: vec![source],
            ..case(
                "to nobody known, from this host",
                host,
                Hook::Ingress,
                (index::FORWARDED, how::BY_NONE, RX),
            )
        },
        Case {
            locals: vec![source],
            ..case("from this host", host, Hook::Egress, (index::HOST, how::BY_ADDRESS, TX))
        },
        case("made here", host, Hook::Egress, (index::HOST, how::BY_ROUTE, TX)),
        Case {
            ingress_ifindex: ELSEWHERE,
            locals: vec![source],
            ..case("came in elsewhere", host, Hook::Egress, (index::FORWARDED, how::BY_ROUTE, TX))
        },
        Case {
            ranges: vec![(destination, bits)],
            locals: vec![destination],
            provisional: true,
            ..case("to a declared address of this host", host, Hook::Ingress, (UNIT, how::BY_CIDR, RX))
        },
        Case {
            ranges: vec![(destination, bits)],
            ..case("to a declared address beyond this host", host, Hook::Ingress, (UNIT, how::BY_CIDR, RX))
        },
        Case {
            ranges: vec![(source, bits)],
            ingress_ifindex: ELSEWHERE,
            ..case("routed from a range", host, Hook::Egress, (UNIT, how::BY_CIDR, TX))
        },
        Case {
            ranges: vec![(source, bits)],
            ingress_ifindex: INSIDE,
            ..case("out of a bridge", host, Hook::Egress, (index::FORWARDED, how::BY_ROUTE, TX))
        },
        Case {
            ranges: vec![(source, bits)],
            locals: vec![source],
            ingress_ifindex: ELSEWHERE,
            ..case("translated", host, Hook::Egress, (index::FORWARDED, how::BY_ROUTE, TX))
        },
        Case {
            ranges: vec![(source, bits - 2)],
            ..case("from a declared range", host, Hook::Egress, (UNIT, how::BY_CIDR, TX))
        },
        Case {
            ranges: vec![(source, bits)],
            ..case("the other end is declared", host, Hook::Ingress, (index::FORWARDED, how::BY_NONE, RX))
        },
        case("in by a host-side end", behind, Hook::Ingress, (index::UNKNOWN, how::BY_VETH, TX)),
        case("out by a host-side end", behind, Hook::Egress, (index::UNKNOWN, how::BY_VETH, RX)),
        case("in by a declared end", declared, Hook::Ingress, (UNIT, how::BY_INTERFACE, TX)),
        case("out by a declared end", declared, Hook::Egress, (UNIT, how::BY_INTERFACE, RX)),
    ]
}

/// Addresses that no other case has: what is declared of them stays.
fn of_its_own(ends: Ends, number: u8) -> Ends {
    let moved = |address| match address {
        IpAddr::V4(four) => IpAddr::from((u32::from(four) + u32::from(number) * 4).to_be_bytes()),
        IpAddr::V6(six) => IpAddr::from((u128::from(six) + u128::from(number) * 4).to_be_bytes()),
    };
    Ends { source: moved(ends.source), destination: moved(ends.destination), ..ends }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_flow_belongs_to_whom_the_surest_evidence_names() -> Result<()> {
    if lacks_ingress_ifindex() {
        return Ok(());
    }
    let mut datapath = Datapath::load(&Settings::default())?;
    datapath.controller.set_role(Role { ifindex: INSIDE, flags: role::INSIDE, ..Role::default() })?;
    for ends in [ENDS_4, ENDS_6] {
        for (number, _) in cases(ends).iter().enumerate() {
            let ends = of_its_own(ends, number as u8);
            let case = cases(ends).swap_remove(number);
            let name = format!("{}, {}", case.name, ends.source);
            let bits = if ends.source.is_ipv4() { 32 } else { 128 };
            datapath.begin_anew(&[].into())?;
            datapath.controller.set_role(case.role)?;
            for local in case.locals {
                // As the daemon does: an own address that is declared says so itself.
                let declared =
                    case.ranges.iter().any(|(network, prefix)| (*network, *prefix) == (local, bits));
                datapath.controller.add_local(local, if declared { UNIT } else { index::HOST })?;
            }
            for (network, prefix) in case.ranges {
                datapath.controller.add_range(network, prefix, UNIT)?;
            }
            let context = Context { ingress_ifindex: case.ingress_ifindex, ..Context::default() };
            let frame = to_loopback(ends.udp(10));
            // The second run is the steady state: it must say the same.
            for _ in 0..2 {
                let verdict = datapath.run_with(case.hook, &frame, context)?;
                let mark = if case.want.0 == UNIT { u32::from(UNIT) << 18 } else { 0 };
                assert_eq!(verdict.mark, mark, "{name}: only units with a name have a mark");
            }
            let (id, counted) = datapath.drain_one()?;
            let (pu, by, direction) = case.want;
            assert_eq!((counted.pu, how::attributed_by(counted.how)), (pu, by), "{name}");
            assert_eq!(counted.packets[direction], 2, "{name}: {counted:?}");
            assert_eq!(id.boundary, case.role.boundary, "{name}");
            assert_eq!(counted.how & how::PROVISIONAL != 0, case.provisional, "{name}");
            assert_eq!(datapath.unit(pu)?.flowless, NOTHING, "{name}: the flow holds both");
        }
    }
    Ok(())
}

/// A frame for the interface that tests run on, whose hardware address is of zeros.
fn to_loopback(mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].fill(0);
    frame
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_frame_for_another_hardware_address_is_a_guess_unless_it_is_switched_on() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    for ends in [ENDS_4, ENDS_6] {
        for (more, is_guess) in [(0, true), (role::SWITCHED, false)] {
            datapath.controller.set_role(uplink(index::HOST, more))?;
            datapath.run(Hook::Ingress, &ends.udp(10))?;
            let (id, counted) = datapath.drain_one()?;
            assert_eq!(counted.pu, index::FORWARDED);
            assert_eq!(counted.how & how::PROVISIONAL != 0, is_guess, "{ends:?}, {more}");
            datapath.begin_anew(&[(id, counted)].into())?;
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn an_interface_of_which_nothing_was_said_is_counted_and_the_ledger_says_so() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    datapath.controller.remove_role(IFINDEX)?;
    datapath.run(Hook::Ingress, &ENDS_4.udp(10))?;
    let (_, counted) = datapath.drain_one()?;
    assert_eq!((counted.packets, datapath.ledger()?.no_role), ([1, 0], 1));
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_new_generation_attributes_a_flow_anew_at_its_next_miss() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    datapath.controller.set_role(uplink(index::HOST, 0))?;
    datapath.run(Hook::Ingress, &ENDS_4.udp(10))?;
    let (_, counted) = datapath.drain_one()?;
    assert_eq!(counted.pu, index::FORWARDED);
    datapath.controller.add_local(ENDS_4.destination, index::HOST)?;
    datapath.controller.next_generation();
    datapath.run(Hook::Ingress, &ENDS_4.udp(10))?;
    let (_, counted) = datapath.drain_one()?;
    assert_eq!((counted.pu, counted.begun), (index::UNKNOWN, 0), "the same flow, another unit");
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_sent_to_all_is_this_hosts() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    datapath.controller.set_role(uplink(index::HOST, 0))?;
    // RFC 2464 section 7: 33:33 and the group's last four octets.
    let mut frame = ENDS_6.frame(ICMPV6, &icmp(134, 0));
    frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    datapath.run(Hook::Ingress, &frame)?;
    let (_, counted) = datapath.drain_one()?;
    assert_eq!((counted.pu, counted.packets), (index::HOST, [1, 0]));
    Ok(())
}
