//! At which layer a service is enforced.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// At which layer the service of a flow is known; an integer in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "i32", into = "i32")]
#[non_exhaustive]
pub enum ServiceType {
    /// 0: by addresses and ports.
    #[default]
    L3,
    /// 1: by HTTP.
    Http,
    /// 2: by a TCP proxy.
    Tcp,
    /// 3: by a proxy that hands out secrets.
    SecretsProxy,
    /// A number that has no name here.
    Unknown(i32),
}

impl From<i32> for ServiceType {
    fn from(number: i32) -> Self {
        match number {
            0 => Self::L3,
            1 => Self::Http,
            2 => Self::Tcp,
            3 => Self::SecretsProxy,
            other => Self::Unknown(other),
        }
    }
}

impl From<ServiceType> for i32 {
    fn from(service: ServiceType) -> Self {
        match service {
            ServiceType::L3 => 0,
            ServiceType::Http => 1,
            ServiceType::Tcp => 2,
            ServiceType::SecretsProxy => 3,
            ServiceType::Unknown(other) => other,
        }
    }
}

impl JsonSchema for ServiceType {
    fn schema_name() -> Cow<'static, str> {
        "ServiceType".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = generator.subschema_for::<i32>();
        let meaning = "At which layer the service of a flow is known: 0 addresses and ports, 1 HTTP, 2 a TCP proxy, 3 a \
                       proxy that hands out secrets; other numbers have no name.";
        schema.insert("description".to_owned(), meaning.into());
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::ServiceType;

    #[test]
    fn json_is_the_number() {
        for number in [-1, 0, 1, 2, 3, 4] {
            let service: ServiceType = serde_json::from_str(&number.to_string()).unwrap();
            assert_eq!(serde_json::to_string(&service).unwrap(), number.to_string());
        }
        assert_eq!(ServiceType::default(), ServiceType::from(0));
    }
}
