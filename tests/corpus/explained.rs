//! Differences that are none of the parser's faults: why, and of which frames.

use anyhow::{Context as _, ensure};
use collector_tests::Result;

use crate::truth::Row;

/// Capture, frames, field, when, rule: tabs between them, a line each. Frames are numbers and ranges of them, as in `1,3-5`;
/// `*` stands for all captures, and for all frames. When: `-`, or what has to stand in another column of the dissector's, as in
/// `icmp_type=137`.
const TABLE: &str = include_str!("explained.tsv");

/// All explanations.
#[derive(Default)]
pub(crate) struct Explanations(Vec<Explanation>);

struct Explanation {
    capture: &'static str,
    frames: Vec<std::ops::RangeInclusive<u64>>,
    field: &'static str,
    when: Option<(&'static str, &'static str)>,
}

impl Explanations {
    pub(crate) fn read() -> Result<Self> {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| Explanation::read(line).with_context(|| line.to_owned()))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Whether a difference in a field is explained.
    pub(crate) fn covers(&self, capture: &str, frame: u64, field: &str, row: Row<'_>) -> bool {
        self.0.iter().any(|it| {
            it.field == field
                && (it.capture == "*" || it.capture == capture)
                && (it.frames.is_empty() || it.frames.iter().any(|range| range.contains(&frame)))
                && it.when.is_none_or(|(column, value)| row.get(column) == value)
        })
    }
}

impl Explanation {
    fn read(line: &'static str) -> Result<Self> {
        let mut parts = line.split('\t');
        let mut part = |what| parts.next().filter(|it| !it.is_empty()).with_context(|| format!("no {what}"));
        let (capture, frames, field) = (part("capture")?, part("frames")?, part("field")?);
        let when = part("condition")?;
        let when = if when == "-" { None } else { Some(when.split_once('=').context("no `column=value`")?) };
        ensure!(part("rule")?.len() > 10, "a rule is a sentence");
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            Ok(first.parse()?..=last.parse()?)
        };
        let frames = match frames {
            "*" => Vec::new(),
            frames => frames.split(',').map(range).collect::<Result<_>>()?,
        };
        Ok(Self { capture, frames, field, when })
    }
}
