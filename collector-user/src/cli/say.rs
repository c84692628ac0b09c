//! What goes to standard error: logs, the lines that tell where the collector stands, and errors. How it gets there is
//! [`stderr`]'s matter.

use std::{
    error::Error,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
};

use serde::Serialize;
use tracing_subscriber::{
    EnvFilter,
    fmt::{self, format::Writer, time::FormatTime},
    util::SubscriberInitExt as _,
};

use super::stderr::{self, Lines, Rest};
use crate::{
    clock,
    config::LogFormat,
    daemon::Started,
    error::with_causes,
    event::{InterfaceStatus, Time},
    sink::{capture::CaptureCounts, queue::SinkCounts, waiting::Waiting},
};

/// Lines of an error at most: the verifier's log may have thousands, and its last words say why.
const LINES: usize = 16;

/// What is logged where `RUST_LOG` says nothing. Which messages of netlink's cannot be read is known, and said of their
/// interfaces; the library would write out the message's octets each time. Whoever is stopped while it asks takes no answer,
/// which the library tells as well.
const LEVEL: &str = "warn,netlink_proto::codecs=off,netlink_proto::connection=error";

/// Speaks on standard error, in one form: the log and the lines that come whatever the log's level is.
#[derive(Clone)]
pub(super) struct Voice {
    format: LogFormat,
    /// None before there is anything that could be held up: then the words are written at once.
    lines: Option<Lines>,
}

/// A line of JSON, with the keys of those of the log.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: Time,
    level: &'static str,
    message: &'a str,
    target: &'static str,
}

impl Voice {
    pub(super) const fn new(format: LogFormat) -> Self {
        Self { format, lines: None }
    }

    /// The voice of a run, which waits for nobody; what it has said is written for certain once the second value is
    /// finished.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn of_run(format: LogFormat) -> io::Result<(Self, Rest)> {
        let gap = move |lost| {
            let text = format!("{lost} lines are missing here: standard error took none for too long");
            in_form(format, "WARN", &text)
        };
        let (lines, rest) = stderr::start(Waiting(io::stderr()), gap)?;
        Ok((Self { format, lines: Some(lines) }, rest))
    }

    /// Sends logs where the voice goes: warnings, or what `RUST_LOG` asks for.
    pub(super) fn start_log(&self) {
        let Some(lines) = self.lines.clone() else { return };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LEVEL));
        let logs =
            fmt::fmt().with_env_filter(filter).with_writer(move || lines.clone()).log_internal_errors(false);
        // Whoever embeds this may have a subscriber of its own, which then stays.
        let _ = match self.format {
            LogFormat::Json => logs.json().flatten_event(true).with_timer(Wall).finish().try_init(),
            LogFormat::Text => {
                let colour = io::stderr().is_terminal();
                logs.with_target(false).with_ansi(colour).finish().try_init()
            }
        };
    }

    /// One line on what the programs hang on, the next on what could not be had.
    pub(super) fn started(&self, started: &Started) {
        self.line("INFO", &attached(&started.interfaces));
        if started.missing.is_empty() {
            self.line("INFO", "nothing is missing");
        } else {
            self.line("INFO", &format!("missing: {}", started.missing.join("; ")));
        }
    }

    /// What became of a configuration that was read anew, and is no other or was taken over.
    pub(super) fn reloaded(&self, path: &Path, changes: &[String]) {
        let path = path.display();
        let what = match changes {
            [] => "says what it said before".to_owned(),
            _ => format!("was taken over: {}", changes.join("; ")),
        };
        self.line("INFO", &format!("{path}: the configuration {what}"));
    }

    /// What became of the events of an output that failed: where it is the only one, there is no last line to say it.
    pub(super) fn losses(&self, name: &str, counts: &SinkCounts) {
        let SinkCounts { delivered, queue_full, failed } = counts;
        self.line(
            "ERROR",
            &format!(
                "output {}: {delivered} events delivered, {queue_full} refused by its full queue, {failed} given up",
                name.escape_debug()
            ),
        );
    }

    /// What became of a capture: in the file, on the way there, and what was lost before.
    pub(super) fn captured(&self, counts: &CaptureCounts, losses: &[(String, u64)], to: &Path) {
        self.line("INFO", &captured(counts, losses, to));
    }

    /// The error and its causes on one line, the verifier's words below; in JSON all in one message.
    pub(super) fn error(&self, error: &dyn Error) {
        let text = with_causes(error);
        let lines: Vec<&str> = text.lines().collect();
        let (first, rest) = lines.split_first().unwrap_or((&"", &[]));
        let rest = rest.iter().skip(rest.len().saturating_sub(LINES));
        let lines: Vec<&str> = std::iter::once(first).chain(rest).copied().collect();
        match self.format {
            LogFormat::Text => self.line("ERROR", &format!("error: {}", lines.join("\n"))),
            LogFormat::Json => self.line("ERROR", &lines.join("\n")),
        }
    }

    /// A standard error that is closed is nobody's fault here, and nobody's to tell.
    fn line(&self, level: &'static str, text: &str) {
        let line = in_form(self.format, level, text);
        match &self.lines {
            Some(lines) => lines.push(|| line.into_bytes()),
            None => drop(io::stderr().write_all(line.as_bytes())),
        }
    }
}

