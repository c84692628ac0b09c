//! The eBPF object: the environment that builds it, and the fixed place where the collector picks it up.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{error::Error, process, setup::Toolchain, workspace::Workspace};

mod stack;

pub(crate) use stack::TooMuch;

/// The target of every eBPF program here; the hosts are little-endian.
const TARGET: &str = "bpfel-unknown-none";
/// The cargo profile, which is also the name of its output folder.
const PROFILE: &str = "bpf";

/// Builds the object and puts it where the collector's build script looks for it.
pub(crate) fn build(workspace: &Workspace, toolchain: &Toolchain) -> Result<(), Error> {
    let built = compile(workspace, toolchain)?;
    let place = workspace.object();
    install(&built, &place)
}

/// Builds the object and leaves it among cargo's files.
pub(crate) fn compile(workspace: &Workspace, toolchain: &Toolchain) -> Result<PathBuf, Error> {
    let mut command = cargo(workspace, toolchain, "build");
    command.args(["--package", "collector-ebpf", "--bin", "datapath"]);
    process::shown(&mut command)?;
    let built = folder(workspace, toolchain).join(TARGET).join(PROFILE).join("datapath");
    check(&built)?;
    Ok(built)
}

/// Looks whether the oldest kernel would take the object, as far as that can be seen without it.
fn check(built: &Path) -> Result<(), Error> {
    let octets =
        fs::read(built).map_err(|cause| Error::File { act: "read", path: built.to_path_buf(), cause })?;
    let refused =
        stack::check(&octets).map_err(|cause| Error::Object { path: built.to_path_buf(), cause })?;
    if refused.is_empty() { Ok(()) } else { Err(Error::Stack { refused }) }
}

/// A cargo command for the BPF target, free of what the caller's environment means for the host.
pub(crate) fn cargo(workspace: &Workspace, toolchain: &Toolchain, verb: &str) -> Command {
    let mut command = Command::new(&toolchain.cargo);
    strip_environment(&mut command);
    command
        .args([verb, "--target", TARGET, "--profile", PROFILE, "-Z", "build-std=core", "--target-dir"])
        .arg(folder(workspace, toolchain))
        .current_dir(workspace.root())
        // `build-std` is unstable; the language used is not.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", &toolchain.rustc)
        .env("LD_LIBRARY_PATH", library_path(&toolchain.libraries))
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(&toolchain.linker));
    command
}

/// Removes what would change a build that is not for the caller's host: an inherited `target-cpu=native`
/// ends the link, another target or wrapper breaks it in quieter ways.
pub(crate) fn strip_environment(command: &mut Command) {
    const NAMES: [&str; 7] = [
        "RUSTFLAGS",
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTUP_TOOLCHAIN",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_MAKEFLAGS",
    ];
    const PREFIXES: [&str; 3] = ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_"];
    let is_ours =
        |name: &str| NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_ours) && name != "CARGO_BUILD_JOBS" {
            command.env_remove(name);
        }
    }
}

/// One target folder a compiler, so that neither undoes the other's work.
fn folder(workspace: &Workspace, toolchain: &Toolchain) -> PathBuf {
    workspace.bpf().join(toolchain.way.to_string())
}

/// Flags for the BPF target only: cargo gives build scripts and proc macros none of them.
fn rust_flags(linker: &Path) -> OsString {
    let mut flags = OsString::from(format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH));
    // The linker makes .BTF out of the debug information: without the one there is not the other.
    for flag in ["-Cdebuginfo=2", "-Ctarget-cpu=v3", "-Clink-arg=--btf", "-Clinker="] {
        flags.push("\u{1f}");
        flags.push(flag);
    }
    flags.push(linker);
    flags
}

fn library_path(folders: &[PathBuf]) -> OsString {
    let mut path = OsString::new();
    for folder in folders {
        if !path.is_empty() {
            path.push(":");
        }
        path.push(folder);
    }
    path
}

/// Copies the object only where its bytes differ, since a new time stamp alone would rebuild the collector.
fn install(built: &Path, place: &Path) -> Result<(), Error> {
    let fail = |act, path: &Path| {
        let path = path.to_path_buf();
        move |cause| Error::File { act, path, cause }
    };
    let new = fs::read(built).map_err(fail("read", built))?;
    if fs::read(place).is_ok_and(|old| old == new) {
        return Ok(());
    }
    // Moved into place whole: a build beside this one never embeds half an object.
    let part = place.with_extension("part");
    fs::write(&part, new).map_err(fail("write", &part))?;
    fs::rename(&part, place).map_err(fail("write", place))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{install, library_path, rust_flags};

    #[test]
    fn the_flags_are_separated_as_cargo_wants_them() {
        let flags = rust_flags(Path::new("/a b/bpf-linker")).into_string().unwrap();
        let flags: Vec<_> = flags.split('\u{1f}').collect();
        assert_eq!(
            flags[1..],
            ["-Cdebuginfo=2", "-Ctarget-cpu=v3", "-Clink-arg=--btf", "-Clinker=/a b/bpf-linker"]
        );
    }

    #[test]
    fn library_folders_are_joined() {
        assert_eq!(library_path(&["/a".into(), "/b".into()]), "/a:/b");
    }

    #[test]
    fn an_equal_object_keeps_its_time_stamp() {
        let folder = std::env::temp_dir().join(format!("xtask-object-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (built, place) = (folder.join("datapath"), folder.join("datapath.o"));
        fs::write(&built, "one").unwrap();
        install(&built, &place).unwrap();
        let first = fs::metadata(&place).unwrap().modified().unwrap();
        install(&built, &place).unwrap();
        assert_eq!(fs::metadata(&place).unwrap().modified().unwrap(), first);
        fs::write(&built, "two").unwrap();
        install(&built, &place).unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"two");
        fs::remove_dir_all(&folder).unwrap();
    }
}
