//! What is dropped before there is a socket buffer: nothing that TC would let pass, counted as TC counts it.

use collector_ebpf::{
    abi::{control::Anchor, policy::UnitPolicy, pu::role},
    wire::tcp::{ACK, FIN, RST},
};
use collector_tests::{
    Result,
    frames::{self, C_TAG, ENDS_4, ENDS_6, Ends, IPV4, SYN, TCP, UDP, ethernet, fragment_6, ipv4, ipv6, udp},
    policies::{Set, dropped, rejected},
    testrun::{Datapath, Hook, UNIT, XDP_PASS, explained_without_flow, uplink},
};
use collector_user::kernel::{requirements::is_preempt_rt, settings::Settings};

// The same over wires.
mod wires;

/// `XDP_DROP`.
const XDP_DROP: u32 = 1;
/// `TC_ACT_SHOT`.
const SHOT: i32 = 2;
/// The number of the verdict on what no rule allows.
const OTHERWISE: u16 = 9;
/// Where TCP and UDP have their checksums, over IPv4 and Ethernet without a tag.
const TCP_SUM: usize = 14 + 20 + 16;
const UDP_SUM: usize = 14 + 20 + 6;

/// The programs; [`UNIT`] may not be asked for anything.
fn load() -> Result<Datapath> {
    let mut datapath = Datapath::load(&Settings { xdp: true, fragment_seconds: 0, ..Settings::default() })?;
    forbid(&mut datapath, 1, dropped(OTHERWISE))?;
    datapath.controller.hold_policies(1);
    datapath.controller.enforce_policies(true);
    Ok(datapath)
}

/// Gives the unit a set without entries, for what the other end opens.
fn forbid(datapath: &mut Datapath, number: u32, otherwise: u32) -> Result<()> {
    let set = Set::new(number);
    let policy = UnitPolicy { sets: [set.number(), 0], otherwise: [otherwise, 0] };
    datapath.controller.policies().write(&set.entries())?;
    Ok(datapath.controller.policies().give(UNIT, policy)?)
}

fn xdp(datapath: &mut Datapath, frame: &[u8]) -> Result<u32> {
    Ok(datapath.xdp(frame)?.0)
}

/// Under `PREEMPT_RT` XDP drops nothing, not even what TC has rejected: whether it is so here.
fn drops_nothing(datapath: &mut Datapath) -> Result<bool> {
    if !is_preempt_rt() {
        return Ok(false);
    }
    for frame in [ENDS_4.udp(30), ENDS_6.udp(30)] {
        for _ in 0..3 {
            assert_eq!(xdp(datapath, &frame)?, XDP_PASS);
            assert_eq!(tc(datapath, &frame)?, SHOT);
        }
    }
    assert_eq!(datapath.xdp_ledger().dropped, 0);
    Ok(true)
}

