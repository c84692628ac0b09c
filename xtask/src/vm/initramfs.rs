//! The root of a guest: an init that runs the tests, the tools that these call, and modules.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    archive::Archive,
    kernel::Unpacked,
    modules::{Modules, WANTED},
    payload::Payload,
};
use crate::{
    error::Error,
    process::{self, which},
    test::kernel,
    tools::Tool,
};

/// What tests call, and the shell. All else is busybox's, which comes last: its `ip` and `ping` know too little.
pub(super) const PROGRAMS: [Tool; 10] = [
    ("dash", "dash"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("bridge", "iproute2"),
    ("nft", "nftables"),
    ("ethtool", "ethtool"),
    ("ping", "iputils-ping"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("bpftool", "bpftool"),
];
/// Everything a guest does by itself.
pub(super) const BUSYBOX: Tool = ("busybox", "busybox-static");

/// Packs what `unpacked` boots with, beside it, and returns the file.
pub(super) fn pack(unpacked: &Unpacked, payload: &Payload, args: &[String]) -> Result<PathBuf, Error> {
    let mut archive = Archive::default();
    for folder in ["applets", "dev", "proc", "run", "sys", "tmp", "root"] {
        archive.folder(folder);
    }
    archive.file("init", include_bytes!("init.sh"));
    for (name, _) in PROGRAMS {
        program(&mut archive, name, &format!("bin/{name}"))?;
    }
    program(&mut archive, BUSYBOX.0, "sbin/busybox")?;
    archive.link("bin/sh", "dash");
    // The kernel calls it for a module that it lacks.
    archive.link("sbin/modprobe", "busybox");
    archive.file("etc/passwd", b"root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n");
    // Names in rules of the packet filter.
    copy(&mut archive, Path::new("/etc/protocols"), "etc/protocols")?;
    for (name, path) in &payload.tests {
        copy(&mut archive, path, &format!("tests/{name}"))?;
    }
    copy(&mut archive, &payload.collector, "tests/collector")?;
    archive.link(&payload.collector.to_string_lossy(), "/tests/collector");
    let arguments: String = kernel::FLAGS
        .into_iter()
        .chain(args.iter().map(String::as_str))
        .flat_map(|line| [line, "\n"])
        .collect();
    archive.file("tests/arguments", arguments.as_bytes());
    modules(&mut archive, unpacked)?;
    let place = unpacked.folder.join("initramfs");
    fs::write(&place, archive.finish()).map_err(|cause| Error::File {
        act: "write",
        path: place.clone(),
        cause,
    })?;
    Ok(place)
}

/// Adds a program of this machine and the libraries that it is linked with.
fn program(archive: &mut Archive, name: &str, place: &str) -> Result<(), Error> {
    let path = which(name).unwrap_or_else(|| name.into());
    copy(archive, &path, place)?;
    // It fails for a program without libraries, which then needs none.
    let listing = process::silent(Command::new("ldd").arg(&path)).unwrap_or_default();
    for library in libraries(&listing) {
        if !archive.has(library) {
            copy(archive, Path::new(library), library)?;
        }
    }
    Ok(())
}

/// The paths in what `ldd` prints.
fn libraries(listing: &str) -> impl Iterator<Item = &str> {
    listing.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

fn modules(archive: &mut Archive, unpacked: &Unpacked) -> Result<(), Error> {
    let [dependencies, aliases] =
        ["modules.dep", "modules.alias"].map(|name| read(&unpacked.modules.join(name)));
    let (dependencies, aliases) = (dependencies?, aliases?);
    let (dependencies, aliases) = (String::from_utf8_lossy(&dependencies), String::from_utf8_lossy(&aliases));
    let modules = Modules::of(&WANTED, &dependencies, &aliases);
    let place = format!("lib/modules/{}", unpacked.version);
    for file in &modules.files {
        let path = unpacked.modules.join(file);
        // Busybox inserts compressed ones only after a complaint to the console.
        let bytes = match file.strip_suffix(".xz") {
            Some(_) => process::bytes(Command::new("xz").arg("-dc").arg(&path))?,
            None => read(&path)?,
        };
        archive.file(&format!("{place}/{}", file.trim_end_matches(".xz")), &bytes);
    }
    archive.file(&format!("{place}/modules.dep"), modules.dependencies.as_bytes());
    archive.file(&format!("{place}/modules.alias"), modules.aliases.as_bytes());
    Ok(())
}

fn copy(archive: &mut Archive, path: &Path, place: &str) -> Result<(), Error> {
    archive.file(place, &read(path)?);
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|cause| Error::File { act: "read", path: path.to_path_buf(), cause })
}

#[cfg(test)]
mod tests {
    use super::libraries;

    #[test]
    fn libraries_are_what_has_a_path() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibbpf.so.1 => /lib/x86_64-linux-gnu/libbpf.so.1 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tlibx.so => not found\n";
        let found: Vec<_> = libraries(listing).collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libbpf.so.1", "/lib64/ld-linux-x86-64.so.2"]);
    }
}
