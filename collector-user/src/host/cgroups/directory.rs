//! The directory of one cgroup: which it is, what lies in it, who is in it.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RawDir, fstat, openat, statat},
    io::{Errno, read},
};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Room for the names of a directory, as the kernel hands them out.
const NAMES: usize = 8192;
/// `cgroup.events` has a line for each of its few keys.
const EVENTS: usize = 256;
/// The longest path below the root, which leaves room for a file's name in `PATH_MAX`.
pub(super) const LONGEST_PATH: usize = 4000;

/// An open directory.
pub(super) struct Directory {
    descriptor: OwnedFd,
    /// The cgroup's id.
    pub id: u64,
}

impl Directory {
    /// Opens what lies at a path below the root; none where nothing does (any more).
    pub(super) fn open(root: impl AsFd, below: &[u8]) -> io::Result<Option<Self>> {
        let below = if below.is_empty() { b"." } else { below };
        let opened = openat(root, below, DIRECTORY, Mode::empty())
            .and_then(|descriptor| Ok(Self { id: fstat(&descriptor)?.st_ino, descriptor }));
        present(opened)
    }

    /// The id of the cgroup that this one is in.
    pub(super) fn parent(&self) -> io::Result<Option<u64>> {
        present(statat(&self.descriptor, "..", AtFlags::empty()).map(|above| above.st_ino))
    }

    /// Opens `cgroup.events`; the root has none.
    pub(super) fn events(&self) -> io::Result<Option<OwnedFd>> {
        self.file("cgroup.events")
    }

    fn file(&self, name: &str) -> io::Result<Option<OwnedFd>> {
        present(openat(&self.descriptor, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()))
    }

    /// Hands out the name and the id of each cgroup that is directly in this one, until `take` wants no more.
    pub(super) fn children(&self, mut take: impl FnMut(&[u8], u64) -> bool) -> io::Result<()> {
        let mut room = [MaybeUninit::uninit(); NAMES];
        let mut entries = RawDir::new(&self.descriptor, &mut room);
        while let Some(entry) = entries.next() {
            let Some(entry) = present(entry)? else { break };
            let name = entry.file_name().to_bytes();
            let is_cgroup = entry.file_type() == FileType::Directory && name != b"." && name != b"..";
            if is_cgroup && !take(name, entry.ino()) {
                break;
            }
        }
        Ok(())
    }

    /// Adds the numbers of processes in this cgroup that are not among `found`, until there are `most`. One in the threaded
    /// mode tells its threads only (`cgroup_procs_start`). 0 stands for a process of another PID namespace.
    pub(super) fn processes(&self, most: usize, found: &mut Vec<u32>) -> io::Result<()> {
        match self.numbers("cgroup.procs", most, found) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => {
                self.numbers("cgroup.threads", most, found)
            }
            told => told,
        }
    }

    fn numbers(&self, file: &str, most: usize, found: &mut Vec<u32>) -> io::Result<()> {
        let Some(file) = self.file(file)? else { return Ok(()) };
        let mut lines = BufReader::new(File::from(file)).lines();
        while found.len() < most
            && let Some(line) = lines.next()
        {
            match line?.parse() {
                Ok(number) if number != 0 && !found.contains(&number) => found.push(number),
                _ => {}
            }
        }
        Ok(())
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// What `cgroup.events` says; none where the cgroup has gone meanwhile.
pub(super) fn is_populated(events: &OwnedFd) -> io::Result<Option<bool>> {
    let mut text = [0; EVENTS];
    let length = present(read(events, &mut text))?;
    Ok(length.and_then(|length| text.get(..length)).map(says_populated))
}

fn says_populated(text: &[u8]) -> bool {
    text.split(|octet| *octet == b'\n').any(|line| line == b"populated 1")
}

/// What is not there (any more) is no error. Files that are open when their cgroup is removed say `ENODEV`.
fn present<T>(told: rustix::io::Result<T>) -> io::Result<Option<T>> {
    match told {
        Ok(told) => Ok(Some(told)),
        Err(Errno::NOENT | Errno::NODEV | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::says_populated;

    #[test]
    fn events_are_lines() {
        assert!(says_populated(b"populated 1\nfrozen 0\n") && says_populated(b"frozen 1\npopulated 1"));
        for other in ["", "populated 0\nfrozen 1\n", "populated 10\n", "unpopulated 1\n"] {
            assert!(!says_populated(other.as_bytes()), "{other}");
        }
    }
}
