//! Where events go: `output = "json"`, or any number of `[[output]]` tables.

use std::{
    collections::HashMap,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor, value::StrDeserializer},
};
use toml::Spanned;

use super::error::{Fault, Wrong, line_of};
use crate::{
    collector::{
        filter::{Kind, Kinds},
        stash,
    },
    sink::log::{Journal, Syslog},
};

/// The form of events on standard output, where that is the only output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Output {
    /// For people: a line a record.
    #[default]
    Text,
    /// For programs: a JSON object a line.
    Json,
}

/// An output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputConfig {
    /// The form of events.
    pub form: Form,
    /// Where they go; no two outputs have the same.
    pub to: Destination,
    /// What messages and the ledger call it; no two outputs have the same.
    pub name: String,
    /// Events that may wait for it.
    pub queue: usize,
    /// The kinds of event that it gets.
    pub events: Kinds,
}

/// The form of events in an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Form {
    /// For people: a line a record.
    Text,
    /// For programs: a JSON object a line.
    Json,
    /// Entries of a log.
    Log,
}

/// Where an output goes. Its text is what the file has for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// Standard error, between the collector's own log lines.
    Stderr,
    /// A file, appended to; relative to where the collector was started.
    File(PathBuf),
    /// The systemd journal, at this socket.
    Journal(PathBuf),
    /// Syslog, at this socket.
    Syslog(PathBuf),
}

impl OutputConfig {
    /// The one output that there is unless somebody says otherwise.
    pub fn stdout(output: Output, queue: usize) -> Self {
        let form = match output {
            Output::Text => Form::Text,
            Output::Json => Form::Json,
        };
        Self { form, to: Destination::Stdout, name: form.name().to_owned(), queue, events: Kinds::ALL }
    }
}

impl Form {
    /// The value of `type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Log => "log",
        }
    }

    /// Where it goes when nothing is said.
    const fn usual_place(self) -> Destination {
        match self {
            Self::Log => Destination::Stderr,
            Self::Text | Self::Json => Destination::Stdout,
        }
    }

    fn destination(self, given: &str) -> Option<Destination> {
        let socket = |given: &str| Path::new(given).is_absolute().then(|| PathBuf::from(given));
        match (self, given.split_once(':')) {
            (Self::Log, Some(("journal", path))) => socket(path).map(Destination::Journal),
            (Self::Log, Some(("syslog", path))) => socket(path).map(Destination::Syslog),
            (Self::Log, _) => match given {
                "stderr" => Some(Destination::Stderr),
                "journal" => Some(Destination::Journal(Journal::PATH.into())),
                "syslog" => Some(Destination::Syslog(Syslog::PATH.into())),
                _ => None,
            },
            (Self::Text | Self::Json, _) => match given {
                "stdout" => Some(Destination::Stdout),
                // No file is meant by these words; `./journal` is one.
                "" | "stderr" | "journal" | "syslog" => None,
                _ if given.contains('\0') => None,
                _ => Some(Destination::File(given.into())),
            },
        }
    }

    /// What `to` may be.
    const fn places(self) -> &'static str {
        match self {
            Self::Log => "stderr, journal, syslog, or the socket of one of these as in syslog:/run/log",
            Self::Text | Self::Json => "stdout or the path of a file (./NAME where NAME is another place's)",
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Journal(path) => write!(f, "journal:{}", path.display()),
            Self::Syslog(path) => write!(f, "syslog:{}", path.display()),
        }
    }
}

/// The value of `output`: a word, or tables.
pub(super) enum RawOutputs {
    One(Output),
    Tables(Vec<RawOutput>),
}

/// A table of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOutput {
    r#type: Spanned<Form>,
    to: Option<Spanned<String>>,
    name: Option<Spanned<String>>,
    queue: Option<Spanned<u32>>,
    events: Option<Spanned<Vec<Spanned<String>>>>,
}

