//! Daemons of others: waited for by a line of their log, and ended.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{PATIENCE, Result, netns::Place};

/// A daemon, which writes its log to standard error; ended when this is dropped.
#[derive(Debug)]
pub struct Served {
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl Served {
    /// Starts one on a host, and returns once its log has a line with this in it.
    pub fn start(mut command: Command, place: &Place, ready: &'static str) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = place.within(|| {
            command.spawn().with_context(|| format!("{} does not start", command.get_program().display()))
        })?;
        let log = child.stderr.take().context("standard error was asked for")?;
        let (say, said) = mpsc::channel();
        // Read to its end, or the daemon would wait for room.
        let reader = thread::spawn(move || {
            for line in BufReader::new(log).lines() {
                let Ok(line) = line else { return };
                let _ = say.send(line);
            }
        });
        let served = Self { child, reader: Some(reader) };
        let mut last = String::new();
        loop {
            match said.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(ready) => return Ok(served),
                Ok(line) => last = line,
                Err(_) => bail!("{} is not ready: {last}", command.get_program().display()),
            }
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
