//! `collector selftest`: sends known traffic through hosts of its own and prints what was sent, counted and lost.

use std::{io, ops::ControlFlow, process::ExitCode};

use super::{args::SelftestArgs, say::Voice, stdout};
use crate::{
    config::{LogFormat, Output},
    selftest::{self, Outcome, Path, Row, SelftestError, Traffic},
};

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
enum Failure {
    #[error(transparent)]
    Selftest(#[from] SelftestError),
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
}

/// Tries everything; 1 on any difference, and where nothing could be tried.
pub(super) fn run(args: &SelftestArgs) -> ExitCode {
    let voice = Voice::new(LogFormat::Text);
    let mut tally = Tally::default();
    let mut written = Ok(true);
    let ran = selftest::run(|row| {
        if args.output == Output::Text && tally == Tally::default() {
            written = stdout::offer(&heading());
        }
        tally.add(&row);
        if matches!(written, Ok(true)) {
            written = stdout::offer(&match args.output {
                Output::Json => json(&row),
                Output::Text => text(&row),
            });
        }
        if matches!(written, Ok(true)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let told = ran.map_err(Failure::from).and_then(|()| {
        let last = if args.output == Output::Text { tally.to_string() } else { String::new() };
        written.and_then(|_| stdout::print(&last)).map_err(Failure::Stdout)
    });
    match told {
        Ok(()) if tally.holds() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(failure) => {
            voice.error(&failure);
            ExitCode::FAILURE
        }
    }
}

fn json(row: &Row) -> String {
    // A row has no key that is not a string, and no value that JSON lacks.
    serde_json::to_string(row).map_or_else(|error| format!("{error}\n"), |line| line + "\n")
}

const fn path(path: Path) -> &'static str {
    match path {
        Path::Veth => "veth",
        Path::Vlan => "VLAN",
        Path::Bridge => "bridge",
        Path::Tunnel => "tunnel",
        Path::Masquerade => "masquerade",
    }
}

const fn traffic(traffic: Traffic) -> &'static str {
    match traffic {
        Traffic::Tcp => "TCP",
        Traffic::Udp => "UDP",
        Traffic::Fragments => "fragments",
    }
}

fn heading() -> String {
    let (path, offloads, family, traffic) = ("path", "offloads", "over", "traffic");
    let (sent, counted, lost, difference) = ("sent", "counted", "lost", "difference");
    format!(
        "{path:<11} {offloads:<9} {family:<5} {traffic:<10} {sent:>7} {counted:>8} {lost:>5} {difference:>10}\n"
    )
}

fn text(row: &Row) -> String {
    let (setting, kind) = (row.case.setting, row.case.traffic);
    let front = format!(
        "{:<11} {:<9} IPv{:<2} {:<10}",
        path(setting.path),
        if setting.offloads { "on" } else { "off" },
        setting.family,
        traffic(kind)
    );
    match &row.outcome {
        Outcome::Ran { sent, counted, lost, hints } => {
            let difference = i128::from(*counted) + i128::from(*lost) - i128::from(*sent);
            let row = format!("{front} {sent:>7} {counted:>8} {lost:>5} {difference:>10}\n");
            hints.iter().fold(row, |rows, hint| rows + "    " + hint + "\n")
        }
        Outcome::NotPossible { not_possible } => format!("{front} not possible here: {not_possible}\n"),
        Outcome::Failed { failed } => format!("{front} failed: {failed}\n"),
    }
}

/// How many rows came out how.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    exact: u32,
    different: u32,
    not_possible: u32,
    failed: u32,
}

impl Tally {
    fn add(&mut self, row: &Row) {
        let count = match row.outcome {
            Outcome::Ran { .. } if row.holds() => &mut self.exact,
            Outcome::Ran { .. } => &mut self.different,
            Outcome::NotPossible { .. } => &mut self.not_possible,
            Outcome::Failed { .. } => &mut self.failed,
        };
        *count += 1;
    }

    /// Something was tried, and nothing speaks against the collector.
    const fn holds(&self) -> bool {
        self.exact > 0 && self.different == 0 && self.failed == 0
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { exact, different, not_possible, failed } = self;
        writeln!(
            f,
            "{exact} exact, {different} with a difference, {failed} failed, {not_possible} not possible here"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Tally, heading, json, text};
    use crate::selftest::{Case, Outcome, Path, Row, Setting, Traffic};

    fn row(outcome: Outcome) -> Row {
        let setting = Setting { path: Path::Vlan, offloads: false, family: 6 };
        Row { case: Case { setting, traffic: Traffic::Fragments }, outcome }
    }

    #[test]
    fn a_row_in_both_forms() {
        let ran = row(Outcome::Ran { sent: 3000, counted: 2990, lost: 4, hints: Vec::new() });
        assert_eq!(text(&ran), "VLAN        off       IPv6  fragments     3000     2990     4         -6\n");
        assert_eq!(text(&ran).len(), heading().len());
        assert_eq!(
            json(&ran),
            "{\"path\":\"vlan\",\"offloads\":false,\"family\":6,\"traffic\":\"fragments\",\"sent\":3000,\
             \"counted\":2990,\"lost\":4}\n"
        );
        let not = row(Outcome::NotPossible { not_possible: "this kernel has no VLAN devices".to_owned() });
        assert!(text(&not).ends_with("not possible here: this kernel has no VLAN devices\n"));
        assert!(json(&not).ends_with("\"not_possible\":\"this kernel has no VLAN devices\"}\n"));
    }

    #[test]
    fn what_speaks_against_the_collector() {
        let exact = row(Outcome::Ran { sent: 10, counted: 9, lost: 1, hints: Vec::new() });
        let not = row(Outcome::NotPossible { not_possible: String::new() });
        for (rows, holds) in [
            (vec![&exact, &not], true),
            (vec![&not], false),
            (vec![], false),
            (vec![&exact, &row(Outcome::Ran { sent: 10, counted: 9, lost: 0, hints: Vec::new() })], false),
            (vec![&exact, &row(Outcome::Ran { sent: 0, counted: 0, lost: 0, hints: Vec::new() })], false),
            (vec![&exact, &row(Outcome::Failed { failed: String::new() })], false),
        ] {
            let mut tally = Tally::default();
            for row in &rows {
                tally.add(row);
            }
            assert_eq!(tally.holds(), holds, "{rows:?}");
        }
    }
}
