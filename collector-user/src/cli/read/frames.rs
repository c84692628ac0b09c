//! `--frames`: a line for each.

use std::io;

use super::{ReadError, input, odd::Odd, progress::Progress};
use crate::{
    cli::{args::ReadArgs, say::Voice, stdout},
    read::{
        backwards::Newest,
        frames::{heading, line},
        replay::{Oddity, is_empty},
        seen::Seen,
    },
    sink::waiting::Waiting,
};

/// Octets of lines that are written at once.
const CHUNK: usize = 1 << 16;

/// Prints the frames of all files; whether each was read to its end. What is wrong with one is said, and the next one's turn.
///
/// # Errors
///
/// Standard output takes nothing.
pub(super) fn print(args: &ReadArgs, voice: &Voice) -> Result<bool, ReadError> {
    stdout::check().map_err(ReadError::Output)?;
    let mut out = Lines { out: Waiting(io::stdout()), text: String::with_capacity(2 * CHUNK) };
    let mut progress = Progress::new(input::size(&args.files));
    let done = progress.done.clone();
    heading(&mut out.text);
    let mut is_whole = true;
    for path in &args.files {
        let (mut odd, mut newest) = (Odd::default(), Newest::default());
        let read = input::each(path, &done, None, |number, record| {
            progress.step();
            let is_behind = newest.is_behind(record.time).then_some(Oddity::Backwards);
            odd.add(record, is_behind.or_else(|| is_empty(record)));
            line(&mut out.text, path, number, record, &Seen::of(record));
            if out.text.len() < CHUNK { Ok(()) } else { out.write().map_err(ReadError::Output) }
        });
        let read = read.and_then(|()| out.write().map_err(ReadError::Output));
        match read {
            Ok(()) => {}
            Err(ReadError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                // Who has gone has had enough.
                return Ok(is_whole);
            }
            Err(error @ ReadError::Output(_)) => return Err(error),
            Err(error) => {
                voice.error(&error);
                is_whole = false;
            }
        }
        for error in odd.errors(path) {
            voice.error(&error);
            is_whole = false;
        }
    }
    match out.write() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(ReadError::Output(error)),
        _ => Ok(is_whole),
    }
}

/// Lines that wait to be written.
struct Lines<W> {
    out: W,
    text: String,
}

impl<W: io::Write> Lines<W> {
    fn write(&mut self) -> io::Result<()> {
        let written = self.out.write_all(self.text.as_bytes()).and_then(|()| self.out.flush());
        self.text.clear();
        written
    }
}
