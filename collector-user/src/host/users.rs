//! The host's users by name, as `/etc/passwd` has them (passwd(5)), read anew when it changes.
//!
//! The file, and not what the C library would ask beside it (NSS: LDAP, SSSD, systemd's userdb): those answer when a server
//! does, on the task that drains the kernel, and are no part of a static binary. Who is not in the file is a number. It is
//! the file that this process sees: that of its container, where it runs in one.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::followed::Followed;
use crate::event::Text;

/// Where the users stand.
const FILE: &str = "/etc/passwd";

/// Octets of the file that are read: some 60,000 users.
const MOST_OCTETS: u64 = 4 << 20;

/// The users, and who tells when they change.
#[derive(Debug)]
pub struct Users {
    path: PathBuf,
    names: Names,
    file: Option<Followed>,
    /// What could not be had, in words.
    pub missing: Option<String>,
}

/// Users by their ids, and ids by their names.
#[derive(Debug, Default)]
struct Names {
    names: HashMap<u32, Text>,
    ids: HashMap<Vec<u8>, u32>,
}

impl Users {
    /// Those there are now.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O.
    pub fn open() -> Self {
        Self::of(Path::new(FILE))
    }

    fn of(path: &Path) -> Self {
        let missing = |what: &str, error: io::Error| format!("{what}: {} ({error})", path.display());
        // Watched before it is read, so that no change falls between the two.
        let watched = Followed::new(path);
        let read = read(path);
        let told = read.as_ref().err().map(io::Error::kind);
        let missing = match (told, &watched) {
            (Some(kind), _) => Some(missing("users by their names", kind.into())),
            (None, Err(error)) => {
                Some(missing("users that are added while it runs, by their names", error.kind().into()))
            }
            (None, Ok(_)) => None,
        };
        Self { path: path.to_owned(), names: read.unwrap_or_default(), file: watched.ok(), missing }
    }

    /// The name of the user with an id: anything but printable ASCII is escaped. Of several the first.
    pub fn name(&self, uid: u32) -> Option<&Text> {
        self.names.names.get(&uid)
    }

    /// The id of the user with a name.
    pub fn id(&self, name: &str) -> Option<u32> {
        self.names.ids.get(name.as_bytes()).copied()
    }

    /// Waits until the file has changed, and reads it anew; for ever where nobody tells. Where it cannot be read any more, those
    /// that were known stay known. Cancel safe.
    pub async fn changed(&mut self) {
        let Some(file) = &mut self.file else { return std::future::pending().await };
        if let Err(error) = file.changed().await {
            tracing::debug!(%error, "changes of users are not followed");
            self.file = None;
            return std::future::pending().await;
        }
        match read(&self.path) {
            Ok(names) => self.names = names,
            Err(error) => tracing::debug!(%error, "the users are not read anew"),
        }
    }
}

fn read(path: &Path) -> io::Result<Names> {
    let mut text = Vec::new();
    File::open(path)?.take(MOST_OCTETS).read_to_end(&mut text)?;
    Ok(parse(&text))
}

/// Lines of `name:password:uid:...`; others are passed over.
fn parse(text: &[u8]) -> Names {
    let mut all = Names::default();
    for line in text.split(|octet| *octet == b'\n') {
        let mut fields = line.split(|octet| *octet == b':');
        let (Some(name), Some(_), Some(uid)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let uid = std::str::from_utf8(uid).ok().and_then(|uid| uid.parse::<u32>().ok());
        let Some(uid) = uid.filter(|_| !name.is_empty() && !name.starts_with(b"#")) else { continue };
        if let Entry::Vacant(entry) = all.names.entry(uid) {
            entry.insert(name.escape_ascii().to_string().into());
        }
        all.ids.entry(name.to_owned()).or_insert(uid);
    }
    all
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::{Users, parse};

    #[test]
    fn lines_that_are_none_are_passed_over_and_names_are_harmless() {
        let all = parse(
            b"root:x:0:0:root:/root:/bin/bash\ntoor:x:0:0::/:/bin/sh\n# no:x:7:\n+nis::::::\nshort:x\n:x:8:\n\
              bad:x:-1:\nbig:x:4294967296:\na\x1b[m\xff:x:9:\nlast:x:4294967294:1::/:/",
        );
        let name = |uid| all.names.get(&uid).map(ToString::to_string);
        assert_eq!(name(0).as_deref(), Some("root"), "the first of several");
        assert_eq!([7, 8].map(name), [None, None]);
        assert_eq!(name(9).as_deref(), Some(r"a\x1b[m\xff"));
        assert_eq!(name(u32::MAX - 1).as_deref(), Some("last"));
        assert_eq!(all.names.len(), 3);
        assert_eq!((all.ids.get(b"toor".as_slice()), all.ids.len()), (Some(&0), 4));
    }

    #[test]
    fn a_file_that_is_written_or_replaced_is_read_anew() {
        let directory = std::env::temp_dir().join(format!("users-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("passwd");
        fs::write(&path, "alice:x:1000:\n").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut users = Users::of(&path);
            let limit = Duration::from_secs(20);
            assert_eq!((users.id("alice"), users.missing.as_deref()), (Some(1000), None));
            fs::write(directory.join("other"), "").unwrap();
            fs::write(&path, "bob:x:1000:\n").unwrap();
            tokio::time::timeout(limit, users.changed()).await.unwrap();
            assert_eq!((users.name(1000).map(|name| &**name), users.id("alice")), (Some("bob"), None));
            fs::write(directory.join("passwd+"), "carol:x:1000:\n").unwrap();
            fs::rename(directory.join("passwd+"), &path).unwrap();
            tokio::time::timeout(limit, users.changed()).await.unwrap();
            assert_eq!(users.name(1000).map(|name| &**name), Some("carol"));
        });
        fs::remove_dir_all(&directory).unwrap();
        runtime.block_on(async {
            let users = Users::of(&path);
            let said = users.missing.unwrap();
            assert!(said.starts_with("users by their names: "), "{said}");
        });
    }
}
