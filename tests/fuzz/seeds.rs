//! What the fuzz targets begin with: `seeds FOLDER` writes the sample frames below `FOLDER/parser`, a record of each kind
//! and family below `FOLDER/decode`, and captures below `FOLDER/capture`, in the form that each target reads. Part of the tests, for it needs no sanitizer.

use std::{fs, path::Path};

use anyhow::Context as _;
use collector_ebpf::abi::{
    flow::ports,
    packet::{PacketRecord, event, link},
    report::{FlowEvent, kind},
};
use collector_tests::frames::{
    ACK, AH, C_TAG, ENDS_4, ENDS_6, GRE, ICMP, ICMPV6, IPV4, IPV6, MPLS, ONE_4, ONE_6, PPPOE, PSH, S_TAG,
    SCTP, SYN, TCP, TIMESTAMPS, TWO_4, TWO_6, UDP, UDP_LITE, arp, authentication, destination_options,
    ethernet, fragment_6, icmp, icmp_error, ipv4, ipv6, mpls, pppoe, sctp, snap, tcp, udp,
};
use collector_user::drain::decode::{self, Padding};

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).context("the folder to write to is missing")?;
    write(&Path::new(&folder).join("parser"), &parser())?;
    write(&Path::new(&folder).join("decode"), &records())?;
    write(&Path::new(&folder).join("capture"), &captures())
}

