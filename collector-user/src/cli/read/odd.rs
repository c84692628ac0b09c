//! What is odd about a file, though it is read.

use std::path::Path;

use super::ReadError;
use crate::read::{
    container::{ContainerError, Record},
    link,
    replay::Oddity,
};

/// The first of a kind, and how many.
#[derive(Default)]
pub(super) struct Odd {
    backwards: Places,
    empty: Places,
    link: Option<(u64, u16)>,
}

#[derive(Default)]
struct Places {
    first: u64,
    count: u64,
}

impl Places {
    const fn add(&mut self, offset: u64) {
        if self.count == 0 {
            self.first = offset;
        }
        self.count += 1;
    }
}

impl Odd {
    /// Takes a record in, of which this is odd besides its link type.
    pub(super) fn add(&mut self, record: &Record<'_>, odd: Option<Oddity>) {
        if !link::is_read(record.link) {
            self.link.get_or_insert((record.offset, record.link));
        }
        match odd {
            None => {}
            Some(Oddity::Backwards) => self.backwards.add(record.offset),
            Some(Oddity::Empty) => self.empty.add(record.offset),
        }
    }

    /// What there is to say of the file.
    pub(super) fn errors(self, path: &Path) -> impl Iterator<Item = ReadError> {
        let Self { backwards, empty, link } = self;
        let path = || path.to_owned();
        let backwards = (backwards.count != 0).then(|| ReadError::Backwards {
            path: path(),
            offset: backwards.first,
            count: backwards.count,
        });
        let empty = (empty.count != 0).then(|| ReadError::Empty {
            path: path(),
            offset: empty.first,
            count: empty.count,
        });
        let link = link.map(|(offset, link)| ReadError::Container {
            path: path(),
            source: ContainerError::Link { offset, link },
        });
        [backwards, empty, link].into_iter().flatten()
    }
}
