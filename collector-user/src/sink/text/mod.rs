//! Text for people: one line a record, steady columns, the client on the left whoever reports.

mod escape;
mod flow;
mod ledger;
mod line;
mod look;
mod number;
mod record;

use std::{collections::BTreeSet, io, sync::Arc};

pub use escape::Escaped;
pub use look::Look;

use super::Format;
use crate::event::{Event, Status, Time};

/// Writes a line a record: time of day, processing unit, and what happened. Text that comes from the network or from
/// other programs is escaped, so that no line moves the reader's terminal.
///
/// A counter record with nothing but zeros leaves no line; the status is its ledger.
pub struct Text {
    look: Look,
    columns: line::Columns,
    /// What was advised: once is enough. There are as many texts as the collector has.
    advised: BTreeSet<Arc<str>>,
    /// The line of a flow: there are many, and its room is theirs in turn.
    flow: String,
}

impl Text {
    /// Text of this look.
    pub const fn new(look: Look) -> Self {
        Self { look, columns: line::Columns::new(), advised: BTreeSet::new(), flow: String::new() }
    }

    /// The lines of an event that is no flow.
    fn lines(&mut self, time: Time, event: &Event) -> Vec<String> {
        let (columns, look) = (&mut self.columns, &self.look);
        let mut lines = record::Lines { columns, look, time, advised: &mut self.advised };
        match event {
            Event::Flow(_) => Vec::new(),
            Event::Container(record) => lines.container(record).into_iter().collect(),
            Event::User(record) => vec![lines.user(record)],
            Event::Trace(record) => lines.trace(record),
            Event::Packet(report) => vec![lines.packet(report)],
            Event::Counter(report) => lines.counter(report).into_iter().collect(),
            Event::Dns(request) => vec![lines.dns(request)],
            Event::Ping(report) => vec![lines.ping(report)],
            Event::Status(status) => ledger::lines(status),
        }
    }
}

/// The lines of a status: what was dropped, and the ledger.
#[must_use]
pub fn status(status: &Status) -> Vec<String> {
    ledger::lines(status)
}

impl Format for Text {
    fn write(&mut self, time: Time, event: &Event, out: &mut Vec<u8>) -> io::Result<()> {
        let mut put = |line: &str| {
            out.extend_from_slice(line.trim_end().as_bytes());
            out.push(b'\n');
        };
        if let Event::Flow(record) = event {
            self.flow.clear();
            flow::put(&mut self.flow, &mut self.columns, &self.look, time, record);
            put(&self.flow);
        } else {
            self.lines(time, event).iter().for_each(|line| put(line));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
