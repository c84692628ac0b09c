//! What the kernel tells of cgroups, by inotify: of each directory which others come into it and go, of each
//! `cgroup.events` that it has changed.
//!
//! Watches outlive what they are set on: kernfs removes a directory without a word to them, so each is taken off by hand.
#![expect(unsafe_code, reason = "tokio wants a promise about the descriptor that it registers")]

use std::{
    collections::HashMap,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};
use tokio::io::unix::AsyncFd;

use super::CgroupError;

/// Room for what is read at once: some hundred notices, which take some milliseconds. Then others get their turn.
const ROOM: usize = 4096;

/// The watches of one cgroup; none where the kernel refused it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Watching {
    pub directory: Option<i32>,
    pub events: Option<i32>,
}

/// What a watch is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Directory,
    Events,
}

/// What the kernel told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// A cgroup of this name came into the cgroup with this id.
    Came { parent: u64, name: Box<[u8]> },
    /// A cgroup of this name left the cgroup with this id.
    Left { parent: u64, name: Box<[u8]> },
    /// `cgroup.events` of the cgroup with this id has changed.
    Events(u64),
    /// A watch of the cgroup with this id is no more.
    Unwatched(u64, Subject),
    /// More happened than there was room for.
    Overflow,
}

/// All watches.
pub(super) struct Watches {
    inotify: AsyncFd<OwnedFd>,
    of: HashMap<i32, (u64, Subject)>,
    /// Why the kernel refused the last one that it refused.
    pub refused: Option<Errno>,
}

impl Watches {
    /// None yet.
    pub(super) fn new() -> Result<Self, CgroupError> {
        let instance = |source| CgroupError::Instance { source };
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .map_err(|error| instance(error.into()))?;
        // SAFETY: the instance owns its descriptor, which stays open and the same as long as the registration holds it.
        let inotify = unsafe { AsyncFd::register(inotify) }.map_err(|error| instance(error.into()))?;
        Ok(Self { inotify, of: HashMap::new(), refused: None })
    }

    /// Watches an open file of a cgroup. It is named by its descriptor, for another may have its path by now.
    pub(super) fn add(&mut self, id: u64, subject: Subject, file: impl AsFd) -> Option<i32> {
        let flags = match subject {
            Subject::Directory => WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE,
            Subject::Events => WatchFlags::MODIFY,
        };
        let path = format!("/proc/thread-self/fd/{}", file.as_fd().as_raw_fd());
        match inotify::add_watch(self.inotify.get_ref(), path, flags) {
            Ok(watch) => {
                self.of.insert(watch, (id, subject));
                Some(watch)
            }
            Err(error) => {
                self.refused = Some(error);
                None
            }
        }
    }

    /// Takes off the watches of a cgroup. What the kernel told by them and was not read yet is passed over.
    pub(super) fn remove(&mut self, watching: Watching) {
        for watch in [watching.directory, watching.events].into_iter().flatten() {
            self.of.remove(&watch);
            // It is gone already where the kernel took it off by itself.
            let _gone = inotify::remove_watch(self.inotify.get_ref(), watch);
        }
    }

    /// Waits until there is something to read, and reads it once; cancel safe.
    pub(super) async fn wait(&mut self) -> Result<Vec<Notice>, CgroupError> {
        loop {
            let mut ready =
                self.inotify.readable_mut().await.map_err(|source| CgroupError::Events { source })?;
            match read(ready.get_inner(), &self.of) {
                Ok(None) => ready.clear_ready(),
                Ok(Some(notices)) => return Ok(notices),
                Err(error) => return Err(CgroupError::Events { source: error.into() }),
            }
        }
    }

    /// Reads once what is there now; none where nothing is.
    pub(super) fn now(&self) -> Result<Option<Vec<Notice>>, CgroupError> {
        read(self.inotify.get_ref(), &self.of).map_err(|error| CgroupError::Events { source: error.into() })
    }
}

fn read(inotify: &OwnedFd, of: &HashMap<i32, (u64, Subject)>) -> Result<Option<Vec<Notice>>, Errno> {
    let mut room = [MaybeUninit::uninit(); ROOM];
    let mut reader = Reader::new(inotify, &mut room);
    let mut notices = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => {
                let name = event.file_name().map(|name| name.to_bytes().into());
                notices.extend(notice(event.events(), of.get(&event.wd()).copied(), name));
            }
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        }
        if reader.is_buffer_empty() {
            return Ok(Some(notices));
        }
    }
}

/// What one event means, told by a watch of this subject.
fn notice(events: ReadFlags, of: Option<(u64, Subject)>, name: Option<Box<[u8]>>) -> Option<Notice> {
    if events.contains(ReadFlags::QUEUE_OVERFLOW) {
        return Some(Notice::Overflow);
    }
    let (id, subject) = of?;
    if events.contains(ReadFlags::IGNORED) {
        return Some(Notice::Unwatched(id, subject));
    }
    if subject == Subject::Events {
        return events.contains(ReadFlags::MODIFY).then_some(Notice::Events(id));
    }
    let name = name.filter(|_| events.contains(ReadFlags::ISDIR))?;
    if events.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
        Some(Notice::Came { parent: id, name })
    } else if events.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
        Some(Notice::Left { parent: id, name })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Notice, ReadFlags, Subject, notice};

    #[test]
    fn what_events_mean() {
        let name = || Some(b"a".as_slice().into());
        let directory = Some((7, Subject::Directory));
        let told = |events| notice(events, directory, name());
        let came = || Some(Notice::Came { parent: 7, name: b"a".as_slice().into() });
        let left = || Some(Notice::Left { parent: 7, name: b"a".as_slice().into() });
        assert_eq!(told(ReadFlags::CREATE | ReadFlags::ISDIR), came());
        assert_eq!(told(ReadFlags::MOVED_TO | ReadFlags::ISDIR), came());
        assert_eq!(told(ReadFlags::DELETE | ReadFlags::ISDIR), left());
        assert_eq!(told(ReadFlags::MOVED_FROM | ReadFlags::ISDIR), left());
        assert_eq!(told(ReadFlags::CREATE), None);
        assert_eq!(told(ReadFlags::ISDIR), None);
        assert_eq!(notice(ReadFlags::CREATE | ReadFlags::ISDIR, directory, None), None);
        assert_eq!(notice(ReadFlags::CREATE | ReadFlags::ISDIR, None, name()), None);
        let events = Some((7, Subject::Events));
        assert_eq!(notice(ReadFlags::MODIFY, events, None), Some(Notice::Events(7)));
        assert_eq!(notice(ReadFlags::ACCESS, events, None), None);
        assert_eq!(notice(ReadFlags::IGNORED, events, None), Some(Notice::Unwatched(7, Subject::Events)));
        assert_eq!(notice(ReadFlags::IGNORED, None, None), None);
        assert_eq!(notice(ReadFlags::QUEUE_OVERFLOW, None, None), Some(Notice::Overflow));
    }
}
