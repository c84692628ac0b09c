//! Lengths of time, as people write them.

use std::{fmt, str::FromStr, time::Duration};

use jiff::SignedDuration;

/// A length of time above zero: `10s`, `250ms`, `2m`, `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(Duration);

/// Text that is no interval.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IntervalError {
    /// It is no length of time.
    #[error("{given:?} is no length of time: expected a number and a unit, as in 10s, 250ms, 2m or 1h")]
    Unreadable {
        /// What was given.
        given: String,
    },
    /// It is zero or less.
    #[error("{given:?} is not above zero: expected a length of time from 1ms on")]
    TooShort {
        /// What was given.
        given: String,
    },
    /// It is longer than a clock runs.
    #[error("{given:?} is longer than ten years")]
    TooLong {
        /// What was given.
        given: String,
    },
}

impl Interval {
    const LEAST: Duration = Duration::from_millis(1);
    /// Added to any moment, it stays in the range of every clock and timer.
    const MOST: Duration = Duration::from_hours(10 * 366 * 24);

    /// So many seconds; 0 is taken for 1.
    pub const fn from_seconds(seconds: u32) -> Self {
        Self(Duration::from_secs(if seconds == 0 { 1 } else { seconds as u64 }))
    }

    /// The length.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for Interval {
    type Err = IntervalError;

    fn from_str(text: &str) -> Result<Self, IntervalError> {
        let given = || text.to_owned();
        // The one error says what was expected; jiff's would name its grammar.
        let length: SignedDuration =
            text.trim().parse().map_err(|_grammar| IntervalError::Unreadable { given: given() })?;
        let length =
            Duration::try_from(length).map_err(|_negative| IntervalError::TooShort { given: given() })?;
        match length {
            _ if length < Self::LEAST => Err(IntervalError::TooShort { given: given() }),
            _ if length > Self::MOST => Err(IntervalError::TooLong { given: given() }),
            _ => Ok(Self(length)),
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SignedDuration::try_from(self.0) {
            Ok(length) => write!(f, "{length:#}"),
            Err(_beyond) => write!(f, "{:?}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Interval, IntervalError};

    #[test]
    fn what_people_write() {
        for (text, milliseconds) in [
            ("10s", 10_000),
            ("250ms", 250),
            ("2m", 120_000),
            ("1h 30m", 5_400_000),
            ("1.5s", 1500),
            (" 1s ", 1000),
        ] {
            assert_eq!(
                text.parse::<Interval>().unwrap().get(),
                Duration::from_millis(milliseconds),
                "{text}"
            );
        }
        assert_eq!("90s".parse::<Interval>().unwrap().to_string(), "1m 30s");
        assert_eq!(Interval::from_seconds(0), Interval::from_seconds(1));
    }

    #[test]
    fn what_is_refused_is_told_why() {
        let error = |text: &str| text.parse::<Interval>().unwrap_err();
        for text in ["", "10", "s", "ten seconds", "1 fortnight"] {
            assert!(matches!(error(text), IntervalError::Unreadable { .. }), "{text}");
        }
        for text in ["0s", "-5s", "10s ago", "999us"] {
            assert!(matches!(error(text), IntervalError::TooShort { .. }), "{text}");
        }
        assert!(matches!(error("100000000h"), IntervalError::TooLong { .. }));
        assert_eq!(
            error("10").to_string(),
            r#""10" is no length of time: expected a number and a unit, as in 10s, 250ms, 2m or 1h"#
        );
    }
}
