//! Standard output: whether there is one, and texts that a verb prints, whole.

use std::{
    io::{self, Write as _},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use rustix::{
    fs::{OFlags, fcntl_getfl},
    io::{Errno, fcntl_getfd},
};

use crate::sink::waiting::Waiting;

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Notes whether standard output is closed, as after `>&-`: for a program to call before the standard library starts,
/// which opens `/dev/null` in its place.
pub extern "C" fn look_at_stdout() {
    WAS_CLOSED.store(fcntl_getfd(rustix::stdio::stdout()).is_err(), Relaxed);
}

/// An error where standard output takes nothing. The standard library would take what is written for delivered.
pub(super) fn check() -> io::Result<()> {
    let is_for_reading = fcntl_getfl(io::stdout())? & OFlags::RWMODE == OFlags::RDONLY;
    if is_for_reading || WAS_CLOSED.load(Relaxed) { Err(Errno::BADF.into()) } else { Ok(()) }
}

/// Prints a text on standard output. A reader that has gone has had enough.
pub(super) fn print(text: &str) -> io::Result<()> {
    offer(text).map(drop)
}

/// The same; whether there is a reader still.
pub(super) fn offer(text: &str) -> io::Result<bool> {
    check()?;
    let mut out = Waiting(io::stdout());
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}
