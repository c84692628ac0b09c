//! `cargo xtask fuzz`: octets that a fuzzer makes up, for the parser, for the decoder of records, and for the reader of captures.

use std::{env, fs, process::Command};

use clap::Args;

use crate::{build, error::Error, process, say, workspace::Workspace};

/// Arguments of `cargo xtask fuzz`.
#[derive(Args)]
pub(crate) struct Fuzz {
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only this target.
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
}

/// The programs below `tests/fuzz/targets`.
const TARGETS: [&str; 3] = ["parser", "decode", "capture"];
/// The fuzzer's driver; it works with a stable compiler that is told to take unstable options.
const VERSION: &str = "0.13.2";

impl Fuzz {
    /// Runs the targets one after another, from the sample frames and records on; what they have found interesting is
    /// kept below `target/fuzz`, and where the next run begins.
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<(), Error> {
        let place = workspace.root().join("target/fuzz");
        if env::var_os("CXX").is_none() && process::which("c++").is_none() {
            return Err(Error::NoCxx);
        }
        ensure(workspace)?;
        // The collector, which holds the decoder, embeds it.
        build::object(workspace)?;
        let seeds = place.join("seeds");
        process::silent(
            workspace.cargo().args(["run", "-p", "collector-tests", "--example", "seeds", "--"]).arg(&seeds),
        )?;
        for target in TARGETS.into_iter().filter(|it| self.target.as_deref().is_none_or(|only| only == *it)) {
            let (corpus, artifacts) = (place.join("corpus").join(target), place.join("found").join(target));
            for folder in [&corpus, &artifacts] {
                fs::create_dir_all(folder).map_err(|cause| Error::File {
                    act: "make",
                    path: folder.clone(),
                    cause,
                })?;
            }
            say::step(&format!("fuzz {target}"), || {
                process::shown(
                    Command::new(workspace.tools().join("bin/cargo-fuzz"))
                        .args(["fuzz", "run", "--fuzz-dir"])
                        .arg(workspace.root().join("tests/fuzz"))
                        .arg("--target-dir")
                        .arg(&place)
                        .arg(target)
                        .arg(&corpus)
                        .arg(seeds.join(target))
                        .arg("--")
                        .arg(format!("-max_total_time={}", self.seconds))
                        .arg(format!("-artifact_prefix={}/", artifacts.display()))
                        .args(["-print_final_stats=1", "-max_len=2048", "-verbosity=0"])
                        .env("RUSTC_BOOTSTRAP", "1")
                        .current_dir(workspace.root()),
                )
            })?;
        }
        Ok(())
    }
}

/// Builds the driver where it is missing.
fn ensure(workspace: &Workspace) -> Result<(), Error> {
    let driver = workspace.tools().join("bin/cargo-fuzz");
    let version = process::silent(Command::new(&driver).args(["fuzz", "--version"]));
    if version.is_ok_and(|version| version.split_whitespace().last() == Some(VERSION)) {
        return Ok(());
    }
    let mut install = workspace.cargo();
    install
        .args(["install", "cargo-fuzz", "--version", VERSION, "--locked", "--force", "--root"])
        .arg(workspace.tools());
    say::waiting(&format!("building cargo-fuzz {VERSION} (about a minute, once)"), || {
        process::silent(&mut install).map(drop)
    })
}
