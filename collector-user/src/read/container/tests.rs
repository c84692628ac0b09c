//! Files made octet by octet, read back; and the same by pcap-parser.

mod compressed;
mod made;

use std::io::{self, Read};

use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};

use super::{Capture, ContainerError, Direction, MOST_FRAME, links};
use crate::error::with_causes;
use made::{ORDERS, Words, block, enhanced, halves, interface, option, packet, pcap, section};

/// What is compared of a record.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read1 {
    time: Option<i64>,
    link: u16,
    octets: Vec<u8>,
    length: u32,
}

fn read(file: &[u8]) -> (Vec<Read1>, Option<ContainerError>) {
    let mut all = Vec::new();
    let mut capture = match Capture::open(file) {
        Ok(capture) => capture,
        Err(error) => return (all, Some(error)),
    };
    loop {
        match capture.next_record() {
            Ok(None) => return (all, None),
            Ok(Some(record)) => all.push(Read1 {
                time: record.time,
                link: record.link,
                octets: record.octets.to_vec(),
                length: record.length,
            }),
            Err(error) => return (all, Some(error)),
        }
    }
}

fn whole(file: &[u8]) -> Vec<Read1> {
    let (all, error) = read(file);
    assert!(error.is_none(), "{error:?}");
    all
}

fn sentence(file: &[u8]) -> (usize, String) {
    let (all, error) = read(file);
    (all.len(), error.expect("a fault").to_string())
}

#[test]
fn pcap_of_either_order_and_resolution() {
    for words in ORDERS {
        for (magic, fraction, nanoseconds) in
            [(0xA1B2_C3D4, 999_999, 999_999_000), (0xA1B2_3C4D, 999_999_999, 999_999_999)]
        {
            let file = [
                pcap(words, magic, 1),
                packet(words, [7, fraction], &[1, 2, 3], 60),
                packet(words, [u32::MAX, 0], &[], 0),
            ]
            .concat();
            let want = [
                Read1 { time: Some(7_000_000_000 + nanoseconds), link: 1, octets: vec![1, 2, 3], length: 60 },
                Read1 { time: Some(4_294_967_295_000_000_000), link: 1, octets: vec![], length: 0 },
            ];
            assert_eq!(whole(&file), want);
        }
    }
}

#[test]
fn a_modified_record_has_eight_octets_more() {
    for words in ORDERS {
        let mut record = packet(words, [1, 2], &[], 9);
        record[8..12].copy_from_slice(&words(2));
        record.extend([0xEE; 8]);
        record.extend([5, 6]);
        let file = [pcap(words, 0xA1B2_CD34, 1), record].concat();
        assert_eq!(whole(&file)[0].octets, [5, 6]);
    }
}

#[test]
fn the_upper_bits_of_a_link_type_are_a_check_sequence_or_nothing() {
    let words: Words = u32::to_le_bytes;
    let of = |network| {
        let file = [pcap(words, 0xA1B2_C3D4, network), packet(words, [0, 0], &[9; 64], 64)].concat();
        let record = whole(&file).remove(0);
        (record.link, record.octets.len(), record.length)
    };
    // Two units of 16 bits, said to be there.
    assert_eq!(of(0x2400_0001), (1, 60, 60));
    assert_eq!(of(0x2000_0001), (1, 64, 64));
    assert_eq!(of(0x0001_0071), (113, 64, 64));
}

#[test]
fn the_original_length_is_what_a_cut_leaves_alone() {
    let words: Words = u32::to_le_bytes;
    let file = [pcap(words, 0xA1B2_C3D4, 1), packet(words, [0, 0], &[1; 8], 4)].concat();
    assert_eq!(whole(&file)[0].length, 8, "less than what is there is a lie");
}

