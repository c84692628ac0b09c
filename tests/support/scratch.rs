//! A directory of a test's own.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use rustix::mount::{UnmountFlags, unmount};

use crate::{Result, netns::unique};

/// A directory with a name of its own; removed when this is dropped, with all in it, and what is mounted there unmounted.
#[derive(Debug)]
pub struct Scratch {
    directory: PathBuf,
}

impl Scratch {
    /// A new one, which is empty.
    pub fn new() -> Result<Self> {
        let directory = env::temp_dir().join(unique("ct"));
        fs::create_dir(&directory)?;
        Ok(Self { directory })
    }

    /// Where something in it is.
    pub fn join(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The same, as a word of a command line.
    pub fn text(&self, name: &str) -> String {
        self.join(name).display().to_string()
    }

    /// Writes a file in it, and returns where that is.
    pub fn write(&self, name: &str, text: &str) -> Result<String> {
        fs::write(self.join(name), text)?;
        Ok(self.text(name))
    }

    fn mounts(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
        places.filter(|place| place.starts_with(&self.directory)).map(Path::to_owned).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The last first: it may be in another.
        for place in self.mounts().into_iter().rev() {
            let _ = unmount(place, UnmountFlags::DETACH);
        }
        // Not through what is still mounted: another file system's files would go.
        if self.mounts().is_empty() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}
