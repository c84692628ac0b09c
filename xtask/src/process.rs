//! Child processes: shown as they run, or silent unless they fail.

use std::{
    env,
    ffi::OsStr,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use crate::error::{Error, Tail};

/// Runs a command whose output the caller wants to see.
pub(crate) fn shown(command: &mut Command) -> Result<(), Error> {
    let status = command.status().map_err(|cause| unstarted(command, cause))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Command { command: line(command), status, tail: Tail::default() })
}

/// Runs a command out of sight and returns its standard output; its last error lines go into the error.
pub(crate) fn silent(command: &mut Command) -> Result<String, Error> {
    bytes(command).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Runs a command whose standard output is shown as it comes, byte by byte, and kept.
pub(crate) fn relay(command: &mut Command) -> Result<(ExitStatus, String), Error> {
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|cause| unstarted(command, cause))?;
    let mut kept = Vec::new();
    let mut copy = || -> io::Result<()> {
        let Some(mut pipe) = child.stdout.take() else { return Ok(()) };
        let mut buffer = [0; 4096];
        loop {
            let length = pipe.read(&mut buffer)?;
            let Some(new) = buffer.get(..length).filter(|new| !new.is_empty()) else { return Ok(()) };
            kept.extend_from_slice(new);
            // A closed terminal is no reason to stop the tests half way.
            let _ = io::stdout().write_all(new).and_then(|()| io::stdout().flush());
        }
    };
    let copied = copy();
    let status = copied.and_then(|()| child.wait()).map_err(|cause| unstarted(command, cause))?;
    Ok((status, String::from_utf8_lossy(&kept).into_owned()))
}

/// Runs a command out of sight for the bytes that it writes.
pub(crate) fn bytes(command: &mut Command) -> Result<Vec<u8>, Error> {
    let output = command.stdin(Stdio::null()).output().map_err(|cause| unstarted(command, cause))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let tail = Tail::of(&String::from_utf8_lossy(&output.stderr));
    Err(Error::Command { command: line(command), status: output.status, tail })
}

/// The error of a command that could not be started.
pub(crate) fn unstarted(command: &Command, cause: io::Error) -> Error {
    Error::Spawn { program: command.get_program().to_string_lossy().into_owned(), cause }
}

/// The command as a person would type it: the program without its folder, then the arguments.
pub(crate) fn line(command: &Command) -> String {
    let program = command.get_program();
    let name = Path::new(program).file_name().unwrap_or(program);
    let words = std::iter::once(name).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// The path of a program, looked for where the caller's shell looks and where root's would.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{line, silent, which};

    #[test]
    fn a_silent_failure_carries_the_last_lines() {
        let error = silent(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("exit status: 3") && text.contains("no such thing"), "{text}");
    }

    #[test]
    fn a_command_is_shown_without_its_folder() {
        assert_eq!(
            line(Command::new("/opt/bin/cargo").args(["build", "--release"])),
            "cargo build --release"
        );
    }

    #[test]
    fn a_program_is_found_or_not() {
        assert!(which("sh").is_some());
        assert!(which("no-such-program-anywhere").is_none());
    }
}
