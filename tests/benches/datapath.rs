//! What a packet costs: `cargo bench -p collector-tests --bench datapath -- [--rounds N]`, as root.
//!
//! Each program is run by `BPF_PROG_TEST_RUN`, beside two of the same object: `empty`, which is what running a program
//! costs at all and is subtracted, and `floor`, the usual way to count flows. Programs take turns within a round, so that
//! whatever else the machine does meets all of them; what is printed is the median over the rounds.
//!
//! A *hot* flow holds its slot: one frame, run [`REPEAT`] times in one call. A *first packet* can only be run once, so each
//! is a frame of its own, from another port, timed alone; a round's figure is the median over its frames. Such a
//! figure holds the reading of the clock as well, and what was not in the processor's caches; that of `empty` holds
//! them too, and stands for both.
#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::{collections::BTreeMap, net::IpAddr, ops::RangeInclusive};

use anyhow::Context as _;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use collector_ebpf::abi::pu::index;
use collector_tests::{
    Result,
    frames::{ACK, Ends},
    testrun::{Datapath, uplink},
    traffic::pin,
};
use collector_user::kernel::object::{EGRESS, INGRESS, Settings};

/// Runs of a hot flow in one call.
const REPEAT: u32 = 200_000;
/// Runs before those, not timed.
const WARM_UP: u32 = 10_000;
/// Entries of the table of `floor`, which nobody empties: each of its first packets must find room there.
const FLOOR_ENTRIES: usize = 4_096;
/// Rounds unless told otherwise.
const ROUNDS: usize = 9;

const PROGRAMS: [&str; 4] = ["empty", "floor", INGRESS, EGRESS];

/// This host, as the programs know it.
const HERE: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 2)),
    IpAddr::V6(std::net::Ipv6Addr::new(0xFD77, 0, 0, 0, 0, 0, 0, 2)),
];

fn ends(version: u8) -> Ends {
    let [four, six] = HERE;
    let (source, destination) = match version {
        4 => (IpAddr::from([10, 77, 0, 1]), four),
        _ => (IpAddr::from([0xFD77, 0, 0, 0, 0, 0, 0, 1]), six),
    };
    Ends { source, destination, source_port: 40_001, destination_port: 5_201 }
}

/// A case: its name, and the frame from each source port.
struct Case {
    name: &'static str,
    frame: fn(u16) -> Vec<u8>,
    first: bool,
}

/// Frames of 64 octets over IPv4, of 84 over IPv6.
const CASES: [Case; 6] = [
    Case { name: "TCP/IPv4, hot", frame: |port| ends(4).from_port(port).tcp(ACK, 10), first: false },
    Case { name: "TCP/IPv6, hot", frame: |port| ends(6).from_port(port).tcp(ACK, 10), first: false },
    Case { name: "UDP/IPv4, hot", frame: |port| ends(4).from_port(port).udp(22), first: false },
    Case { name: "TCP/IPv4, first packet", frame: |port| ends(4).from_port(port).tcp(ACK, 10), first: true },
    Case { name: "TCP/IPv6, first packet", frame: |port| ends(6).from_port(port).tcp(ACK, 10), first: true },
    Case { name: "UDP/IPv4, first packet", frame: |port| ends(4).from_port(port).udp(22), first: true },
];

fn main() -> Result<()> {
    let rounds = rounds()?;
    pin(0)?;
    let settings = Settings {
        reference_programs: true,
        new_flows_per_second: 10_000_000,
        new_flows_burst: 10_000_000,
        ..Settings::default()
    };
    let mut datapath = Datapath::load(&settings)?;
    datapath.controller.set_role(uplink(index::HOST, 0))?;
    for address in HERE {
        datapath.controller.add_local(address)?;
    }
    let mut figures = BTreeMap::<(usize, usize), Vec<f64>>::new();
    // Of as many cases as there are, in every round; some room is left for the hot flows.
    let each = (FLOOR_ENTRIES - 16) / (CASES.len() / 2 * rounds);
    for round in 0..rounds {
        let ports = 1 + round * each..=(round + 1) * each;
        for (number, case) in CASES.iter().enumerate() {
            for (column, program) in PROGRAMS.into_iter().enumerate() {
                datapath.renew()?;
                let program = datapath.programs.classifier(program)?;
                let ns = if case.first { first(program, case, ports.clone())? } else { hot(program, case)? };
                figures.entry((number, column)).or_default().push(ns);
                let drained = datapath.drain()?;
                datapath.begin_anew(&drained)?;
            }
        }
    }
    println!("{:<24} {:<12} {:>8} {:>12} {:>14}", "case", "program", "ns", "over empty", "of floor's");
    for (number, case) in CASES.iter().enumerate() {
        let mut of = |column| figures.get_mut(&(number, column)).map_or(f64::NAN, |ns| median(ns));
        let (empty, floor) = (of(0), of(1));
        for (column, program) in PROGRAMS.into_iter().enumerate() {
            let ns = of(column);
            let over = ns - empty;
            let ratio = if column == 0 { "-".to_owned() } else { format!("{:.2}", over / (floor - empty)) };
            println!("{:<24} {program:<12} {ns:>8.0} {over:>12.0} {ratio:>14}", case.name);
        }
    }
    Ok(())
}

/// Nanoseconds of a packet whose flow holds its slot.
fn hot(program: &SchedClassifier, case: &Case) -> Result<f64> {
    let frame = (case.frame)(40_001);
    run(program, &frame, WARM_UP)?;
    run(program, &frame, REPEAT)
}

/// Nanoseconds of the first packet of a flow: the median over many.
fn first(program: &SchedClassifier, case: &Case, ports: RangeInclusive<usize>) -> Result<f64> {
    let mut all = Vec::new();
    for port in ports {
        all.push(run(program, &(case.frame)(port as u16), 1)?);
    }
    Ok(median(&mut all))
}

fn run(program: &SchedClassifier, frame: &[u8], repeat: u32) -> Result<f64> {
    let result =
        program.test_run(TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() })?;
    Ok(result.duration.as_nanos() as f64)
}

fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// `--rounds N`; what cargo adds is passed over.
fn rounds() -> Result<usize> {
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => {
                let number = arguments.next().context("--rounds wants a number")?;
                return number.parse().with_context(|| format!("--rounds {number}"));
            }
            "--bench" => {}
            other => anyhow::bail!("unknown argument {other}: expected --rounds N"),
        }
    }
    Ok(ROUNDS)
}
