//! Compressed files, whole and damaged.

use std::io::Write as _;

use super::{
    made::{Words, packet, pcap},
    sentence, two_packets, whole,
};
use crate::error::with_causes;

#[test]
fn compressed_files_are_read_as_if_they_were_not() {
    let plain = two_packets();
    let gzip = |octets: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(octets).unwrap();
        out.finish().unwrap()
    };
    let (one, other) = plain.split_at(100);
    // As pzstd writes them, with the length of what follows in each.
    let aside = [0x5F, 0x2A, 0x4D, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
    for file in [
        gzip(&plain),
        [gzip(one), gzip(other)].concat(),
        zstd(&plain),
        [zstd(one), zstd(other)].concat(),
        [&aside[..], &zstd(one), &aside, &zstd(other), &aside].concat(),
    ] {
        assert_eq!(whole(&file), whole(&plain));
    }
    // What is cut off is said, with what was decompressed before.
    let cut = gzip(&plain);
    let (_, words) = sentence(&cut[..cut.len() - 12]);
    assert!(words.contains("cannot be read on") || words.contains("the file ends"), "{words}");
}

fn zstd(octets: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(octets, ruzstd::encoding::CompressionLevel::Fastest)
}

#[test]
fn what_was_decompressed_before_a_fault_is_read() {
    const PACKETS: usize = 5000;
    /// Octets of a zstd block, at the most (RFC 8878 section 3.1.1.2.4).
    const BLOCK: usize = 128 << 10;
    let words: Words = u32::to_le_bytes;
    let mut plain = pcap(words, 0xA1B2_C3D4, 1);
    for number in 0..PACKETS as u32 {
        plain.extend(packet(words, [number, 0], &[number as u8; 60], 60));
    }
    let file = zstd(&plain);
    // Cut off within its last block.
    let (read, said) = sentence(&file[..file.len() - 40]);
    assert!(read >= (plain.len() / BLOCK * BLOCK - 24) / 76, "{read}: {said}");
    assert!(said.contains("cannot be read on"), "{said}");
    // Another content than was compressed, in the last octets of all.
    let mut file = file;
    let last = file.len() - 1;
    file[last] ^= 1;
    let (read, error) = super::read(&file);
    let said = with_causes(&error.expect("a fault"));
    assert_eq!(read.len(), PACKETS);
    assert!(said.contains("has the checksum"), "{said}");
    // A frame without content that ends before its time.
    let aside = [0x50, 0x2A, 0x4D, 0x18, 9, 0, 0, 0, 1];
    let (read, _) = sentence(&[&zstd(&plain)[..], &aside].concat());
    assert_eq!(read, PACKETS);
}