impl<'de> Deserialize<'de> for RawOutputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = RawOutputs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`text`, `json`, or tables headed [[output]]")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RawOutputs, E> {
                Output::deserialize(StrDeserializer::new(text)).map(RawOutputs::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut tables: A) -> Result<RawOutputs, A::Error> {
                let mut outputs = Vec::new();
                while let Some(table) = tables.next_element()? {
                    outputs.push(table);
                }
                Ok(RawOutputs::Tables(outputs))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Checks what the file says of outputs; `queue` is what those have that do not say.
pub(super) fn check(raw: Spanned<RawOutputs>, queue: usize, text: &str) -> Result<Vec<OutputConfig>, Wrong> {
    let span = raw.span();
    let tables = match raw.into_inner() {
        RawOutputs::One(output) => return Ok(vec![OutputConfig::stdout(output, queue)]),
        RawOutputs::Tables(tables) if tables.is_empty() => {
            return Err(Wrong { span, fault: Fault::NoOutput });
        }
        RawOutputs::Tables(tables) => tables,
    };
    let mut names: HashMap<String, usize> = HashMap::new();
    for name in tables.iter().filter_map(|table| table.name.as_ref()) {
        let (span, name) = (name.span(), name.get_ref().clone());
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(Wrong { span, fault: Fault::OutputName { name } });
        }
        // Whether flows are merged or not: the command line may say so later.
        if name == stash::NAME {
            return Err(Wrong { span, fault: Fault::ReservedName { name } });
        }
        if let Some(first) = names.insert(name.clone(), span.start) {
            return Err(Wrong { span, fault: Fault::OutputNamedTwice { name, first: line_of(text, first) } });
        }
    }
    let mut places: HashMap<Destination, usize> = HashMap::new();
    let mut outputs = Vec::with_capacity(tables.len());
    for table in tables {
        let form = *table.r#type.get_ref();
        let (span, to) = destination(form, &table)?;
        if let Some(first) = places.insert(to.clone(), span.start) {
            let fault = Fault::SharedPlace { to: to.to_string(), first: line_of(text, first) };
            return Err(Wrong { span, fault });
        }
        let name = match table.name {
            Some(name) => name.into_inner(),
            None => free_name(form, &mut names, span.start),
        };
        let queue = table.queue.as_ref().map_or(Ok(queue), super::file::queue)?;
        let events = table.events.map_or(Ok(Kinds::ALL), kinds)?;
        outputs.push(OutputConfig { form, to, name, queue, events });
    }
    Ok(outputs)
}

fn destination(form: Form, table: &RawOutput) -> Result<(Range<usize>, Destination), Wrong> {
    let Some(to) = &table.to else { return Ok((table.r#type.span(), form.usual_place())) };
    let fault =
        || Fault::OutputPlace { form: form.name(), given: to.get_ref().clone(), expected: form.places() };
    let place = form.destination(to.get_ref()).ok_or_else(|| Wrong { span: to.span(), fault: fault() })?;
    Ok((to.span(), place))
}

/// `json`, or `json-2` and so on where that is taken.
fn free_name(form: Form, names: &mut HashMap<String, usize>, offset: usize) -> String {
    let mut name = form.name().to_owned();
    let mut number = 1;
    while names.contains_key(&name) {
        number += 1;
        name = format!("{}-{number}", form.name());
    }
    names.insert(name.clone(), offset);
    name
}

fn kinds(events: Spanned<Vec<Spanned<String>>>) -> Result<Kinds, Wrong> {
    if events.get_ref().is_empty() {
        return Err(Wrong { span: events.span(), fault: Fault::NoEvents });
    }
    let kind = |given: Spanned<String>| {
        let span = given.span();
        Kind::of_name(given.get_ref())
            .ok_or_else(|| Wrong { span, fault: Fault::EventKind { given: given.into_inner() } })
    };
    events.into_inner().into_iter().map(kind).collect()
}
