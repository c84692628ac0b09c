//! Octets in JSON: lower-case hexadecimal digits, two an octet.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

pub(super) fn serialize<S: Serializer>(octets: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Hex(octets))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    octets(text.as_bytes()).ok_or_else(|| D::Error::custom("expected hexadecimal digits, two an octet"))
}

pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^([0-9a-f]{2})*$" })
}

/// The octets that the digits stand for; upper case is understood.
fn octets(digits: &[u8]) -> Option<Bytes> {
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

fn digit(character: u8) -> Option<u8> {
    char::from(character).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::octets;

    #[test]
    fn digits_become_octets() {
        assert_eq!(octets(b"").unwrap().as_ref(), b"");
        assert_eq!(octets(b"00ff4Aa5").unwrap().as_ref(), [0, 0xFF, 0x4A, 0xA5]);
    }

    #[test]
    fn what_is_no_octet_is_refused() {
        for digits in ["0", "000", "0g", "+1", "\u{e9}0"] {
            assert!(octets(digits.as_bytes()).is_none(), "{digits}");
        }
    }
}
