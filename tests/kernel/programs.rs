//! One frame, one run: what each program makes of every kind of frame.

use collector_ebpf::abi::{
    counter::Unparsed,
    flow::{RX, TX, how, ports},
};
use collector_tests::{
    Result,
    frames::{
        ACK, AH, ARP, C_TAG, ENDS_4, ENDS_6, Ends, GRE, ICMP, ICMPV6, IPV4, IPV6, MPLS, ONE_4, ONE_6, PPPOE,
        PSH, S_TAG, SCTP, SYN, TCP, TIMESTAMPS, TWO_4, TWO_6, UDP, UDP_LITE, arp, authentication,
        destination_options, ethernet, fragment_6, icmp, ipv4, ipv6, mpls, pppoe, sctp, snap, tcp, udp,
    },
    testrun::{Context, Counted, Datapath, Hook, INTERFACE, NOTHING, PASS_ON, UNIT, explained_without_flow},
};
use collector_user::{drain::flow::FlowId, kernel::settings::Settings};

/// What a frame is to the programs.
#[derive(Clone, Copy, Debug)]
struct Packet {
    ends: Ends,
    protocol: u8,
    /// What the ports are.
    kind: u8,
    vlan: u16,
    tcp_flags: u8,
    /// The sender opened the flow, and the evidence.
    opened: (bool, u8),
}

const TRANSPORT: Packet = Packet {
    ends: ENDS_4,
    protocol: UDP,
    kind: ports::TRANSPORT,
    vlan: 0,
    tcp_flags: 0,
    opened: (true, how::BY_FIRST_PACKET),
};

fn echo(ends: Ends, protocol: u8, opened: bool) -> Packet {
    let ends = Ends { source_port: 0xCAFE, destination_port: 0xCAFE, ..ends };
    Packet { ends, protocol, kind: ports::ECHO, opened: (opened, how::BY_ECHO), ..TRANSPORT }
}

fn four(options: &[u8], fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(&[], IPV4, &ipv4((ONE_4, TWO_4), options, fragment, protocol, payload))
}

fn six(next_header: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(&[], IPV6, &ipv6((ONE_6, TWO_6), next_header, payload))
}