#[test]
fn sections_and_interfaces_have_their_own_order_links_and_times() {
    let [little, big] = ORDERS;
    let seconds = |words: Words, seconds: i64| {
        let octets = if words(1) == [1, 0, 0, 0] { seconds.to_le_bytes() } else { seconds.to_be_bytes() };
        option(words, 14, &octets)
    };
    let file = [
        section(little, "another"),
        interface(little, 1, 0, &[]),
        interface(little, 101, 0, &option(little, 9, &[9])),
        enhanced(little, 1, 1_500_000_001, &[1; 5], 5, &[]),
        enhanced(little, 0, 1_500_000, &[2; 6], 7, &[]),
        section(big, "another"),
        interface(big, 276, 0, &[option(big, 9, &[0x8A]), seconds(big, 100)].concat()),
        enhanced(big, 0, 1536, &[3; 3], 3, &[]),
        interface(big, 0, 0, &seconds(big, -1)),
        enhanced(big, 1, 2_000_000, &[4], 1, &[]),
    ]
    .concat();
    let want = [
        (1_500_000_001, 101, vec![1; 5], 5),
        (1_500_000_000, 1, vec![2; 6], 7),
        (101_500_000_000, 276, vec![3; 3], 3),
        (1_000_000_000, 0, vec![4], 1),
    ];
    let want = want.map(|(time, link, octets, length)| Read1 { time: Some(time), link, octets, length });
    assert_eq!(whole(&file), want);
}

#[test]
fn simple_packets_are_the_first_interfaces_and_old_ones_name_theirs() {
    for words in ORDERS {
        let simple = |length: u32, octets: &[u8]| block(words, 3, &[&words(length)[..], octets].concat());
        let old = [halves(words, 1, 0), words(0), words(8), words(2), words(2), [7, 7, 0, 0]].concat();
        let file = [
            section(words, ""),
            interface(words, 1, 5, &[]),
            interface(words, 101, 0, &[]),
            simple(3, &[1, 2, 3, 0xEE]),
            simple(9, &[1, 2, 3, 4, 5, 0xEE, 0xEE, 0xEE]),
            block(words, 2, &old),
        ]
        .concat();
        let want = [
            (None, 1, vec![1, 2, 3], 3),
            (None, 1, vec![1, 2, 3, 4, 5], 9),
            (Some(8000), 101, vec![7, 7], 2),
        ];
        assert_eq!(
            whole(&file),
            want.map(|(time, link, octets, length)| Read1 { time, link, octets, length })
        );
    }
}

#[test]
fn blocks_that_hold_no_packet_are_passed_over_whatever_their_size() {
    let words: Words = u32::to_le_bytes;
    let file = [
        block(words, 0x0BAD, &[1; 7]),
        enhanced(words, 0, 0, &[1], 1, &[]),
        block(words, 5, &vec![0; 3 << 20]),
        enhanced(words, 0, 0, &[2], 1, &[]),
    ];
    let file = [&[section(words, ""), interface(words, 1, 0, &[])][..], &file[..]].concat().concat();
    assert_eq!(whole(&file).len(), 2);
}

#[test]
fn our_own_options_are_understood_and_others_comments_are_not() {
    for words in ORDERS {
        let said = |application: &str| {
            let options =
                [option(words, 2, &words(2)), option(words, 1, b"pu=web packets=44"), words(0).to_vec()]
                    .concat();
            let file = [
                section(words, application),
                interface(words, 1, 0, &[]),
                enhanced(words, 0, 0, &[1; 3], 3, &options),
                enhanced(
                    words,
                    0,
                    0,
                    &[1; 4],
                    4,
                    &[option(words, 1, b"dropped=NO_SOCKET"), option(words, 1, b"look here packets=9")]
                        .concat(),
                ),
            ]
            .concat();
            let mut capture = Capture::open(file.as_slice()).unwrap();
            std::array::from_fn(|_| {
                let record = capture.next_record().unwrap().unwrap();
                let reason = record.marks.dropped.map(|note| note.reason.to_owned());
                (record.direction, record.marks.packets, reason)
            })
        };
        let dropped = (Direction::Unknown, 1, Some("NO_SOCKET".to_owned()));
        assert_eq!(said("collector 0.1.0"), [(Direction::Outbound, 44, None), dropped]);
        assert_eq!(said("tcpdump"), [(Direction::Outbound, 1, None), (Direction::Unknown, 1, None)]);
    }
}

