//! What the kernel tests need to be allowed.

use anyhow::ensure;
use rustix::thread::CapabilitySet;

use crate::Result;

/// Fails, in one sentence, where this process may not do what kernel tests do.
pub fn check() -> Result<()> {
    let held = rustix::thread::capabilities(None)?.effective;
    let needed = [
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
        (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
        (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
    ];
    for (capability, name) in needed {
        ensure!(
            held.contains(capability),
            "kernel tests make network namespaces and load programs, and this process lacks {name}: run them as \
             root, by `cargo xtask test kernel`"
        );
    }
    Ok(())
}
