//! What a test program's output says about passed and skipped tests.
//!
//! libtest knows no skipping: a test that could not run here prints `SKIP <why>` and returns, which counts as
//! passed there. Here it does not.

use std::{collections::BTreeSet, fmt};

/// The totals of one run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    passed: usize,
    failed: usize,
    /// Name of the test (empty where the output does not tell) and its reason.
    skipped: BTreeSet<(String, String)>,
}

impl Report {
    /// Reads the output of one libtest program.
    pub(crate) fn of(output: &str) -> Self {
        let mut report = Self::default();
        let mut current = String::new();
        for line in output.lines() {
            if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
            {
                name.clone_into(&mut current);
                continue;
            }
            // Without capture the name of the running test stands before what it prints.
            let (name, text) = running(line).unwrap_or((&current, line));
            if let Some(why) = text.strip_prefix("SKIP ") {
                report.skipped.insert((name.to_owned(), why.trim().to_owned()));
            } else if let Some(totals) = line.strip_prefix("test result: ") {
                report.passed += number(totals, "passed");
                report.failed += number(totals, "failed");
            }
        }
        report
    }
}

impl Report {
    /// Tests that ran to their end, and failed in nothing.
    pub(crate) fn passed(&self) -> usize {
        self.passed.saturating_sub(self.skipped.len())
    }

    /// Tests that failed.
    pub(crate) fn failed(&self) -> usize {
        self.failed
    }

    /// Names and reasons of the tests that could not run here.
    pub(crate) fn skipped(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.skipped.iter().map(|(name, why)| (name.as_str(), why.as_str()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passed = self.passed();
        write!(f, "kernel tests: {passed} passed, {} failed, {} skipped", self.failed, self.skipped.len())?;
        for (name, why) in &self.skipped {
            write!(f, "\n  skipped {name}: {why}")?;
        }
        Ok(())
    }
}

fn running(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ")?.split_once(" ... ")
}

/// The number before `word` in `ok. 3 passed; 0 failed; ...`.
fn number(totals: &str, word: &str) -> usize {
    let mut words = totals.split([' ', ';']).filter(|word| !word.is_empty());
    let mut last = "";
    words
        .find_map(|found| {
            let hit = (found == word).then(|| last.parse().ok()).flatten();
            last = found;
            hit
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::Report;

    #[test]
    fn a_skip_is_not_a_pass() {
        let output = "running 3 tests\ntest a ... ok\ntest b ... ok\ntest c ... ok\n\nsuccesses:\n\n\
                      ---- b stdout ----\nSKIP tcx: kernel 6.1 is older than 6.6\n\n\nsuccesses:\n    a\n\n\
                      test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let text = Report::of(output).to_string();
        assert_eq!(
            text,
            "kernel tests: 2 passed, 0 failed, 1 skipped\n  skipped b: tcx: kernel 6.1 is older than 6.6"
        );
    }

    #[test]
    fn a_skip_counts_without_capture_too() {
        let output = "test a ... SKIP no netkit\nok\ntest b ... ok\n\
                      test result: ok. 2 passed; 0 failed; 0 ignored\n";
        assert_eq!(
            Report::of(output).to_string(),
            "kernel tests: 1 passed, 0 failed, 1 skipped\n  skipped a: no netkit"
        );
    }

    #[test]
    fn failures_are_counted() {
        let report = Report::of("test result: FAILED. 4 passed; 2 failed; 0 ignored\n");
        assert_eq!(report.to_string(), "kernel tests: 4 passed, 2 failed, 0 skipped");
    }
}
