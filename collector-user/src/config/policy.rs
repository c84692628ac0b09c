//! Policies.

mod fault;
mod service;

use std::{collections::HashMap, ops::Range, sync::Arc};

use collector_ebpf::abi::pu::index;
pub use fault::PolicyFault;
use serde::{Deserialize, Deserializer};
use service::{Given, service};
use toml::Spanned;

use super::{
    PuConfig, cidr,
    error::{Fault, Wrong, line_of},
};
use crate::{
    event::Text,
    policy::{
        networks::ExternalNetwork,
        rule::{Action, Observe, Policy, Remote, Rule, Selector, Subject},
        sets::Sets,
        verdict,
    },
    pu::{
        registry::{Declared, Registry},
        trace::Directions,
    },
};

/// A table of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawPolicy {
    id: Spanned<String>,
    #[serde(default)]
    pu: Vec<Spanned<String>>,
    namespace: Option<Text>,
    #[serde(default)]
    tags: Vec<Spanned<String>>,
    direction: Word<Directions>,
    cidr: Option<Spanned<Vec<Spanned<String>>>>,
    network: Option<Spanned<Vec<Spanned<String>>>>,
    protocol: Option<Spanned<Given>>,
    port: Option<Spanned<Vec<Spanned<Given>>>>,
    icmp_type: Option<Spanned<Vec<Spanned<Given>>>>,
    action: RawAction,
    encrypt: Option<Spanned<bool>>,
    #[serde(default)]
    log: bool,
    #[serde(default)]
    observe: Word<Observe>,
}

/// The words for an action.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawAction {
    Accept,
    Reject,
}

/// One of a few words.
#[derive(Default)]
struct Word<T>(T);

impl<'de> Deserialize<'de> for Word<Directions> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let expected = || serde::de::Error::unknown_variant(&name, &["in", "out", "both"]);
        Directions::of(&name).map(Self).ok_or_else(expected)
    }
}

impl<'de> Deserialize<'de> for Word<Observe> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let expected = || serde::de::Error::unknown_variant(&name, &["none", "continue", "apply"]);
        Observe::of(&name).map(Self).ok_or_else(expected)
    }
}

/// Checks the tables of a file, which names these networks and declares these units.
pub(super) fn check(
    raw: Vec<RawPolicy>,
    networks: &[Arc<ExternalNetwork>],
    units: &[PuConfig],
    text: &str,
) -> Result<Vec<Policy>, Wrong> {
    let context = Context {
        networks: networks.iter().map(|network| (&*network.id, network)).collect(),
        units: units.iter().map(|unit| (&*unit.id, unit)).collect(),
    };
    let mut places: HashMap<Text, Range<usize>> = HashMap::new();
    let mut policies = Vec::with_capacity(raw.len());
    for raw in raw {
        let span = raw.id.span();
        let id: Text = raw.id.get_ref().as_str().into();
        let wrong = |(span, source)| Wrong {
            span,
            fault: Fault::Policy { id: id.to_string(), source: Box::new(source) },
        };
        if id.is_empty() {
            return Err(wrong((span, PolicyFault::EmptyId)));
        }
        if &*id == verdict::DEFAULT {
            return Err(wrong((span, PolicyFault::ReservedId)));
        }
        if let Some(first) = places.insert(Text::clone(&id), span.clone()) {
            return Err(wrong((span, PolicyFault::Twice { first: line_of(text, first.start) })));
        }
        policies.push(context.policy(Text::clone(&id), raw).map_err(wrong)?);
    }
    try_out(&policies, units, &places)?;
    Ok(policies)
}

/// Whether they can be compiled for the units that are known: the host, and those that are declared.
fn try_out(
    policies: &[Policy],
    units: &[PuConfig],
    places: &HashMap<Text, Range<usize>>,
) -> Result<(), Wrong> {
    if policies.is_empty() {
        return Ok(());
    }
    let declared: Vec<Declared> = units.iter().map(Declared::from).collect();
    // Their number was checked before.
    let units = Registry::new(&declared).unwrap_or_default();
    let mut sets = Sets::default();
    let known = units.iter().filter(|unit| unit.index >= index::FIRST || unit.index == index::HOST);
    let tried = known.map(Subject::from).try_for_each(|unit| sets.put(unit, 0).map(drop));
    tried.and_then(|()| sets.load(policies, false, 0).map(drop)).map_err(|source| {
        let first = source.policies.first();
        Wrong {
            span: first.and_then(|id| places.get(id)).cloned().unwrap_or_default(),
            fault: Fault::Explosion { source },
        }
    })
}

