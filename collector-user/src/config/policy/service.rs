//! Protocols, ports, and types of messages, as they are written.

use std::fmt;

use serde::{Deserialize, Deserializer, de::Visitor};
use toml::Spanned;

use super::{PolicyFault, Wrongly};
use crate::policy::{
    protocol::{has_ports, has_types, messages, name, number, type_names},
    rule::{Ports, Service},
};

/// A number, or text in quotes.
pub(super) struct Given(String);

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Given;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or text in quotes")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Given, E> {
                Ok(Given(number.to_string()))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Given, E> {
                Ok(Given(number.to_string()))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Given, E> {
                Ok(Given(text.to_owned()))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// What flows are meant.
pub(super) fn service(
    protocol: Option<Spanned<Given>>,
    ports: Vec<Spanned<Given>>,
    types: Vec<Spanned<Given>>,
) -> Result<Service, Wrongly> {
    let protocol = protocol.map(|given| {
        let text = &given.get_ref().0;
        number(text).ok_or_else(|| (given.span(), PolicyFault::Protocol { given: text.clone() }))
    });
    let protocol = protocol.transpose()?;
    let written = || protocol.map(name);
    if let Some(first) = ports.first()
        && !protocol.is_some_and(has_ports)
    {
        return Err((first.span(), PolicyFault::NoPorts { protocol: written() }));
    }
    let of_icmp = protocol.filter(|protocol| has_types(*protocol));
    let mut all = Vec::with_capacity(ports.len() + types.len());
    for given in types {
        let Some(protocol) = of_icmp else {
            return Err((given.span(), PolicyFault::NoTypes { protocol: written() }));
        };
        let (span, given) = (given.span(), given.into_inner().0);
        let Some(messages) = messages(protocol, &given) else {
            let (protocol, names) = (name(protocol), type_names(protocol));
            return Err((span, PolicyFault::Type { given, protocol, names }));
        };
        all.push(messages);
    }
    for given in ports {
        let span = given.span();
        all.push(range(&given.into_inner().0).map_err(|fault| (span, fault))?);
    }
    Ok(Service { protocol, ports: all })
}

/// A port, or a range of them.
fn range(given: &str) -> Result<Ports, PolicyFault> {
    let port =
        |text: &str| text.parse::<u16>().map_err(|_none| PolicyFault::Port { given: given.to_owned() });
    let Some((first, last)) = given.split_once('-') else { return port(given).map(Ports::one) };
    let (first, last) = (port(first)?, port(last)?);
    if first > last { Err(PolicyFault::Reversed { first, last }) } else { Ok(Ports { first, last }) }
}
