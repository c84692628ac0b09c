//! Programs and libraries of Debian that a verb uses, installed where they are missing and that can be done without asking.

use std::process::Command;

use crate::{error::Error, privilege, process, say};

/// A program or a library, and the Debian package that holds it.
pub(crate) type Tool = (&'static str, &'static str);

/// The library that compiles packet filters, which the collector loads when it runs.
pub(crate) const LIBPCAP: Tool = ("libpcap.so", "libpcap0.8");

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
    tools.iter().copied().filter(|(tool, _)| !is_there(tool)).collect()
}

/// A program is looked for where programs are, a library where the loader looks for it.
fn is_there(tool: &str) -> bool {
    if !tool.contains(".so") {
        return process::which(tool).is_some();
    }
    let Some(ldconfig) = process::which("ldconfig") else { return false };
    let known = process::silent(Command::new(ldconfig).arg("-p"));
    known.is_ok_and(|list| lists(&list, tool))
}

/// Whether the loader's list has a library, of whatever version.
fn lists(list: &str, library: &str) -> bool {
    list.lines().any(|line| line.trim_start().starts_with(&format!("{library}.")))
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

#[cfg(test)]
mod tests {
    use super::lists;

    #[test]
    fn a_library_is_known_by_any_version() {
        let list = "2 libs found in cache `/etc/ld.so.cache'\n\tlibpcap.so.0.8 (libc6,x86-64) => /lib/libpcap.so.0.8\n\
                    \tlibc.so.6 (libc6) => /lib/libc.so.6\n";
        assert!(lists(list, "libpcap.so") && lists(list, "libc.so"));
        // A link for linkers is none that the loader takes.
        assert!(
            !lists("\tlibpcap.so (libc6) => /lib/libpcap.so\n", "libpcap.so") && !lists(list, "libnl.so")
        );
    }
}
