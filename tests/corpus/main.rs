//! Captures that nobody here made, read by the parser, by the loaded programs, and by an independent dissector: `cargo xtask
//! corpus DIR [--truth FILE]`.
//!
//! Every capture below DIR is read. The table beside a folder that has its name (`X.tsv` beside `X/`), or the one that is named,
//! says what a dissector makes of each frame. What differs is printed, and is a failure unless an explanation covers it
//! (`tests/corpus/explained.tsv`), of which there may be one for two hundred frames.
#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::indexing_slicing, reason = "a comparison that looks where nothing is shall fail there")]

mod compare;
mod explained;
mod kernel;
mod truth;

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use collector_tests::Result;
use collector_user::read::{
    container::{Capture, ContainerError, links},
    link,
    seen::Seen,
};

use compare::{Difference, Outcome};
use explained::Explanations;
use kernel::{Frame, Kernel};
use truth::Truth;

/// Frames of which one may have an explanation.
const FOR_ONE_EXPLANATION: u64 = 200;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse()?;
    let mut captures = Vec::new();
    find(&arguments.folder, "", &mut captures)?;
    captures.sort();
    let truth = arguments.truth(&captures)?;
    let kernel = if arguments.parser_only { None } else { Some(Kernel::load()?) };
    let mut run = Run { kernel, truth, explanations: Explanations::read()?, ..Run::default() };
    for capture in &captures {
        run.capture(&arguments.folder, capture)?;
    }
    run.finish()
}

/// What was asked for.
struct Arguments {
    folder: PathBuf,
    truth: Option<PathBuf>,
    parser_only: bool,
}

impl Arguments {
    fn parse() -> Result<Self> {
        let (mut folder, mut truth, mut parser_only) = (None, None, false);
        let mut words = env::args_os().skip(1);
        while let Some(word) = words.next() {
            if word == OsStr::new("--truth") {
                truth = Some(words.next().context("--truth: expected a file")?.into());
            } else if word == OsStr::new("--parser-only") {
                parser_only = true;
            } else if folder.replace(PathBuf::from(word)).is_some() {
                bail!("expected one folder");
            }
        }
        Ok(Self { folder: folder.context("expected a folder with captures")?, truth, parser_only })
    }

    /// The table that was named, or those that lie beside folders and have their names.
    fn truth(&self, captures: &[String]) -> Result<Truth> {
        let mut truth = Truth::default();
        if let Some(table) = &self.truth {
            truth.read(table, "")?;
            return Ok(truth);
        }
        let beside = self.folder.with_extension("tsv");
        if self.folder.file_name().is_some() && beside.is_file() {
            truth.read(&beside, "")?;
        }
        let mut folders: Vec<_> =
            captures.iter().filter_map(|it| it.split_once('/')).map(|it| it.0).collect();
        folders.dedup();
        for folder in folders {
            let table = self.folder.join(format!("{folder}.tsv"));
            if table.is_file() {
                truth.read(&table, &format!("{folder}/"))?;
            }
        }
        Ok(truth)
    }
}

/// The captures below a folder, by their endings.
fn find(folder: &Path, below: &str, captures: &mut Vec<String>) -> Result<()> {
    const ENDINGS: [&str; 9] =
        [".pcap", ".pcapng", ".cap", ".pcap.gz", ".pcapng.gz", ".pcap.zst", ".pcapng.zst", ".trace", ".dmp"];
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            find(&entry.path(), &format!("{below}{name}/"), captures)?;
        } else if ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            captures.push(format!("{below}{name}"));
        }
    }
    Ok(())
}

/// What was found of a kind of frames.
#[derive(Default)]
struct Line {
    frames: u64,
    agree: u64,
    unparsed: u64,
    explained: u64,
    differ: u64,
}

#[derive(Default)]
struct Run {
    kernel: Option<Kernel>,
    truth: Truth,
    explanations: Explanations,
    lines: BTreeMap<String, Line>,
    reasons: BTreeMap<&'static str, u64>,
    captures: u64,
    failed: Vec<String>,
    compared: u64,
    /// Frames that the tables have and that were not read, of captures whose link type is.
    unread: u64,
}

impl Run {
    /// Reads a capture to its end, or as far as that is possible.
    fn capture(&mut self, folder: &Path, name: &str) -> Result<()> {
        self.captures += 1;
        let before = self.compared;
        let stopped = self.frames(folder, name)?;
        let (compared, known) = (self.compared - before, self.truth.frames_of(name));
        let is_strange = matches!(stopped, Some(ContainerError::Link { .. }));
        if compared < known && !is_strange {
            // The dissector has read on.
            self.unread += known - compared;
            self.failed.push(format!("{name}: {} frames of the table are not read", known - compared));
        }
        self.failed.extend(stopped.map(|error| format!("{name}: {error}")));
        Ok(())
    }

