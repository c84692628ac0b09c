//! Amounts for people: exact below 10,000, then three digits and a unit.

use std::fmt::{self, Write as _};

use super::line::put_blanks;

/// The largest amount that is shown digit by digit.
const EXACT: u64 = 9_999;

/// A count: `9999`, `10.0k`, `1.23M`.
pub(super) struct Count(pub(super) u64);

/// Octets: `9999 B`, `9.77 KiB`, `1.20 MiB`.
pub(super) struct Octets(pub(super) u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 <= EXACT {
            return fmt::Display::fmt(&self.0, f);
        }
        let (value, unit) = scaled(self.0, 1000.0, &["", "k", "M", "G", "T", "P", "E"]);
        Cell::put(f, format_args!("{}{unit}", Three(value)))
    }
}

impl fmt::Display for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 <= EXACT {
            return Cell::put(f, format_args!("{} B", self.0));
        }
        let (value, unit) = scaled(self.0, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]);
        Cell::put(f, format_args!("{} {unit}", Three(value)))
    }
}

/// A count at the right of so many columns.
pub(super) fn put_count(line: &mut String, count: u64, width: usize) {
    if count > EXACT {
        // Writing to a `String` cannot fail.
        let _ = write!(line, "{:>width$}", Count(count));
        return;
    }
    put_blanks(line, width.saturating_sub(digits(count)));
    put_number(line, count);
}

/// Octets at the right of so many columns.
pub(super) fn put_octets(line: &mut String, octets: u64, width: usize) {
    const UNIT: &str = " B";
    if octets > EXACT {
        // Writing to a `String` cannot fail.
        let _ = write!(line, "{:>width$}", Octets(octets));
        return;
    }
    put_count(line, octets, width.saturating_sub(UNIT.len()));
    line.push_str(UNIT);
}

/// A number, digit by digit: `write!` takes longer for one than for all the rest of a line.
pub(super) fn put_number(line: &mut String, number: u64) {
    if number > 9 {
        put_number(line, number / 10);
    }
    line.push(char::from(b'0' + (number % 10) as u8));
}

/// A number in hexadecimal digits.
pub(super) fn put_hex(line: &mut String, number: u16) {
    if number > 0xF {
        put_hex(line, number >> 4);
    }
    line.push(char::from_digit(u32::from(number & 0xF), 16).unwrap_or_default());
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
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

/// An amount as it is shown, before it is padded. Not a `String`: there are four of these in each flow's line.
#[derive(Default)]
struct Cell {
    octets: [u8; Self::MOST],
    length: usize,
}

impl Cell {
    /// `9999 B`, `99.9 KiB`.
    const MOST: usize = 8;

    /// Writes an amount in the width that is asked for.
    fn put(f: &mut fmt::Formatter<'_>, amount: fmt::Arguments<'_>) -> fmt::Result {
        let mut cell = Self::default();
        cell.write_fmt(amount)?;
        let text = cell.octets.get(..cell.length).and_then(|octets| str::from_utf8(octets).ok());
        f.pad_integral(true, "", text.ok_or(fmt::Error)?)
    }
}

impl fmt::Write for Cell {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.octets.get_mut(self.length..self.length + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Count, Octets, put_count, put_octets};

    #[test]
    fn at_the_right_of_a_column() {
        for amount in [0, 7, 10, 999, 9_999, 10_000, 1_023_487, u64::MAX] {
            for width in [0, 4, 6, 9] {
                let mut line = String::from("x");
                put_count(&mut line, amount, width);
                put_octets(&mut line, amount, width);
                assert_eq!(line, format!("x{:>width$}{:>width$}", Count(amount), Octets(amount)));
            }
        }
    }

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
