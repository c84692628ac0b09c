//! How many instructions the verifier looked at, compared with what was recorded.

use std::{collections::BTreeMap, fs};

use super::table::Row;
use crate::{error::Error, workspace::Workspace};

/// Instructions by kernel and program.
type Counts = BTreeMap<(String, String), u32>;

/// More than this, in percent, is no small change of the programs or the kernel any more.
const RISE: u32 = 20;

const HEAD: &str = "# Instructions that the verifier looked at: kernel, program, number. Written by \
                    `cargo xtask vm --record`.\n";

/// Compares with the record, or writes a new one: numbers of kernels that did not run stay.
pub(super) fn check(workspace: &Workspace, rows: &[Row], record: bool) -> Result<(), Error> {
    let path = workspace.root().join("tests/data/verified.txt");
    let mut recorded = parse(&fs::read_to_string(&path).unwrap_or_default());
    let found = found(rows);
    if record {
        recorded.extend(found);
        let written = fs::write(&path, text(&recorded));
        return written.map_err(|cause| Error::File { act: "write", path, cause });
    }
    let risen = risen(&recorded, &found);
    if risen.is_empty() { Ok(()) } else { Err(Error::Verified { percent: RISE, path, risen }) }
}

fn found(rows: &[Row]) -> Counts {
    let guests = rows.iter().filter_map(|row| Some((row.kernel, row.outcome.as_ref().ok()?)));
    guests
        .flat_map(|(kernel, guest)| {
            guest.verified.iter().map(move |(program, count)| ((kernel.to_string(), program.clone()), *count))
        })
        .collect()
}

/// What is more than it may be, in words.
fn risen(recorded: &Counts, found: &Counts) -> Vec<String> {
    found
        .iter()
        .filter_map(|((kernel, program), now)| {
            let Some(before) = recorded.get(&(kernel.clone(), program.clone())) else {
                return Some(format!("Linux {kernel}, {program}: {now}, and no number is recorded"));
            };
            let is_more = u64::from(*now) * 100 > u64::from(*before) * u64::from(100 + RISE);
            is_more.then(|| format!("Linux {kernel}, {program}: {now} instead of {before}"))
        })
        .collect()
}

fn parse(text: &str) -> Counts {
    let numbers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let key = (words.next()?.to_owned(), words.next()?.to_owned());
        Some((key, words.next()?.parse().ok()?))
    });
    numbers.collect()
}

fn text(counts: &Counts) -> String {
    let lines = counts.iter().map(|((kernel, program), count)| format!("{kernel} {program} {count}\n"));
    HEAD.to_owned() + &lines.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::{parse, risen, text};

    #[test]
    fn what_is_written_is_read_again() {
        let counts = parse("# 6.1 words 7\n6.1 tc_ingress 1000\n7 tc_egress 2000\n");
        assert_eq!(counts.len(), 2);
        assert_eq!(parse(&text(&counts)), counts);
    }

    #[test]
    fn a_fifth_more_is_allowed_and_not_one_above() {
        let recorded = parse("6.1 tc_ingress 1000");
        assert!(risen(&recorded, &parse("6.1 tc_ingress 1200")).is_empty());
        assert_eq!(
            risen(&recorded, &parse("6.1 tc_ingress 1201\n7 tc_ingress 1")),
            [
                "Linux 6.1, tc_ingress: 1201 instead of 1000",
                "Linux 7, tc_ingress: 1, and no number is recorded"
            ]
        );
    }
}
