//! Cgroups of a test's own, and processes in them: some [ground](Ground) below which anything may be made, and single
//! [cgroups](Cgroup), where an engine would make them or with sockets made [inside](crate::inside).

use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Context as _;
use collector_user::host::cgroups::hierarchy::{self, Hierarchy};

use crate::{
    Result,
    netns::{Place, unique},
    privilege,
};

/// Where the hierarchy of cgroup v2 is mounted.
pub(crate) fn root() -> Result<PathBuf> {
    let hierarchy::Place::Mounted(root) = Hierarchy::find()?.place().clone() else {
        anyhow::bail!("kernel tests want a mount of cgroup2")
    };
    Ok(root)
}

/// A cgroup of the test's own below the root; removed with all in it when this is dropped.
#[derive(Debug)]
pub struct Ground {
    directory: PathBuf,
    told: String,
}

impl Ground {
    /// A new one.
    pub fn new() -> Result<Self> {
        privilege::check()?;
        let name = unique("t");
        let directory = root()?.join(&name);
        fs::create_dir(&directory).with_context(|| format!("making {}", directory.display()))?;
        Ok(Self { directory, told: format!("/{name}") })
    }

    /// Where its directory is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes a cgroup in it, with those that it is in.
    pub fn make(&self, below: &str) -> Result<PathBuf> {
        let directory = self.directory.join(below);
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// Removes an empty one in it.
    pub fn remove(&self, below: &str) -> Result<()> {
        Ok(fs::remove_dir(self.directory.join(below))?)
    }

    /// How a path in it is told.
    pub fn told(&self, below: &str) -> String {
        format!("{}/{below}", self.told)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

fn remove(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _gone = fs::remove_dir(directory);
}

/// A process that waits in a cgroup; it ends when this is dropped.
#[derive(Debug)]
pub struct Guest {
    child: Child,
}

impl Guest {
    /// Puts one into the cgroup of this directory.
    pub fn enter(directory: &Path) -> Result<Self> {
        Self::enter_by(directory, "cgroup.procs")
    }

    /// The same, by the file for threads.
    pub fn enter_by(directory: &Path, file: &str) -> Result<Self> {
        let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let guest = Self { child };
        fs::write(directory.join(file), guest.id().to_string())?;
        Ok(guest)
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A name of a container as engines give them: 64 hexadecimal digits, no two alike.
pub fn container_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:06x}{number:06x}{:052x}", process::id(), 0xC0_FFEE)
}

/// A cgroup; removed when this is dropped, with those that were made on the way to it, where they are empty.
#[derive(Debug)]
pub struct Cgroup {
    made: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes one of its own, directly below the hierarchy's root.
    pub fn unique() -> Result<Self> {
        Self::new(&unique("ct"))
    }

    /// Makes one by its path below the hierarchy's root.
    pub fn new(path: &str) -> Result<Self> {
        privilege::check()?;
        let mut place = root()?;
        let mut made = Vec::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            place.push(name);
            match fs::create_dir(&place) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                done => done.with_context(|| format!("{} cannot be made", place.display()))?,
            }
            made.push(place.clone());
        }
        Ok(Self { made })
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.made.last().map_or(Path::new(""), PathBuf::as_path)
    }

    /// What the kernel calls it by.
    pub fn id(&self) -> Result<u64> {
        Ok(fs::metadata(self.directory())?.ino())
    }

    /// Removes it, which has to be empty.
    pub fn remove(&self) -> Result<()> {
        Ok(fs::remove_dir(self.directory())?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Another test may have one below the same.
        for place in self.made.iter().rev() {
            let _ = fs::remove_dir(place);
        }
    }
}

/// A process in a cgroup and a network namespace; ended when this is dropped.
#[derive(Debug)]
pub struct Resident {
    child: Child,
}

impl Resident {
    /// Starts one, and returns once it is there.
    pub fn new(cgroup: &Cgroup, place: &Place) -> Result<Self> {
        // First there, then in the namespace, as container engines do.
        let line = format!(
            "echo 0 >{}/cgroup.procs && exec ip netns exec {} cat",
            cgroup.directory().display(),
            place.name()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &line]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut resident = Self { child: command.spawn()? };
        let Child { stdin: Some(stdin), stdout: Some(stdout), .. } = &mut resident.child else {
            unreachable!("both were asked for")
        };
        stdin.write_all(b"there\n")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        anyhow::ensure!(line == "there\n", "no process could be put into {}", cgroup.directory().display());
        Ok(resident)
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
