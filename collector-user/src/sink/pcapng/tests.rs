//! What was written, as another project's reader (`pcap-parser`) has it.

use std::collections::HashMap;

use pcap_parser::{Block, OptionCode, PcapNGOption, parse_block_le};

use super::{APPLICATION, Ending, MOST_INTERFACES, Section};
use crate::event::{Captured, LinkType, PacketEvent, Text, Time};

/// A block as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::sink) enum Read {
    Section {
        application: String,
    },
    Interface {
        link: i32,
        snap_length: u32,
        name: Option<String>,
        filter: Option<String>,
    },
    Packet {
        interface: u32,
        time: u64,
        octets: Vec<u8>,
        length: u32,
        direction: u32,
        comment: Option<String>,
    },
    Statistics {
        interface: u32,
        times: [u64; 3],
        received: u64,
        lost: u64,
        delivered: u64,
        comments: Vec<String>,
    },
}

const COMMENT: u16 = 1;
const FLAGS: u16 = 2;
const FILTER: u16 = 11;

fn option<'a>(options: &'a [PcapNGOption<'a>], code: u16) -> impl Iterator<Item = &'a PcapNGOption<'a>> {
    assert_eq!(options.last().map(|option| option.code), Some(OptionCode::EndOfOpt), "they have an end");
    options.iter().filter(move |option| option.code == OptionCode(code))
}

fn text(option: &PcapNGOption<'_>) -> String {
    option.as_str().unwrap().to_owned()
}

const fn joined(upper: u32, lower: u32) -> u64 {
    (upper as u64) << 32 | lower as u64
}

/// All blocks, to the last octet.
pub(in crate::sink) fn read(octets: &[u8]) -> Vec<Read> {
    let mut blocks = Vec::new();
    let mut rest = octets;
    while !rest.is_empty() {
        let (next, block) = parse_block_le(rest).expect("a block");
        rest = next;
        blocks.push(match block {
            Block::SectionHeader(block) => {
                assert_eq!((block.major_version, block.minor_version, block.section_len), (1, 0, -1));
                Read::Section { application: block.shb_userappl().unwrap().unwrap().to_owned() }
            }
            Block::InterfaceDescription(block) => {
                assert_eq!((block.if_tsresol, block.if_tsoffset), (9, 0), "nanoseconds");
                let filter = option(&block.options, FILTER).next();
                let filter = filter.map(|filter| text(filter).strip_prefix('\0').unwrap().to_owned());
                let name = block.if_name().map(|name| name.unwrap().to_owned());
                Read::Interface { link: block.linktype.0, snap_length: block.snaplen, name, filter }
            }
            Block::EnhancedPacket(block) => {
                let (mut direction, mut comment) = (0, None);
                if !block.options.is_empty() {
                    let flags = option(&block.options, FLAGS).next();
                    direction = flags.map_or(0, |flags| flags.as_u32_le().unwrap());
                    comment = option(&block.options, COMMENT).next().map(text);
                }
                Read::Packet {
                    interface: block.if_id,
                    time: joined(block.ts_high, block.ts_low),
                    octets: block.data[..block.caplen as usize].to_vec(),
                    length: block.origlen,
                    direction,
                    comment,
                }
            }
            Block::InterfaceStatistics(block) => {
                let [(start_high, start_low), (end_high, end_low)] =
                    [block.isb_starttime(), block.isb_endtime()].map(|time| time.unwrap().unwrap());
                let [received, lost, delivered] =
                    [block.isb_ifrecv(), block.isb_ifdrop(), block.isb_usrdeliv()]
                        .map(|count| count.unwrap().unwrap());
                Read::Statistics {
                    interface: block.if_id,
                    times: [
                        joined(start_high, start_low),
                        joined(end_high, end_low),
                        joined(block.ts_high, block.ts_low),
                    ],
                    received,
                    lost,
                    delivered,
                    comments: option(&block.options, COMMENT).map(text).collect(),
                }
            }
            other => panic!("not ours: {other:?}"),
        });
    }
    blocks
}

const NOW: i64 = 1_778_000_000_123_456_789;

fn packet(index: u32, name: &str, event: PacketEvent) -> Captured {
    Captured {
        time: Time::from_unix_nanos(NOW),
        ifindex: index,
        interface: name.into(),
        event,
        puid: "web".into(),
        packets: 1,
        length: 60,
        bytes: vec![0x45; 60].into(),
        ..Captured::default()
    }
}

fn described(link: i32, name: &str) -> Read {
    let name = (!name.is_empty()).then(|| name.to_owned());
    Read::Interface { link, snap_length: 50, name, filter: Some("udp".to_owned()) }
}

