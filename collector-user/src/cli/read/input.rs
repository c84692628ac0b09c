//! The files that are read, and how far they are.

use std::{
    cell::Cell,
    fs::{self, File},
    io::{self, Read},
    path::{Display, Path, PathBuf},
    rc::Rc,
};

use super::ReadError;
use crate::read::container::{Capture, Record};

/// Whether standard input is meant.
pub(super) fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// What a file is called.
pub(super) fn name(path: &Path) -> Display<'_> {
    if is_standard(path) { Path::new("standard input").display() } else { path.display() }
}

/// How many octets there are in all files; none where that is not known before they are read.
pub(super) fn size(paths: &[PathBuf]) -> Option<u64> {
    paths
        .iter()
        .map(|path| fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|file| file.len()))
        .sum()
}

/// Hands every frame of a file on, with its number and the capture that it is in.
///
/// # Errors
///
/// [`ReadError`], and what `take` says.
pub(super) fn each<E: From<ReadError>>(
    path: &Path,
    done: &Rc<Cell<u64>>,
    mut take: impl FnMut(u64, &Record<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let wrong = |source| ReadError::Container { path: path.to_owned(), source };
    let input: Box<dyn Read> = if is_standard(path) {
        Box::new(io::stdin())
    } else {
        let file = File::open(path).and_then(|file| match file.metadata() {
            Ok(about) if about.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            _ => Ok(file),
        });
        Box::new(file.map_err(|source| ReadError::Open { path: path.to_owned(), source })?)
    };
    let mut capture = Capture::open(Counted { input, done: done.clone() }).map_err(wrong)?;
    let mut number = 0;
    while let Some(record) = capture.next_record().map_err(wrong)? {
        number += 1;
        take(number, &record)?;
    }
    Ok(())
}

/// Counts what is read.
struct Counted {
    input: Box<dyn Read>,
    done: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(into)?;
        self.done.set(self.done.get() + read as u64);
        Ok(read)
    }
}
