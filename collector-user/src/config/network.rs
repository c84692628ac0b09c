//! Networks that have a name.

use std::{collections::HashMap, sync::Arc};

use ipnet::IpNet;
use serde::Deserialize;
use toml::Spanned;

use super::{
    CidrError, cidr,
    error::{Fault, Wrong, line_of},
};
use crate::{event::Text, policy::networks::ExternalNetwork};

/// What is wrong with a network that has a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkFault {
    /// It has no name.
    #[error("the id is empty: expected a name")]
    EmptyId,
    /// The name stands for something else in records.
    #[error(
        "the id is the collector's own; expected another than default, host, forwarded, unknown and overlay"
    )]
    ReservedId,
    /// Two have one name.
    #[error("another network has this id, first in line {first}: expected an id of its own for each")]
    Twice {
        /// The line of the first.
        first: usize,
    },
    /// It holds nothing.
    #[error("it holds no address: expected networks in `cidr`")]
    Empty,
    /// What it should hold is no network.
    #[error("{source}")]
    Cidr {
        /// What is wrong with it.
        source: CidrError,
    },
    /// Two hold the same.
    #[error("it holds {cidr}, as does {other:?}: expected each in one network only")]
    Shared {
        /// What both hold.
        cidr: IpNet,
        /// The one that stands before it.
        other: String,
    },
}

/// A table of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNetwork {
    id: Spanned<String>,
    cidr: Vec<Spanned<String>>,
}

/// Checks the tables of a file.
pub(super) fn check(raw: Vec<RawNetwork>, text: &str) -> Result<Vec<Arc<ExternalNetwork>>, Wrong> {
    let mut networks = Vec::with_capacity(raw.len());
    let mut ids: HashMap<Text, usize> = HashMap::new();
    let mut holders: HashMap<IpNet, Text> = HashMap::new();
    for RawNetwork { id, cidr } in raw {
        let span = id.span();
        let id: Text = id.into_inner().into();
        let wrong = |span, source| Wrong { span, fault: Fault::Network { id: id.to_string(), source } };
        match &*id {
            "" => return Err(wrong(span, NetworkFault::EmptyId)),
            "default" | "host" | "forwarded" | "unknown" | "overlay" => {
                return Err(wrong(span, NetworkFault::ReservedId));
            }
            _ => {}
        }
        if let Some(first) = ids.insert(Text::clone(&id), span.start) {
            return Err(wrong(span, NetworkFault::Twice { first: line_of(text, first) }));
        }
        if cidr.is_empty() {
            return Err(wrong(span, NetworkFault::Empty));
        }
        let mut all = Vec::with_capacity(cidr.len());
        for given in cidr {
            let span = given.span();
            let cidr = match cidr::parse(given.into_inner()) {
                Ok(cidr) => cidr,
                Err(source) => return Err(wrong(span, NetworkFault::Cidr { source })),
            };
            if let Some(other) = holders.insert(cidr, Text::clone(&id)) {
                return Err(wrong(span, NetworkFault::Shared { cidr, other: other.to_string() }));
            }
            all.push(cidr);
        }
        networks.push(Arc::new(ExternalNetwork { id: Text::clone(&id), cidr: all }));
    }
    Ok(networks)
}
