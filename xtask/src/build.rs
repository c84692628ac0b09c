//! `cargo xtask build`: the object, then the collector that embeds it.

use std::path::PathBuf;

use clap::Args;

use crate::{artifact, error::Error, object, say, setup, workspace::Workspace};

/// Arguments of `cargo xtask build`.
#[derive(Args)]
pub(crate) struct Build {
    /// Optimise the collector (the eBPF programs always are)
    #[arg(long)]
    release: bool,
}

impl Build {
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<(), Error> {
        let collector = collector(workspace, self.release)?;
        say::line(&format!("built {}", collector.display()));
        Ok(())
    }
}

/// Builds both sides and returns the path of the collector.
pub(crate) fn collector(workspace: &Workspace, release: bool) -> Result<PathBuf, Error> {
    object(workspace)?;
    let mut command = workspace.cargo();
    command.args(["build", "--package", "collector-user", "--bin", "collector"]);
    if release {
        command.arg("--release");
    }
    artifact::executable(&mut command, "collector")
}

/// Builds the object with what setup chooses.
pub(crate) fn object(workspace: &Workspace) -> Result<(), Error> {
    object::build(workspace, &setup::ensure(workspace)?)
}