/// Frames that are understood.
fn understood() -> Vec<(&'static str, Vec<u8>, Packet)> {
    let udp_4 = || udp(ENDS_4.ports(), 30);
    let v4 = || ipv4((ONE_4, TWO_4), &[], 0x4000, UDP, &udp_4());
    let tcp_6 = Packet { ends: ENDS_6, protocol: TCP, tcp_flags: ACK, ..TRANSPORT };
    let udp_6 = Packet { ends: ENDS_6, ..TRANSPORT };
    let portless = |ends: Ends| Ends { source_port: 0, destination_port: 0, ..ends };
    let segment = tcp(ENDS_4.ports(), ACK | PSH, &TIMESTAMPS, 10);
    let opening = (true, how::BY_SYN);
    let answer = (false, how::BY_SYN);
    let with_flags = |tcp_flags, opened| Packet { protocol: TCP, tcp_flags, opened, ..TRANSPORT };
    let unreachable = Ends { source_port: 0x0301, destination_port: 0x0301, ..ENDS_4 };
    let too_big = Ends { source_port: 0x0200, destination_port: 0x0200, ..ENDS_6 };
    vec![
        ("TCP", ENDS_4.tcp(ACK, 10), with_flags(ACK, TRANSPORT.opened)),
        ("TCP with options", ENDS_4.frame(TCP, &segment), with_flags(ACK | PSH, TRANSPORT.opened)),
        ("SYN", ENDS_4.tcp(SYN, 0), with_flags(SYN, opening)),
        ("SYN and ACK", ENDS_4.tcp(SYN | ACK, 0), with_flags(SYN | ACK, answer)),
        ("UDP", ENDS_4.udp(30), TRANSPORT),
        ("UDP without data, padded", [ENDS_4.udp(0), vec![0; 18]].concat(), TRANSPORT),
        ("echo request", ENDS_4.frame(ICMP, &icmp(8, 0)), echo(ENDS_4, ICMP, true)),
        ("echo reply", ENDS_4.frame(ICMP, &icmp(0, 0)), echo(ENDS_4, ICMP, false)),
        (
            "host unreachable",
            ENDS_4.frame(ICMP, &icmp(3, 1)),
            Packet { ends: unreachable, protocol: ICMP, kind: ports::ICMP, ..TRANSPORT },
        ),
        ("SCTP", ENDS_4.frame(SCTP, &sctp(ENDS_4.ports())), Packet { protocol: SCTP, ..TRANSPORT }),
        ("TCP over IPv6", ENDS_6.tcp(ACK, 10), tcp_6),
        ("SYN over IPv6", ENDS_6.tcp(SYN, 0), Packet { tcp_flags: SYN, opened: opening, ..tcp_6 }),
        ("UDP over IPv6", ENDS_6.udp(30), udp_6),
        ("echo request over IPv6", ENDS_6.frame(ICMPV6, &icmp(128, 0)), echo(ENDS_6, ICMPV6, true)),
        ("echo reply over IPv6", ENDS_6.frame(ICMPV6, &icmp(129, 0)), echo(ENDS_6, ICMPV6, false)),
        (
            "packet too big",
            ENDS_6.frame(ICMPV6, &icmp(2, 0)),
            Packet { ends: too_big, protocol: ICMPV6, kind: ports::ICMP, ..TRANSPORT },
        ),
        ("SCTP over IPv6", ENDS_6.frame(SCTP, &sctp(ENDS_6.ports())), Packet { protocol: SCTP, ..udp_6 }),
        ("IPv4 options", four(&[1; 8], 0x4000, UDP, &udp_4()), TRANSPORT),
        ("IPv4 options, all of them", four(&[1; 40], 0x4000, UDP, &udp_4()), TRANSPORT),
        ("first fragment", four(&[], 0x2000, UDP, &udp_4()), TRANSPORT),
        (
            "later fragment",
            four(&[], 0x2000 | 5, UDP, &[0x55; 40]),
            Packet { ends: portless(ENDS_4), kind: ports::FRAGMENT, ..TRANSPORT },
        ),
        (
            "destination options",
            six(60, &[destination_options(UDP), udp(ENDS_6.ports(), 30)].concat()),
            udp_6,
        ),
        (
            "first fragment over IPv6",
            six(44, &[fragment_6(UDP, 0, true), udp(ENDS_6.ports(), 30)].concat()),
            udp_6,
        ),
        (
            "later fragment over IPv6",
            six(44, &[fragment_6(UDP, 48, false), vec![0x55; 40]].concat()),
            Packet { ends: portless(ENDS_6), kind: ports::FRAGMENT, ..udp_6 },
        ),
        ("AH", ENDS_4.frame(AH, &[authentication(UDP), udp_4()].concat()), TRANSPORT),
        (
            "AH twice",
            ENDS_4.frame(AH, &[authentication(AH), authentication(UDP), udp_4()].concat()),
            TRANSPORT,
        ),
        ("UDP-Lite", ENDS_4.frame(UDP_LITE, &udp_4()), Packet { protocol: UDP_LITE, ..TRANSPORT }),
        (
            "GRE",
            ENDS_6.frame(GRE, &[&[0, 0, 8, 0], &v4()[..]].concat()),
            Packet { ends: portless(ENDS_6), protocol: GRE, ..udp_6 },
        ),
        ("IPv4 in IPv4", ENDS_4.frame(4, &v4()), Packet { ends: portless(ENDS_4), protocol: 4, ..TRANSPORT }),
        (
            "IPv6 in IPv4",
            ENDS_4.frame(41, &ENDS_6.udp(30)[14..]),
            Packet { ends: portless(ENDS_4), protocol: 41, ..TRANSPORT },
        ),
        (
            "a protocol without ports",
            ENDS_4.frame(50, &[1; 40]),
            Packet { ends: portless(ENDS_4), protocol: 50, ..TRANSPORT },
        ),
    ]
}

