//! The files that are read, and how far they are.

use std::{
    cell::Cell,
    fs::{self, File},
    io::{self, Read},
    os::fd::AsFd as _,
    path::{Display, Path, PathBuf},
    rc::Rc,
};

use super::ReadError;
use crate::{
    cli::ending::Ending,
    read::container::{Capture, Record},
};

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

/// Hands every frame of a file on, with its number and the capture that it is in, until `ending` begins.
///
/// # Errors
///
/// [`ReadError`], and what `take` says.
pub(super) fn each<E: From<ReadError>>(
    path: &Path,
    done: &Rc<Cell<u64>>,
    ending: Option<&Ending>,
    mut take: impl FnMut(u64, &Record<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let wrong = |source| ReadError::Container { path: path.to_owned(), source };
    let opened = if is_standard(path) {
        // The standard library's would gather what is read.
        io::stdin().as_fd().try_clone_to_owned().map(File::from)
    } else {
        File::open(path).and_then(|file| match file.metadata() {
            Ok(about) if about.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            _ => Ok(file),
        })
    };
    let file = opened.map_err(|source| ReadError::Open { path: path.to_owned(), source })?;
    let input = Counted { file, done: done.clone(), ending: ending.cloned() };
    let mut capture = Capture::open(input).map_err(wrong)?;
    let mut number = 0;
    while let Some(record) = capture.next_record().map_err(wrong)? {
        number += 1;
        take(number, &record)?;
    }
    Ok(())
}

/// Counts what is read, and waits no longer than until the end begins.
struct Counted {
    file: File,
    done: Rc<Cell<u64>>,
    ending: Option<Ending>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if let Some(ending) = &self.ending {
            ending.wait_to_read(&self.file)?;
        }
        let read = self.file.read(into)?;
        self.done.set(self.done.get() + read as u64);
        Ok(read)
    }
}
