//! Where outputs go, as the system has it: one place may have many names.

use std::{io, os::fd::AsFd};

use rustix::fs::{FileType, fstat};

use super::OutputError;
use crate::config::{Destination, OutputConfig};

/// What an open file is, whatever it is called.
#[derive(PartialEq, Eq)]
pub(in crate::cli) struct Place {
    device: u64,
    inode: u64,
}

impl Place {
    /// None where two may write: a character device, such as `/dev/null` or a terminal.
    pub(in crate::cli) fn of(file: impl AsFd) -> io::Result<Option<Self>> {
        let stat = fstat(file)?;
        let is_shareable = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        Ok((!is_shareable).then_some(Self { device: stat.st_dev, inode: stat.st_ino }))
    }
}

/// The places that have an output: two that write to one would cut each other's lines.
#[derive(Default)]
pub(super) struct Places<'a>(Vec<(Place, &'a OutputConfig)>);

impl<'a> Places<'a> {
    /// Notes that an output writes there.
    ///
    /// # Errors
    ///
    /// [`OutputError::SharedPlace`] where another one does.
    pub(super) fn take(&mut self, place: Place, output: &'a OutputConfig) -> Result<(), OutputError> {
        // These two are given, and to send both to one place is usual: 2>&1, or the service manager's log.
        let is_given = |to: &Destination| matches!(to, Destination::Stdout | Destination::Stderr);
        let shared = self
            .0
            .iter()
            .find(|(other, first)| *other == place && !(is_given(&first.to) && is_given(&output.to)));
        if let Some((_, first)) = shared {
            return Err(OutputError::SharedPlace {
                name: output.name.clone(),
                to: output.to.clone(),
                first: first.name.clone(),
                first_to: first.to.clone(),
            });
        }
        self.0.push((place, output));
        Ok(())
    }
}
