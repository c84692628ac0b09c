//! What the benchmarks are told by arguments, and how they sum up.

use anyhow::{Context as _, ensure};

use crate::Result;

/// The parts that `--only` can name, of all benchmarks together: each leaves out what is not its own.
const PARTS: [&str; 14] = [
    "events", "policies", "read", "hot", "flows", "first", "filter", "traced", "flood", "drops", "storm",
    "xdp", "units", "harm",
];

/// Arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How often everything is measured; what is printed are medians.
    pub rounds: usize,
    only: Option<String>,
}

impl Options {
    /// Takes `--rounds N` and `--only PART`; what cargo adds is passed over.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut options = Self { rounds: 9, only: None };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} wants a value"));
            match argument.as_str() {
                "--rounds" => {
                    let number = value()?;
                    options.rounds = number.parse().with_context(|| format!("--rounds {number}"))?;
                    ensure!(options.rounds > 0, "--rounds 0: nothing would be measured");
                }
                "--only" => {
                    let part = value()?;
                    ensure!(PARTS.contains(&part.as_str()), "--only {part}: expected one of {PARTS:?}");
                    options.only = Some(part);
                }
                "--bench" => {}
                other => anyhow::bail!("unknown argument {other}: expected --rounds N or --only {PARTS:?}"),
            }
        }
        Ok(options)
    }

    /// Whether this part is to be run.
    pub fn wants(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == part)
    }
}

/// The middle one.
pub fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Random numbers that are the same in each run: Marsaglia, Xorshift RNGs (2003), with a multiplication.
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream of its own for each seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed ^ 0x9E37_79B9_7F4A_7C15)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number from 0 to below 1.
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
