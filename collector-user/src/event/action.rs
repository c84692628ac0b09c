//! What was done with a flow.

use std::{borrow::Cow, fmt, ops::BitOr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What a policy does with a flow: a mask of bits, of which any combination may occur.
///
/// JSON holds [`action_string`](Self::action_string), which knows three words only: read back, a mask has lost its
/// other bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ActionType(u8);

impl ActionType {
    /// No bit: nothing was decided.
    pub const NONE: Self = Self(0);
    /// Let the flow pass.
    pub const ACCEPT: Self = Self(0x1);
    /// Stop it.
    pub const REJECT: Self = Self(0x2);
    /// Encrypt it.
    pub const ENCRYPT: Self = Self(0x4);
    /// Write it to the log.
    pub const LOG: Self = Self(0x8);
    /// Only say what would have been done.
    pub const OBSERVE: Self = Self(0x10);

    /// The mask with these bits; unknown ones are kept.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether the flow may pass.
    pub const fn accepted(self) -> bool {
        self.has(Self::ACCEPT)
    }

    /// Whether the flow is stopped.
    pub const fn rejected(self) -> bool {
        self.has(Self::REJECT)
    }

    /// Whether the flow is to be encrypted.
    pub const fn encrypted(self) -> bool {
        self.has(Self::ENCRYPT)
    }

    /// Whether the flow is to be logged.
    pub const fn logged(self) -> bool {
        self.has(Self::LOG)
    }

    /// Whether it is only said what would have been done.
    pub const fn observed(self) -> bool {
        self.has(Self::OBSERVE)
    }

    const fn has(self, bit: Self) -> bool {
        self.0 & bit.0 != 0
    }

    /// The original's `String`: a word for one of the first four bits alone, `unknown` for anything else.
    pub const fn text(self) -> &'static str {
        match self {
            Self::ACCEPT => "accept",
            Self::REJECT => "reject",
            Self::ENCRYPT => "encrypt",
            Self::LOG => "log",
            _ => "unknown",
        }
    }

    /// The original's `ActionString`: the verdict, or `passthrough` where the bits say both or neither.
    pub const fn action_string(self) -> &'static str {
        match (self.accepted(), self.rejected()) {
            (true, false) => "accept",
            (false, true) => "reject",
            _ => "passthrough",
        }
    }
}

impl BitOr for ActionType {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for ActionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

impl Serialize for ActionType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.action_string())
    }
}

impl<'de> Deserialize<'de> for ActionType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Cow::<'de, str>::deserialize(deserializer)?.as_ref() {
            "accept" => Ok(Self::ACCEPT),
            "reject" => Ok(Self::REJECT),
            "passthrough" => Ok(Self::NONE),
            other => Err(D::Error::unknown_variant(other, &["accept", "reject", "passthrough"])),
        }
    }
}

impl JsonSchema for ActionType {
    fn schema_name() -> Cow<'static, str> {
        "ActionType".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What a policy does with a flow; passthrough where it says neither or both.",
            "type": "string",
            "enum": ["accept", "reject", "passthrough"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::ActionType;

    #[test]
    fn predicates_test_one_bit_each() {
        for bits in 0..=u8::MAX {
            let action = ActionType::from_bits(bits);
            let told = [
                action.accepted(),
                action.rejected(),
                action.encrypted(),
                action.logged(),
                action.observed(),
            ];
            let want: Vec<_> = (0..5).map(|bit| bits & 1 << bit != 0).collect();
            assert_eq!(told.as_slice(), want, "{bits:#x}");
            assert_eq!(action.bits(), bits);
        }
    }

    #[test]
    fn text_knows_single_bits_only() {
        for bits in 0..=u8::MAX {
            let want = match bits {
                1 => "accept",
                2 => "reject",
                4 => "encrypt",
                8 => "log",
                _ => "unknown",
            };
            assert_eq!(ActionType::from_bits(bits).text(), want);
            assert_eq!(ActionType::from_bits(bits).to_string(), want);
        }
    }

    #[test]
    fn action_string_is_the_verdict() {
        for bits in 0..=u8::MAX {
            let want = ["passthrough", "accept", "reject", "passthrough"][usize::from(bits & 3)];
            assert_eq!(ActionType::from_bits(bits).action_string(), want);
        }
    }

    #[test]
    fn json_is_the_verdict() {
        let encrypted = ActionType::ACCEPT | ActionType::ENCRYPT;
        assert_eq!(serde_json::to_string(&encrypted).unwrap(), r#""accept""#);
        for action in [ActionType::NONE, ActionType::ACCEPT, ActionType::REJECT] {
            let text = serde_json::to_string(&action).unwrap();
            assert_eq!(serde_json::from_str::<ActionType>(&text).unwrap(), action);
        }
        assert!(serde_json::from_str::<ActionType>(r#""log""#).is_err());
    }
}