#[test]
fn a_whole_section_is_read_as_it_was_meant() {
    let begun = Time::from_unix_nanos(NOW - 5);
    let mut section = Section::new(50, "udp".to_owned(), begun);
    let mut out = Vec::new();
    Section::begin(&mut out);
    section.interface(7, &"eth0".into(), LinkType::Ethernet, &mut out);
    section.packet(&packet(7, "eth0", PacketEvent::Received), &mut out);
    section.packet(&packet(7, "eth0", PacketEvent::Transmitted), &mut out);
    let dropped = Captured {
        drop_reason: "NO_SOCKET".into(),
        link: LinkType::RawIp,
        mark: 7,
        bytes: vec![0x45; 21].into(),
        length: 1500,
        ..packet(9, "wg0", PacketEvent::Dropped)
    };
    section.packet(&dropped, &mut out);
    let ending = Ending {
        time: Time::from_unix_nanos(NOW + 5),
        lost: [(7, 3)].into(),
        surplus: [(9, 2)].into(),
        losses: vec![("output_failed".to_owned(), 4)],
    };
    section.end(&ending, &mut out);

    let now = NOW as u64;
    let of = |interface, octets, length, direction, comment: &str| Read::Packet {
        interface,
        time: now,
        octets: vec![0x45; octets],
        length,
        direction,
        comment: Some(comment.to_owned()),
    };
    let end = |interface, received, lost, delivered, events: &str| Read::Statistics {
        interface,
        times: [now - 5, now + 5, now + 5],
        received,
        lost,
        delivered,
        comments: vec![events.to_owned(), "output_failed=4".to_owned()],
    };
    assert_eq!(
        read(&out),
        [
            Read::Section { application: APPLICATION.to_owned() },
            described(1, "eth0"),
            of(0, 50, 60, 1, "pu=web"),
            of(0, 50, 60, 2, "pu=web"),
            described(101, "wg0"),
            of(1, 21, 1500, 0, "dropped=NO_SOCKET pu=web mark=0x7"),
            end(0, 5, 3, 2, "received=1 transmitted=1 dropped=0"),
            end(1, 3, 0, 1, "received=0 transmitted=0 dropped=1"),
        ]
    );
}

#[test]
fn an_interface_that_is_another_now_has_a_block_of_its_own() {
    let mut section = Section::new(50, "udp".to_owned(), Time::EPOCH);
    let mut out = Vec::new();
    let raw = Captured { link: LinkType::RawIp, ..packet(7, "eth0", PacketEvent::Received) };
    let packets = [packet(7, "eth0", PacketEvent::Received), packet(7, "lan", PacketEvent::Received), raw];
    for packet in packets.iter().chain(&packets) {
        section.packet(packet, &mut out);
    }
    let blocks = read(&out);
    let ids: Vec<u32> = blocks
        .iter()
        .filter_map(|block| match block {
            Read::Packet { interface, .. } => Some(*interface),
            _ => None,
        })
        .collect();
    assert_eq!(ids, [0, 1, 2, 0, 1, 2]);
    assert_eq!((&blocks[0], &blocks[2]), (&described(1, "eth0"), &described(1, "lan")));
    // What was lost of one interface is in one of its blocks.
    let mut end = Vec::new();
    section.end(&Ending { lost: HashMap::from([(7, 9)]), ..Ending::default() }, &mut end);
    let lost = read(&end).into_iter().map(|block| match block {
        Read::Statistics { lost, comments, .. } => (lost, comments.len()),
        _ => panic!("{block:?}"),
    });
    assert_eq!(lost.collect::<Vec<_>>(), [(9, 1), (0, 1), (0, 1)]);
}

#[test]
fn a_file_without_packets_has_an_interface_all_the_same() {
    let mut out = Vec::new();
    Section::begin(&mut out);
    let mut section = Section::new(50, "udp".to_owned(), Time::EPOCH);
    section.end(&Ending::default(), &mut out);
    assert!(matches!(
        read(&out).as_slice(),
        [Read::Section { .. }, Read::Interface { .. }, Read::Statistics { .. }]
    ));
}

#[test]
fn there_is_an_end_of_interfaces() {
    let mut section = Section::new(50, "udp".to_owned(), Time::EPOCH);
    let mut out = Vec::new();
    for index in 0..MOST_INTERFACES as u32 + 9 {
        section.packet(&packet(index, "veth", PacketEvent::Received), &mut out);
    }
    let interfaces = read(&out).into_iter().filter(|block| matches!(block, Read::Interface { .. }));
    let interfaces: Vec<_> = interfaces.collect();
    assert_eq!(interfaces.len(), MOST_INTERFACES + 1);
    assert_eq!(interfaces.last(), Some(&described(1, "")));
}

#[test]
fn a_time_before_the_format_s_first_is_its_first() {
    let mut section = Section::new(50, String::new(), Time::EPOCH);
    let mut out = Vec::new();
    let early = Captured { time: Time::from_unix_nanos(-1), ..Captured::default() };
    section.packet(&early, &mut out);
    let Read::Packet { time, length, comment, .. } = &read(&out)[1] else { panic!("no packet") };
    assert_eq!((*time, *length, comment), (0, 0, &None));
    assert_eq!(early.interface, Text::default());
}
