//! Processing units that the configuration declares.

use std::{collections::HashMap, net::IpAddr, ops::Range, sync::Arc};

use ipnet::IpNet;
use serde::Deserialize;
use toml::Spanned;

use super::error::{Fault, Wrong, line_of};
use crate::event::{TagStore, Text};

/// A declared processing unit: everything that any of its matchers matches.
#[derive(Clone, Debug, PartialEq)]
pub struct PuConfig {
    /// Its id; no other has the same.
    pub id: Text,
    /// Its namespace; empty without.
    pub namespace: Text,
    /// Its tags, `key=value` each.
    pub tags: Arc<TagStore>,
    /// The names of interfaces: the host-side ends of containers, or uplinks.
    pub interface: Vec<String>,
    /// Networks, without bits beyond their length; no two units share one.
    pub cidr: Vec<IpNet>,
}

/// A table of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPu {
    id: Spanned<String>,
    #[serde(default)]
    namespace: Text,
    #[serde(default)]
    tags: Vec<Spanned<String>>,
    #[serde(default)]
    interface: Vec<Spanned<String>>,
    #[serde(default)]
    cidr: Vec<Spanned<String>>,
}

/// Checks the tables of a file one by one, and against each other.
pub(super) fn check(raw: Vec<RawPu>, text: &str) -> Result<Vec<PuConfig>, Wrong> {
    let mut units: Vec<PuConfig> = Vec::with_capacity(raw.len());
    let mut lines: HashMap<String, usize> = HashMap::new();
    let mut claims: HashMap<String, String> = HashMap::new();
    for raw in raw {
        let span = raw.id.span();
        let unit = Unit { id: raw.id.into_inner() };
        let line = line_of(text, span.start);
        if let Some(fault) = unit.id_fault(lines.insert(unit.id.clone(), line)) {
            return Err(Wrong { span, fault });
        }
        for matcher in raw.interface.iter().chain(&raw.cidr) {
            let claim = (matcher.get_ref().clone(), unit.id.clone());
            match claims.insert(claim.0.clone(), claim.1) {
                Some(other) if other != unit.id => {
                    let fault = Fault::ClaimedTwice { id: unit.id, other, matcher: claim.0 };
                    return Err(Wrong { span: matcher.span(), fault });
                }
                _ => {}
            }
        }
        if raw.interface.is_empty() && raw.cidr.is_empty() {
            return Err(Wrong { span, fault: Fault::NoMatcher { id: unit.id } });
        }
        units.push(PuConfig {
            tags: Arc::new(unit.each(raw.tags, Unit::tag)?.into_iter().collect()),
            interface: unit.each(raw.interface, Unit::interface)?,
            cidr: unit.each(raw.cidr, Unit::network)?,
            id: unit.id.into(),
            namespace: raw.namespace,
        });
    }
    Ok(units)
}

/// The unit under check, for the messages.
struct Unit {
    id: String,
}

impl Unit {
    fn each<T>(
        &self,
        given: Vec<Spanned<String>>,
        check: impl Fn(&Self, String) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Wrong> {
        let mut checked = Vec::with_capacity(given.len());
        for given in given {
            let span: Range<usize> = given.span();
            checked.push(check(self, given.into_inner()).map_err(|fault| Wrong { span, fault })?);
        }
        Ok(checked)
    }

    /// `first` is the line of another unit with this id.
    fn id_fault(&self, first: Option<usize>) -> Option<Fault> {
        let id = || self.id.clone();
        match (self.id.as_str(), first) {
            ("", _) => Some(Fault::EmptyId),
            ("host" | "forwarded" | "unknown" | "overlay", _) => Some(Fault::ReservedId { id: id() }),
            (_, Some(first)) => Some(Fault::DuplicateId { id: id(), first }),
            _ => None,
        }
    }

    fn tag(&self, tag: String) -> Result<String, Fault> {
        match tag.split_once('=') {
            Some((key, _)) if !key.is_empty() => Ok(tag),
            _ => Err(Fault::Tag { id: self.id.clone(), tag }),
        }
    }

    /// What the kernel takes for a name (`dev_valid_name`).
    fn interface(&self, name: String) -> Result<String, Fault> {
        let is_valid = (1..16).contains(&name.len())
            && name != "."
            && name != ".."
            && !name.contains(|character: char| character.is_ascii_whitespace() || "/:".contains(character));
        if is_valid { Ok(name) } else { Err(Fault::InterfaceName { id: self.id.clone(), name }) }
    }

    fn network(&self, given: String) -> Result<IpNet, Fault> {
        let id = || self.id.clone();
        if let Ok(address) = given.parse::<IpAddr>() {
            return Err(Fault::Address { id: id(), address, only: address.into() });
        }
        let Ok(network) = given.parse::<IpNet>() else { return Err(Fault::Cidr { id: id(), given }) };
        if network.trunc() == network {
            Ok(network)
        } else {
            Err(Fault::HostBits {
                id: id(),
                given: network,
                network: network.trunc(),
                only: network.addr().into(),
            })
        }
    }
}
