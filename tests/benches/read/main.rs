//! What reading a capture takes: `cargo bench -p collector-tests --bench read -- [--rounds N]`, by `cargo xtask bench`, which
//! says where the programs are.
//!
//! - [`capture`]: what is read, made anew each time.
//! - [`readers`]: who reads it.
//! - [`taken`]: what a program has taken, with all that it started.
//!
//! All stay on one CPU, with all their threads and processes; the capture is in the page cache, and what they print goes to
//! `/dev/null`. What counts is the time of the CPU: some of them sleep in between. They take turns within a round, so that whatever
//! else the machine does meets all of them; what is printed are medians over the rounds.
#![expect(clippy::print_stdout, reason = "the tables are what it is for")]
#![expect(clippy::indexing_slicing, reason = "a place that is not there is a fault of the bench")]

mod capture;
mod readers;
mod taken;

use std::{fs::File, os::unix::fs::OpenOptionsExt as _, panic, path::Path, thread};

use capture::Traffic;
use collector_tests::{
    Result,
    measure::{Options, median},
    scratch::Scratch,
    traffic::pin,
};
use readers::{Bare, Reader};
use rustix::fs::{CWD, Mode, mkfifoat};
use taken::Taken;

const MIXED: Traffic = Traffic { frames: 2_000_000, pairs: 20_000 };

/// The same traffic between fewer and more, and more of it between as many.
const OTHERS: [Traffic; 3] = [
    Traffic { pairs: 1_000, ..MIXED },
    Traffic { pairs: 200_000, ..MIXED },
    Traffic { frames: 4_000_000, ..MIXED },
];

/// 10 GB.
const LONG: Traffic = Traffic { frames: 27_000_000, ..MIXED };

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if(|argument| argument == readers::BARE).is_some() {
        return readers::bare(arguments);
    }
    let options = Options::parse(arguments)?;
    if !options.wants("read") {
        return Ok(());
    }
    pin(0)?;
    taken::adopt()?;
    let scratch = Scratch::new()?;
    beside_others(&scratch.join("mixed.pcap"), options.rounds)?;
    by_itself(&scratch.join("other.pcap"), options.rounds)?;
    by_a_pipe(&scratch.join("long.pcap"))
}

/// Beside what others make of the same capture.
fn beside_others(file: &Path, rounds: usize) -> Result<()> {
    let octets = capture::write(file, MIXED)?;
    readers::check(file, MIXED.frames)?;
    let mut readers = vec![Reader::collector(file)?, Reader::collector_at_the_end(file)?];
    readers.extend(Reader::others(file)?);
    readers.extend([Bare::Ours, Bare::PcapParser].map(|bare| Reader::bare(file, bare)).into_iter().flatten());
    println!(
        "\nA capture of {} frames, {} MB, between {} pairs of hosts, read on one CPU",
        MIXED.frames,
        octets / 1_000_000,
        MIXED.pairs
    );
    println!("{:<36} {:>12} {:>8} {:>10}", "reader", "M frames/s", "ratio", "MB of memory");
    let mut all = vec![Vec::new(); readers.len()];
    for _ in 0..rounds {
        for (reader, all) in readers.iter().zip(&mut all) {
            all.push(reader.run()?);
        }
    }
    let first = all[0].clone();
    for (reader, all) in readers.iter().zip(&all) {
        let ratios =
            all.iter().zip(&first).map(|(taken, first)| first.cpu.as_secs_f64() / taken.cpu.as_secs_f64());
        println!(
            "{:<36} {:>12.2} {:>8.2} {:>10.1}",
            reader.name,
            rate(all, MIXED.frames),
            median(&mut ratios.collect::<Vec<_>>()),
            memory(all)
        );
    }
    for missing in readers::missing() {
        println!("{missing:<36} {:>12}", "not here");
    }
    Ok(())
}

/// Of other captures.
fn by_itself(file: &Path, rounds: usize) -> Result<()> {
    println!("\n{:<36} {:>12} {:>8} {:>10}", "collector read", "M frames/s", "", "MB of memory");
    for traffic in OTHERS {
        capture::write(file, traffic)?;
        let reader = Reader::collector(file)?;
        let all = (0..rounds).map(|_| reader.run()).collect::<Result<Vec<_>>>()?;
        println!(
            "{:<36} {:>12.2} {:>8} {:>10.1}",
            format!("{} frames, {} pairs", traffic.frames, traffic.pairs),
            rate(&all, traffic.frames),
            "",
            memory(&all)
        );
    }
    Ok(())
}

/// Of one that is as long as many a disk, while it is written: nothing of it is kept.
fn by_a_pipe(pipe: &Path) -> Result<()> {
    mkfifoat(CWD, pipe, Mode::RUSR | Mode::WUSR)?;
    let reader = Reader::collector(pipe)?;
    // While it has an end to read from here, nobody waits for a reader that may never come.
    let end = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(pipe)?;
    let (taken, octets) = thread::scope(|scope| {
        let writing = scope.spawn(|| capture::write(pipe, LONG));
        let taken = reader.run();
        drop(end);
        (taken, writing.join().unwrap_or_else(|cause| panic::resume_unwind(cause)))
    });
    let (taken, octets) = (taken?, octets?);
    println!(
        "{:<36} {:>12.2} {:>8} {:>10.1}",
        format!("{} GB by a pipe", octets / 1_000_000_000),
        rate(&[taken], LONG.frames),
        "",
        memory(&[taken])
    );
    Ok(())
}

/// Millions of frames in a second of a CPU.
fn rate(all: &[Taken], frames: u32) -> f64 {
    f64::from(frames) / 1e6 / median(&mut all.iter().map(|taken| taken.cpu.as_secs_f64()).collect::<Vec<_>>())
}

/// The most memory of a process, in MB.
fn memory(all: &[Taken]) -> f64 {
    median(&mut all.iter().map(|taken| taken.memory as f64 / 1e6).collect::<Vec<_>>())
}
