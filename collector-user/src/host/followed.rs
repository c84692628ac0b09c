//! A file that is followed by its name: whatever comes to be there, however it comes there.
//!
//! Editors and package managers put another file in its place; what mounts configurations into containers puts another target
//! in the place of a symbolic link on the way to it. So it is the directories on the way that are watched, not the file. A file
//! that is being written is not told before its writer closes it, whether it has its name by then or had none (`O_TMPFILE`).
#![expect(unsafe_code, reason = "tokio wants a promise about the descriptor that it registers")]

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    ffi::{OsStr, OsString},
    fs, io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _, unix::fs::MetadataExt as _},
    path::{Component, Path, PathBuf, absolute},
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};
use tokio::io::unix::AsyncFd;

/// Room for what is read at once.
const ROOM: usize = 4096;

/// Symbolic links on the way at most, as the kernel has it (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// A file, by its name.
#[derive(Debug)]
pub struct Followed {
    path: PathBuf,
    inotify: AsyncFd<OwnedFd>,
    /// The entries on the way, by the watch of their directory.
    watched: HashMap<i32, BTreeSet<OsString>>,
}

impl Followed {
    /// Follows it from now on; it need not be there.
    ///
    /// # Errors
    ///
    /// What the system says: the user may have no more watches (`fs.inotify.max_user_instances`, `max_user_watches`), or may not
    /// read the directory.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O.
    pub fn new(path: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        // SAFETY: the instance owns its descriptor, which stays open and the same as long as the registration holds it.
        let inotify = unsafe { AsyncFd::register(inotify) }.map_err(io::Error::from)?;
        let mut followed = Self { path: absolute(path)?, inotify, watched: HashMap::new() };
        followed.watch()?;
        Ok(followed)
    }

    /// Waits until there may be something else. Who reads the file then misses nothing: what comes later is told again. Cancel
    /// safe.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable_mut().await?;
            match is_told(ready.get_inner(), &self.path, &self.watched) {
                Ok(None) => ready.clear_ready(),
                Ok(Some(false)) => {}
                Ok(Some(true)) => return self.watch(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Watches the way as it is now.
    fn watch(&mut self) -> io::Result<()> {
        let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE | WatchFlags::CLOSE_WRITE;
        loop {
            let way = way(&self.path);
            let mut watched: HashMap<i32, BTreeSet<OsString>> = HashMap::new();
            let mut refused = None;
            for (directory, name) in &way {
                match inotify::add_watch(self.inotify.get_ref(), directory, flags | WatchFlags::ONLYDIR) {
                    Ok(watch) => drop(watched.entry(watch).or_default().insert(name.clone())),
                    Err(error) => refused = Some(error),
                }
            }
            // Directories above may be closed to us, or there is none yet.
            if let Some(error) = refused.filter(|_| watched.is_empty()) {
                return Err(error.into());
            }
            for gone in self.watched.keys().filter(|watch| !watched.contains_key(watch)) {
                // The kernel takes it off by itself where the directory has gone.
                let _gone = inotify::remove_watch(self.inotify.get_ref(), *gone);
            }
            self.watched = watched;
            // It may have changed before it was watched.
            if self::way(&self.path) == way {
                return Ok(());
            }
        }
    }
}

/// The entries on the way to a file, each with its directory; the last is where the file itself is, or would be.
fn way(path: &Path) -> Vec<(PathBuf, OsString)> {
    let mut way = Vec::new();
    let mut here = PathBuf::from("/");
    let mut links = 0;
    let mut rest: VecDeque<OsString> = path.components().map(|part| part.as_os_str().to_owned()).collect();
    while let Some(part) = rest.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => here = PathBuf::from("/"),
            Some(Component::ParentDir) => drop(here.pop()),
            Some(Component::Normal(name)) => {
                way.push((here.clone(), name.to_owned()));
                let entry = here.join(name);
                match fs::read_link(&entry) {
                    Ok(target) if links < MOST_LINKS => {
                        links += 1;
                        for part in target.components().rev() {
                            rest.push_front(part.as_os_str().to_owned());
                        }
                    }
                    _ => here = entry,
                }
            }
            _ => {}
        }
    }
    way
}

/// Reads once what is there; whether it says that there may be something else. `None` where nothing is there.
fn is_told(
    inotify: &OwnedFd,
    path: &Path,
    watched: &HashMap<i32, BTreeSet<OsString>>,
) -> Result<Option<bool>, Errno> {
    let mut room = [MaybeUninit::uninit(); ROOM];
    let mut reader = Reader::new(inotify, &mut room);
    let mut is_told = false;
    loop {
        match reader.next() {
            Ok(event) => {
                let names = watched.get(&event.wd());
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                let is_on_the_way = names.zip(name).is_some_and(|(names, name)| names.contains(name));
                let is_closed = event.events().contains(ReadFlags::CLOSE_WRITE);
                is_told |= event.events().contains(ReadFlags::QUEUE_OVERFLOW)
                    || is_on_the_way && !(event.events().contains(ReadFlags::CREATE) && is_unwritten(path))
                    || is_closed && name.is_some_and(|name| was_nameless(path, name));
            }
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        }
        if reader.is_buffer_empty() {
            return Ok(Some(is_told));
        }
    }
}

/// Whether a file was made a moment ago: its writer will close it. A link was not, nor what has another name already.
fn is_unwritten(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.nlink() == 1)
}

