//! An entry as a line.

use std::io::Write as _;

use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::Value;

use super::{Encode, Entry};
use crate::{collector::default::TARGET, event::Time};

/// `2026-05-09T07:29:33.000000042Z  INFO collector::event: kind=flow packets=7 ...`, a line an entry.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextLines;

/// `{"timestamp":"...","level":"INFO","target":"collector::event","kind":"flow","packets":7,...}`, a line an entry.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonLines;

impl Encode for TextLines {
    fn encode(&self, time: Time, entry: &Entry, out: &mut Vec<u8>) {
        // Writing to a vector cannot fail.
        let _ = writeln!(out, "{time}  INFO {TARGET}: {}", text(entry));
    }
}

impl Encode for JsonLines {
    fn encode(&self, time: Time, entry: &Entry, out: &mut Vec<u8>) {
        // Names are text and values JSON already, and writing to a vector cannot fail.
        let _ = serde_json::to_writer(&mut *out, &Object { time, entry });
        out.push(b'\n');
    }
}

struct Object<'a> {
    time: Time,
    entry: &'a Entry,
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("timestamp", &self.time)?;
        object.serialize_entry("level", "INFO")?;
        object.serialize_entry("target", TARGET)?;
        for (name, value) in &self.entry.fields {
            object.serialize_entry(name, value)?;
        }
        object.end()
    }
}

/// `name=value` for each field. A text that would not stand alone is quoted; none moves a reader's terminal.
pub(super) fn text(entry: &Entry) -> String {
    let fields: Vec<_> =
        entry.fields.iter().map(|(name, value)| format!("{name}={}", text_of(value))).collect();
    fields.join(" ")
}

fn text_of(value: &Value) -> String {
    let Some(text) = value.as_str() else { return value.to_string() };
    let stands_alone = |octet: u8| octet.is_ascii_graphic() && !br#""'\="#.contains(&octet);
    if !text.is_empty() && text.bytes().all(stands_alone) {
        return text.to_owned();
    }
    let escaped = text.chars().map(|character| match character {
        '\'' => "'".to_owned(),
        _ => character.escape_default().to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}
