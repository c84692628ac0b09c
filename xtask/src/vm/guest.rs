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
    /// Instructions that the verifier has looked at, by program.
    pub(crate) verified: BTreeMap<String, u32>,
    /// The tests.
    pub(crate) report: Report,
    /// It has come to its end.
    pub(crate) is_done: bool,
}

/// The step that runs the collector as a person would.
const COLLECTS: &str = "collects";

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

#[cfg(test)]
mod tests {
    use super::Guest;

    const SAID: &str = "@ kernel 6.1.0-50-cloud-amd64\r\n@ begin collects\r\nattached to v0 (uplink) by clsact\r\n\
        missing: this; that\r\n{\"type\":\"status\",\"record\":{\"interfaces\":[{\"name\":\"lo\",\"mechanism\":\"\"},\
        {\"name\":\"v0\",\"mechanism\":\"clsact\"}]}}\r\n@ end collects 0\r\n@ begin kernel\r\ntest a ... ok\r\n\
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
