//! Addresses in JSON: text, `""` for none.

use std::{borrow::Cow, net::IpAddr};

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

#[expect(clippy::ref_option, reason = "serde's `with` hands over the field by reference")]
pub(super) fn serialize<S: Serializer>(address: &Option<IpAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => serializer.collect_str(address),
        None => serializer.serialize_str(""),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(D::Error::custom) }
}

pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "anyOf": [{ "const": "" }, { "format": "ipv4" }, { "format": "ipv6" }],
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Holder(#[serde(with = "super")] Option<IpAddr>);

    #[test]
    fn text_both_ways() {
        for text in [r#""""#, r#""192.0.2.1""#, r#""2001:db8::1""#] {
            let holder: Holder = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&holder).unwrap(), text);
        }
        assert!(serde_json::from_str::<Holder>(r#""here""#).is_err());
    }
}
