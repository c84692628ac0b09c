//! What is said at the door: a line of JSON each way.
//!
//! `{"version":1,"ask":"units"}` is answered by `{"version":1,"units":[...]}`, `"status"` in its place by a `status`, and whatever is not understood by
//! `{"version":1,"error":"..."}`. Keys that are not known are passed over, so that some may join.

use serde::{Deserialize, Serialize};

use crate::event::{Status, UnitStatus};

/// The version of what is said.
pub(in crate::cli) const VERSION: u32 = 1;

/// The longest request, in octets, with the end of its line.
pub(super) const MOST_OCTETS: usize = 4096;

/// What can be asked: for all processing units.
const UNITS: &str = "units";
/// How the collector stands.
const STATUS: &str = "status";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Wanted {
    /// All processing units.
    Units,
    /// How the collector stands.
    Status,
}

/// What is told.
pub(in crate::cli) enum Told {
    /// All processing units.
    Units(Vec<UnitStatus>),
    /// How the collector stands.
    Status(Box<Status>),
}

/// A question.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct Request {
    version: u32,
    // What another version asks for may be asked for otherwise.
    #[serde(default)]
    ask: String,
}

impl Request {
    /// Asks for it.
    pub(in crate::cli) fn of(wanted: Wanted) -> Self {
        let ask = match wanted {
            Wanted::Units => UNITS,
            Wanted::Status => STATUS,
        };
        Self { version: VERSION, ask: ask.to_owned() }
    }

    /// Reads a line, which may lack its end; what is wrong with it is said in words.
    pub(super) fn read(line: &[u8]) -> Result<Wanted, String> {
        if line.len() >= MOST_OCTETS && !line.ends_with(b"\n") {
            return Err(format!("the request has no end within {MOST_OCTETS} octets"));
        }
        let expected =
            || format!(r#"expected {{"version":{VERSION},"ask":"{UNITS}"}}, or "{STATUS}" for the last"#);
        let request: Self = serde_json::from_slice(line)
            .map_err(|error| format!("the request is not understood: {error}; {}", expected()))?;
        match (request.version, &*request.ask) {
            (VERSION, UNITS) => Ok(Wanted::Units),
            (VERSION, STATUS) => Ok(Wanted::Status),
            (VERSION, other) => Err(format!("nothing is known of {other:?}; {}", expected())),
            (version, _) => {
                Err(format!("the request is of version {version}, which is not understood; {}", expected()))
            }
        }
    }
}

/// An answer: what was asked for, or why there is nothing.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct Answer {
    pub(in crate::cli) version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) units: Option<Vec<UnitStatus>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) status: Option<Box<Status>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) error: Option<String>,
}

impl Answer {
    /// As a line.
    pub(super) fn line(said: Result<Told, String>) -> Vec<u8> {
        let mut answer = Self { version: VERSION, units: None, status: None, error: None };
        match said {
            Ok(Told::Units(units)) => answer.units = Some(units),
            Ok(Told::Status(status)) => answer.status = Some(status),
            Err(error) => answer.error = Some(error),
        }
        // Text, numbers and times always have a form.
        let mut line = serde_json::to_vec(&answer).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, MOST_OCTETS, Request, Told, Wanted};
    use crate::event::{Status, UnitStatus};

    #[test]
    fn what_is_asked_is_understood() {
        for (wanted, line) in [
            (Wanted::Units, r#"{"version":1,"ask":"units"}"#),
            (Wanted::Status, r#"{"version":1,"ask":"status"}"#),
        ] {
            assert_eq!(serde_json::to_string(&Request::of(wanted)).unwrap(), line);
            assert_eq!(Request::read(line.as_bytes()), Ok(wanted));
        }
        assert!(Request::read(b" {\"ask\":\"units\",\"more\":[],\"version\":1}\r\n").is_ok());
    }

    #[test]
    fn what_is_not_is_answered_in_words() {
        for (line, want) in [
            (
                &b"GET / HTTP/1.1\r\n"[..],
                "the request is not understood: expected value at line 1 column 1; expected {\"v",
            ),
            (b"\xff\x00\n", "the request is not understood: "),
            (b"{}", "missing field `version`"),
            (b"{\"version\":-1}", "the request is not understood: invalid value: integer `-1`"),
            (b"{\"version\":2,\"ask\":7}", "invalid type: integer `7`"),
            (
                b"{\"version\":2,\"please\":7}",
                "the request is of version 2, which is not understood; expected",
            ),
            (b"{\"version\":1,\"ask\":\"\\u001b\"}", "nothing is known of \"\\u{1b}\"; expected"),
            (&[b' '; MOST_OCTETS], "the request has no end within 4096 octets"),
        ] {
            let error = Request::read(line).unwrap_err();
            assert!(error.contains(want), "{line:?}: {error}");
        }
        // As deep as there is room for.
        assert!(Request::read(&[b'['; MOST_OCTETS - 1]).is_err());
    }

    #[test]
    fn an_answer_is_a_line_that_reads_back() {
        let unit = UnitStatus { context_id: "a\nb".into(), ..UnitStatus::default() };
        let line = Answer::line(Ok(Told::Units(vec![unit])));
        assert_eq!(line.split(|octet| *octet == b'\n').count(), 2, "one end");
        let answer: Answer = serde_json::from_slice(&line).unwrap();
        assert_eq!(&*answer.units.unwrap()[0].context_id, "a\nb");
        let line = Answer::line(Ok(Told::Status(Box::new(Status {
            transport: "ring".into(),
            ..Status::default()
        }))));
        let answer: Answer = serde_json::from_slice(&line).unwrap();
        assert_eq!((answer.status.unwrap().transport.as_str(), answer.units), ("ring", None));
        assert_eq!(Answer::line(Err("no".to_owned())), b"{\"version\":1,\"error\":\"no\"}\n");
    }
}
