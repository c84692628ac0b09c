//! `collector status`: how a running collector stands.

use std::{io, process::ExitCode};

use super::{
    args::AskArgs,
    ask::{self, AskError},
    say::Voice,
    stdout,
};
use crate::{
    config::{LogFormat, Output},
    event::{InterfaceStatus, Status},
    sink::text::{self, Escaped},
};

/// Why nothing is told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
enum Failure {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
}

/// Asks, and prints the answer; the exit code is the process's.
pub(super) fn run(ask: &AskArgs) -> ExitCode {
    let told = ask::status(ask.socket.as_ref()).map_err(Failure::Ask);
    let told = told.map(|status| match ask.output {
        Output::Text => text(&status),
        // Text and numbers always have a form.
        Output::Json => serde_json::to_string_pretty(&status).unwrap_or_default() + "\n",
    });
    match told.and_then(|text| stdout::print(&text).map_err(Failure::Stdout)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            Voice::new(LogFormat::Text).error(&failure);
            ExitCode::FAILURE
        }
    }
}

/// A line for each interface that programs hang on, then what `run` writes at its end.
fn text(status: &Status) -> String {
    let attached = status.interfaces.iter().filter(|interface| !interface.mechanism.is_empty());
    let lines = attached.map(|InterfaceStatus { name, role, hook, mechanism, .. }| {
        format!("attached to {} ({role}) by {mechanism}: {hook}", Escaped(name))
    });
    lines.chain(text::status(status)).map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::text;
    use crate::event::{InterfaceStatus, Status};

    #[test]
    fn interfaces_come_before_the_ledger() {
        let interface = |name: &str, mechanism: &str| InterfaceStatus {
            name: name.into(),
            role: "uplink".into(),
            hook: "ingress+egress".into(),
            mechanism: mechanism.into(),
            ..InterfaceStatus::default()
        };
        let interfaces = vec![interface("lo", ""), interface("eth0", "tcx")];
        let said = text(&Status { interfaces, ..Status::default() });
        assert_eq!(
            said,
            "attached to eth0 (uplink) by tcx: ingress+egress\nledger: seen 0 = flows 0; nothing lost\n"
        );
    }
}
