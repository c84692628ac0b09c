//! The systemd journal, in its native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! Not by tracing-journald, the names of whose fields these are: it drops the error of a send, so that what the journal
//! refuses could not be counted, and its path is fixed.

use std::io::Write as _;

use serde_json::Value;

use super::{Encode, Entry, line};
use crate::{collector::default::TARGET, event::Time};

/// Entries with a field for each of the event's, `F_` before its name: `journalctl -t collector F_CONTEXT_ID=web`.
///
/// An entry is a datagram: one that is larger than the socket takes (`net.core.wmem_max`, some 200 KiB) is refused,
/// and counted, rather than sent through a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Journal;

impl Journal {
    /// Where the socket is on every host with systemd.
    pub const PATH: &str = "/run/systemd/journal/socket";
}

impl Encode for Journal {
    fn encode(&self, time: Time, entry: &Entry, out: &mut Vec<u8>) {
        // 6 is informational, as in syslog.
        for (name, value) in [("PRIORITY", "6"), ("SYSLOG_IDENTIFIER", "collector"), ("TARGET", TARGET)] {
            put(out, name, value);
        }
        put(out, "MESSAGE", &line::text(entry));
        put(out, "F_TIME", &time.to_string());
        for (name, value) in &entry.fields {
            let name = format!("F_{}", name.to_ascii_uppercase());
            match value {
                Value::String(text) => put(out, &name, text),
                other => put(out, &name, &other.to_string()),
            }
        }
    }
}

/// The form for values of any octets: name, line end, length (64 bits, little-endian), value, line end.
fn put(out: &mut Vec<u8>, name: &str, value: &str) {
    // Writing to a vector cannot fail.
    let _ = writeln!(out, "{name}");
    out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    let _ = writeln!(out, "{value}");
}
