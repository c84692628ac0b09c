//! What a program has taken, with all that it started.

use std::{
    io,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use collector_tests::Result;
use rustix::process::{getpid, set_child_subreaper};

/// What programs have taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    /// Of a CPU, in user and kernel space.
    pub(crate) cpu: Duration,
    /// Octets in memory at most, of that process which had most. This process's own are the least: until a program begins it is a
    /// copy of this one.
    pub(crate) memory: u64,
}

/// From now on this process is the parent of what its children leave behind, so that what that takes is counted, too.
pub(crate) fn adopt() -> Result<()> {
    set_child_subreaper(Some(getpid()))?;
    Ok(())
}

/// Runs a program, out of sight, until all that it started has ended.
pub(crate) fn by(command: &mut Command) -> Result<Taken> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().with_context(|| format!("cannot start {name}"))?.id();
    let mut taken = Taken::default();
    while let Some((ended, status, usage)) = wait()? {
        if ended.cast_unsigned() == child {
            ensure!(status == 0, "{name} ended with status {status:#x}");
        }
        taken.cpu += time(usage.ru_utime) + time(usage.ru_stime);
        taken.memory = taken.memory.max(usage.ru_maxrss.cast_unsigned() * 1024);
    }
    Ok(taken)
}

/// The next child that ends, how, and what it has taken; nothing where there are no more.
fn wait() -> io::Result<Option<(libc::pid_t, libc::c_int, libc::rusage)>> {
    let mut status = 0;
    // SAFETY: numbers all of them, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both are written to while they live.
    let ended = unsafe { libc::wait4(-1, &raw mut status, 0, &raw mut usage) };
    if ended > 0 {
        return Ok(Some((ended, status, usage)));
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ECHILD) { Ok(None) } else { Err(error) }
}

fn time(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.cast_unsigned()) + Duration::from_micros(time.tv_usec.cast_unsigned())
}