/// What is wrong with a policy, and where.
type Wrongly = (Range<usize>, PolicyFault);

/// What the file says elsewhere.
struct Context<'a> {
    networks: HashMap<&'a str, &'a Arc<ExternalNetwork>>,
    units: HashMap<&'a str, &'a PuConfig>,
}

impl Context<'_> {
    fn policy(&self, id: Text, raw: RawPolicy) -> Result<Policy, Wrongly> {
        let selector = self.selector(&raw)?;
        let mut remote = Remote::default();
        for given in filled("cidr", raw.cidr)? {
            let span = given.span();
            let cidr = cidr::parse(given.into_inner());
            remote.cidr.push(cidr.map_err(|source| (span, PolicyFault::Cidr { source }))?);
        }
        for given in filled("network", raw.network)? {
            let span = given.span();
            let name = given.into_inner();
            let Some(network) = self.networks.get(name.as_str()) else {
                let known = self.networks.keys().map(ToString::to_string).collect();
                return Err((span, PolicyFault::NoSuchNetwork { name, known }));
            };
            remote.networks.push(Arc::clone(network));
        }
        let ports = filled("port", raw.port)?;
        let types = filled("icmp-type", raw.icmp_type)?;
        let service = service(raw.protocol, ports, types)?;
        let action = match (raw.action, raw.encrypt) {
            (RawAction::Reject, Some(encrypt)) if *encrypt.get_ref() => {
                return Err((encrypt.span(), PolicyFault::EncryptedReject));
            }
            (RawAction::Reject, _) => Action::Reject,
            (RawAction::Accept, encrypt) => {
                Action::Accept { encrypt: encrypt.is_some_and(Spanned::into_inner) }
            }
        };
        let rule = Rule { id, remote, service, action, log: raw.log, observe: raw.observe.0 };
        Ok(Policy { selector, directions: raw.direction.0, rule: Arc::new(rule) })
    }

    fn selector(&self, raw: &RawPolicy) -> Result<Selector, Wrongly> {
        let mut selector = Selector { namespace: raw.namespace.clone(), ..Selector::default() };
        for given in &raw.pu {
            let glob = given.get_ref().parse();
            let glob = glob.map_err(|source| (given.span(), PolicyFault::Glob { source }))?;
            selector.units.push(glob);
        }
        for given in &raw.tags {
            match given.get_ref().split_once('=') {
                Some((key, _)) if !key.is_empty() => selector.tags.push(given.get_ref().as_str().into()),
                _ => return Err((given.span(), PolicyFault::Tag { tag: given.get_ref().clone() })),
            }
        }
        if selector.is_empty() {
            return Err((raw.id.span(), PolicyFault::NoSelector));
        }
        // Who is declared is known: what it is not will never be selected.
        for (given, glob) in raw.pu.iter().zip(&selector.units) {
            let Some(unit) = glob.literal().and_then(|id| self.units.get(id)) else { continue };
            let namespace = selector.namespace.as_ref().filter(|namespace| **namespace != unit.namespace);
            let tag = selector.tags.iter().find(|tag| !unit.tags.as_slice().contains(tag));
            let lacking = match (namespace, tag) {
                (Some(namespace), _) => format!("the namespace {namespace:?}"),
                (_, Some(tag)) => format!("the tag {tag:?}"),
                _ => continue,
            };
            return Err((given.span(), PolicyFault::Never { unit: unit.id.to_string(), lacking }));
        }
        Ok(selector)
    }
}

/// A list that is given has something in it: nobody shall mean nothing, and get everything.
fn filled<T>(key: &'static str, given: Option<Spanned<Vec<Spanned<T>>>>) -> Result<Vec<Spanned<T>>, Wrongly> {
    match given {
        Some(list) if list.get_ref().is_empty() => Err((list.span(), PolicyFault::EmptyList { key })),
        list => Ok(list.map(Spanned::into_inner).unwrap_or_default()),
    }
}
