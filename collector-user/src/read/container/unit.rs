//! The time resolutions of pcapng interfaces (draft-ietf-opsawg-pcapng, `if_tsresol` and `if_tsoffset`).

const NANO: u32 = 1_000_000_000;

/// What a unit of an interface's times is worth, and what they are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    scale: Scale,
    /// Nanoseconds that are added.
    offset: i128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    /// So many nanoseconds.
    Nanoseconds(u64),
    /// So many are a nanosecond.
    PerNanosecond(u128),
    /// Two to this power of them are a second.
    Binary(u32),
}

impl Unit {
    /// Microseconds since 1970: where an interface says nothing.
    pub(super) const MICROSECONDS: Self = Self { scale: Scale::Nanoseconds(1000), offset: 0 };

    /// The same with this resolution: a power of ten, or, with the uppermost bit, of two.
    pub(super) const fn with_resolution(self, resolution: u8) -> Self {
        const NANOSECONDS: u32 = 9;
        const BINARY: u8 = 0x80;
        let exponent = (resolution & !BINARY) as u32;
        let scale = if resolution & BINARY != 0 {
            Scale::Binary(exponent)
        } else if exponent <= NANOSECONDS {
            Scale::Nanoseconds(10_u64.pow(NANOSECONDS - exponent))
        } else {
            // What is so fine that 64 bits of it are no nanosecond is 0.
            match 10_u128.checked_pow(exponent - NANOSECONDS) {
                Some(units) => Scale::PerNanosecond(units),
                None => Scale::PerNanosecond(u128::MAX),
            }
        };
        Self { scale, ..self }
    }

    /// The same counted from so many seconds after 1970.
    pub(super) const fn with_offset(self, seconds: i64) -> Self {
        Self { offset: seconds as i128 * NANO as i128, ..self }
    }

    /// Nanoseconds since 1970, or the nearest that 64 bits hold.
    #[inline]
    pub(super) fn nanoseconds(self, count: u64) -> i64 {
        let nanoseconds = match self.scale {
            Scale::Nanoseconds(unit) => u128::from(count) * u128::from(unit),
            Scale::PerNanosecond(units) => u128::from(count) / units,
            // 64 bits and 30 for a thousand million: fits.
            Scale::Binary(exponent) => {
                (u128::from(count) * u128::from(NANO)).checked_shr(exponent).unwrap_or(0)
            }
        };
        let sum = (nanoseconds as i128).saturating_add(self.offset);
        i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
    }
}

#[cfg(test)]
mod tests {
    use super::Unit;

    fn of(resolution: u8, offset: i64, count: u64) -> i64 {
        Unit::MICROSECONDS.with_resolution(resolution).with_offset(offset).nanoseconds(count)
    }

    #[test]
    fn powers_of_ten() {
        assert_eq!(
            [0, 3, 6, 9, 12].map(|it| of(it, 0, 7_000)),
            [7_000_000_000_000, 7_000_000_000, 7_000_000, 7_000, 7]
        );
        assert_eq!(of(19, 0, u64::MAX), 1_844_674_407);
        assert_eq!([60, 127].map(|it| of(it, 0, u64::MAX)), [0, 0]);
    }

    #[test]
    fn powers_of_two() {
        assert_eq!(of(0x8A, 0, 1536), 1_500_000_000);
        assert_eq!(of(0xA0, 0, 3 << 31), 1_500_000_000);
        assert_eq!(of(0x80, 0, 5), 5_000_000_000);
        assert_eq!(of(0xFF, 0, u64::MAX), 0);
    }

    #[test]
    fn counted_from_another_moment() {
        assert_eq!(of(6, 1, 500_000), 1_500_000_000);
        assert_eq!(of(6, -2, 500_000), -1_500_000_000);
    }

    #[test]
    fn what_64_bits_do_not_hold() {
        assert_eq!(of(0, 0, u64::MAX), i64::MAX);
        assert_eq!(of(9, i64::MIN, 0), i64::MIN);
        assert_eq!(of(9, i64::MAX, u64::MAX), i64::MAX);
    }
}