/// What is there of an earlier run goes: libFuzzer would read it too.
fn write(folder: &Path, seeds: &[Vec<u8>]) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (nth, seed) in seeds.iter().enumerate() {
        let file = folder.join(format!("{nth:03}"));
        fs::write(&file, seed).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Behind the octet that says how the rest is read: frames, raw packets, choices.
fn parser() -> Vec<Vec<u8>> {
    let behind = |how: u8, octets: &[u8]| [&[how], octets].concat();
    let frames = frames();
    // Where they have no tag, IP begins at 14; what is no IP there is refused.
    let raw = frames.iter().filter_map(|frame| frame.get(14..)).map(|packet| behind(1, packet));
    let super_packets = frames.iter().take(4).map(|frame| behind(4, frame));
    let choices = (0..=u8::MAX).step_by(5).map(|first| {
        let octets: Vec<u8> = (0..40).map(|nth: u8| first.wrapping_mul(nth).wrapping_add(nth)).collect();
        behind(2, &octets)
    });
    frames.iter().map(|frame| behind(0, frame)).chain(raw).chain(super_packets).chain(choices).collect()
}

/// A frame of every form that is read, and of some that are not.
fn frames() -> Vec<Vec<u8>> {
    let (four, six) = ((ONE_4, TWO_4), (ONE_6, TWO_6));
    let ports = ENDS_4.ports();
    let plain = ipv4(four, &[], 0x4000, UDP, &udp(ports, 20));
    let plain_6 = ipv6(six, TCP, &tcp(ports, ACK, &TIMESTAMPS, 20));
    let chain = |next, payload: &[u8]| {
        let chain =
            [fragment_6(60, 0, false), destination_options(AH), authentication(next), payload.to_vec()];
        ethernet(&[], IPV6, &ipv6(six, 44, &chain.concat()))
    };
    let to_port = |port: u16, inside: &[u8]| {
        let [high, low] = port.to_be_bytes();
        let mut datagram = udp([0x9C, 0x40, high, low], inside.len());
        datagram.truncate(8);
        ENDS_4.frame(UDP, &[&datagram, inside].concat())
    };
    let carried = ethernet(&[], IPV4, &plain);
    // VXLAN (RFC 7348 section 5) of network 5, GENEVE (RFC 8926 section 3.4) of network 5, GRE (RFC 2890 section 2).
    let vxlan = [vec![8, 0, 0, 0, 0, 0, 5, 0], carried.clone()].concat();
    let geneve = [vec![0, 0, 0x65, 0x58, 0, 0, 5, 0], carried].concat();
    let gre = [vec![0x20, 0, 8, 0, 0, 0, 0, 7], plain.clone()].concat();
    vec![
        ENDS_4.tcp(SYN, 0),
        ENDS_6.tcp(PSH | ACK, 100),
        ENDS_4.udp(40),
        ENDS_6.udp(0),
        ethernet(&[(C_TAG, 7)], IPV4, &plain),
        ethernet(&[(S_TAG, 7), (C_TAG, 0x6008), (C_TAG, 9), (C_TAG, 10)], IPV6, &plain_6),
        ethernet(&[], MPLS, &mpls(3, &plain)),
        ethernet(&[], MPLS, &mpls(8, &plain_6)),
        ethernet(&[], PPPOE, &pppoe(0x0021, &plain)),
        ethernet(&[], PPPOE, &pppoe(0x0057, &plain_6)),
        ethernet(&[], 8 + 48, &snap(IPV4, &plain)),
        ethernet(&[], IPV4, &ipv4(four, &[1; 40], 0x2000, TCP, &tcp(ports, SYN, &[], 12))),
        ethernet(&[], IPV4, &ipv4(four, &[], 0x0005, UDP, &[0x55; 24])),
        ethernet(&[], IPV4, &ipv4(four, &[], 0, AH, &[authentication(UDP), udp(ports, 4)].concat())),
        ethernet(&[], IPV6, &ipv6(six, 44, &[fragment_6(UDP, 0, true), udp(ports, 40)].concat())),
        ethernet(&[], IPV6, &ipv6(six, 44, &[fragment_6(UDP, 48, false), vec![0x55; 24]].concat())),
        chain(UDP, &udp(ports, 4)),
        chain(135, &destination_options(59)),
        ENDS_4.frame(ICMP, &icmp(8, 0)),
        ENDS_6.frame(ICMPV6, &icmp(129, 0)),
        ENDS_4.frame(ICMP, &icmp_error(3, 4, &plain)),
        ENDS_6.frame(ICMPV6, &icmp_error(2, 0, &plain_6)),
        ENDS_4.frame(SCTP, &sctp(ports)),
        ENDS_6.frame(UDP_LITE, &udp(ports, 9)),
        ENDS_4.frame(4, &plain),
        ENDS_4.frame(41, &plain_6),
        ENDS_4.frame(GRE, &gre),
        ENDS_4.frame(50, &[0xA5; 40]),
        ENDS_4.frame(2, &[0x16, 0, 0, 0, 224, 0, 0, 9]),
        to_port(4789, &vxlan),
        to_port(6081, &geneve),
        ethernet(&[], 0x0806, &arp()),
    ]
}

/// The frames as captures: pcap of both orders and resolutions, pcapng, and cut ones.
fn captures() -> Vec<Vec<u8>> {
    let orders: [fn(u32) -> [u8; 4]; 2] = [u32::to_le_bytes, u32::to_be_bytes];
    let mut all = Vec::new();
    for words in orders {
        for (magic, link) in
            [(0xA1B2_C3D4_u32, 1_u32), (0xA1B2_3C4D, 101), (0xA1B2_CD34, 113), (0xA1B2_C3D4, 276)]
        {
            let version = if words(1) == [1, 0, 0, 0] { [2, 0, 4, 0] } else { [0, 2, 0, 4] };
            let mut file = [words(magic), version, [0; 4], [0; 4], words(65_535), words(link)].concat();
            for (frame, nth) in frames().iter().take(6).zip(1..) {
                let length = frame.len() as u32;
                file.extend([nth, 7, length, length].map(words).concat());
                file.extend(frame);
            }
            all.push(file);
        }
        let block = |kind: u32, body: &[u8]| {
            let length = (body.len().next_multiple_of(4) + 12) as u32;
            let mut block = [words(kind), words(length)].concat();
            block.extend(body);
            block.resize(length as usize - 4, 0);
            block.extend(words(length));
            block
        };
        let half = |number: u32| if words(1) == [1, 0, 0, 0] { words(number) } else { words(number << 16) };
        let mut file = block(0x0A0D_0D0A, &[words(0x1A2B_3C4D), half(1), [0xFF; 4], [0xFF; 4]].concat());
        file.extend(block(1, &[half(1), words(0)].concat()));
        for (frame, nth) in frames().iter().zip(1..) {
            let length = frame.len() as u32;
            let fields = [0, 0, nth * 900_000, length, length].map(words).concat();
            file.extend(block(6, &[fields, frame.clone()].concat()));
        }
        file.extend(block(3, &[&words(60)[..], &[1; 60]].concat()));
        all.push(file);
    }
    let cut =
        all.iter().map(|file| file.iter().copied().take(file.len() / 2 + 5).collect()).collect::<Vec<_>>();
    all.into_iter().chain(cut).collect()
}

/// A record of each kind and family, of packets, and the keys of flows, field by field as the contract has them. What shall
/// be understood is: a seed that has grown stale leads nowhere.
fn records() -> Vec<Vec<u8>> {
    let kinds = [kind::START, kind::END_FIN, kind::END_RESET_LOCAL, kind::END_RESET_REMOTE, kind::PRESSURE];
    let record = |family, kind| {
        let mut octets = 77_u64.to_ne_bytes().to_vec();
        let ends = if family == 4 { [ONE_4, TWO_4].map(|it| it.to_ipv6_mapped()) } else { [ONE_6, TWO_6] };
        octets.extend(ends.map(|it| it.octets()).concat());
        octets.extend(ENDS_4.ports());
        octets.extend(29_u16.to_ne_bytes());
        octets.extend([TCP, ports::TRANSPORT]);
        octets.extend([101_u16, 9].map(u16::to_ne_bytes).concat());
        octets.extend([kind, 0, family, SYN]);
        // Its number, its CPU, the unit at the other end, the user, and what is zero.
        octets.extend(5_u32.to_ne_bytes());
        octets.extend([1_u16, 102].map(u16::to_ne_bytes).concat());
        octets.extend([1000_u32, 0].map(u32::to_ne_bytes).concat());
        octets
    };
    let whole: Vec<_> = kinds.into_iter().flat_map(|kind| [record(4, kind), record(6, kind)]).collect();
    let packets: Vec<_> = [event::RECEIVED, event::TRANSMITTED, event::DROPPED].map(packet).into();
    for octets in &whole {
        assert!(decode::flow_event(octets, Padding::None).is_ok(), "a record that nobody understands");
    }
    for octets in &packets {
        assert!(
            decode::packet(&octets.clone().into(), Padding::None).is_ok(),
            "a packet that nobody understands"
        );
    }
    // Of another family, of another kind, too short, too long; padded, as a perf buffer has them; a key of the tables.
    let [one, other] = [record(5, kind::START), record(4, 0)];
    let short = one.iter().copied().take(size_of::<FlowEvent>() - 1).collect();
    let key =
        [&ONE_6.octets()[..], &TWO_6.octets(), &ENDS_6.ports(), &[29, 0, TCP, ports::TRANSPORT]].concat();
    let wrong = [short, [&other[..], &[0]].concat(), one, other, vec![], key];
    let padded: Vec<_> = whole.iter().chain(&packets).map(|octets| [&octets[..], &[0; 4]].concat()).collect();
    whole.into_iter().chain(packets).chain(padded).chain(wrong).collect()
}

/// The record of a packet, and the packet behind it.
fn packet(event: u8) -> Vec<u8> {
    let frame = ethernet(&[], IPV4, &ipv4((ONE_4, TWO_4), &[], 0x4000, UDP, &udp(ENDS_4.ports(), 20)));
    let mut octets = [77_u64, 0].map(u64::to_ne_bytes).concat();
    let length = frame.len() as u32;
    // The interface, the mark, the reason, those that were held back, lengths, wire packets, the namespace, the CPU.
    octets.extend([3, 0x2A, 2, 0, length, length, 1, 0, 1].map(u32::to_ne_bytes).concat());
    octets.extend([101_u16, 29, C_TAG.to_be()].map(u16::to_ne_bytes).concat());
    octets.extend([event, link::ETHERNET, 0, 0]);
    octets.extend(7_u16.to_ne_bytes());
    assert_eq!(octets.len(), size_of::<PacketRecord>());
    [octets, frame].concat()
}
