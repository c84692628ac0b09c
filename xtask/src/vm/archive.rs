//! A cpio archive of the form that the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{collections::BTreeSet, path::Path};

/// Files for a guest, in memory. Folders above a file are made with it.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    names: BTreeSet<String>,
}

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

impl Archive {
    /// Adds a folder.
    pub(super) fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER, &[]);
    }

    /// Adds a file that everybody may execute; a name that is there already stays as it is.
    pub(super) fn file(&mut self, path: &str, bytes: &[u8]) {
        self.entry(path, FILE, bytes);
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.entry(path, LINK, target.as_bytes());
    }

    /// Whether this name is taken.
    pub(super) fn has(&self, path: &str) -> bool {
        self.names.contains(path.trim_start_matches('/'))
    }

    /// The finished archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.write("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        let path = path.trim_start_matches('/');
        if self.has(path) {
            return;
        }
        let above = Path::new(path).parent().and_then(Path::to_str).filter(|above| !above.is_empty());
        if let Some(above) = above {
            self.entry(above, FOLDER, &[]);
        }
        self.names.insert(path.to_owned());
        self.write(path, mode, bytes);
    }

    fn write(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        self.entries += 1;
        // As the format has it: 32 bits each, eight digits. A larger file is none that a guest could hold.
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let links = 1;
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// Headers and contents begin at multiples of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    /// Name, mode and contents of each entry, read as the kernel reads them (init/initramfs.c, `parse_header`).
    fn read(mut rest: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut all = Vec::new();
        while !rest.is_empty() {
            let field = |number: usize| {
                let digits = &rest[6 + 8 * number..14 + 8 * number];
                u32::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
            };
            assert_eq!(&rest[..6], b"070701");
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(rest[110..110 + name_size - 1].to_vec()).unwrap();
            let body = (110 + name_size).next_multiple_of(4);
            all.push((name, mode, rest[body..body + size].to_vec()));
            rest = &rest[(body + size).next_multiple_of(4)..];
        }
        all
    }

    #[test]
    fn what_goes_in_comes_out_with_the_folders_above_it() {
        let mut archive = Archive::default();
        archive.file("/bin/a", b"12345");
        archive.link("/bin/b", "a");
        archive.file("bin/a", b"another");
        archive.folder("/proc");
        assert!(archive.has("/bin/b") && !archive.has("/bin/c"));
        let bytes = archive.finish();
        let found = read(&bytes);
        let found: Vec<_> =
            found.iter().map(|(name, mode, bytes)| (name.as_str(), *mode, bytes.as_slice())).collect();
        assert_eq!(
            found,
            [
                ("bin", 0o040_755, b"".as_slice()),
                ("bin/a", 0o100_755, b"12345"),
                ("bin/b", 0o120_777, b"a"),
                ("proc", 0o040_755, b""),
                ("TRAILER!!!", 0, b""),
            ]
        );
    }
}