/// Frames in which something stands between Ethernet and IP.
fn wrapped() -> Vec<(&'static str, Vec<u8>, Packet)> {
    let v4 = || ipv4((ONE_4, TWO_4), &[], 0x4000, UDP, &udp(ENDS_4.ports(), 30));
    let udp_6 = Packet { ends: ENDS_6, ..TRANSPORT };
    vec![
        ("802.1Q", ethernet(&[(C_TAG, 0x401D)], IPV4, &v4()), Packet { vlan: 29, ..TRANSPORT }),
        (
            "802.1Q over IPv6",
            ethernet(&[(C_TAG, 30)], IPV6, &ipv6((ONE_6, TWO_6), UDP, &udp(ENDS_6.ports(), 9))),
            Packet { vlan: 30, ..udp_6 },
        ),
        ("priority tag", ethernet(&[(C_TAG, 5 << 13)], IPV4, &v4()), TRANSPORT),
        ("QinQ", ethernet(&[(S_TAG, 100), (C_TAG, 29)], IPV4, &v4()), Packet { vlan: 100, ..TRANSPORT }),
        ("IPv4 behind labels", ethernet(&[], MPLS, &mpls(3, &v4())), TRANSPORT),
        (
            "IPv6 behind a tag and labels",
            ethernet(&[(C_TAG, 29)], MPLS, &mpls(8, &ENDS_6.udp(30)[14..])),
            Packet { vlan: 29, ..udp_6 },
        ),
        (
            "four tags",
            ethernet(&[(C_TAG, 29), (C_TAG, 1), (C_TAG, 2), (C_TAG, 3)], IPV4, &v4()),
            Packet { vlan: 29, ..TRANSPORT },
        ),
        ("SNAP", ethernet(&[], 66, &snap(IPV4, &v4())), TRANSPORT),
        ("PPPoE", ethernet(&[], PPPOE, &pppoe(0x0021, &v4())), TRANSPORT),
        ("PPPoE of IPv6", ethernet(&[], PPPOE, &pppoe(0x0057, &ENDS_6.udp(30)[14..])), udp_6),
    ]
}

