//! `cargo xtask bench`: times the way of events out of the collector and the loading of policies, then the programs by running them in the kernel.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use clap::Args;

use crate::{artifact, build, error::Error, privilege, process, workspace::Workspace};

/// Arguments of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Bench {
    /// Arguments of both benchmarks: `--rounds N`, `--only PART`, one of events, policies, hot, flows, first, filter, traced, flood, drops, storm, xdp, units, harm
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

impl Bench {
    /// Does not return where the last benchmark starts.
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<(), Error> {
        const WHAT: &str = "the benchmark";
        privilege::check(WHAT)?;
        build::object(workspace)?;
        let mut build = workspace.cargo();
        let [events, datapath] = ["events", "datapath"];
        build.args([
            "bench",
            "--package",
            "collector-tests",
            "--bench",
            events,
            "--bench",
            datapath,
            "--no-run",
        ]);
        let [events, datapath] = artifact::executables(&mut build, [events, datapath])?;
        let place = workspace.root().join("tests");
        process::shown(Command::new(events).arg("--bench").args(&self.args).current_dir(&place))?;
        let mut command = privilege::as_root(&datapath, WHAT)?;
        command.arg("--bench").args(&self.args).current_dir(&place);
        let cause = command.exec();
        Err(process::unstarted(&command, cause))
    }
}
