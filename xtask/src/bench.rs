//! `cargo xtask bench`: times the programs by running them in the kernel.

use std::{ffi::OsString, os::unix::process::CommandExt as _};

use clap::Args;

use crate::{artifact, build, error::Error, privilege, process, workspace::Workspace};

/// Arguments of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Bench {
    /// Arguments of the benchmark
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

impl Bench {
    /// Does not return where the benchmark starts.
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<(), Error> {
        const WHAT: &str = "the benchmark";
        privilege::check(WHAT)?;
        build::object(workspace)?;
        let mut build = workspace.cargo();
        build.args(["bench", "--package", "collector-tests", "--bench", "datapath", "--no-run"]);
        let benchmark = artifact::executable(&mut build, "datapath")?;
        let mut command = privilege::as_root(&benchmark, WHAT)?;
        command.arg("--bench").args(&self.args).current_dir(workspace.root().join("tests"));
        let cause = command.exec();
        Err(process::unstarted(&command, cause))
    }
}