fn in_form(format: LogFormat, level: &'static str, text: &str) -> String {
    match format {
        LogFormat::Text => quiet(text) + "\n",
        LogFormat::Json => json(clock::wall(), level, text),
    }
}

/// The clock of the lines that are no log.
struct Wall;

impl FormatTime for Wall {
    fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
        write!(out, "{}", clock::wall())
    }
}

fn json(timestamp: Time, level: &'static str, message: &str) -> String {
    // Text and a time always have a form.
    let line = Line { timestamp, level, message, target: "collector" };
    serde_json::to_string(&line).unwrap_or_default() + "\n"
}

/// Names of interfaces may hold any octets; none of them moves the reader's terminal.
fn quiet(text: &str) -> String {
    let mut quiet = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() { quiet.extend(character.escape_default()) } else { quiet.push(character) }
    }
    quiet
}

fn captured(counts: &CaptureCounts, losses: &[(String, u64)], to: &Path) -> String {
    let CaptureCounts { written, queue_full, failed, late, octets, .. } = *counts;
    let to = if to.as_os_str() == "-" { "standard output".into() } else { to.to_string_lossy() };
    let own = [("queue_full.capture", queue_full), ("sink_failed.capture", failed)];
    let all = losses.iter().map(|(name, count)| (name.as_str(), *count)).chain(own);
    let lost: Vec<String> =
        all.filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}")).collect();
    let lost = if lost.is_empty() { "nothing".to_owned() } else { lost.join(", ") };
    let late = if late == 0 { String::new() } else { format!("; behind a later one: {late}") };
    format!("captured {written} packets, {octets} octets of file, to {to}; lost: {lost}{late}")
}

fn attached(interfaces: &[InterfaceStatus]) -> String {
    let attached: Vec<String> = interfaces
        .iter()
        .filter(|interface| !interface.mechanism.is_empty())
        .map(|interface| {
            let InterfaceStatus { name, role, mechanism, xdp, .. } = interface;
            let xdp = if xdp.is_empty() { String::new() } else { format!(" and {xdp} XDP") };
            format!("{name} ({role}) by {mechanism}{xdp}")
        })
        .collect();
    if attached.is_empty() {
        return "attached to nothing yet: no interface matches".to_owned();
    }
    format!("attached to {}", attached.join(", "))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{attached, captured, in_form, json};
    use crate::{
        config::LogFormat,
        event::{InterfaceStatus, Time},
        sink::capture::CaptureCounts,
    };

    #[test]
    fn no_name_moves_the_terminal() {
        assert_eq!(
            in_form(LogFormat::Text, "INFO", "a\u{1b}[31m\u{7f}\tb \u{e9}"),
            "a\\u{1b}[31m\\u{7f}\\tb \u{e9}\n"
        );
    }

    #[test]
    fn a_capture_is_summed_up_in_one_line() {
        let counts = CaptureCounts { written: 2000, octets: 9, ..CaptureCounts::default() };
        assert_eq!(
            captured(&counts, &[], Path::new("-")),
            "captured 2000 packets, 9 octets of file, to standard output; lost: nothing"
        );
        let counts = CaptureCounts { written: 1, queue_full: 2, surplus: 5, failed: 3, late: 4, octets: 9 };
        assert_eq!(
            captured(&counts, &[("output_failed".to_owned(), 7)], Path::new("c.pcapng")),
            "captured 1 packets, 9 octets of file, to c.pcapng; lost: output_failed 7, queue_full.capture 2, \
             sink_failed.capture 3; behind a later one: 4"
        );
    }

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
        let with_xdp = InterfaceStatus { xdp: "generic".into(), ..interface("eth0", "tcx") };
        assert_eq!(attached(&[with_xdp]), "attached to eth0 (uplink) by tcx and generic XDP");
        assert_eq!(attached(&[interface("br0", "")]), "attached to nothing yet: no interface matches");
    }

    #[test]
    fn a_line_of_json_is_one_object_whatever_the_message_holds() {
        assert_eq!(
            json(Time::from_unix_nanos(42), "ERROR", "one\n\"two\""),
            concat!(
                r#"{"timestamp":"1970-01-01T00:00:00.000000042Z","level":"ERROR","#,
                r#""message":"one\n\"two\"","target":"collector"}"#,
                "\n"
            )
        );
    }
}
