//! The order of a number's octets.

/// Which octet of a number comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The least.
    Little,
    /// The greatest.
    Big,
}

impl Order {
    #[inline]
    pub(super) fn u16(self, octets: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(octets),
            Self::Big => u16::from_be_bytes(octets),
        }
    }

    #[inline]
    pub(super) fn u32(self, octets: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(octets),
            Self::Big => u32::from_be_bytes(octets),
        }
    }

    pub(super) fn u64(self, octets: [u8; 8]) -> u64 {
        match self {
            Self::Little => u64::from_le_bytes(octets),
            Self::Big => u64::from_be_bytes(octets),
        }
    }

    /// Four numbers that lie side by side.
    #[inline]
    pub(super) fn words(self, octets: [u8; 16]) -> [u32; 4] {
        let (words, _) = octets.as_chunks();
        let word = |nth: usize| words.get(nth).map_or(0, |word| self.u32(*word));
        [word(0), word(1), word(2), word(3)]
    }

    /// The number at `at` of octets; none where they end before.
    #[inline]
    pub(super) fn u32_at(self, octets: &[u8], at: usize) -> Option<u32> {
        octets.get(at..)?.first_chunk().map(|word| self.u32(*word))
    }

    /// The same of two octets.
    #[inline]
    pub(super) fn u16_at(self, octets: &[u8], at: usize) -> Option<u16> {
        octets.get(at..)?.first_chunk().map(|word| self.u16(*word))
    }
}