/// Frames that are not, and why.
fn not_understood() -> Vec<(&'static str, Vec<u8>, Unparsed)> {
    let whole = ENDS_4.udp(30);
    // Behind a tag, for the kernel refuses to run a frame of IP that is shorter than IP's header.
    let cut_4 = ethernet(&[(C_TAG, 1)], IPV4, &whole[14..14 + 19]);
    let cut_6 = ethernet(&[(C_TAG, 1)], IPV6, &ENDS_6.udp(30)[14..14 + 39]);
    let changed = |at: usize, value: u8| {
        let mut frame = whole.clone();
        frame[at] = value;
        frame
    };
    let tags = |count: usize| ethernet(&[(C_TAG, 1)].repeat(count), IPV4, &whole[14..]);
    let chain = |count: usize| destination_options(60).repeat(count);
    let mut offset = ENDS_4.tcp(ACK, 10);
    offset[14 + 20 + 12] = 0x40;
    let mut length = ENDS_4.udp(30);
    length[14 + 20 + 5] = 7;
    let mut coverage = ENDS_4.frame(UDP_LITE, &udp(ENDS_4.ports(), 30));
    coverage[14 + 20 + 5] = 7;
    let mut version = ENDS_6.udp(30);
    version[14] = 0x40;
    vec![
        ("ARP", ethernet(&[], ARP, &arp()), Unparsed::Arp),
        ("cut in the IPv4 header", cut_4, Unparsed::Truncated),
        ("cut in the IPv6 header", cut_6, Unparsed::Truncated),
        (
            "cut in the TCP header",
            ENDS_4.frame(TCP, &tcp(ENDS_4.ports(), ACK, &[], 0)[..19]),
            Unparsed::Truncated,
        ),
        ("cut in the UDP header", ENDS_6.frame(UDP, &udp(ENDS_6.ports(), 0)[..7]), Unparsed::Truncated),
        ("cut in the tag", ethernet(&[(C_TAG, 1)], IPV4, &[])[..16].to_vec(), Unparsed::Truncated),
        ("IHL of 4 words", changed(14, 0x44), Unparsed::Ipv4HeaderLength),
        ("IHL beyond the packet", changed(14, 0x4F), Unparsed::Ipv4HeaderLength),
        ("total length below the header", changed(17, 19), Unparsed::IpLength),
        ("total length beyond the frame", changed(17, 200), Unparsed::IpLength),
        ("version 6 in an IPv4 frame", changed(14, 0x65), Unparsed::IpVersion),
        ("version 4 in an IPv6 frame", version, Unparsed::IpVersion),
        ("an unknown Ethertype", ethernet(&[], 0x88CC, &[0; 46]), Unparsed::EtherType),
        ("LLC", ethernet(&[], 46, &[0x42; 46]), Unparsed::Llc),
        ("five tags", tags(5), Unparsed::VlanDepth),
        ("too many extension headers", six(60, &chain(20)), Unparsed::ExtensionDepth),
        ("TCP data offset of 4 words", offset, Unparsed::TcpDataOffset),
        ("UDP length of 7", length, Unparsed::UdpLength),
        ("UDP-Lite coverage of 7", coverage, Unparsed::ChecksumCoverage),
        ("LCP in PPPoE", ethernet(&[], PPPOE, &pppoe(0xC021, &[0; 46])), Unparsed::PppPayload),
        ("nine labels", ethernet(&[], MPLS, &mpls(9, &whole[14..])), Unparsed::MplsDepth),
        ("labels before no IP", ethernet(&[], MPLS, &mpls(1, &[0; 46])), Unparsed::MplsPayload),
        ("cut in a label", ethernet(&[(C_TAG, 1)], MPLS, &[0, 0, 0]), Unparsed::Truncated),
        ("AH cut", ENDS_4.frame(AH, &authentication(UDP)[..20]), Unparsed::Truncated),
        ("five AH", ENDS_4.frame(AH, &authentication(AH).repeat(5)), Unparsed::ExtensionDepth),
        ("GRE cut", ENDS_4.frame(GRE, &[0, 0, 8]), Unparsed::Truncated),
    ]
}

/// The direction as the unit sees it, and the flow's name.
fn expected(hook: Hook, packet: &Packet) -> (usize, FlowId, u8) {
    let (opened_by_sender, evidence) = packet.opened;
    let (direction, local, local_initiated) = match hook {
        Hook::Egress => (TX, packet.ends, opened_by_sender),
        Hook::Ingress => (RX, packet.ends.back(), !opened_by_sender),
    };
    let id = FlowId {
        local: local.source,
        remote: local.destination,
        local_port: local.source_port,
        remote_port: local.destination_port,
        boundary: packet.vlan,
        protocol: packet.protocol,
        ports: packet.kind,
    };
    let bits = (if local_initiated { how::LOCAL_INITIATED } else { 0 })
        // A program that is run by hand sees what comes in nowhere: a socket of this host sends it.
        | if hook == Hook::Egress { how::HOST_END } else { 0 }
        | evidence << how::INITIATOR_SHIFT
        | how::BY_INTERFACE << how::ATTRIBUTION_SHIFT;
    (direction, id, bits)
}

