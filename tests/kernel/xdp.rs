//! The program at XDP: counts are the same with it as without, a flow's unit is looked up once, and nobody's interface is
//! other than it was.

use anyhow::{Context as _, bail};
use collector_ebpf::abi::{
    counter::{UNPARSED_REASONS, Unparsed},
    pu::index,
};
use collector_tests::{
    Result,
    books::assert_sum_at_uplinks,
    collector::{Finished, Running, declared, options},
    command,
    events::{self, Totals},
    frames::{
        ACK, C_TAG, ENDS_4, ENDS_6, IPV4, SYN, TCP, UDP, arp, ethernet_between, ipv4, mpls, pppoe, snap, udp,
    },
    generated,
    lab::{End, Wire},
    program::{Dropping, Hook as Others},
    testrun::{Datapath, Hook, UNIT, XDP_PASS, uplink},
    traffic::{Datagrams, Host, PacketSocket, headers, pin, send_and_settle, settle, transfer},
};
use collector_user::{
    daemon::Options,
    kernel::{
        settings::Settings,
        xdp::{Choice, Mode},
    },
};
use proptest::{
    collection,
    prelude::any,
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};
use serde_json::Value;

use crate::assert_balanced;

// What is dropped there for a policy.
mod refused;

const PORT: u16 = 5001;
const COUNT: u64 = 2000;
/// In so many parts.
const PARTS: u64 = 20;

fn with(choice: Choice) -> Options {
    Options { xdp: choice, ..options() }
}

