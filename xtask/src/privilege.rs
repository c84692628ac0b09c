//! Root, by being it or by sudo.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    process::Command,
};

use rustix::{
    process::geteuid,
    thread::{CapabilitySet, capabilities},
};

use crate::{error::Error, process::which};

/// What loading, attaching, tracing and making network namespaces ask for.
const NEEDED: [(CapabilitySet, &str); 4] = [
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
];

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// Fails where root is out of reach: told before a long build, not after it.
pub(crate) fn reach(what: &'static str) -> Result<(), Error> {
    as_root(Path::new(""), what).map(drop)
}

/// Fails also where root lacks capabilities, as in most containers. What sudo would give is not known before.
pub(crate) fn check(what: &'static str) -> Result<(), Error> {
    reach(what)?;
    if !is_root() {
        return Ok(());
    }
    // A kernel that does not answer the question will answer the load itself.
    let Ok(sets) = capabilities(None) else { return Ok(()) };
    let missing: Vec<_> =
        NEEDED.iter().filter(|(bit, _)| !sets.effective.contains(*bit)).map(|(_, name)| *name).collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::NoCapability { what, missing }) }
}

/// A command that runs `program` as root; `what` names the thing that needs it in the error.
///
/// Only the finished program goes through sudo, never cargo: files of the build stay the caller's.
pub(crate) fn as_root(program: &Path, what: &'static str) -> Result<Command, Error> {
    as_root_with(&[], program, what)
}

/// The same, with variables of the environment, of which sudo keeps none by itself.
pub(crate) fn as_root_with(
    variables: &[(&str, &OsStr)],
    program: &Path,
    what: &'static str,
) -> Result<Command, Error> {
    if is_root() {
        let mut command = Command::new(program);
        command.envs(variables.iter().copied());
        return Ok(command);
    }
    let sudo = which("sudo").ok_or(Error::NoPrivilege { what })?;
    let mut command = Command::new(sudo);
    command.args(["--", "env"]);
    for (name, value) in variables {
        let mut variable = OsString::from(format!("{name}="));
        variable.push(value);
        command.arg(variable);
    }
    command.arg(program);
    Ok(command)
}
