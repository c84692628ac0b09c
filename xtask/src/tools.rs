//! Programs of Debian that a verb uses, installed where they are missing and that can be done without asking.

use std::process::Command;

use crate::{error::Error, privilege, process, say};

/// A program, and the Debian package that holds it.
pub(crate) type Tool = (&'static str, &'static str);

/// Installs what is missing, as root with apt; `what` names the user of these tools in the error.
pub(crate) fn ensure(what: &'static str, tools: &[Tool]) -> Result<(), Error> {
    let missing = missing(tools);
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(tool, _)| *tool).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    let fail = |why: &str| {
        Err(Error::NoTools { what, tools: names.clone(), packages: packages.clone(), why: why.into() })
    };
    if process::which("apt-get").is_none() {
        return fail("those are Debian's names; this machine has no apt-get");
    }
    if !privilege::is_root() {
        return fail("`apt-get install` needs root");
    }
    if let Err(error) = install(&packages) {
        return fail(&error.to_string());
    }
    let left = self::missing(tools);
    if left.is_empty() { Ok(()) } else { fail("apt-get installed them, and some are still not found") }
}

fn missing(tools: &[Tool]) -> Vec<Tool> {
    tools.iter().copied().filter(|(tool, _)| process::which(tool).is_none()).collect()
}

fn install(packages: &[&str]) -> Result<(), Error> {
    let apt = || {
        let mut command = Command::new("apt-get");
        // Waits for another apt instead of failing beside it.
        command.args(["-qq", "-o", "DPkg::Lock::Timeout=300"]).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    say::waiting(&format!("installing {}", packages.join(" ")), || {
        process::silent(apt().arg("update"))?;
        process::silent(apt().args(["install", "-y", "--no-install-recommends"]).args(packages))?;
        Ok(())
    })
}
