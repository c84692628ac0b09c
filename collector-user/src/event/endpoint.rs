//! One end of a flow.

use std::{borrow::Cow, fmt, net::IpAddr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::Text;

/// One end of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct EndPoint {
    /// The processing unit's identity, the id of the external network that holds the address, or
    /// [`DEFAULT_END_POINT`](super::reason::DEFAULT_END_POINT).
    pub id: Text,
    /// The address; text in JSON.
    #[serde(with = "super::address")]
    #[schemars(schema_with = "super::address::schema")]
    pub ip: Option<IpAddr>,
    /// The URI of an HTTP request.
    pub uri: Text,
    /// The method of an HTTP request.
    pub http_method: Text,
    /// The user, as [`UserRecord::id`](super::UserRecord::id) has it.
    pub user_id: Text,
    /// The name that the user has in this host's user database, anything but printable ASCII escaped; the number of one that has
    /// none there. Empty where the user is not known.
    pub user: Text,
    /// What the id names.
    pub r#type: EndPointType,
    /// The port, 0 for protocols without.
    pub port: u16,
}

impl EndPoint {
    /// The address as text, empty where there is none.
    pub fn ip_text(&self) -> String {
        self.ip.map(|ip| ip.to_string()).unwrap_or_default()
    }
}

/// What an end of a flow is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndPointType {
    /// 0, `ext`: an address outside of every processing unit.
    #[default]
    ExternalIp,
    /// 1, `pu`: a processing unit.
    Pu,
    /// 2, `claims`: somebody known by claims.
    Claims,
    /// A number that has no name here; reads `pu`, as the original's does.
    Unknown(u8),
}

impl EndPointType {
    /// The type with this number.
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::ExternalIp,
            1 => Self::Pu,
            2 => Self::Claims,
            other => Self::Unknown(other),
        }
    }

    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::ExternalIp => 0,
            Self::Pu => 1,
            Self::Claims => 2,
            Self::Unknown(other) => other,
        }
    }

    /// `ext`, `pu` or `claims`.
    pub const fn text(self) -> &'static str {
        match self {
            Self::ExternalIp => "ext",
            Self::Pu | Self::Unknown(_) => "pu",
            Self::Claims => "claims",
        }
    }
}

impl fmt::Display for EndPointType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

impl Serialize for EndPointType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

impl<'de> Deserialize<'de> for EndPointType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Cow::<'de, str>::deserialize(deserializer)?.as_ref() {
            "ext" => Ok(Self::ExternalIp),
            "pu" => Ok(Self::Pu),
            "claims" => Ok(Self::Claims),
            other => Err(D::Error::unknown_variant(other, &["ext", "pu", "claims"])),
        }
    }
}

impl JsonSchema for EndPointType {
    fn schema_name() -> Cow<'static, str> {
        "EndPointType".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What an end of a flow is: an address outside of every processing unit, a processing unit, or \
                            somebody known by claims.",
            "type": "string",
            "enum": ["ext", "pu", "claims"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{EndPoint, EndPointType};

    #[test]
    fn numbers_and_words() {
        let words: Vec<_> = (0..5).map(|code| EndPointType::from_code(code).text()).collect();
        assert_eq!(words, ["ext", "pu", "claims", "pu", "pu"]);
        for code in 0..=u8::MAX {
            assert_eq!(EndPointType::from_code(code).code(), code);
        }
    }

    #[test]
    fn all_fields_round_trip() {
        let end = EndPoint {
            id: "web".into(),
            ip: Some("2001:db8::1".parse().unwrap()),
            uri: "/x?y=\"z\"".into(),
            http_method: "GET".into(),
            user_id: "u".into(),
            user: "alice".into(),
            r#type: EndPointType::Claims,
            port: 65535,
        };
        let text = serde_json::to_string(&end).unwrap();
        assert_eq!(
            text,
            r#"{"id":"web","ip":"2001:db8::1","uri":"/x?y=\"z\"","http_method":"GET","user_id":"u","user":"alice","type":"claims","port":65535}"#
        );
        assert_eq!(serde_json::from_str::<EndPoint>(&text).unwrap(), end);
    }
}
