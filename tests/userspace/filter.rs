//! Packet filters: what the interpreter makes of a frame is what libpcap's own makes of it.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use collector_ebpf::{
    abi::{
        filter::{Machine, Program, WINDOW},
        packet::link,
    },
    filter, wire,
};
use collector_tests::{
    filters::{self, EXPRESSIONS},
    generated,
};
use collector_user::host::pcap::{Compiled, Filter, FilterError, Link};
use proptest::{
    collection, prelude::any, strategy::Strategy as _, strategy::ValueTree as _, test_runner::TestRunner,
};

/// One expression for one kind of link: libpcap's program, and all that were compiled to ours.
struct Case {
    expression: &'static str,
    link: Link,
    theirs: Compiled,
    /// What libpcap compiles it to here, and what is recorded.
    ours: [Box<Program>; 2],
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let recorded = filters::recorded().unwrap();
    for (expression, recorded) in EXPRESSIONS.into_iter().zip(&recorded) {
        let here = Filter::compile(expression).unwrap();
        assert_eq!(here.knows_raw_ip(), recorded.knows_raw_ip(), "{expression}");
        for (link, number) in [(Link::Ethernet, link::ETHERNET), (Link::RawIp, link::RAW_IP)] {
            let Ok(theirs) = Compiled::new(expression, link) else {
                assert!(!here.knows_raw_ip() && link == Link::RawIp, "{expression}");
                continue;
            };
            let ours = [&here, recorded].map(|filter| Box::new(filter.program(number)));
            all.push(Case { expression, link, theirs, ours });
        }
    }
    all
}

/// How often the verdicts were compared, and what came of it.
#[derive(Debug, Default)]
struct Tally {
    matched: BTreeMap<&'static str, u64>,
    compared: u64,
    beyond: u64,
    /// Of these, packets that libpcap matches when it has all of them.
    missed: u64,
}

impl Tally {
    /// Compares on one frame. `length` is its length on the wire.
    fn add(&mut self, cases: &[Case], link: Link, captured: &[u8], length: u32) {
        let shown = captured.get(..WINDOW as usize).unwrap_or(captured);
        let mut machine = Machine::default();
        for case in cases.iter().filter(|case| case.link == link) {
            let whole = case.theirs.verdict(captured, length);
            // The same packet, of which no more was captured than the window holds.
            let cut = case.theirs.verdict(shown, length);
            for program in &case.ours {
                machine.show(captured, length);
                let before = machine.beyond;
                let own = filter::run(program, &mut machine);
                let what = || format!("{:?} on {link:?} {captured:02x?}, {length} octets", case.expression);
                assert_eq!(own, cut, "{}", what());
                if machine.beyond == before {
                    assert_eq!(own, whole, "not counted: {}", what());
                } else {
                    assert!(shown.len() < length as usize && own == 0, "{}", what());
                    self.beyond += 1;
                    self.missed += u64::from(whole != 0);
                }
            }
            *self.matched.entry(case.expression).or_default() += u64::from(cut != 0);
            self.compared += 1;
        }
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "how much was compared is shown with `--nocapture`")]
fn generated_frames_match_where_libpcap_matches_them() {
    let cases = cases();
    let mut tally = Tally::default();
    let mut runner = TestRunner::deterministic();
    let choices = (collection::vec(any::<u8>(), 0..60), 0..4_usize, 0..400_usize);
    for _ in 0..20_000 {
        let (choices, longer, by) = choices.new_tree(&mut runner).unwrap().current();
        let (link, mut frame) = generated::frame(&choices);
        if longer == 0 {
            frame.extend((0..by).map(|at| at as u8));
        }
        let link = if link == wire::Link::RawIp { Link::RawIp } else { Link::Ethernet };
        let length = frame.len() as u32;
        tally.add(&cases, link, &frame, length);
    }
    for frame in filters::frames() {
        let length = frame.len() as u32;
        tally.add(&cases, Link::Ethernet, &frame, length);
        tally.add(&cases, Link::RawIp, &frame[14..], length - 14);
    }
    println!("{tally:#?}");
    assert!(tally.beyond > 0 && tally.missed > 0, "{tally:?}");
    for (expression, times) in &tally.matched {
        assert_eq!(*times == 0, filters::is_beyond(expression), "{expression} matched {times} frames");
    }
}