/// What TC says of a frame that has come so far.
fn tc(datapath: &mut Datapath, frame: &[u8]) -> Result<i32> {
    Ok(datapath.run(Hook::Ingress, frame)?.action)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_flow_that_tc_has_rejected_is_dropped_and_counted_as_there() -> Result<()> {
    let mut datapath = load()?;
    if drops_nothing(&mut datapath)? {
        return Ok(());
    }
    let mut dropped = 0;
    for ends in [ENDS_4, ENDS_6] {
        for frame in [ends.udp(30), ends.from_port(7).tcp(SYN, 0)] {
            let before = datapath.ledger()?;
            assert_eq!(xdp(&mut datapath, &frame)?, XDP_PASS, "nobody has judged it");
            assert_eq!(tc(&mut datapath, &frame)?, SHOT);
            for _ in 0..3 {
                assert_eq!(xdp(&mut datapath, &frame)?, XDP_DROP);
                dropped += 1;
            }
            let deltas = datapath.deltas()?;
            assert_eq!(deltas.len(), 1, "{deltas:#?}");
            let delta = &deltas[0];
            assert_eq!((delta.verdict, delta.rejected, delta.begun), (OTHERWISE, [4, 0], 1));
            assert_eq!((delta.packets, delta.skbs), ([4, 0], [4, 0]));
            assert_eq!((delta.bytes, delta.pu), ([4 * frame.len() as u64, 0], UNIT));
            assert_eq!(datapath.ledger()?.seen - before.seen, 4);
            // In a later epoch the flow has lived on, which TC sees to.
            assert_eq!(xdp(&mut datapath, &frame)?, XDP_PASS);
            assert_eq!(tc(&mut datapath, &frame)?, SHOT);
            for _ in 0..2 {
                assert_eq!(xdp(&mut datapath, &frame)?, XDP_DROP);
                dropped += 1;
            }
            let deltas = datapath.deltas()?;
            let counts: Vec<_> = deltas.iter().map(|it| (it.packets, it.rejected, it.begun)).collect();
            assert_eq!(counts, [([3, 0], [3, 0], 0)]);
            // Nobody knows what has come in this epoch.
            assert_eq!(xdp(&mut datapath, &frame)?, XDP_DROP);
            dropped += 1;
            assert_eq!(datapath.deltas()?[0].packets, [1, 0]);
        }
    }
    let (ledger, at_xdp) = (datapath.ledger()?, datapath.xdp_ledger());
    assert_eq!((ledger.rejected, explained_without_flow(&ledger)), (0, 0));
    assert_eq!((at_xdp.seen, at_xdp.dropped), (at_xdp.passed + at_xdp.dropped, dropped));
    assert_eq!(datapath.unit(UNIT)?.rejected, [4 * 8, 0]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_may_change_what_is_known_goes_to_tc() -> Result<()> {
    let mut datapath = load()?;
    if drops_nothing(&mut datapath)? {
        return Ok(());
    }
    for (number, ends) in [(10, ENDS_4), (20, ENDS_6)] {
        let (frame, segment) = (ends.udp(30), ends.tcp(SYN, 0));
        for frame in [&frame, &segment] {
            assert_eq!(tc(&mut datapath, frame)?, SHOT);
            assert_eq!(xdp(&mut datapath, frame)?, XDP_DROP);
        }
        for flags in [RST, FIN | ACK, RST | ACK] {
            assert_eq!(xdp(&mut datapath, &ends.tcp(flags, 0))?, XDP_PASS, "it ends the connection");
        }
        // Other rules, and the same ones under another number.
        for (number, otherwise) in [(number, dropped(OTHERWISE)), (number + 1, rejected(OTHERWISE))] {
            forbid(&mut datapath, number, otherwise)?;
            assert_eq!(xdp(&mut datapath, &frame)?, XDP_PASS);
        }
        assert_ne!(tc(&mut datapath, &frame)?, SHOT, "only said to be rejected");
        assert_eq!(xdp(&mut datapath, &frame)?, XDP_PASS);
        forbid(&mut datapath, number + 2, dropped(OTHERWISE))?;
        datapath.deltas()?;
        assert_eq!(tc(&mut datapath, &frame)?, SHOT);
        assert_eq!(xdp(&mut datapath, &frame)?, XDP_DROP);
        // Whose it is may be another by now.
        datapath.controller.next_generation();
        assert_eq!(xdp(&mut datapath, &frame)?, XDP_PASS);
        assert_eq!(tc(&mut datapath, &frame)?, SHOT);
        assert_eq!(xdp(&mut datapath, &frame)?, XDP_DROP);
        // Nothing is enforced, or nobody is there.
        datapath.controller.enforce_policies(false);
        assert_eq!(xdp(&mut datapath, &frame)?, XDP_PASS);
        datapath.controller.enforce_policies(true);
        assert_eq!(xdp(&mut datapath, &frame)?, XDP_DROP);
        datapath.controller.lift_policies();
        assert_eq!(xdp(&mut datapath, &frame)?, XDP_PASS);
        datapath.controller.hold_policies(1);
        datapath.controller.enforce_policies(true);
        datapath.deltas()?;
    }
    let seen = datapath.xdp_ledger().seen;
    datapath.controller.renew_lease(&Anchor::default());
    assert_eq!(xdp(&mut datapath, &ENDS_4.udp(30))?, XDP_PASS, "the collector is dead");
    assert_eq!(datapath.xdp_ledger().seen, seen);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_this_host_asked_for_is_answered() -> Result<()> {
    let mut datapath = load()?;
    if drops_nothing(&mut datapath)? {
        return Ok(());
    }
    for ends in [ENDS_4, ENDS_6] {
        // The unit asks, and is answered.
        let (back, answer) = (ends.back().udp(9), ends.udp(9));
        assert_ne!(datapath.run(Hook::Egress, &back)?.action, SHOT);
        for _ in 0..3 {
            assert_eq!(xdp(&mut datapath, &answer)?, XDP_PASS);
            assert_ne!(tc(&mut datapath, &answer)?, SHOT);
        }
        // What was rejected becomes an answer once the unit itself asks.
        let other = ends.from_port(8);
        assert_eq!(tc(&mut datapath, &other.udp(9))?, SHOT);
        assert_eq!(xdp(&mut datapath, &other.udp(9))?, XDP_DROP);
        assert_ne!(datapath.run(Hook::Egress, &other.back().udp(9))?.action, SHOT);
        assert_eq!(xdp(&mut datapath, &other.udp(9))?, XDP_PASS);
        assert_ne!(tc(&mut datapath, &other.udp(9))?, SHOT);
        // Nobody knows who opened it.
        let segment = ends.from_port(9).tcp(ACK, 9);
        for _ in 0..2 {
            assert_eq!(xdp(&mut datapath, &segment)?, XDP_PASS);
            assert_ne!(tc(&mut datapath, &segment)?, SHOT);
        }
        datapath.deltas()?;
    }
    assert_eq!(datapath.xdp_ledger().dropped, 2);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn only_whole_packets_of_tcp_and_udp_to_one_receiver_are_dropped() -> Result<()> {
    let mut datapath = load()?;
    if drops_nothing(&mut datapath)? {
        return Ok(());
    }
    let (one, two) = (frames::ONE_4, frames::TWO_4);
    let datagram = udp(ENDS_4.ports(), 30);
    let mut to_all = ENDS_4.udp(30);
    to_all[..6].fill(0xFF);
    let tunnel = Ends { destination_port: 4789, ..ENDS_4 };
    let frames = [
        (
            "a tag in the frame",
            ethernet(&[(C_TAG, 29)], IPV4, &ipv4((one, two), &[], 0x4000, UDP, &datagram)),
        ),
        ("options", ethernet(&[], IPV4, &ipv4((one, two), &[1; 8], 0x4000, UDP, &datagram))),
        ("the first piece", ethernet(&[], IPV4, &ipv4((one, two), &[], 0x2000, UDP, &datagram))),
        ("a later piece", ethernet(&[], IPV4, &ipv4((one, two), &[], 0x2000 | 5, UDP, &[0x55; 40]))),
        (
            "a piece over IPv6",
            ENDS_6.frame(44, &[fragment_6(UDP, 0, true), udp(ENDS_6.ports(), 30)].concat()),
        ),
        ("ICMP", ENDS_4.frame(frames::ICMP, &frames::icmp(8, 0))),
        ("a tunnel", tunnel.udp(60)),
        ("to all on the link", to_all),
        ("longer than it is", {
            let mut frame = ENDS_6.udp(30);
            frame[18..20].copy_from_slice(&1000_u16.to_be_bytes());
            frame
        }),
        ("no IP", [frames::arp(), vec![0; 20]].concat()),
        ("nothing known", ethernet(&[], frames::IPV6, &ipv6((frames::ONE_6, frames::TWO_6), 60, &[0; 40]))),
    ];
    for frame in [ENDS_4.udp(30), ENDS_6.udp(30)] {
        assert_eq!(tc(&mut datapath, &frame)?, SHOT);
        assert_eq!(xdp(&mut datapath, &frame)?, XDP_DROP);
    }
    for (name, frame) in &frames {
        for _ in 0..2 {
            assert_eq!(xdp(&mut datapath, frame)?, XDP_PASS, "{name}");
            tc(&mut datapath, frame)?;
        }
    }
    // A tag may lie beside any frame, where no program at XDP sees it.
    datapath.controller.set_role(uplink(UNIT, role::OWN | role::BESIDE))?;
    assert_eq!(xdp(&mut datapath, &ENDS_4.udp(30))?, XDP_PASS);
    datapath.controller.set_role(uplink(UNIT, role::OWN))?;
    assert_eq!(xdp(&mut datapath, &ENDS_4.udp(30))?, XDP_DROP);
    Ok(())
}

/// Writes the sum of the pseudo-header alone, as whoever leaves the rest to a device does (and GRO).
fn left_to_be_summed(frame: &[u8], protocol: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let (ends, at) = if frame[12] == 0x08 { (26..34, 34) } else { (22..54, 54) };
    let length = (frame.len() - at) as u16;
    let pseudo = [&frame[ends], &[0, protocol], &length.to_be_bytes()].concat();
    let sum = !frames::checksum(&pseudo);
    let field = at - 34 + if protocol == TCP { TCP_SUM } else { UDP_SUM };
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_may_stand_for_several_packets_is_counted_at_tc() -> Result<()> {
    let mut datapath = load()?;
    if drops_nothing(&mut datapath)? {
        return Ok(());
    }
    for ends in [ENDS_4, ENDS_6] {
        for (protocol, whole) in [(UDP, ends.udp(3000)), (TCP, ends.tcp(ACK, 3000))] {
            // Behind GRO, or before it is cut: generic XDP.
            datapath.controller.set_role(uplink(UNIT, role::OWN | role::COPIED))?;
            if protocol == TCP {
                assert_eq!(tc(&mut datapath, &ends.tcp(SYN, 0))?, SHOT);
            }
            tc(&mut datapath, &whole)?;
            let merged = left_to_be_summed(&whole, protocol);
            assert_eq!(xdp(&mut datapath, &whole)?, XDP_DROP);
            assert_eq!(xdp(&mut datapath, &merged)?, XDP_PASS);
            if protocol == TCP {
                // It carries nothing that could have been merged.
                let empty = left_to_be_summed(&ends.tcp(SYN, 0), TCP);
                assert_eq!(xdp(&mut datapath, &empty)?, XDP_DROP);
            }
            // In the driver there is one packet in a frame.
            datapath.controller.set_role(uplink(UNIT, role::OWN))?;
            assert_eq!(xdp(&mut datapath, &merged)?, XDP_DROP);
        }
    }
    Ok(())
}
