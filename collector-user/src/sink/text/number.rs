//! Amounts for people: exact below 10,000, then three digits and a unit.

use std::fmt;

/// The largest amount that is shown digit by digit.
const EXACT: u64 = 9_999;

/// A count: `9999`, `10.0k`, `1.23M`.
pub(super) struct Count(pub(super) u64);

/// Octets: `9999 B`, `9.77 KiB`, `1.20 MiB`.
pub(super) struct Octets(pub(super) u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 <= EXACT {
            return f.pad_integral(true, "", &self.0.to_string());
        }
        let (value, unit) = scaled(self.0, 1000.0, &["", "k", "M", "G", "T", "P", "E"]);
        f.pad_integral(true, "", &format!("{}{unit}", Three(value)))
    }
}

impl fmt::Display for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 <= EXACT {
            return f.pad_integral(true, "", &format!("{} B", self.0));
        }
        let (value, unit) = scaled(self.0, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]);
        f.pad_integral(true, "", &format!("{} {unit}", Three(value)))
    }
}

/// The value in the first unit in which three digits hold it, and that unit.
fn scaled(amount: u64, base: f64, units: &[&'static str]) -> (f64, &'static str) {
    let mut value = amount as f64;
    let mut unit = "";
    for (index, name) in units.iter().enumerate() {
        unit = name;
        if value < 999.5 || index + 1 == units.len() {
            break;
        }
        value /= base;
    }
    (value, unit)
}

/// A value below 1000, in three digits.
struct Three(f64);

impl fmt::Display for Three {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bounds lie where rounding would add a digit.
        let decimals = match self.0 {
            value if value < 9.995 => 2,
            value if value < 99.95 => 1,
            _ => 0,
        };
        write!(f, "{:.decimals$}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Count, Octets};

    #[test]
    fn counts() {
        for (count, want) in [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10.0k"),
            (99_949, "99.9k"),
            (99_950, "100k"),
            (999_499, "999k"),
            (999_500, "1.00M"),
            (1_234_567, "1.23M"),
            (5_000_000_000, "5.00G"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(Count(count).to_string(), want);
        }
        assert_eq!(format!("[{:>6}] [{:<6}]", Count(7), Count(7)), "[     7] [7     ]");
    }

    #[test]
    fn octets() {
        for (octets, want) in [
            (0, "0 B"),
            (9_999, "9999 B"),
            (10_000, "9.77 KiB"),
            (1_023_487, "999 KiB"),
            (1_023_488, "0.98 MiB"),
            (1 << 20, "1.00 MiB"),
            (50_000_000, "47.7 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Octets(octets).to_string(), want);
        }
        assert_eq!(format!("[{:>9}]", Octets(10_000)), "[ 9.77 KiB]");
    }
}
