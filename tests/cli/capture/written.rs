//! A file that was captured to: what stands in it, and that tcpdump reads it.

use std::fs;

use pcap_parser::{Block, OptionCode, parse_block_le};

use super::tcpdump::Seen;
use crate::process::{TempFile, sh};

/// A file as it was read.
#[derive(Debug, Default)]
pub(super) struct Capture {
    pub(super) interfaces: Vec<String>,
    pub(super) packets: Vec<Seen>,
    pub(super) lengths: Vec<u32>,
    pub(super) times: Vec<u64>,
    pub(super) comments: Vec<String>,
    /// Of each interface: received, lost, delivered.
    pub(super) statistics: Vec<[u64; 3]>,
}

impl Capture {
    pub(super) fn of(octets: &[u8]) -> Self {
        let mut capture = Self::default();
        let mut rest = octets;
        while !rest.is_empty() {
            let (next, block) = parse_block_le(rest).expect("whole blocks only");
            rest = next;
            match block {
                Block::SectionHeader(_) => {}
                Block::InterfaceDescription(block) => {
                    let name = block.if_name().map_or("", |name| name.expect("a name is text"));
                    capture.interfaces.push(name.to_owned());
                }
                Block::EnhancedPacket(block) => {
                    let option = |code| block.options.iter().find(|option| option.code == OptionCode(code));
                    let direction = option(2).map_or(0, |flags| flags.as_u32_le().expect("a number"));
                    capture.packets.push((direction, block.data[..block.caplen as usize].to_vec()));
                    capture.lengths.push(block.origlen);
                    capture.times.push(u64::from(block.ts_high) << 32 | u64::from(block.ts_low));
                    let comment = option(1).map(|comment| comment.as_str().expect("text").to_owned());
                    capture.comments.extend(comment);
                }
                Block::InterfaceStatistics(block) => {
                    let counts = [block.isb_ifrecv(), block.isb_ifdrop(), block.isb_usrdeliv()];
                    capture
                        .statistics
                        .push(counts.map(|count| count.expect("it is there").expect("a number")));
                }
                other => panic!("no such block is written: {other:?}"),
            }
        }
        capture
    }

    pub(super) fn of_file(file: &TempFile) -> Self {
        Self::of(&fs::read(&file.0).expect("it was written"))
    }
}

/// How many packets tcpdump finds in a file, which it has to open without a complaint.
pub(super) fn tcpdump_reads(file: &TempFile) -> usize {
    sh(&format!("tcpdump -nn -t -r {} 2>/dev/null", file.path()))
        .lines()
        .filter(|l| !l.starts_with('\t'))
        .count()
}