fn at<T: Copy + Default>(direction: usize, value: T) -> [T; 2] {
    let mut pair = [T::default(); 2];
    pair[direction] = value;
    pair
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_frame_that_is_understood_is_counted_in_its_flow_for_its_unit_and_gets_the_mark() -> Result<()> {
    // Each frame by itself: none is tied to another one's datagram.
    let mut datapath = Datapath::load(&Settings { fragment_seconds: 0, ..Settings::default() })?;
    for hook in Hook::BOTH {
        for (name, frame, packet) in understood().into_iter().chain(wrapped()) {
            let name = format!("{name}, {hook:?}");
            // Bits of others below the mark's are kept, those in its place are not.
            let context = Context { mark: 0x0004_0000 | 0x0001_2345, ..Context::default() };
            let verdict = datapath.run_with(hook, &frame, context)?;
            assert_eq!(verdict.action, PASS_ON, "{name}");
            assert_eq!(verdict.mark, u32::from(UNIT) << 18 | 0x0001_2345, "{name}: {:#x}", verdict.mark);
            let (direction, id, bits) = expected(hook, &packet);
            let (found, counted) = datapath.drain_one()?;
            assert_eq!(found, id, "{name}");
            let want = Counted {
                packets: at(direction, 1),
                bytes: at(direction, frame.len() as u64),
                skbs: at(direction, 1),
                // A TCP connection that is met without its SYN began before anyone looked.
                begun: u64::from(packet.tcp_flags == 0 || packet.tcp_flags & SYN != 0),
                pu: UNIT,
                interface: INTERFACE,
                tcp_flags: at(direction, packet.tcp_flags),
                how: bits,
            };
            assert_eq!(counted, want, "{name}");
            let unit = datapath.unit(UNIT)?;
            assert_eq!(unit.flowless, NOTHING, "{name}: the flow holds it");
            assert_eq!(unit.flows, 1, "{name}");
            let ledger = datapath.ledger()?;
            assert_eq!((ledger.seen, explained_without_flow(&ledger), ledger.reported), (1, 0, 1), "{name}");
            datapath.begin_anew(&[(found, counted)].into())?;
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_frame_that_is_not_understood_is_counted_in_its_unit_and_the_ledger_says_why() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    for hook in Hook::BOTH {
        for (name, frame, reason) in not_understood() {
            let name = format!("{name}, {hook:?}");
            assert_eq!(datapath.run(hook, &frame)?.action, PASS_ON, "{name}");
            assert!(datapath.drain()?.is_empty(), "{name}");
            let ledger = datapath.ledger()?;
            let reasons: Vec<_> =
                Unparsed::ALL.iter().zip(ledger.unparsed).filter(|(_, count)| *count != 0).collect();
            assert_eq!(reasons, [(&reason, 1)], "{name}");
            assert_eq!((ledger.seen, explained_without_flow(&ledger)), (1, 1), "{name}");
            let direction = if hook == Hook::Egress { TX } else { RX };
            let unit = datapath.unit(UNIT)?.flowless;
            let (this, other) = (unit[direction], unit[1 - direction]);
            assert_eq!((this.packets, this.bytes, this.skbs), (1, frame.len() as u64, 1), "{name}");
            assert_eq!(other.packets, 0, "{name}");
            datapath.begin_anew(&[].into())?;
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn both_directions_meet_in_one_flow() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    for ends in [ENDS_4, ENDS_6] {
        for _ in 0..3 {
            datapath.run(Hook::Egress, &ends.udp(10))?;
            datapath.run(Hook::Ingress, &ends.back().udp(20))?;
        }
        let (id, counted) = datapath.drain_one()?;
        assert_eq!((id.local, id.remote_port), (ends.source, ends.destination_port));
        let length = |data| ends.udp(data).len() as u64;
        assert_eq!((counted.packets, counted.begun), ([3, 3], 1));
        assert_eq!(counted.bytes, [3 * length(20), 3 * length(10)]);
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn without_a_lease_nothing_is_counted_and_all_passes() -> Result<()> {
    let mut datapath = Datapath::load_without_lease(&Settings::default())?;
    datapath.controller.set_role(collector_tests::testrun::own())?;
    let context = Context { mark: 7, ..Context::default() };
    for hook in Hook::BOTH {
        let verdict = datapath.run_with(hook, &ENDS_4.udp(10), context)?;
        assert_eq!((verdict.action, verdict.mark), (PASS_ON, 7));
    }
    assert_eq!(datapath.ledger()?.seen, 0);
    assert!(datapath.drain()?.is_empty());
    assert_eq!(datapath.unit(UNIT)?.flowless, NOTHING);
    // The same programs count once somebody lives.
    datapath.renew()?;
    datapath.run(Hook::Ingress, &ENDS_4.udp(10))?;
    assert_eq!(datapath.ledger()?.seen, 1);
    Ok(())
}