/// Whether the file was opened before it had a name: to who has written it, it goes by its inode number (`d_mark_tmpfile` in
/// fs/dcache.c).
fn was_nameless(path: &Path, name: &OsStr) -> bool {
    let number = name.to_str().and_then(|name| name.strip_prefix('#')?.parse().ok());
    number.is_some_and(|number: u64| fs::metadata(path).is_ok_and(|file| file.ino() == number))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write as _,
        os::{fd::AsRawFd as _, unix::fs::symlink},
        path::{Path, PathBuf},
        sync::atomic::{AtomicU32, Ordering::Relaxed},
        time::Duration,
    };

    use futures_util::FutureExt as _;
    use rustix::fs::{AtFlags, CWD, Mode, OFlags};

    use super::Followed;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!("collector-followed-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
            let folder = Self(std::env::temp_dir().join(name));
            fs::create_dir(&folder.0).unwrap();
            folder
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn run(work: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), work).await.unwrap() });
    }

    /// What is told after `act`, which is all that was told.
    async fn told_after(followed: &mut Followed, act: impl FnOnce()) {
        act();
        followed.changed().await.unwrap();
        while followed.changed().now_or_never().is_some() {}
    }

    fn write(path: &Path) -> fs::File {
        let mut file = fs::File::create(path).unwrap();
        file.write_all(b"a").unwrap();
        file
    }

    #[test]
    fn what_is_written_is_told_when_it_is_closed_and_others_are_not() {
        run(async {
            let folder = Folder::new();
            let file = folder.at("c.toml");
            let mut followed = Followed::new(&file).unwrap();
            let open = write(&file);
            drop(write(&folder.at("other")));
            // A turn of the runtime, in which it would be told.
            tokio::task::yield_now().await;
            assert!(followed.changed().now_or_never().is_none(), "it is still written");
            told_after(&mut followed, || drop(open)).await;
            let again = write(&file);
            tokio::task::yield_now().await;
            assert!(followed.changed().now_or_never().is_none(), "it is still written");
            told_after(&mut followed, || drop(again)).await;
            told_after(&mut followed, || fs::remove_file(&file).unwrap()).await;
        });
    }

    #[test]
    fn what_takes_its_place_is_told() {
        run(async {
            let folder = Folder::new();
            let file = folder.at("c.toml");
            drop(write(&file));
            let mut followed = Followed::new(&file).unwrap();
            for _ in 0..2 {
                drop(write(&folder.at("new")));
                told_after(&mut followed, || fs::rename(folder.at("new"), &file).unwrap()).await;
            }
            drop(write(&folder.at("linked")));
            told_after(&mut followed, || fs::remove_file(&file).unwrap()).await;
            told_after(&mut followed, || fs::hard_link(folder.at("linked"), &file).unwrap()).await;
        });
    }

    #[test]
    fn what_was_written_without_a_name_is_told_when_it_is_closed() {
        run(async {
            let folder = Folder::new();
            let file = folder.at("c.toml");
            let mut followed = Followed::new(&file).unwrap();
            let nameless = || {
                let flags = OFlags::TMPFILE | OFlags::WRONLY;
                let mut open = fs::File::from(rustix::fs::open(&folder.0, flags, Mode::RUSR).unwrap());
                open.write_all(b"a").unwrap();
                open
            };
            let open = nameless();
            let by_number = format!("/proc/self/fd/{}", open.as_raw_fd());
            rustix::fs::linkat(CWD, by_number, CWD, &file, AtFlags::SYMLINK_FOLLOW).unwrap();
            tokio::task::yield_now().await;
            assert!(followed.changed().now_or_never().is_none(), "it is still written");
            // Another that gets no name here.
            drop(nameless());
            tokio::task::yield_now().await;
            assert!(followed.changed().now_or_never().is_none(), "it is another's");
            told_after(&mut followed, || drop(open)).await;
        });
    }

    #[test]
    fn a_link_on_the_way_that_leads_elsewhere_is_told() {
        run(async {
            // As a volume of a Kubernetes configuration has it.
            let folder = Folder::new();
            for version in ["..1", "..2"] {
                fs::create_dir(folder.at(version)).unwrap();
                drop(write(&folder.at(version).join("c.toml")));
            }
            symlink("..1", folder.at("..data")).unwrap();
            symlink("..data/c.toml", folder.at("c.toml")).unwrap();
            let mut followed = Followed::new(&folder.at("c.toml")).unwrap();
            for version in ["..2", "..1"] {
                symlink(version, folder.at("..tmp")).unwrap();
                told_after(&mut followed, || fs::rename(folder.at("..tmp"), folder.at("..data")).unwrap())
                    .await;
            }
            told_after(&mut followed, || drop(write(&folder.at("..1/c.toml")))).await;
            // A folder on the way is moved away, and another comes.
            told_after(&mut followed, || fs::rename(folder.at("..1"), folder.at("..3")).unwrap()).await;
            told_after(&mut followed, || fs::rename(folder.at("..2"), folder.at("..1")).unwrap()).await;
            told_after(&mut followed, || drop(write(&folder.at("..1/c.toml")))).await;
        });
    }

    #[test]
    fn links_in_a_circle_have_an_end() {
        let folder = Folder::new();
        symlink("b", folder.at("a")).unwrap();
        symlink("a", folder.at("b")).unwrap();
        run(async {
            assert!(Followed::new(&folder.at("a")).is_ok());
        });
    }
}
