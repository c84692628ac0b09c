use super::{
    Direction, Interface, LinkType, Packet, Statistics, Whole, interface, packet, section_header, statistics,
    whole,
};

fn made(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// Octets as the specification's figures show them: a row of four each.
fn rows(octets: &[u8]) -> Vec<[u8; 4]> {
    assert_eq!(octets.len() % 4, 0, "aligned");
    octets.chunks_exact(4).map(|row| row.try_into().unwrap()).collect()
}

#[test]
fn the_section_says_its_byte_order_and_version() {
    let octets = made(|out| section_header(out, "app x"));
    assert_eq!(
        rows(&octets),
        [
            [0x0A, 0x0D, 0x0D, 0x0A],
            [44, 0, 0, 0],
            [0x4D, 0x3C, 0x2B, 0x1A],
            [1, 0, 0, 0],
            [0xFF; 4],
            [0xFF; 4],
            [4, 0, 5, 0],
            *b"app ",
            [b'x', 0, 0, 0],
            [0; 4],
            [44, 0, 0, 0],
        ]
    );
}

#[test]
fn an_interface_has_nanoseconds_a_name_and_its_filter() {
    let octets = made(|out| {
        let described = Interface { link: LinkType::RawIp, snap_length: 0x0102, name: "tun0", filter: "udp" };
        interface(out, &described);
    });
    assert_eq!(
        rows(&octets),
        [
            [1, 0, 0, 0],
            [48, 0, 0, 0],
            [101, 0, 0, 0],
            [2, 1, 0, 0],
            [2, 0, 4, 0],
            *b"tun0",
            [9, 0, 1, 0],
            [9, 0, 0, 0],
            [11, 0, 4, 0],
            *b"\0udp",
            [0; 4],
            [48, 0, 0, 0],
        ]
    );
    let bare = made(|out| {
        interface(out, &Interface { link: LinkType::Ethernet, snap_length: 0, name: "", filter: "" });
    });
    assert_eq!(bare.len(), 32, "the resolution is its only option");
}

#[test]
fn a_packet_has_its_time_in_halves_and_both_lengths() {
    let octets = made(|out| {
        packet(
            out,
            &Packet {
                interface: 7,
                time: 0x0102_0304_0506_0708,
                octets: &[0xAA; 5],
                length: 1500,
                direction: Direction::Outbound,
                comment: "pu=a",
            },
        );
    });
    assert_eq!(
        rows(&octets),
        [
            [6, 0, 0, 0],
            [60, 0, 0, 0],
            [7, 0, 0, 0],
            [4, 3, 2, 1],
            [8, 7, 6, 5],
            [5, 0, 0, 0],
            [0xDC, 5, 0, 0],
            [0xAA; 4],
            [0xAA, 0, 0, 0],
            [2, 0, 4, 0],
            [2, 0, 0, 0],
            [1, 0, 4, 0],
            *b"pu=a",
            [0; 4],
            [60, 0, 0, 0],
        ]
    );
}

#[test]
fn every_length_of_a_packet_is_padded_and_a_bare_one_has_no_options() {
    for length in 0..9 {
        let octets = made(|out| {
            let bare = Packet {
                interface: 0,
                time: 1,
                octets: &vec![0xAA; length],
                length: 0,
                direction: Direction::Unknown,
                comment: "",
            };
            packet(out, &bare);
        });
        assert_eq!(octets.len(), 32 + length.next_multiple_of(4));
        assert_eq!(octets[20..24], octets[24..28], "the original is never the shorter one");
        assert_eq!(octets[4..8], octets[octets.len() - 4..]);
        assert_eq!(octets[28..28 + length], vec![0xAA; length]);
        assert!(octets[28 + length..octets.len() - 4].iter().all(|octet| *octet == 0), "padding is zero");
    }
}

#[test]
fn statistics_have_times_in_halves_and_counts_whole() {
    let octets = made(|out| {
        statistics(
            out,
            &Statistics {
                interface: 3,
                times: [0x0000_0001_0000_0002, 0x0000_0003_0000_0004],
                received: 0x0102_0304_0506_0708,
                lost: 5,
                delivered: 6,
                comments: &["a=1"],
            },
        );
    });
    assert_eq!(
        rows(&octets),
        [
            [5, 0, 0, 0],
            [96, 0, 0, 0],
            [3, 0, 0, 0],
            [3, 0, 0, 0],
            [4, 0, 0, 0],
            [1, 0, 3, 0],
            *b"a=1\0",
            [2, 0, 8, 0],
            [1, 0, 0, 0],
            [2, 0, 0, 0],
            [3, 0, 8, 0],
            [3, 0, 0, 0],
            [4, 0, 0, 0],
            [4, 0, 8, 0],
            [8, 7, 6, 5],
            [4, 3, 2, 1],
            [5, 0, 8, 0],
            [5, 0, 0, 0],
            [0; 4],
            [8, 0, 8, 0],
            [6, 0, 0, 0],
            [0; 4],
            [0; 4],
            [96, 0, 0, 0],
        ]
    );
}

#[test]
fn a_text_that_is_too_long_is_cut_between_characters() {
    let long = "\u{20ac}".repeat(30_000);
    let octets = made(|out| {
        interface(out, &Interface { link: LinkType::Ethernet, snap_length: 0, name: &long, filter: "" });
    });
    let length = u16::from_le_bytes([octets[18], octets[19]]);
    assert_eq!(length, 65_535, "21,845 characters of three octets each");
    assert!(str::from_utf8(&octets[20..20 + usize::from(length)]).is_ok());
    assert_eq!(whole(&octets).octets, octets.len() as u64);
}

#[test]
fn whole_blocks_are_found_wherever_they_are_cut() {
    let mut octets = made(|out| section_header(out, "a"));
    let first = octets.len();
    interface(&mut octets, &Interface { link: LinkType::Ethernet, snap_length: 0, name: "", filter: "" });
    for length in 0..=octets.len() {
        let want = match length {
            _ if length < first => 0,
            _ if length < octets.len() => first,
            _ => octets.len(),
        };
        assert_eq!(whole(&octets[..length]).octets, want as u64, "of {length}");
    }
    assert_eq!(whole(&[0; 64]), Whole::NOTHING, "no length is none");
}