    /// Compares its frames; why not all of them.
    fn frames(&mut self, folder: &Path, name: &str) -> Result<Option<ContainerError>> {
        let file = File::open(folder.join(name)).with_context(|| name.to_owned())?;
        let mut capture = match Capture::open(file) {
            Ok(capture) => capture,
            Err(error) => return Ok(Some(error)),
        };
        let mut number = 0;
        loop {
            let record = match capture.next_record() {
                Ok(Some(record)) => record,
                Ok(None) => return Ok(None),
                Err(error) => return Ok(Some(error)),
            };
            number += 1;
            if !link::is_read(record.link) {
                return Ok(Some(ContainerError::Link { offset: record.offset, link: record.link }));
            }
            let seen = Seen::of(&record);
            let is_whole = record.octets.len() == record.length as usize;
            if record.link == links::ETHERNET && is_whole && !seen.is_super {
                let octets = record.octets.to_vec();
                if let Some(kernel) = &mut self.kernel {
                    kernel.add(Frame { capture: name.to_owned(), number, octets })?;
                }
            }
            self.frame(name, number, &seen);
        }
    }

    fn frame(&mut self, name: &str, number: u64, seen: &Seen) {
        let row = self.truth.row(name, number);
        self.compared += u64::from(row.is_some());
        let line = self.lines.entry(compare::category(seen, row)).or_default();
        line.frames += 1;
        let outcome = match (row, seen.unparsed) {
            (Some(row), _) => compare::compare(seen, row),
            (None, Some(reason)) => Outcome::Unparsed(reason),
            (None, None) => Outcome::Agrees,
        };
        match outcome {
            Outcome::Agrees => line.agree += 1,
            Outcome::Unparsed(reason) => {
                line.unparsed += 1;
                *self.reasons.entry(reason.name()).or_default() += 1;
            }
            Outcome::Differs(differences) => {
                let covers = |row, it: &Difference| self.explanations.covers(name, number, it.field, row);
                if row.is_some_and(|row| differences.iter().all(|it| covers(row, it))) {
                    line.explained += 1;
                    return;
                }
                line.differ += 1;
                for Difference { field, ours, theirs } in differences {
                    println!("{name}\tframe {number}\t{field}\tours {ours:?}\ttheirs {theirs:?}");
                }
            }
        }
    }

    fn finish(mut self) -> Result<ExitCode> {
        if let Some(kernel) = &mut self.kernel {
            kernel.run()?;
            for (Frame { capture, number, .. }, how) in &kernel.differing {
                println!("{capture}\tframe {number}\tprograms\t{how}");
            }
        }
        println!(
            "{:<32} {:>7} {:>7} {:>9} {:>10} {:>9}",
            "frames of", "frames", "agree", "unparsed", "explained", "disagree"
        );
        let mut sum = Line::default();
        for (category, line) in &self.lines {
            print(category, line);
            sum.frames += line.frames;
            sum.agree += line.agree;
            sum.unparsed += line.unparsed;
            sum.explained += line.explained;
            sum.differ += line.differ;
        }
        print("all", &sum);
        let reasons: Vec<_> = self.reasons.iter().map(|(name, count)| format!("{name} {count}")).collect();
        println!("unparsed: {}", reasons.join(", "));
        println!(
            "{} captures; {} frames with a row of {} in the tables",
            self.captures,
            self.compared,
            self.truth.len()
        );
        let mut is_well = sum.differ == 0 && self.unread == 0;
        match &self.kernel {
            None => println!("by the loaded programs: NOT RUN"),
            Some(kernel) => {
                println!(
                    "by the loaded programs: {} frames, {} otherwise than by the parser",
                    kernel.ran,
                    kernel.differing.len()
                );
                is_well &= kernel.differing.is_empty();
            }
        }
        for failed in &self.failed {
            println!("not read on: {failed}");
        }
        if sum.explained * FOR_ONE_EXPLANATION > sum.frames {
            println!(
                "{} frames are explained: that is more than one in {FOR_ONE_EXPLANATION}",
                sum.explained
            );
            is_well = false;
        }
        Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn print(category: &str, line: &Line) {
    let Line { frames, agree, unparsed, explained, differ } = line;
    println!("{category:<32} {frames:>7} {agree:>7} {unparsed:>9} {explained:>10} {differ:>9}");
}
