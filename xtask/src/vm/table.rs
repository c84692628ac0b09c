//! What came of each guest, as one table.

use std::collections::BTreeSet;

use super::{guest::Guest, kernel::Kernel};
use crate::error::Error;

/// One kernel's.
pub(super) struct Row {
    pub(super) kernel: Kernel,
    pub(super) outcome: Result<Guest, Error>,
}

impl Row {
    pub(super) fn is_well(&self) -> bool {
        self.outcome.as_ref().is_ok_and(Guest::is_well)
    }

    fn cells(&self) -> [String; 6] {
        let kernel = self.kernel.to_string();
        let Ok(guest) = &self.outcome else {
            return [
                kernel,
                "?".to_owned(),
                "?".to_owned(),
                "NOT RUN TO THEIR END".to_owned(),
                "?".to_owned(),
                "?".to_owned(),
            ];
        };
        let report = &guest.report;
        [
            format!("{kernel} ({})", guest.release),
            if guest.loads() { "yes" } else { "NO" }.to_owned(),
            guest.mechanism.clone().unwrap_or_else(|| "NOTHING".to_owned()),
            format!(
                "{} passed, {} failed, {} skipped",
                report.passed(),
                report.failed(),
                report.skipped().len()
            ),
            format!(
                "{} exact, {} different, {} not possible",
                guest.rows.exact, guest.rows.different, guest.rows.not_possible
            ),
            degraded(guest),
        ]
    }
}

/// What the collector says that is missing, and the features that tests could not have.
fn degraded(guest: &Guest) -> String {
    // The reason begins with the feature's name; what only a test would have needed does not concern the collector.
    let features: BTreeSet<_> = guest
        .report
        .skipped()
        .filter(|(_, why)| !why.starts_with("for the test"))
        .map(|(_, why)| format!("no {}", why.split_once(':').map_or(why, |(feature, _)| feature)))
        .collect();
    let all: Vec<_> = guest.missing.iter().cloned().chain(features).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join("; ") }
}

/// The table, and below it why tests were skipped and guests failed.
pub(super) fn of(rows: &[Row]) -> String {
    let head = ["kernel", "loads", "attaches by", "kernel tests", "selftest", "degraded"].map(str::to_owned);
    let cells: Vec<_> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let mut widths = [0; 6];
    for (width, cell) in cells.iter().flat_map(|row| (0..).zip(row)) {
        if let Some(widest) = widths.get_mut(width) {
            *widest = cell.len().max(*widest);
        }
    }
    let line = |row: &[String; 6]| {
        let padded: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("| {} |", padded.join(" | "))
    };
    let mut lines: Vec<_> = cells.iter().map(line).collect();
    lines.insert(1, format!("|{}|", widths.map(|width| "-".repeat(width + 2)).join("|")));
    for Row { kernel, outcome } in rows {
        match outcome {
            Ok(guest) => lines
                .extend(guest.report.skipped().map(|(name, why)| format!("{kernel}: skipped {name}: {why}"))),
            Err(error) => lines.push(format!("{kernel}: {error}")),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::{Row, of};
    use crate::{
        error::Error,
        vm::{guest::Guest, kernel::Kernel},
    };

    #[test]
    fn each_kernel_has_a_row_and_each_skip_a_line() {
        let said = "@ kernel 5.10.0-32\n@ begin collects\n{\"record\":{\"interfaces\":[{\"mechanism\":\"clsact\"}]}}\n\
                    @ end collects 0\n@ begin selftest\n{\"sent\":1,\"counted\":1,\"lost\":0}\n@ end selftest 0\n---- a stdout ----\nSKIP TCX: Linux 6.6 and newer\n\
                    ---- b stdout ----\nSKIP for the test, a witness: Linux 6.0 and newer\n\
                    test result: ok. 4 passed; 0 failed; 0 ignored\n@ done\n";
        let rows = [
            Row { kernel: Kernel::V5_10, outcome: Ok(Guest::of(said)) },
            Row { kernel: Kernel::V7, outcome: Err(Error::NoImage) },
        ];
        assert!(rows[0].is_well() && !rows[1].is_well());
        let text = of(&rows);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[..4],
            [
                "| kernel           | loads | attaches by | kernel tests                  | selftest                             | degraded |",
                "|------------------|-------|-------------|-------------------------------|--------------------------------------|----------|",
                "| 5.10 (5.10.0-32) | yes   | clsact      | 2 passed, 0 failed, 2 skipped | 1 exact, 0 different, 0 not possible | no TCX   |",
                "| 7                | ?     | ?           | NOT RUN TO THEIR END          | ?                                    | ?        |",
            ]
        );
        assert!(text.contains("5.10: skipped a: TCX: Linux 6.6 and newer"), "{text}");
        assert!(text.contains("7: the package lists"), "{text}");
    }
}