fn two_packets() -> Vec<u8> {
    let words: Words = u32::to_le_bytes;
    [
        section(words, ""),
        interface(words, 1, 0, &[]),
        enhanced(words, 0, 0, &[1; 60], 60, &[]),
        enhanced(words, 0, 0, &[2; 61], 61, &[]),
    ]
    .concat()
}

#[test]
fn no_capture_says_what_it_is() {
    let begins = |file: &[u8]| sentence(file).1;
    assert_eq!(
        begins(b"#!/bin/sh"),
        "at byte 0: no capture: it begins with 23 21 2f 62, expected pcap or pcapng, plain or compressed by gzip or zstd"
    );
    assert!(begins(b"").starts_with("at byte 0: no capture: it begins with nothing"));
    assert!(begins(&[0xD4, 0xC3]).starts_with("at byte 0: no capture: it begins with d4 c3"));
    let words: Words = u32::to_le_bytes;
    let mut other = pcap(words, 0xA1B2_C3D4, 1);
    other[4] = 3;
    assert_eq!(begins(&other), "at byte 4: version 3.4 of pcap, expected 2.x");
    let mut other = section(words, "");
    other[12] = 2;
    assert_eq!(begins(&other), "at byte 12: version 2.0 of pcapng, expected 1.x");
    other[8..12].copy_from_slice(&[1, 2, 3, 4]);
    assert_eq!(
        begins(&other),
        "at byte 0: a section header whose byte-order magic is 0x04030201, expected 0x1a2b3c4d"
    );
}

#[test]
fn every_cut_is_told_with_its_place_and_what_came_before_is_read() {
    let words: Words = u32::to_le_bytes;
    let pcap = [
        pcap(words, 0xA1B2_C3D4, 1),
        packet(words, [0, 0], &[1; 60], 60),
        packet(words, [0, 0], &[2; 61], 61),
    ]
    .concat();
    let places = [vec![0, 24, 24 + 76, 24 + 76 + 77], vec![0, 32, 52, 52 + 92, 52 + 92 + 96]];
    for (file, places) in [pcap, two_packets()].iter().zip(places) {
        assert_eq!(places.last(), Some(&file.len()));
        for length in 4..file.len() {
            let (read, error) = read(&file[..length]);
            let begun = *places.iter().rfind(|place| **place <= length).unwrap();
            let headers = places.len() - 2;
            assert_eq!(
                read.len(),
                places.iter().filter(|it| **it <= length).count().saturating_sub(headers),
                "{length}"
            );
            match error {
                None => assert_eq!(begun, length, "{length} octets look whole"),
                Some(error) => {
                    let words = error.to_string();
                    assert!(
                        words.starts_with(&format!("at byte {begun}: the file ends within")),
                        "{length}: {words}"
                    );
                }
            }
        }
    }
}

#[test]
fn lengths_that_lie() {
    let words: Words = u32::to_le_bytes;
    let mut file = [pcap(words, 0xA1B2_C3D4, 1), packet(words, [0, 0], &[1; 60], 60)].concat();
    file[32..36].copy_from_slice(&words(MOST_FRAME + 1));
    assert_eq!(
        sentence(&file).1,
        "at byte 24: a packet says that it has 1048577 octets, expected 0 to 1048576: from here on the file is damaged"
    );
    for (length, want) in [
        (8_u32, "at byte 52: an enhanced packet block says that it has 8 octets, expected 32 to 16777216"),
        (
            u32::MAX,
            "at byte 52: an enhanced packet block says that it has 4294967295 octets, expected 32 to 16777216",
        ),
        (88, "at byte 52: a block of type 0x6 says 88 octets at its beginning and 16843009 at its end"),
        (10_000, "at byte 52: the file ends within an enhanced packet block: 188 of 10000 octets are there"),
    ] {
        let mut file = two_packets();
        file[56..60].copy_from_slice(&words(length));
        let (_, said) = sentence(&file);
        assert!(said.starts_with(want), "{said}");
    }
    // Of a packet that is longer than its block.
    let mut file = two_packets();
    file[72..76].copy_from_slice(&words(61));
    assert_eq!(
        sentence(&file).1,
        "at byte 52: a packet says that it has 61 octets, expected 0 to 60: from here on the file is damaged"
    );
    let mut file = two_packets();
    file[60..64].copy_from_slice(&words(3));
    assert_eq!(
        sentence(&file).1,
        "at byte 52: a packet of interface 3, of which no interface block came before it: the section has 1"
    );
}

