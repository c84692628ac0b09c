//! The verbs of this workspace, for people and for CI: `cargo xtask <verb>`.
//!
//! One verb a file (`setup`, `build`, `run`, `test`, `vm`, `fuzz`, `corpus`, `lint`, `bench`, `ci`); below them lies what verbs
//! share: the eBPF [`object`], [`privilege`], child [`process`]es, cargo's [`artifact`] messages, other people's
//! [`tools`] and [`packages`] (of which flow [`meters`] are some), and all printing ([`say`]).

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

mod bench;
mod build;
mod ci;
mod corpus;
mod fuzz;
mod lint;
mod run;
mod setup;
mod test;
mod vm;

mod artifact;
mod error;
mod meters;
mod object;
mod packages;
mod privilege;
mod process;
mod say;
mod tools;
mod workspace;

/// Builds, runs and checks the collector.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Fetch what the eBPF build needs and this machine lacks (every verb below does so by itself)
    Setup,
    /// Build the eBPF object, then the collector
    Build(build::Build),
    /// Build the collector, become root, and run it: `cargo xtask run -- ARGS` is `collector run ARGS`
    Run(run::Run),
    /// Run the tests: those that need nothing, those that need the kernel and root, or both
    Test(test::Test),
    /// Run the kernel tests on Debian's kernels, each in a guest (QEMU)
    Vm(vm::Vm),
    /// Make up frames and records, and look whether anything breaks (libFuzzer)
    Fuzz(fuzz::Fuzz),
    /// Compare what is read of captures with what others read: the programs, and a dissector
    Corpus(corpus::Corpus),
    /// Check format, clippy (host and BPF), documentation, and the one-way imports
    Lint,
    /// Time the programs in the kernel, as root, and what is done beside them
    Bench(bench::Bench),
    /// What CI runs: lint, the object by every compiler at hand, and all tests
    Ci,
}

fn main() -> ExitCode {
    let workspace = Workspace::find();
    let outcome = match Cli::parse().verb {
        Verb::Setup => setup::ensure(&workspace).map(drop),
        Verb::Build(verb) => verb.run(&workspace),
        Verb::Run(verb) => verb.run(&workspace),
        Verb::Test(verb) => verb.run(&workspace),
        Verb::Vm(verb) => verb.run(&workspace),
        Verb::Fuzz(verb) => verb.run(&workspace),
        Verb::Corpus(verb) => verb.run(&workspace),
        Verb::Lint => lint::run(&workspace),
        Verb::Bench(verb) => verb.run(&workspace),
        Verb::Ci => ci::run(&workspace),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::error(&error);
            ExitCode::FAILURE
        }
    }
}
