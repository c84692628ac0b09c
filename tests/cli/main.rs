//! The collector as a person or a program starts it: arguments in, lines and exit code out.
//!
//! Declared in `collector-user/Cargo.toml`, whose binary it starts.
#![expect(clippy::expect_used, reason = "a test that cannot be set up fails with these words")]

/// `collector capture`, beside tcpdump.
mod capture;
/// `collector config`, and the log's form.
mod config;
/// `kill -9`, and what is left.
mod killed;
/// Several outputs at once: one that blocks, one that fails.
mod outputs;
/// Policies of the configuration: said, enforced, taken over anew, and gone with the collector.
mod policy;
/// Namespaces, and the process under test.
mod process;
/// `collector pu`: what a running collector says when it is asked.
mod pu;
/// `collector read`: captures as frames and as flows.
mod read;
/// Bad usage, bad configuration, missing privilege: what is said, and with which exit code.
mod refused;
/// What the running kernel is too old for.
#[path = "../support/release.rs"]
pub mod release;
/// Another configuration for a collector that runs.
mod reload;
/// Runs in a namespace of its own: output, signals, closed pipes.
mod run;
/// The JSON Schema of the output.
mod schema;
/// Known traffic, sent and counted on this kernel.
mod selftest;
/// `collector status`: how a running collector stands.
mod status;
/// A reader that is stopped, and goes on.
mod stopped;
mod unprivileged;
