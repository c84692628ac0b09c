//! `cargo xtask bench`: times the way of events out of the collector, the loading of policies and the reading of captures, then the
//! programs by running them in the kernel.

use std::{ffi::OsString, os::unix::process::CommandExt as _, path::PathBuf, process::Command};

use clap::Args;

use crate::{artifact, build, error::Error, meters, privilege, process, say, tools, workspace::Workspace};

/// Arguments of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Bench {
    /// Arguments of all benchmarks: `--rounds N`, `--only PART`, one of events, policies, read, hot, flows, first, filter, traced, flood, drops, storm, xdp, units, harm
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
        let names = ["events", "read", "datapath"];
        build.args(["bench", "--package", "collector-tests", "--no-run"]);
        build.args(names.into_iter().flat_map(|name| ["--bench", name]));
        let [events, read, datapath] = artifact::executables(&mut build, names)?;
        let place = workspace.root().join("tests");
        process::shown(Command::new(events).arg("--bench").args(&self.args).current_dir(&place))?;
        if self.wants_read() {
            let mut command = Command::new(read);
            with_readers(workspace, &mut command)?;
            process::shown(command.arg("--bench").args(&self.args).current_dir(&place))?;
        }
        let mut command = privilege::as_root(&datapath, WHAT)?;
        command.arg("--bench").args(&self.args).current_dir(&place);
        let cause = command.exec();
        Err(process::unstarted(&command, cause))
    }

    /// Whether that part is not left out, for which there is more to build and to fetch.
    fn wants_read(&self) -> bool {
        let mut words = self.args.iter().skip_while(|word| *word != "--only").skip(1);
        words.next().is_none_or(|part| part == "read")
    }
}

/// Tells the benchmark of reading where the collector is, and what others read captures with. Who cannot be had is left out.
fn with_readers(workspace: &Workspace, command: &mut Command) -> Result<(), Error> {
    command.env("COLLECTOR_RELEASE", build::collector(workspace, true)?);
    let meters = meters::ensure(workspace).unwrap_or_else(|error| {
        say::line(&format!("softflowd and pmacctd are left out: {error}"));
        PathBuf::new()
    });
    command.env(meters::VARIABLE, meters);
    if let Err(error) = tools::ensure("the benchmark", &[("tshark", "tshark")]) {
        say::line(&format!("tshark is left out: {error}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Bench;

    #[test]
    fn what_is_not_asked_for_is_not_built() {
        for (words, wants) in
            [("", true), ("--rounds 3", true), ("--rounds 3 --only read", true), ("--only hot", false)]
        {
            let args = words.split_whitespace().map(Into::into).collect();
            assert_eq!(Bench { args }.wants_read(), wants, "{words}");
        }
    }
}
