//! What a guest said: lines of `init.sh`, which begin with an @, and between them the words of what it ran.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::test::report::Report;

/// A guest, by its own words.
#[derive(Debug, Default)]
pub(crate) struct Guest {
    /// The kernel's full version; empty where it never came so far.
    pub(crate) release: String,
    /// Each step and its exit status, none where it did not end.
    pub(crate) steps: Vec<(String, Option<i32>)>,
    /// How programs hang on interfaces.
    pub(crate) mechanism: Option<String>,
    /// What the collector says that it has to do without.
    pub(crate) missing: Option<String>,
    /// The rows of `collector selftest`.
    pub(crate) rows: Rows,
    /// Instructions that the verifier has looked at, by program.
    pub(crate) verified: BTreeMap<String, u32>,
    /// The tests.
    pub(crate) report: Report,
    /// It has come to its end.
    pub(crate) is_done: bool,
}

/// The rows of `collector selftest`, by what came of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) exact: usize,
    pub(crate) different: usize,
    pub(crate) not_possible: usize,
}

/// The step that runs the collector as a person would.
const COLLECTS: &str = "collects";
/// The step in which it tests itself.
const SELFTEST: &str = "selftest";

impl Guest {
    /// Reads all that came by the serial line.
    pub(super) fn of(said: &str) -> Self {
        let said = said.replace('\r', "");
        let mut guest = Self { report: Report::of(&said), ..Self::default() };
        for line in said.lines() {
            let words: Vec<_> = line.split(' ').collect();
            match *words.as_slice() {
                ["@", "kernel", release] => release.clone_into(&mut guest.release),
                ["@", "begin", step] => guest.steps.push((step.to_owned(), None)),
                ["@", "end", step, status] => {
                    let ended = guest.steps.last_mut().filter(|(name, _)| name == step);
                    if let Some((_, end)) = ended {
                        *end = status.parse().ok();
                    }
                }
                ["@", "done"] => guest.is_done = true,
                ["VERIFIED", program, count] => {
                    if let Ok(count) = count.parse() {
                        guest.verified.insert(program.to_owned(), count);
                    }
                }
                _ if guest.step() == Some(COLLECTS) => guest.collector_says(line),
                _ if guest.step() == Some(SELFTEST) => guest.rows.add(line),
                _ => {}
            }
        }
        guest
    }

    /// Whether every step ended well, and tests have run.
    pub(super) fn is_well(&self) -> bool {
        let is_well = |(_, status): &(_, Option<i32>)| *status == Some(0);
        self.is_done
            && self.steps.iter().all(is_well)
            && self.report.failed() == 0
            && self.report.passed() > 0
    }

    /// Whether the kernel has taken the programs, and the collector has run.
    pub(super) fn loads(&self) -> bool {
        self.steps.iter().any(|(step, status)| step == COLLECTS && *status == Some(0))
    }

    fn step(&self) -> Option<&str> {
        self.steps.last().map(|(step, _)| step.as_str())
    }

    fn collector_says(&mut self, line: &str) {
        if let Some(missing) = line.strip_prefix("missing: ") {
            self.missing = Some(missing.to_owned());
        } else if let Ok(record) = serde_json::from_str::<Value>(line) {
            let interfaces = record.pointer("/record/interfaces").and_then(Value::as_array);
            let mechanism = interfaces
                .into_iter()
                .flatten()
                .filter_map(|interface| interface.get("mechanism")?.as_str())
                .find(|mechanism| !mechanism.is_empty());
            self.mechanism = mechanism.map(str::to_owned).or(self.mechanism.take());
        }
    }
}

impl Rows {
    /// A line of the self-test's, which is a row where it is an object.
    fn add(&mut self, line: &str) {
        let Ok(row) = serde_json::from_str::<Value>(line) else { return };
        let number = |name: &str| row.get(name).and_then(Value::as_u64);
        if row.get("not_possible").is_some() {
            self.not_possible += 1;
        } else if let (Some(sent), Some(counted), Some(0)) =
            (number("sent"), number("counted"), number("lost"))
            && sent == counted
        {
            self.exact += 1;
        } else {
            self.different += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Guest, Rows};

    const SAID: &str = "@ kernel 6.1.0-50-cloud-amd64\r\n@ begin collects\r\nattached to v0 (uplink) by clsact\r\n\
        missing: this; that\r\n{\"type\":\"status\",\"record\":{\"interfaces\":[{\"name\":\"lo\",\"mechanism\":\"\"},\
        {\"name\":\"v0\",\"mechanism\":\"clsact\"}]}}\r\n@ end collects 0\r\n@ begin selftest\r\n\
        {\"row\":\"a\",\"sent\":7,\"counted\":7,\"lost\":0}\r\n{\"sent\":7,\"counted\":6,\"lost\":1}\r\nwords\r\n\
        {\"not_possible\":\"no vlan\"}\r\n{\"sent\":7,\"counted\":6,\"lost\":0}\r\n@ end selftest 0\r\n@ begin kernel\r\ntest a ... ok\r\n\
        VERIFIED tc_ingress 1234\r\n---- b stdout ----\r\nSKIP TCX: Linux 6.6\r\n\
        test result: ok. 3 passed; 0 failed; 0 ignored\r\n@ end kernel 0\r\n";

    #[test]
    fn all_that_it_says_is_understood() {
        let guest = Guest::of(&format!("{SAID}@ done\r\n"));
        assert_eq!(guest.release, "6.1.0-50-cloud-amd64");
        assert_eq!(guest.mechanism.as_deref(), Some("clsact"));
        assert_eq!(guest.missing.as_deref(), Some("this; that"));
        assert_eq!(guest.verified.get("tc_ingress"), Some(&1234));
        assert_eq!((guest.report.passed(), guest.report.skipped().len()), (2, 1));
        assert_eq!(guest.rows, Rows { exact: 1, different: 2, not_possible: 1 });
        assert!(guest.loads() && guest.is_well());
    }

    #[test]
    fn what_ends_half_way_is_not_well() {
        assert!(!Guest::of(SAID).is_well(), "it is not done");
        assert!(!Guest::of("@ kernel 6.1\n@ done\n").is_well(), "no test has run");
        let died = SAID.replace("@ end kernel 0\r\n", "@ done\r\n");
        assert!(!Guest::of(&died).is_well(), "a step has not ended");
        let failed = SAID.replace("@ end kernel 0", "@ end kernel 101\r\n@ done");
        assert!(!Guest::of(&failed).is_well(), "a step has failed");
        assert!(!Guest::of("").is_well());
    }
}
