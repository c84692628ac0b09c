//! `cargo xtask run`: build as the caller, then become the collector as root.

use std::{ffi::OsString, os::unix::process::CommandExt as _};

use clap::Args;

use crate::{build, error::Error, privilege, process, workspace::Workspace};

/// Arguments of `cargo xtask run`.
#[derive(Args)]
pub(crate) struct Run {
    /// Build optimised: the default, since a watched host should pay what it would in earnest
    #[arg(long, overrides_with = "debug")]
    release: bool,
    /// Build without optimisation, which is quicker to build
    #[arg(long)]
    debug: bool,
    /// Arguments of `collector run`
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

impl Run {
    /// Does not return where the collector starts: xtask is replaced by it (or by sudo), so that Ctrl-C
    /// reaches the collector alone and its last lines are not lost behind a dying parent.
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<(), Error> {
        const WHAT: &str = "the collector";
        privilege::reach(WHAT)?;
        let collector = build::collector(workspace, self.release || !self.debug)?;
        let mut command = privilege::as_root(&collector, WHAT)?;
        command.arg("run").args(&self.args);
        let cause = command.exec();
        Err(process::unstarted(&command, cause))
    }
}
