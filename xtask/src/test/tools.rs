//! The programs that the kernel tests compare against.

use std::process::Command;

use crate::{error::Error, privilege, process, say};

/// Program and the Debian package that holds it.
const TOOLS: [(&str, &str); 8] = [
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nft", "nftables"),
    ("tcpdump", "tcpdump"),
    ("ethtool", "ethtool"),
    ("ping", "iputils-ping"),
    ("bpftool", "bpftool"),
    ("python3", "python3"),
];

/// Installs what is missing where that can be done without asking: as root, with apt.
pub(super) fn ensure() -> Result<(), Error> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let tools: Vec<_> = missing.iter().map(|(tool, _)| *tool).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    let fail =
        |why: &str| Err(Error::NoTools { tools: tools.clone(), packages: packages.clone(), why: why.into() });
    if process::which("apt-get").is_none() {
        return fail("those are Debian's names; this machine has no apt-get");
    }
    if !privilege::is_root() {
        return fail("`apt-get install` needs root");
    }
    if let Err(error) = install(&packages) {
        return fail(&error.to_string());
    }
    let left = self::missing();
    if left.is_empty() { Ok(()) } else { fail("apt-get installed them, and some are still not found") }
}

fn missing() -> Vec<(&'static str, &'static str)> {
    TOOLS.into_iter().filter(|(tool, _)| process::which(tool).is_none()).collect()
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
