//! `cargo xtask test`: the tests that need nothing, and those that need the kernel.

use clap::{Args, ValueEnum};

use crate::{build, error::Error, process, say, tools, workspace::Workspace};

mod engines;
pub(crate) mod kernel;
pub(crate) mod report;

/// Arguments of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Test {
    /// Which tests to run; without it, both
    #[arg(value_enum)]
    layer: Option<Layer>,
    /// Arguments of the test programs: a filter, `--nocapture`, ...
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Layer {
    /// Unit and integration tests on the stable compiler, without privilege
    User,
    /// Tests that load programs into the running kernel, as root
    Kernel,
}

impl Test {
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<(), Error> {
        match self.layer {
            Some(Layer::User) => user(workspace, &self.args),
            Some(Layer::Kernel) => {
                kernel::ready()?;
                build::object(workspace)?;
                kernel::run(workspace, &kernel::ALONE, &self.args)
            }
            None => {
                // First, since the collector that both layers test embeds it.
                say::step("object", || build::object(workspace))?;
                all(workspace, &self.args)
            }
        }
    }
}

/// Both layers; the object is built already.
pub(crate) fn all(workspace: &Workspace, args: &[String]) -> Result<(), Error> {
    say::step("test user", || user(workspace, args))?;
    say::step("test kernel", || {
        kernel::ready()?;
        kernel::run(workspace, &kernel::AFTER_OTHERS, args)
    })
}

fn user(workspace: &Workspace, args: &[String]) -> Result<(), Error> {
    tools::ensure("the tests", &[tools::LIBPCAP])?;
    process::shown(workspace.cargo().args(["test", "--workspace", "--"]).args(args))
}
