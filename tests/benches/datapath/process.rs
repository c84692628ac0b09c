//! The collector as a process of its own: this program, started again with a verb of it.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _},
    panic,
    process::{Child, ChildStderr, ChildStdout, Command, ExitCode, Stdio},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, ensure};
use clap::Parser as _;
use collector_tests::{Result, netns::Place};
use collector_user::{
    cli::{self, args::Cli},
    event::Status,
    kernel::cpus,
};
use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{CpuSet, sched_setaffinity},
};
use serde::Deserialize;

/// By what this program knows that it is the collector.
const VERB: &str = "run";

/// What a collector does, where this program was started as one.
pub(crate) fn collector() -> Option<ExitCode> {
    let is_collector = env::args().nth(1).is_some_and(|first| first == VERB);
    is_collector.then(|| cli::main(&Cli::parse()))
}

/// One that runs; killed if it is dropped.
pub(crate) struct Collector {
    child: Child,
    errors: BufReader<ChildStderr>,
    /// Reads what it tells.
    reader: Option<JoinHandle<Result<Told>>>,
}

/// What its output had.
#[derive(Default)]
struct Told {
    last: Vec<u8>,
    /// Reports of packets that were dropped.
    dropped: u64,
}

/// Kilobytes of its process that are in memory.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) now: u64,
    /// The most since [`Collector::forget_most`].
    pub(crate) most: u64,
}

impl Memory {
    pub(crate) fn megabytes(kilobytes: u64) -> f64 {
        kilobytes as f64 * 1024.0 / 1e6
    }
}

impl Collector {
    /// Starts one on a host, on any CPU, and returns once it counts every packet.
    pub(crate) fn start(place: &Place, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg(VERB).args(arguments).args(["--discover", "off", "--output", "json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = place.within(|| {
            let mut all = CpuSet::new();
            cpus::online()?.into_iter().for_each(|cpu| all.set(cpu as usize));
            // It has those of the thread that starts it.
            sched_setaffinity(None, &all)?;
            Ok(command.spawn()?)
        })?;
        let errors = BufReader::new(child.stderr.take().context("it is piped")?);
        let out = child.stdout.take().context("it is piped")?;
        let reader = Some(thread::spawn(move || read(out)));
        let mut collector = Self { child, errors, reader };
        let mut said = String::new();
        while !said.contains("attached to ") {
            let length = collector.errors.read_line(&mut said)?;
            ensure!(length > 0, "the collector ended: {said}");
        }
        Ok(collector)
    }

    /// What it has in memory.
    pub(crate) fn memory(&self) -> Result<Memory> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let of = |name: &str| number(&text, name).with_context(|| format!("its status has no {name}"));
        Ok(Memory { now: of("VmRSS:")?, most: of("VmHWM:")? })
    }

    /// From here on the most is counted anew.
    pub(crate) fn forget_most(&self) -> Result<()> {
        // proc_pid_clear_refs(5).
        Ok(fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5")?)
    }

    /// Nanoseconds that its drop program has run in all, and how often.
    pub(crate) fn drop_runs(&self) -> Result<(u64, u64)> {
        for entry in fs::read_dir(format!("/proc/{}/fdinfo", self.child.id()))? {
            // What it has closed meanwhile is none.
            let text = fs::read_to_string(entry?.path()).unwrap_or_default();
            // BPF_PROG_TYPE_TRACING: it has one.
            if number(&text, "prog_type:") == Some(26) {
                let of = |name: &str| number(&text, name).with_context(|| format!("Linux tells no {name}"));
                return Ok((of("run_time_ns:")?, of("run_cnt:")?));
            }
        }
        anyhow::bail!("the collector has no drop program")
    }

    /// Stops it; its last word, and how many packets that were dropped it has reported, each in a line.
    pub(crate) fn stop(mut self) -> Result<(Status, u64)> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        let reader = self.reader.take().context("it was stopped before")?;
        let Told { last, dropped } = reader.join().unwrap_or_else(|cause| panic::resume_unwind(cause))?;
        let status = self.child.wait()?;
        let mut said = String::new();
        self.errors.read_to_string(&mut said)?;
        ensure!(status.success(), "the collector failed: {said}");
        let last: Line = serde_json::from_slice(&last).context("its last word is how it stands")?;
        Ok((last.record, dropped))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // One that has ended cannot be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The line in which it says how it stands.
#[derive(Deserialize)]
struct Line {
    record: Status,
}

/// Reads all of it.
fn read(out: ChildStdout) -> Result<Told> {
    const DROPPED: &[u8] = br#""event":"Dropped""#;
    let mut out = BufReader::with_capacity(1 << 20, out);
    let (mut told, mut line) = (Told::default(), Vec::new());
    while out.read_until(b'\n', &mut line)? > 0 {
        // It stands at the beginning, and most are something else.
        let beginning = line.get(..256).unwrap_or(&line);
        told.dropped += u64::from(beginning.windows(DROPPED.len()).any(|octets| octets == DROPPED));
        std::mem::swap(&mut told.last, &mut line);
        line.clear();
    }
    Ok(told)
}

/// The number that stands behind a name at the beginning of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}
