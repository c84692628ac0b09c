//! Embeds the eBPF object that `cargo xtask build` leaves at a fixed place.
//!
//! Where it is not there yet, an empty one stands in for it: everything compiles and is linted without the eBPF
//! toolchain, and the collector says what to do when it is asked to run.

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let built = env::var_os("COLLECTOR_BPF_OBJECT").map_or_else(fixed_place, PathBuf::from);
    println!("cargo::rerun-if-env-changed=COLLECTOR_BPF_OBJECT");
    println!("cargo::rerun-if-changed={}", built.display());
    let object = if built.exists() { fs::read(&built)? } else { Vec::new() };
    let embedded = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("datapath.o");
    fs::write(embedded, object)
}

fn fixed_place() -> PathBuf {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    package.join("../target/bpf/datapath.o")
}
