//! Moments.

use std::{borrow::Cow, fmt};

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A moment of wall time, to the nanosecond.
///
/// In JSON it is RFC 3339 in UTC with exactly nine fractional digits: `2026-05-09T07:29:33.000000042Z`. The default is
/// the Unix epoch, which stands for *never*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time(Timestamp);

impl Time {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(Timestamp::UNIX_EPOCH);

    /// The moment that jiff calls so.
    pub const fn new(timestamp: Timestamp) -> Self {
        Self(timestamp)
    }

    /// The moment so many nanoseconds after the Unix epoch.
    pub fn from_unix_nanos(nanos: i64) -> Self {
        // 64 bits of nanoseconds reach the years 1677 to 2262, jiff's timestamps those from -9999 to 9999.
        Self(Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH))
    }

    /// Nanoseconds since the Unix epoch.
    pub fn as_unix_nanos(self) -> i128 {
        self.0.as_nanosecond()
    }

    /// The same moment as jiff has it.
    pub const fn timestamp(self) -> Timestamp {
        self.0
    }
}

impl Default for Time {
    fn default() -> Self {
        Self::EPOCH
    }
}

impl From<Timestamp> for Time {
    fn from(timestamp: Timestamp) -> Self {
        Self(timestamp)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.9}", self.0)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A moment of wall time in UTC, to the nanosecond; the Unix epoch stands for never.",
            "type": "string",
            "format": "date-time",
            "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Time;

    #[test]
    fn nine_digits_always() {
        assert_eq!(Time::EPOCH.to_string(), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(
            Time::from_unix_nanos(1_778_311_773_000_000_042).to_string(),
            "2026-05-09T07:29:33.000000042Z"
        );
        assert_eq!(Time::from_unix_nanos(1_500_000_000).to_string(), "1970-01-01T00:00:01.500000000Z");
    }

    #[test]
    fn the_ends_of_the_range_are_moments() {
        for nanos in [i64::MIN, -1, 0, 1, i64::MAX] {
            let time = Time::from_unix_nanos(nanos);
            assert_eq!(time.as_unix_nanos(), i128::from(nanos));
            let text = serde_json::to_string(&time).unwrap();
            assert_eq!(serde_json::from_str::<Time>(&text).unwrap(), time, "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        assert!(serde_json::from_str::<Time>(r#""yesterday""#).is_err());
    }
}
