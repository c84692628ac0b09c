//! The mounts of cgroups, as `/proc/PID/mountinfo` tells them (Documentation/filesystems/proc.rst, section 3.5).

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    os::unix::ffi::OsStringExt as _,
    path::PathBuf,
};

/// More than any host has: the kernel allows 100,000 mounts (`fs.mount-max`).
const LONGEST: u64 = 64 << 20;

/// A mount of cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Which of the two.
    pub version: Version,
    /// What of the hierarchy is mounted. `/` is all that the reader's cgroup namespace lets it see; what lies outside of
    /// that namespace begins with `/..`.
    pub root: Vec<u8>,
    /// Where.
    pub point: PathBuf,
    /// The options of the file system, which all its mounts share.
    pub options: Vec<String>,
}

/// Versions of cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// `cgroup`, one hierarchy for each set of controllers.
    One,
    /// `cgroup2`.
    Two,
}

/// The mounts that a process sees: `thread-self`, or its number.
pub(super) fn of(process: &str) -> io::Result<Vec<Mount>> {
    let mut table = Vec::new();
    File::open(format!("/proc/{process}/mountinfo"))?.take(LONGEST).read_to_end(&mut table)?;
    Ok(parse(&table))
}

fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|octet| *octet == b'\n').filter_map(mount).collect()
}

/// Number, parent, device, root, mount point, options, any number of optional fields and a hyphen; then type, source and
/// options of the file system.
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|octet| *octet == b' ');
    let root = unescaped(fields.nth(3)?);
    let point = unescaped(fields.next()?);
    fields.find(|field| *field == b"-")?;
    let version = match fields.next()? {
        b"cgroup" => Version::One,
        b"cgroup2" => Version::Two,
        _ => return None,
    };
    let options = String::from_utf8_lossy(fields.nth(1)?).split(',').map(str::to_owned).collect();
    Some(Mount { version, root, point: PathBuf::from(OsString::from_vec(point)), options })
}

/// Blanks, tabs, line feeds and backslashes stand as a backslash and three octal digits (`mangle`, `fs/proc_namespace.c`).
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let number = after.first_chunk().filter(|_| *first == b'\\').copied().and_then(octal);
        octets.push(number.unwrap_or(*first));
        rest = if number.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    octets
}

fn octal(digits: [u8; 3]) -> Option<u8> {
    let number = digits.iter().try_fold(0_u16, |number, digit| {
        matches!(digit, b'0'..=b'7').then(|| number * 8 + u16::from(digit - b'0'))
    });
    number.and_then(|number| u8::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Mount, Version, of, parse};

    /// The lines of one table, in its order: version, root, where.
    fn found(table: &str) -> Vec<(Version, String, String)> {
        let text = |mount: &Mount| {
            let root = String::from_utf8_lossy(&mount.root).into_owned();
            (mount.version, root, mount.point.to_string_lossy().into_owned())
        };
        parse(table.as_bytes()).iter().map(text).collect()
    }

    fn two(root: &str, point: &str) -> (Version, String, String) {
        (Version::Two, root.to_owned(), point.to_owned())
    }

    #[test]
    fn pure_and_hybrid_hosts() {
        let pure = "24 30 0:22 / /proc rw,nosuid shared:12 - proc proc rw\n\
            30 25 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
        assert_eq!(found(pure), [two("/", "/sys/fs/cgroup")]);
        assert_eq!(
            parse(pure.as_bytes()).first().unwrap().options,
            ["rw", "nsdelegate", "memory_recursiveprot"]
        );
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/net_cls,net_prio rw shared:9 - cgroup cgroup rw,net_cls,net_prio\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:5 master:2 propagate_from:1 - cgroup2 cgroup2 rw\n";
        let one = (Version::One, "/".to_owned(), "/sys/fs/cgroup/net_cls,net_prio".to_owned());
        assert_eq!(found(hybrid), [one, two("/", "/sys/fs/cgroup/unified")]);
    }

    #[test]
    fn containers_see_a_part() {
        let bound = "900 800 0:26 /docker/0123 /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n\
            901 800 0:26 /../.. /host/sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(
            found(bound),
            [two("/docker/0123", "/sys/fs/cgroup"), two("/../..", "/host/sys/fs/cgroup")]
        );
    }

    #[test]
    fn escapes_and_what_is_none() {
        let odd = r"41 31 0:38 /a\134x2db /mnt/a\040b\011c\012d\1345\04 rw - cgroup2 cgroup\0402 rw";
        assert_eq!(found(odd), [two(r"/a\x2db", "/mnt/a b\tc\nd\\5\\04")]);
        assert_eq!(found(r"41 31 0:38 /\999 /\400 rw - cgroup2 x rw"), [two(r"/\999", r"/\400")]);
    }

    #[test]
    fn what_is_cut_off_is_no_mount() {
        for line in [
            "",
            "1",
            "1 2 3 4 5 6 7",
            "1 2 3 / /x rw -",
            "1 2 3 / /x rw - cgroup2",
            "1 2 3 / /x rw - cgroup2 y",
        ] {
            assert_eq!(found(line), [], "{line}");
        }
        let mut other = parse(b"1 2 3 / /\xFF rw - cgroup2 y rw\n1 2 3 / /x rw - ext4 y rw");
        assert_eq!(
            other.pop().map(|mount| mount.point.to_string_lossy().into_owned()).as_deref(),
            Some("/\u{FFFD}")
        );
        assert_eq!(other, []);
    }

    #[test]
    fn this_process_has_mounts() {
        assert!(of("thread-self").unwrap().iter().all(|mount| mount.point.starts_with(Path::new("/"))));
        of("0").unwrap_err();
    }
}