fn load() -> Result<Datapath> {
    let mut datapath = Datapath::load(&Settings { xdp: true, fragment_seconds: 0, ..Settings::default() })?;
    datapath.controller.set_role(uplink(index::HOST, 0))?;
    Ok(datapath)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_put_before_a_frame_is_the_same_for_a_flow() -> Result<()> {
    let mut datapath = load()?;
    let mut expected = 0;
    for (ends, unit) in [(ENDS_4, UNIT), (ENDS_6, UNIT + 1)] {
        datapath.controller.add_range(ends.destination, 32, unit)?;
        let mut before = Vec::new();
        for frame in [ends.tcp(SYN, 0), ends.tcp(ACK, 10), ends.tcp(ACK, 1000)] {
            let (action, after) = datapath.xdp(&frame)?;
            expected += 1;
            assert_eq!(action, XDP_PASS);
            assert!(after.ends_with(&frame), "the frame is as it was");
            before.push(after[..after.len() - frame.len()].to_vec());
        }
        assert!(before.iter().all(|it| *it == before[0]), "{before:02x?}");
        if let [_, .., low, high, _, _, _, _, _, _] = before[0][..] {
            assert_eq!(u16::from_ne_bytes([low, high]), unit, "{before:02x?}");
        }
    }
    let ledger = datapath.xdp_ledger();
    assert_eq!(
        (ledger.seen, ledger.passed, ledger.handed, ledger.unhanded),
        (expected, expected, expected, 0)
    );
    // What is no IP packet passes as it is.
    let frame = [arp(), vec![0; 20]].concat();
    assert_eq!(datapath.xdp(&frame)?, (XDP_PASS, frame));
    let ledger = datapath.xdp_ledger();
    assert_eq!(
        (ledger.seen, ledger.handed, ledger.malformed),
        (expected + 1, expected, [0; UNPARSED_REASONS])
    );
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_new_generation_is_looked_up_anew() -> Result<()> {
    let mut datapath = load()?;
    let frame = ENDS_4.udp(20);
    let unit = |datapath: &mut Datapath| -> Result<Option<u16>> {
        let (_, after) = datapath.xdp(&frame)?;
        let [.., low, high, _, _, _, _, _, _] = after[..after.len() - frame.len()] else { return Ok(None) };
        Ok(Some(u16::from_ne_bytes([low, high])))
    };
    let is_shown = unit(&mut datapath)?.is_some();
    datapath.controller.add_local(ENDS_4.destination, index::HOST)?;
    datapath.controller.next_generation();
    if is_shown {
        assert_eq!(unit(&mut datapath)?, Some(index::HOST));
        datapath.controller.remove_local(ENDS_4.destination)?;
        datapath.controller.next_generation();
        assert_eq!(unit(&mut datapath)?, Some(0));
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn frames_are_malformed_for_the_reasons_that_tc_has() -> Result<()> {
    let mut datapath = load()?;
    let mut runner = TestRunner::default();
    let choices = collection::vec(any::<u8>(), 0..60);
    let mut count = 0;
    while count < 5_000 {
        let choices = choices.new_tree(&mut runner).map_err(anyhow::Error::msg)?.current();
        let (link, frame) = generated::frame(&choices);
        if link != collector_ebpf::wire::Link::Ethernet || !(54..=3000).contains(&frame.len()) {
            continue;
        }
        count += 1;
        let (before, before_tc) = (datapath.xdp_ledger(), datapath.ledger()?.unparsed);
        assert_eq!(datapath.xdp(&frame)?.0, XDP_PASS);
        datapath.run(Hook::Ingress, &frame)?;
        let (after, after_tc) = (datapath.xdp_ledger(), datapath.ledger()?.unparsed);
        for reason in Unparsed::ALL {
            let index = reason as usize;
            let want = if reason.is_malformed() { after_tc[index] - before_tc[index] } else { 0 };
            assert_eq!(after.malformed[index] - before.malformed[index], want, "{reason:?}: {frame:02x?}");
        }
        let is_read = after_tc == before_tc;
        assert_eq!(after.handed - before.handed, u64::from(is_read), "{frame:02x?}");
        if count % 1000 == 0 {
            datapath.renew()?;
        }
    }
    Ok(())
}

/// What an interface says of itself.
fn shown(end: &End) -> Result<String> {
    let shown = end.place.ip(&format!("-d link show {}", end.dev))?;
    Ok(shown.replace("promiscuity 0 ", ""))
}

fn features(end: &End) -> Result<String> {
    end.place.run(&format!("ethtool -k {}", end.dev))
}

/// Sends datagrams of both families, tagged and malformed frames; returns how many frames of each kind.
fn send_all(wire: &Wire, host: &Host) -> Result<()> {
    // In parts: the ring of a veth on whose other side a program hangs has room for 256.
    let part =
        [4, 6].map(|version| Datagrams { to: host.address(version, PORT), count: COUNT / PARTS, size: 100 });
    (0..PARTS).try_for_each(|_| send_and_settle(&wire.a, 40_000, host, &part))?;
    pin(0)?;
    let datagram = udp([0x9C, 0x41, 0x13, 0x89], 60);
    let packet = ipv4((wire.a.v4, wire.b.v4), &[], 0x4000, UDP, &datagram);
    let tagged = ethernet_between(wire.a.mac, wire.b.mac, &[(C_TAG, 29)], IPV4, &packet);
    let mut too_long = ethernet_between(wire.a.mac, wire.b.mac, &[], IPV4, &packet);
    too_long[16..18].copy_from_slice(&1000_u16.to_be_bytes());
    let cut = ethernet_between(wire.a.mac, wire.b.mac, &[], IPV4, &packet[..12]);
    let [label, session, snap] = wrapped(wire);
    let socket = PacketSocket::new(&wire.a)?;
    for _ in 0..MALFORMED / PART {
        for _ in 0..PART {
            for frame in [&tagged, &too_long, &cut, &label, &session, &snap] {
                socket.send(frame)?;
            }
        }
        settle(&wire.a, host)?;
    }
    Ok(())
}

/// A datagram to the next port behind a label, in a session and behind LLC.
fn wrapped(wire: &Wire) -> [Vec<u8>; 3] {
    let [high, low] = (PORT + 1).to_be_bytes();
    let packet = ipv4((wire.a.v4, wire.b.v4), &[], 0x4000, UDP, &udp([0x9C, 0x42, high, low], 60));
    let snap = snap(IPV4, &packet);
    [(0x8847, mpls(1, &packet)), (0x8864, pppoe(0x21, &packet)), (snap.len() as u16, snap)]
        .map(|(ethertype, packet)| ethernet_between(wire.a.mac, wire.b.mac, &[], ethertype, &packet))
}

const MALFORMED: u64 = 100;
const PART: u64 = 25;

/// What the collector has to say of [`send_all`].
fn assert_all(wire: &Wire, finished: &Finished) {
    assert_balanced(finished);
    for version in [4, 6] {
        let total = events::total(&finished.events, |flow| {
            events::is_to(flow, UDP, PORT)
                && flow.vlan == 0
                && events::ip_of(flow.source.as_ref()) == Some(wire.a.address(version))
        });
        let bytes = COUNT * (108 + headers(wire.a.address(version)));
        assert_eq!(total, Totals { packets: COUNT, bytes, count: 1, ..Totals::default() }, "IPv{version}");
    }
    let behind = events::total(&finished.events, |flow| events::is_to(flow, UDP, PORT + 1));
    let octets: usize = wrapped(wire).iter().map(Vec::len).sum();
    let want = (3 * MALFORMED, MALFORMED * octets as u64);
    assert_eq!((behind.packets, behind.bytes), want, "{:?}", finished.status.ledger);
    let tagged = events::total(&finished.events, |flow| flow.vlan == 29);
    let want = Totals { packets: MALFORMED, bytes: MALFORMED * 106, count: 1, ..Totals::default() };
    assert_eq!(tagged, want);
    let ledger = &finished.status.ledger;
    for reason in ["ip_length", "truncated"] {
        assert_eq!(ledger.unparsed.get(reason), Some(&MALFORMED), "{ledger:?}");
    }
}

/// Runs a collector with this choice over all kinds of traffic.
fn count_with(wire: &Wire, host: &Host, choice: Choice) -> Result<Finished> {
    let collector = Running::start_beside(&wire.b.place, with(choice), Some(&wire.b.dev))?;
    let status = collector.started.interfaces.iter().find(|it| it.name == wire.b.dev);
    let (hook, mode) = match choice {
        Choice::Off => ("ingress+egress", ""),
        Choice::Auto | Choice::Only(Mode::Generic) => ("xdp+ingress+egress", "generic"),
        Choice::Only(Mode::Native) => ("xdp+ingress+egress", "native"),
    };
    let missing = &collector.started.missing;
    assert_eq!(status.map(|it| (it.hook.as_str(), it.xdp.as_str())), Some((hook, mode)), "{missing:?}");
    let is_warned = missing.iter().any(|it| it.contains("native XDP on a veth"));
    assert_eq!(is_warned, choice == Choice::Only(Mode::Native), "{missing:?}");
    send_all(wire, host)?;
    collector.stop()
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn counts_are_the_same_in_every_mode_and_nothing_is_looked_up_twice() -> Result<()> {
    let wire = Wire::silent()?;
    wire.a.without_offloads()?;
    let host = Host::new(&wire.b, &[PORT])?;
    let before = shown(&wire.b)?;
    for choice in [Choice::Off, Choice::Auto, Choice::Only(Mode::Generic), Choice::Only(Mode::Native)] {
        let finished = count_with(&wire, &host, choice)?;
        assert_all(&wire, &finished);
        let mut link = finished.link;
        if choice == Choice::Only(Mode::Native) {
            // veth counts what its program passed without the Ethernet header.
            link.rx_bytes += 14 * link.rx_packets;
        }
        assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[link]);
        assert_eq!(shown(&wire.b)?, before, "{choice:?}");
        let ledger = &finished.status.ledger;
        if choice == Choice::Off {
            assert_eq!((ledger.xdp_seen, ledger.xdp_taken), (0, 0));
            continue;
        }
        assert_eq!(ledger.xdp_seen, finished.link.rx_packets, "{choice:?}: {ledger:?}");
        assert_eq!((ledger.xdp_passed, ledger.xdp_unhanded), (ledger.xdp_seen, 0), "{choice:?}: {ledger:?}");
        for reason in ["ip_length", "truncated"] {
            assert_eq!(ledger.xdp_malformed.get(reason), Some(&MALFORMED), "{choice:?}: {ledger:?}");
        }
        // Two flows of datagrams, the tagged one, and a question or more that settle each part.
        assert!(ledger.xdp_taken >= 4 && ledger.xdp_taken < 20 + PARTS, "{choice:?}: {ledger:?}");
    }
    Ok(())
}

/// Packets that an interface was to send and dropped.
fn tx_dropped(end: &End) -> Result<u64> {
    let links: Value = serde_json::from_str(&end.place.ip(&format!("-s -j link show {}", end.dev))?)?;
    links[0]["stats64"]["tx"]["dropped"].as_u64().context("ip shows no drops")
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn tcp_is_counted_as_its_sockets_count_in_every_mode() -> Result<()> {
    for choice in [Choice::Only(Mode::Generic), Choice::Only(Mode::Native)] {
        for version in [4, 6] {
            let wire = Wire::new()?;
            let collector = Running::start(&wire.b.place, with(choice))?;
            // GRO on the side of the program, where it is to be had.
            wire.b.place.run(&format!("ethtool -K {} gro on", wire.b.dev))?;
            let dropped_before = tx_dropped(&wire.a)?;
            let connection = transfer(&wire.a, &wire.b, version, PORT, 20_000_000, 1_000_000)?;
            let finished = collector.stop()?;
            assert_balanced(&finished);
            let total = events::total(&finished.events, |flow| flow.l4_protocol == TCP);
            // With native XDP a veth has a ring of 256 buffers before it (drivers/net/veth.c): what finds it full is the sender's
            // drop, and is sent again.
            let lost = tx_dropped(&wire.a)? - dropped_before;
            assert_eq!(
                (total.packets + lost, total.reply_packets, total.count),
                (connection.client_info.segs_out, connection.server_info.segs_out + 1, 1),
                "{choice:?} IPv{version}"
            );
            let skbs: u64 = events::flows(&finished.events).map(|flow| flow.skbs).sum();
            assert!(
                skbs < connection.client_info.segs_out,
                "{choice:?} IPv{version}: {skbs} buffers: none were merged"
            );
            assert!(finished.status.ledger.xdp_taken >= 1);
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_declared_range_is_found_before_the_stack() -> Result<()> {
    let wire = Wire::new()?;
    let host = Host::new(&wire.b, &[PORT])?;
    let web = declared("web", &[], &[format!("{}/32", wire.b.v4)])?;
    let options = Options { units: vec![web], ..with(Choice::Auto) };
    let collector = Running::start(&wire.b.place, options)?;
    let datagrams = Datagrams { to: host.address(4, PORT), count: COUNT, size: 100 };
    send_and_settle(&wire.a, 40_000, &host, &[datagrams])?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let total =
        events::total(&finished.events, |flow| events::is_to(flow, UDP, PORT) && &*flow.context_id == "web");
    assert_eq!(total.packets, COUNT);
    assert!(finished.status.ledger.xdp_taken >= 2, "{:?}", finished.status.ledger);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn beside_another_program_there_is_tc_alone() -> Result<()> {
    let wire = Wire::new()?;
    // At the other end, where what it drops is not missed.
    let others = Dropping::at(&wire.a, Others::Xdp)?;
    let before = shown(&wire.a)?;
    for choice in [Choice::Auto, Choice::Only(Mode::Generic), Choice::Only(Mode::Native)] {
        let collector = Running::start(&wire.a.place, with(choice))?;
        let want = format!(
            "XDP on {}: another XDP program is attached there, which `ip link` shows, and ours is not put in its place: \
             TC alone",
            wire.a.dev
        );
        assert!(collector.started.missing.contains(&want), "{choice:?}: {:?}", collector.started.missing);
        let status = collector.started.interfaces.iter().find(|it| it.name == wire.a.dev);
        assert_eq!(status.map(|it| (it.hook.as_str(), it.xdp.as_str())), Some(("ingress+egress", "")));
        let finished = collector.stop()?;
        assert_eq!(finished.status.ledger.xdp_seen, 0);
        assert_eq!(shown(&wire.a)?, before, "{choice:?}");
    }
    drop(others);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_copied_for_a_program_of_others_is_counted_the_same() -> Result<()> {
    let wire = Wire::new()?;
    let host = Host::new(&wire.b, &[PORT])?;
    let others = Dropping::at(&wire.b, Others::PassingXdp)?;
    let finished = count_with(&wire, &host, Choice::Off)?;
    assert_all(&wire, &finished);
    drop(others);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn an_interface_that_comes_has_it_too() -> Result<()> {
    let wire = Wire::new()?;
    let place = &wire.b.place;
    let collector = Running::start(place, with(Choice::Auto))?;
    place.ip("link add x0 type veth peer name x1")?;
    place.ip("addr add 10.99.0.1/24 dev x0")?;
    place.ip("link set x1 up")?;
    place.ip("link set x0 up")?;
    collector.wait_to_say("x0 has generic XDP")?;
    assert!(place.ip("-d link show x0")?.contains("xdpgeneric"));
    place.ip("link del x0")?;
    collector.wait_to_say("x0 is gone")?;
    collector.stop()?;
    assert!(!shown(&wire.b)?.contains("xdp"), "{}", shown(&wire.b)?);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn jumbo_frames_are_counted_in_every_mode() -> Result<()> {
    for choice in [Choice::Only(Mode::Generic), Choice::Only(Mode::Native)] {
        let wire = Wire::new()?;
        for end in [&wire.a, &wire.b] {
            end.place.ip(&format!("link set {} mtu 9000", end.dev))?;
        }
        let host = Host::new(&wire.b, &[PORT])?;
        let collector = Running::start(&wire.b.place, with(choice))?;
        let status = collector.started.interfaces.iter().find(|it| it.name == wire.b.dev).cloned();
        let mode = status.map(|it| it.xdp).unwrap_or_default();
        let is_refused = collector
            .started
            .missing
            .iter()
            .any(|it| it.starts_with("native XDP on") && it.ends_with("TC alone"));
        // Before frames may lie in several buffers, such an MTU is none for native XDP.
        assert!(!mode.is_empty() || is_refused, "{choice:?}: {:?}", collector.started.missing);
        let datagrams = Datagrams { to: host.address(4, PORT), count: COUNT, size: 8900 };
        send_and_settle(&wire.a, 40_000, &host, &[datagrams])?;
        let connection = transfer(&wire.a, &wire.b, 4, PORT + 1, 20_000_000, 0)?;
        let finished = collector.stop()?;
        assert_balanced(&finished);
        let total = events::total(&finished.events, |flow| events::is_to(flow, UDP, PORT));
        let want = Totals { packets: COUNT, bytes: COUNT * (8908 + 34), count: 1, ..Totals::default() };
        assert_eq!(total, want, "{choice:?}");
        let tcp = events::total(&finished.events, |flow| flow.l4_protocol == TCP);
        assert_eq!(tcp.packets, connection.client_info.segs_out, "{choice:?}");
        let ledger = &finished.status.ledger;
        assert!(ledger.xdp_malformed.is_empty(), "{choice:?}: {ledger:?}");
        if !mode.is_empty() {
            assert!(ledger.xdp_handed > COUNT, "{choice:?}: {ledger:?}");
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn by_default_an_interface_is_as_it_was() -> Result<()> {
    let wire = Wire::new()?;
    let before = [features(&wire.a)?, features(&wire.b)?];
    let collector = Running::start(&wire.b.place, options())?;
    assert_eq!([features(&wire.a)?, features(&wire.b)?], before);
    assert!(!shown(&wire.b)?.contains("xdp"));
    for mtu in [9000, 1500] {
        for end in [&wire.a, &wire.b] {
            end.place.ip(&format!("link set {} mtu {mtu}", end.dev))?;
        }
    }
    collector.stop()?;
    assert_eq!([features(&wire.a)?, features(&wire.b)?], before);
    // What is taken where XDP is asked for, and nothing is said of where, is no other.
    let collector = Running::start(&wire.b.place, with(Choice::Auto))?;
    assert_eq!([features(&wire.a)?, features(&wire.b)?], before);
    wire.a.place.ip(&format!("link set {} mtu 9000", wire.a.dev))?;
    collector.stop()?;
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_link_that_somebody_takes_off_is_made_anew() -> Result<()> {
    let wire = Wire::new()?;
    let collector = Running::start(&wire.b.place, with(Choice::Only(Mode::Generic)))?;
    let ours = programs(&wire.b)?;
    assert_eq!(ours.len(), 1, "{ours:?}");
    // Numbers of interfaces are each namespace's own, those of programs are not.
    let shown: Vec<Value> = serde_json::from_str(&command::line("bpftool -j link")?)?;
    let is_ours = |link: &&Value| link["type"] == "xdp" && link["prog_id"].as_u64() == Some(ours[0]);
    let links: Vec<_> = shown.iter().filter(is_ours).filter_map(|link| link["id"].as_u64()).collect();
    let [link] = links[..] else { bail!("one link is ours: {shown:?}") };
    command::line(&format!("bpftool link detach id {link}"))?;
    assert!(programs(&wire.b)?.is_empty(), "it is off");
    // Nobody is told; that is looked at once a minute, and whenever an interface changes.
    let dev = &wire.b.dev;
    wire.b.place.ip(&format!("link set {dev} mtu 1400"))?;
    collector.wait_to_say(&format!(
        "{dev}: somebody had taken our XDP program away, and it is there again; in between TC counted alone"
    ))?;
    assert_eq!(programs(&wire.b)?, ours);
    assert_eq!(collector.stop()?.status.ledger.taken_off, 1);
    Ok(())
}

/// The numbers of the programs at XDP on an interface, as `ip` shows them.
fn programs(end: &End) -> Result<Vec<u64>> {
    let shown: Value = serde_json::from_str(&end.place.ip(&format!("-j link show {}", end.dev))?)?;
    Ok(shown[0]["xdp"]["prog"]["id"].as_u64().into_iter().collect())
}
