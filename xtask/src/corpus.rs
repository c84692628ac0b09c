//! `cargo xtask corpus`: captures of others, read by the parser, by the loaded programs and by an independent dissector.

use std::{path::PathBuf, process::Command};

use clap::Args;

use crate::{artifact, build, error::Error, privilege, process, workspace::Workspace};

/// Arguments of `cargo xtask corpus`.
#[derive(Args)]
pub(crate) struct Corpus {
    /// The folder below which the captures lie.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// What a dissector says of them: a table with a row a frame. [default: `X.tsv` beside each folder `X`]
    #[arg(long, value_name = "FILE.tsv")]
    truth: Option<PathBuf>,
    /// Leave the loaded programs out, which need root.
    #[arg(long)]
    parser_only: bool,
}

const WHAT: &str = "the corpus by the loaded programs";

impl Corpus {
    /// All captures below a folder, by the tables beside them.
    pub(crate) const fn of(folder: PathBuf) -> Self {
        Self { folder, truth: None, parser_only: false }
    }

    /// Builds what compares, and runs it.
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<(), Error> {
        if !self.parser_only {
            privilege::check(WHAT)?;
        }
        build::object(workspace)?;
        let mut build = workspace.cargo();
        build.args(["build", "--package", "collector-tests", "--example", "corpus"]);
        let program = artifact::executable(&mut build, "corpus")?;
        let mut command =
            if self.parser_only { Command::new(&program) } else { privilege::as_root(&program, WHAT)? };
        command.arg(&self.folder);
        if let Some(truth) = &self.truth {
            command.arg("--truth").arg(truth);
        }
        if self.parser_only {
            command.arg("--parser-only");
        }
        process::shown(&mut command)
    }
}