#[test]
fn a_program_is_recorded_for_every_expression() {
    if std::env::var_os("BLESS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/filters.txt");
        return fs::write(path, filters::write().unwrap()).unwrap();
    }
    let recorded = filters::recorded().unwrap();
    let expressions: Vec<_> = recorded.iter().map(Filter::expression).collect();
    assert_eq!(expressions, EXPRESSIONS, "write data/filters.txt anew: run this test with BLESS=1");
}

/// Frames that others have captured, where somebody put them: a folder of classic pcap files beside the project, or where
/// the environment says.
#[test]
#[expect(clippy::print_stdout, reason = "how much was compared is shown with `--nocapture`")]
fn captured_frames_match_where_libpcap_matches_them() {
    let folder = std::env::var_os("CAPTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/frames"), PathBuf::from);
    let files = captures(&folder);
    if files.is_empty() {
        // Not by a macro, whose output libtest would keep.
        let _ = writeln!(
            io::stderr(),
            "SKIP for the test, captured frames: there are none in {} (or in $CAPTURES)",
            folder.display()
        );
        return;
    }
    let cases = cases();
    let mut tally = Tally::default();
    let (mut frames, mut others) = (0, 0);
    for file in &files {
        let octets = fs::read(file).unwrap();
        let Some((link, packets)) = read_capture(&octets) else {
            others += 1;
            continue;
        };
        for (captured, length) in packets {
            frames += 1;
            tally.add(&cases, link, captured, length);
        }
    }
    println!("{} files, {others} of another kind, {frames} frames\n{tally:#?}", files.len());
    assert!(frames > 0, "no file in {} was read", folder.display());
}

fn captures(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(captures(&path));
        } else if path.extension().is_some_and(|it| it == "pcap" || it == "trace") {
            all.push(path);
        }
    }
    all.sort();
    all
}

/// What was captured of a packet, and its length on the wire.
type Packet<'a> = (&'a [u8], u32);

/// The link and the packets of a classic pcap file; `None` for another kind of file or link.
fn read_capture(file: &[u8]) -> Option<(Link, Vec<Packet<'_>>)> {
    let (header, mut rest) = file.split_first_chunk::<24>()?;
    let swapped = match header.first_chunk::<4>()? {
        [0xD4, 0xC3, 0xB2, 0xA1] | [0x4D, 0x3C, 0xB2, 0xA1] => false,
        [0xA1, 0xB2, 0xC3, 0xD4] | [0xA1, 0xB2, 0x3C, 0x4D] => true,
        _ => return None,
    };
    let number = |octets: &[u8], at: usize| {
        let octets = octets.get(at..at + 4).unwrap().try_into().unwrap();
        if swapped { u32::from_be_bytes(octets) } else { u32::from_le_bytes(octets) }
    };
    let link = match number(header, 20) & 0xFFFF {
        1 => Link::Ethernet,
        12 | 101 => Link::RawIp,
        _ => return None,
    };
    let mut packets = Vec::new();
    while let Some((header, behind)) = rest.split_first_chunk::<16>() {
        let Some((captured, behind)) = behind.split_at_checked(number(header, 8) as usize) else { break };
        packets.push((captured, number(header, 12)));
        rest = behind;
    }
    Some((link, packets))
}

#[test]
fn a_wrong_expression_is_refused_in_the_words_of_libpcap() {
    for (expression, words) in [
        ("tcp port", "syntax error"),
        ("port 99999", "99999"),
        ("tcp port 443 and", "syntax error"),
        ("host 1.2.3.4.5", "1.2.3.4.5"),
        ("a\0b", "nul"),
    ] {
        let error = Filter::compile(expression).unwrap_err();
        let FilterError::Expression { reason, .. } = &error else { panic!("{expression}: {error:?}") };
        assert!(reason.contains(words), "{expression}: {reason}");
        assert!(error.to_string().contains(&format!("{expression:?}")), "{error}");
    }
}

#[test]
fn what_the_kernel_side_does_not_run_is_refused() {
    let error = Filter::compile("ip6 protochain 6").unwrap_err();
    assert!(matches!(error, FilterError::Loop { .. }), "{error:?}");
    // What libpcap compiles fast: its time for as many addresses is minutes.
    let octets: Vec<_> = (0..1500).map(|at| format!("ether[{at}] == {}", at & 0xFF)).collect();
    let error = Filter::compile(&octets.join(" and ")).unwrap_err();
    assert!(matches!(error, FilterError::TooLong { length: 4097.., .. }), "{error:?}");
    assert!(error.to_string().contains("at most 4096"), "{error}");
}