#[test]
fn what_is_read_is_what_another_reader_reads() {
    let words: Words = u32::to_le_bytes;
    let options = option(words, 9, &[9]);
    let mut file =
        [section(words, ""), interface(words, 1, 0, &options), interface(words, 101, 0, &[])].concat();
    for nth in 0..1000_u32 {
        let octets: Vec<u8> = (0..nth % 97).map(|at| (at * nth) as u8).collect();
        let time = u64::from(nth) << 30;
        file.extend(enhanced(words, nth % 2, time, &octets, octets.len() as u32 + nth % 3, &[]));
    }
    let mut reader = create_reader(1 << 16, file.as_slice()).unwrap();
    let mut theirs = Vec::new();
    loop {
        match reader.next() {
            Ok((length, found)) => {
                if let PcapBlockOwned::NG(Block::EnhancedPacket(packet)) = found {
                    let time = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                    let octets = packet.data[..packet.caplen as usize].to_vec();
                    theirs.push((packet.if_id, time, octets, packet.origlen));
                }
                reader.consume(length);
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) => reader.refill().unwrap(),
            Err(error) => panic!("{error:?}"),
        }
    }
    let mut capture = Capture::open(file.as_slice()).unwrap();
    for (interface, time, octets, length) in theirs {
        let record = capture.next_record().unwrap().expect("as many records");
        let unit = if interface == 0 { 1 } else { 1000 };
        assert_eq!(record.time, Some((time * unit) as i64));
        assert_eq!((record.interface, record.octets, record.length), (interface, octets.as_slice(), length));
    }
    assert_eq!(capture.next_record().unwrap(), None);
}

/// A reader that gives little at a time, and fails at its end.
struct Trickle<'a>(&'a [u8], bool);

impl Read for Trickle<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if std::mem::replace(&mut self.1, false) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.1 = true;
        let step = self.0.len().min(7).min(into.len());
        if step == 0 {
            return Err(io::Error::other("the disk is gone"));
        }
        into[..step].copy_from_slice(&self.0[..step]);
        self.0 = &self.0[step..];
        Ok(step)
    }
}

#[test]
fn what_comes_in_pieces_is_read_and_what_fails_is_said() {
    let file = two_packets();
    let mut capture = Capture::open(Trickle(&file, true)).unwrap();
    for _ in 0..2 {
        assert!(capture.next_record().unwrap().is_some());
    }
    let error = capture.next_record().unwrap_err();
    assert_eq!(with_causes(&error), "at byte 240: cannot be read on: the disk is gone");
}

#[test]
fn the_name_of_an_interface_is_kept() {
    let words: Words = u32::to_le_bytes;
    let file = [
        section(words, ""),
        interface(words, 1, 0, &option(words, 2, b"eth0")),
        enhanced(words, 0, 0, &[], 0, &[]),
    ];
    let file = file.concat();
    let mut capture = Capture::open(file.as_slice()).unwrap();
    assert!(capture.next_record().unwrap().is_some());
    assert_eq!((capture.interface(0), capture.interface(1)), ("eth0", ""));
}

#[test]
fn another_link_type_has_name_and_number() {
    let error = ContainerError::Link { offset: 20, link: 127 };
    assert!(
        error
            .to_string()
            .starts_with("at byte 20: packets of link type IEEE802_11_RADIOTAP (127), expected Ethernet")
    );
    assert_eq!((links::name(150), links::name(9999)), ("USER", "UNKNOWN"));
}
