//! `cargo xtask lint`: what holds for the sources before anything runs, quickest first.

use std::process::Command;

use crate::{
    error::Error,
    object, process, say,
    setup::{self, Way, rustup},
    workspace::Workspace,
};

mod imports;
mod order;
mod pure;
mod sources;
mod tokens;
mod violation;

pub(crate) use self::violation::Violation;

/// Runs every check; the first failure ends it.
pub(crate) fn run(workspace: &Workspace) -> Result<(), Error> {
    components(workspace)?;
    say::step("lint: format", || process::shown(workspace.cargo().args(["fmt", "--all", "--check"])))?;
    say::step("lint: imports", || imports(workspace))?;
    say::step("lint: clippy, host", || {
        let mut clippy = workspace.cargo();
        process::shown(deny_warnings(clippy.args(["clippy", "--workspace", "--all-targets"])))
    })?;
    bpf_clippy(workspace)?;
    say::step("lint: documentation", || {
        let mut doc = workspace.cargo();
        process::shown(doc.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
    })
}

/// A minimal toolchain has neither formatter nor clippy.
fn components(workspace: &Workspace) -> Result<(), Error> {
    let sysroot = rustup::sysroot(workspace)?;
    for (program, component) in [("bin/rustfmt", "rustfmt"), ("bin/clippy-driver", "clippy")] {
        if !sysroot.join(program).is_file() {
            rustup::add(workspace, component)?;
        }
    }
    Ok(())
}

/// The rules of the workspace that no compiler knows.
fn imports(workspace: &Workspace) -> Result<(), Error> {
    let mut violations = sources::check(&workspace.root().join("collector-user/src"))?;
    violations.extend(pure::check(&workspace.root().join("collector-ebpf/src"))?);
    for violation in &mut violations {
        violation.relative_to(workspace.root());
    }
    violations.sort();
    violations.dedup();
    if violations.is_empty() { Ok(()) } else { Err(Error::Violations { violations }) }
}

/// Clippy on the target the programs are for. Clippy is part of the workspace's toolchain and reads only what
/// that compiler wrote, so Debian's compiler is of no use here.
fn bpf_clippy(workspace: &Workspace) -> Result<(), Error> {
    const NAME: &str = "lint: clippy, BPF";
    let toolchain = match setup::with(workspace, Way::Rustup) {
        Ok(toolchain) => toolchain,
        Err(error @ (Error::NoSources { .. } | Error::SourcesAbsent { .. })) => {
            say::line(&format!("== {NAME}: NOT RUN, it works with rustup's compiler only: {error}"));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    say::step(NAME, || {
        let mut clippy = object::cargo(workspace, &toolchain, "clippy");
        process::shown(deny_warnings(clippy.args([
            "--package",
            "collector-ebpf",
            "--lib",
            "--bin",
            "datapath",
        ])))
    })
}

fn deny_warnings(command: &mut Command) -> &mut Command {
    command.args(["--", "-D", "warnings"])
}
