//! The executables that a cargo command built, taken from its JSON messages.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    error::{Error, Tail},
    process,
};

/// Runs a cargo command that builds, and returns the executable of the target called `name`.
pub(crate) fn executable(command: &mut Command, name: &str) -> Result<PathBuf, Error> {
    let [executable] = executables(command, [name])?;
    Ok(executable)
}

/// Runs a cargo command that builds, and returns the executables of the targets called `names`.
///
/// Progress and compiler messages stay visible: only the artifact messages are taken.
pub(crate) fn executables<const N: usize>(
    command: &mut Command,
    names: [&str; N],
) -> Result<[PathBuf; N], Error> {
    command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let output = command
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .map_err(|cause| process::unstarted(command, cause))?;
    if !output.status.success() {
        let tail = Tail::default();
        return Err(Error::Command { command: process::line(command), status: output.status, tail });
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut found = names.map(|_| PathBuf::new());
    for (path, name) in found.iter_mut().zip(names) {
        *path = messages
            .lines()
            .find_map(|message| artifact(message, name))
            .ok_or_else(|| Error::NoExecutable { command: process::line(command), name: name.to_owned() })?;
    }
    Ok(found)
}

fn artifact(message: &str, name: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_ours = message.pointer("/target/name")?.as_str()? == name;
    let path = message.get("executable")?.as_str()?;
    is_ours.then(|| Path::new(path).to_path_buf())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::artifact;

    #[test]
    fn only_the_executable_of_that_name_counts() {
        let ours = r#"{"reason":"compiler-artifact","target":{"name":"kernel"},"executable":"/t/kernel-1"}"#;
        let library = r#"{"reason":"compiler-artifact","target":{"name":"kernel"},"executable":null}"#;
        assert_eq!(artifact(ours, "kernel"), Some(PathBuf::from("/t/kernel-1")));
        assert_eq!(artifact(ours, "cli"), None);
        assert_eq!(artifact(library, "kernel"), None);
        assert_eq!(artifact("running 3 tests", "kernel"), None);
    }
}
