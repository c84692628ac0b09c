//! What the lines look like, for programs that read them.

use schemars::{JsonSchema, Schema, generate::SchemaSettings, transform::RecursiveTransform};
use serde_json::Value;

use crate::event::{Event, Time};

/// The JSON Schema (draft 2020-12) of a line as [`Json`](super::Json) writes it, made from the records themselves: names,
/// types and descriptions are those of the code that writes.
///
/// Every key that it describes is always there, and `type` decides what `record` is. It does not forbid others, so that a
/// reader with an older schema stands when a key joins.
pub fn schema() -> Value {
    SchemaSettings::draft2020_12()
        .for_serialize()
        .with_transform(RecursiveTransform(plain))
        .into_generator()
        .into_root_schema_for::<Line>()
        .into()
}

/// One line of the collector's JSON output: one event.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is only described; the order of a line's keys is `Json`'s")]
struct Line {
    /// When the event was emitted.
    time: Time,
    #[schemars(flatten)]
    event: Event,
}

/// Descriptions are written for rustdoc: links become their text, and lines end with their paragraphs.
fn plain(schema: &mut Schema) {
    let Some(Value::String(text)) = schema.get_mut("description") else { return };
    let paragraphs = text.split("\n\n").map(|paragraph| without_links(paragraph).replace('\n', " "));
    *text = paragraphs.collect::<Vec<_>>().join("\n\n");
}

/// `[text](target)` and `[text]` become `text`.
fn without_links(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        plain.push_str(before);
        let (label, behind) = after.split_once(']').unwrap_or((after, ""));
        plain.push_str(label);
        let target = behind.strip_prefix('(').and_then(|target| target.split_once(')'));
        rest = target.map_or(behind, |(_, behind)| behind);
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::{schema, without_links};

    #[test]
    fn no_link_is_left_in_a_description() {
        assert_eq!(without_links("a [`b`](super::b) c [`d`] (e) f[g"), "a `b` c `d` (e) fg");
        let text = schema().to_string();
        assert!(!text.contains("super::") && !text.contains("]("), "{text}");
    }

    #[test]
    fn it_says_what_it_is() {
        let schema = schema();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["description"], "One line of the collector's JSON output: one event.");
    }
}
