//! What an independent dissector says of frames: one row each, in columns that the table's first line names.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context as _, ensure};
use collector_tests::Result;

/// The tables, by capture and frame.
#[derive(Default)]
pub(crate) struct Truth {
    columns: Vec<String>,
    rows: HashMap<(String, u64), Vec<String>>,
    /// Rows of each capture.
    frames: HashMap<String, u64>,
}

/// What is said of one frame.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    columns: &'a [String],
    values: &'a [String],
}

impl Truth {
    /// Reads a table; `below` stands before the names of its captures.
    pub(crate) fn read(&mut self, table: &Path, below: &str) -> Result<()> {
        let name = || table.display().to_string();
        let text = fs::read_to_string(table).with_context(name)?;
        let mut lines = text.lines();
        let columns: Vec<_> = lines.next().with_context(name)?.split('\t').map(str::to_owned).collect();
        ensure!(
            columns.starts_with(&["file".to_owned(), "frame".to_owned()]),
            "{}: no table of frames",
            name()
        );
        ensure!(
            self.columns.is_empty() || self.columns == columns,
            "{}: other columns than the table before",
            name()
        );
        self.columns = columns;
        for line in lines {
            let values: Vec<_> = line.split('\t').map(str::to_owned).collect();
            let frame = values[1].parse().with_context(|| format!("{}: {line}", name()))?;
            let capture = format!("{below}{}", values[0]);
            *self.frames.entry(capture.clone()).or_default() += 1;
            self.rows.insert((capture, frame), values);
        }
        Ok(())
    }

    /// What it says of a frame of a capture, whose numbers begin with 1.
    pub(crate) fn row(&self, capture: &str, frame: u64) -> Option<Row<'_>> {
        let values = self.rows.get(&(capture.to_owned(), frame))?;
        Some(Row { columns: &self.columns, values })
    }

    /// How many frames of a capture it knows.
    pub(crate) fn frames_of(&self, capture: &str) -> u64 {
        self.frames.get(capture).copied().unwrap_or(0)
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

impl<'a> Row<'a> {
    /// The value in a column; empty where the dissector has none.
    pub(crate) fn get(self, column: &str) -> &'a str {
        let at = self.columns.iter().position(|it| it == column);
        at.and_then(|at| self.values.get(at)).map_or("", |value| value)
    }

    /// The values in a column that lists them.
    pub(crate) fn list(self, column: &str) -> impl Iterator<Item = &'a str> {
        self.get(column).split(',').filter(|it| !it.is_empty())
    }

    /// The layers that the dissector found before an IP header; all where it found none.
    pub(crate) fn before_ip(self) -> impl Iterator<Item = &'a str> {
        self.get("protocols").split(':').take_while(|it| !matches!(*it, "ip" | "ipv6"))
    }

    /// Whether it finds fault with the outer headers: that of inner ones, and of payload, has a prefix.
    pub(crate) fn is_faulty(self) -> bool {
        self.list("markers")
            .any(|marker| !["inner.", "quoted.", "payload."].iter().any(|prefix| marker.starts_with(prefix)))
    }

    /// The same of inner headers.
    pub(crate) fn is_faulty_inside(self) -> bool {
        self.list("markers").any(|marker| marker.starts_with("inner."))
    }
}
