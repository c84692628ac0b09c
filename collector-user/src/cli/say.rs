//! What goes to standard error: logs, the lines that tell where the collector stands, and errors.

use std::{
    error::Error,
    io::{IsTerminal as _, Write as _},
};

use tracing_subscriber::{EnvFilter, fmt, util::SubscriberInitExt as _};

use crate::{daemon::Started, event::InterfaceStatus, sink::queue::SinkCounts};

/// Lines of an error at most: the verifier's log may have thousands, and its last words say why.
const LINES: usize = 16;

/// Sends logs to standard error: warnings, or what `RUST_LOG` asks for.
pub(super) fn logs() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let logs = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .finish();
    // Whoever embeds this may have a subscriber of its own, which then stays.
    let _ = logs.try_init();
}

/// One line on what the programs hang on, the next on what could not be had.
pub(super) fn started(started: &Started) {
    line(&attached(&started.interfaces));
    if started.missing.is_empty() {
        line("nothing is missing");
    } else {
        line(&format!("missing: {}", started.missing.join("; ")));
    }
}

/// What became of the events of an output that failed: there is no last line to say it.
pub(super) fn losses(counts: &SinkCounts) {
    let SinkCounts { delivered, queue_full, failed } = counts;
    line(&format!(
        "output: {delivered} events delivered, {queue_full} refused by its full queue, {failed} given up"
    ));
}

/// The error and its causes on one line, the verifier's words below.
pub(super) fn error(error: &dyn Error) {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    let lines: Vec<&str> = text.lines().collect();
    let (first, rest) = lines.split_first().unwrap_or((&"", &[]));
    line(first);
    for rest in rest.iter().skip(rest.len().saturating_sub(LINES)) {
        line(rest);
    }
}

fn attached(interfaces: &[InterfaceStatus]) -> String {
    let attached: Vec<String> = interfaces
        .iter()
        .filter(|interface| !interface.mechanism.is_empty())
        // A name may hold any octets; none of them moves the reader's terminal.
        .map(|interface| {
            format!("{} ({}) by {}", interface.name.escape_debug(), interface.role, interface.mechanism)
        })
        .collect();
    if attached.is_empty() {
        return "attached to nothing yet: no interface matches".to_owned();
    }
    format!("attached to {}", attached.join(", "))
}

/// A standard error that is closed is nobody's fault here, and nobody's to tell.
fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::attached;
    use crate::event::InterfaceStatus;

    #[test]
    fn the_first_word_is_attached() {
        let interface = |name: &str, mechanism: &str| InterfaceStatus {
            name: name.into(),
            role: "uplink".into(),
            mechanism: mechanism.into(),
            ..InterfaceStatus::default()
        };
        let line = attached(&[interface("eth0", "tcx"), interface("br0", ""), interface("eth1", "clsact")]);
        assert_eq!(line, "attached to eth0 (uplink) by tcx, eth1 (uplink) by clsact");
        assert_eq!(attached(&[interface("br0", "")]), "attached to nothing yet: no interface matches");
    }
}
