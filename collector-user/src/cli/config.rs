//! `collector config`: check a file, show one with its defaults, print an example.

use std::{collections::BTreeMap, io, path::Path, process::ExitCode};

use super::{args::ConfigCommand, say::Voice, stdout};
use crate::{
    config::{Config, ConfigError, EXAMPLE, IfaceGlob, LogFormat},
    daemon::DaemonError,
    host::{
        links::{self, HostError, Link},
        watch,
    },
};

/// Why a configuration does not serve, or cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    // The fault's text is part of this one's, so it is no source.
    #[error("{file}: iface: {fault}")]
    Interface { file: String, fault: Box<DaemonError> },
    #[error("the interfaces of this host cannot be listed")]
    Host(#[from] HostError),
    #[error("cannot set up the event loop")]
    Runtime(#[source] io::Error),
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Config(_) | Self::Interface { .. } => 2,
            Self::Host(_) | Self::Runtime(_) | Self::Stdout(_) => 1,
        })
    }
}

/// Does what is asked; the exit code is the process's.
pub(super) fn run(command: &ConfigCommand) -> ExitCode {
    let text = match command {
        ConfigCommand::Check { file } => check(file),
        ConfigCommand::Show { config } => show(config.as_deref()),
        ConfigCommand::Example => Ok(EXAMPLE.to_owned()),
    };
    match text.and_then(|text| stdout::print(&text).map_err(Failure::Stdout)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            Voice::new(LogFormat::Text).error(&failure);
            failure.exit_code()
        }
    }
}

fn show(file: Option<&Path>) -> Result<String, Failure> {
    let config = file.map(Config::load).transpose()?.unwrap_or_default();
    let from = file.map_or("no file".to_owned(), |file| file.display().to_string());
    // Whatever the name is, it ends no line.
    Ok(format!("# of {}\n{}", from.escape_debug(), config.to_toml()))
}

fn check(file: &Path) -> Result<String, Failure> {
    let config = Config::load(file)?;
    // Nothing to look for, nothing to ask the host.
    if config.iface.iter().any(IfaceGlob::is_literal) {
        let lacking = lacking(&config, &list()?);
        if let Some(name) = lacking {
            let fault = Box::new(DaemonError::NoSuchInterface { name });
            return Err(Failure::Interface { file: file.display().to_string(), fault });
        }
    }
    Ok(format!("{}: {}\n", file.display(), summary(&config)))
}

fn list() -> Result<BTreeMap<u32, Link>, Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    runtime.block_on(async {
        let (netlink, _changes) = watch::open()?;
        Ok(links::list(&netlink.handle).await?)
    })
}

/// The first interface that is named and does not exist: `run` would refuse it.
fn lacking(config: &Config, links: &BTreeMap<u32, Link>) -> Option<String> {
    let exists = |name: &str| links.values().any(|link| link.name == name);
    let mut named = config.iface.iter().filter(|glob| glob.is_literal());
    named.find(|glob| !exists(glob.as_str())).map(ToString::to_string)
}

/// `good; outputs: text to stdout; processing units declared: 2`
fn summary(config: &Config) -> String {
    let outputs: Vec<_> = config
        .outputs
        .iter()
        .map(|output| format!("{} to {}", output.name.escape_debug(), output.to))
        .collect();
    let mut summary = format!("good; outputs: {}", outputs.join(", "));
    if !config.iface.is_empty() {
        let globs: Vec<_> = config.iface.iter().map(ToString::to_string).collect();
        summary = format!("{summary}; interfaces: {}", globs.join(", "));
    }
    if !config.trace.is_empty() {
        let traces: Vec<_> =
            config.trace.iter().map(|trace| trace.to_string().escape_debug().to_string()).collect();
        summary = format!("{summary}; traces: {}", traces.join(", "));
    }
    let units = config.pu.len();
    summary = format!("{summary}; processing units declared: {units}");
    match (config.policy.len(), config.enforce) {
        (0, _) => summary,
        (policies, true) => format!("{summary}; policies: {policies}, enforced"),
        (policies, false) => format!("{summary}; policies: {policies}, not enforced"),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use super::{lacking, summary};
    use crate::{config::Config, host::links::Link};

    #[test]
    fn a_good_file_in_one_line() {
        let text = "iface = [\"eth0\", \"veth*\"]\n[[output]]\ntype = \"json\"\nto = \"/f\"\n\
                    [[trace]]\npu = \"web\"\n[[pu]]\nid = \"web\"\ninterface = [\"x\"]\n";
        let config = Config::parse(text, Path::new("c.toml")).unwrap();
        assert_eq!(
            summary(&config),
            "good; outputs: json to /f; interfaces: eth0, veth*; traces: web:both; processing units declared: 1"
        );
        let policy = "[[policy]]\nid = \"p\"\npu = [\"*\"]\ndirection = \"in\"\naction = \"accept\"\n";
        for (enforce, want) in
            [("", "; policies: 1, not enforced"), ("enforce = true\n", "; policies: 1, enforced")]
        {
            let with = Config::parse(&format!("{enforce}{policy}"), Path::new("c.toml")).unwrap();
            assert!(summary(&with).ends_with(want), "{}", summary(&with));
        }
        assert_eq!(lacking(&config, &BTreeMap::new()).as_deref(), Some("eth0"));
        let link = Link { name: "eth0".to_owned(), ..Link::default() };
        assert_eq!(lacking(&config, &BTreeMap::from([(1, link)])), None);
    }
}
