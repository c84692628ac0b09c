//! Whose packets are reported one by one.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::{
    Interval, IntervalError, PuConfig,
    error::{Fault, Wrong},
    file::{Length, interval},
};
use crate::pu::{
    registry::{Declared, Registry},
    trace::{Directions, Whose, Wish},
};

/// A wish for the packets of a processing unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceConfig {
    /// Whose.
    pub whose: Whose,
    /// Which of them.
    pub directions: Directions,
    /// For how long; none: as long as the collector runs.
    pub duration: Option<Interval>,
    /// Of so many one is reported; none: as the configuration says for all.
    pub sample: Option<u32>,
}

/// Text that is no such wish.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// There is no unit in it.
    #[error(
        "{given:?} names no processing unit: expected one, or * for all, as in web, web:in or *:both:10m"
    )]
    NoUnit {
        /// What was given.
        given: String,
    },
    /// What stands where a time should is none.
    #[error("{source}")]
    Time {
        /// What is wrong with it.
        source: IntervalError,
    },
}

/// The word for every unit.
const ALL: &str = "*";

impl TraceConfig {
    /// What the daemon is asked for, where `sample` holds for those that do not say.
    pub(crate) fn wish(&self, sample: u32) -> Wish {
        Wish {
            whose: self.whose.clone(),
            directions: self.directions,
            duration: self.duration.map(Interval::get),
            every: self.sample.unwrap_or(sample).try_into().unwrap_or(std::num::NonZeroU32::MIN),
        }
    }
}

/// `all` is a word for it, too.
fn whose(id: &str) -> Whose {
    if matches!(id, ALL | "all") { Whose::All } else { Whose::Unit(id.into()) }
}

impl FromStr for TraceConfig {
    type Err = TraceError;

    /// Reads `PU[:in|out|both][:TIME]`, from its end: the id of a unit may have colons. The time may begin with `for`.
    fn from_str(given: &str) -> Result<Self, TraceError> {
        let mut id = given;
        let mut duration = None;
        if let Some((before, last)) = id.rsplit_once(':') {
            let said = last.strip_prefix("for ");
            match (said.unwrap_or(last).parse::<Interval>(), said) {
                (Ok(length), _) => (id, duration) = (before, Some(length)),
                // It looks like a time, or is called one.
                (Err(source), said)
                    if said.is_some() || last.starts_with(|first: char| first.is_ascii_digit()) =>
                {
                    return Err(TraceError::Time { source });
                }
                _ => {}
            }
        }
        let mut directions = Directions::default();
        if let Some((before, last)) = id.rsplit_once(':')
            && let Some(said) = Directions::of(last)
        {
            (id, directions) = (before, said);
        }
        if id.is_empty() {
            return Err(TraceError::NoUnit { given: given.to_owned() });
        }
        Ok(Self { whose: whose(id), directions, duration, sample: None })
    }
}

impl fmt::Display for TraceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", id(&self.whose), self.directions.name())?;
        self.duration.map_or(Ok(()), |duration| write!(f, ":{duration}"))
    }
}

/// How the file names those whose packets are wished for.
pub(super) fn id(whose: &Whose) -> &str {
    match whose {
        Whose::All => ALL,
        Whose::Unit(id) => id,
    }
}

/// A table of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTrace {
    pu: Spanned<String>,
    #[serde(default)]
    direction: RawDirections,
    r#for: Option<Spanned<Length>>,
    sample: Option<Spanned<u32>>,
}

#[derive(Default)]
struct RawDirections(Directions);

impl<'de> Deserialize<'de> for RawDirections {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let expected = || serde::de::Error::unknown_variant(&name, &["in", "out", "both"]);
        Directions::of(&name).map(Self).ok_or_else(expected)
    }
}

/// Checks the tables of a file, which declares these units.
pub(super) fn check(raw: Vec<RawTrace>, units: &[PuConfig]) -> Result<Vec<TraceConfig>, Wrong> {
    if raw.is_empty() {
        return Ok(Vec::new());
    }
    let declared: Vec<Declared> = units.iter().map(Declared::from).collect();
    // Their number was checked before.
    let units = Registry::new(&declared).unwrap_or_default();
    raw.into_iter()
        .map(|raw| {
            let trace = TraceConfig {
                whose: whose(raw.pu.get_ref()),
                directions: raw.direction.0,
                duration: interval("trace.for", raw.r#for)?,
                sample: raw.sample.as_ref().map(|given| sample("trace.sample", given)).transpose()?,
            };
            match trace.wish(1).entry(&units) {
                Ok(_) => Ok(trace),
                Err(source) => Err(Wrong { span: raw.pu.span(), fault: Fault::NoSuchUnit { source } }),
            }
        })
        .collect()
}

/// Of how many packets one is reported.
pub(super) fn sample(key: &'static str, given: &Spanned<u32>) -> Result<u32, Wrong> {
    match *given.get_ref() {
        0 => Err(Wrong { span: given.span(), fault: Fault::Zero { key } }),
        many => Ok(many),
    }
}

#[cfg(test)]
mod tests {
    use super::{TraceConfig, TraceError};
    use crate::{
        config::Interval,
        pu::trace::{Directions, Whose},
    };

    fn trace(whose: Whose, directions: Directions, seconds: Option<u32>) -> TraceConfig {
        TraceConfig { whose, directions, duration: seconds.map(Interval::from_seconds), sample: None }
    }

    #[test]
    fn what_can_be_said() {
        let unit = |id: &str| Whose::Unit(id.into());
        for (text, expected) in [
            ("web", trace(unit("web"), Directions::Both, None)),
            ("web:in", trace(unit("web"), Directions::In, None)),
            ("web:out:10s", trace(unit("web"), Directions::Out, Some(10))),
            ("web:both:for 2m", trace(unit("web"), Directions::Both, Some(120))),
            ("web:10s", trace(unit("web"), Directions::Both, Some(10))),
            ("*", trace(Whose::All, Directions::Both, None)),
            ("all:in", trace(Whose::All, Directions::In, None)),
            ("10s", trace(unit("10s"), Directions::Both, None)),
            ("in", trace(unit("in"), Directions::Both, None)),
            ("a:b", trace(unit("a:b"), Directions::Both, None)),
            ("a:in:in", trace(unit("a:in"), Directions::In, None)),
        ] {
            assert_eq!(text.parse(), Ok(expected.clone()), "{text}");
            assert_eq!(expected.to_string().parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_refused_is_told_why() {
        let error = |text: &str| text.parse::<TraceConfig>().unwrap_err();
        for text in ["", ":in", ":10s", ":out:10s"] {
            assert!(matches!(error(text), TraceError::NoUnit { .. }), "{text}");
        }
        for text in ["web:in:10", "web:0s", "web:for ever", "web:for 0s"] {
            assert!(matches!(error(text), TraceError::Time { .. }), "{text}");
        }
    }
}
