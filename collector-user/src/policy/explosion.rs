//! Policies that are too many for what the programs look up in.

use std::fmt;

use crate::event::Text;

/// What there is too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// Sorts of remote addresses in one list of rules.
    Remotes,
    /// Sorts of services in one list of rules.
    Services,
    /// Prefixes of remote addresses in all lists.
    RemoteEntries,
    /// Prefixes of ports in all lists.
    ServiceEntries,
    /// Pairs of a sort of remote addresses and a sort of services in all lists.
    Pairs,
    /// Verdicts that differ.
    Verdicts,
    /// Lists of rules since the collector began.
    Numbers,
}

impl What {
    /// How many there can be.
    pub const fn most(self) -> usize {
        match self {
            Self::Remotes | Self::Services | Self::Verdicts => 65_535,
            Self::RemoteEntries | Self::ServiceEntries => 262_144,
            Self::Pairs => 1_048_576,
            Self::Numbers => u32::MAX as usize,
        }
    }

    const fn hint(self) -> &'static str {
        match self {
            Self::Remotes => "name fewer and wider networks in them",
            Self::Services => "name fewer ports or wider ranges in them",
            Self::RemoteEntries => {
                "name fewer and wider networks in them, or let them select fewer units; at a reload, those from before count, too"
            }
            Self::ServiceEntries => {
                "name fewer ports or wider ranges in them, or let them select fewer units; at a reload, those from before count, \
                 too"
            }
            Self::Pairs => {
                "name fewer networks in those that are about every service, or fewer ports in those that are about every remote \
                 end, or let them select fewer units; at a reload, those from before count, too"
            }
            Self::Verdicts => "let several networks and ports be one policy",
            Self::Numbers => "start the collector anew",
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Remotes => "sorts of remote addresses for one unit",
            Self::Services => "sorts of services for one unit",
            Self::RemoteEntries => "prefixes of remote addresses for all units",
            Self::ServiceEntries => "prefixes of ports for all units",
            Self::Pairs => "pairs of remote addresses and services for all units",
            Self::Verdicts => "verdicts that differ",
            Self::Numbers => "lists of rules since the collector began",
        })
    }
}

/// Policies that are too many for what the programs look up in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the policies make more {what} than {}, most of them by {}: {}", what.most(), named(policies), what.hint())]
pub struct Explosion {
    /// What there is too much of.
    pub what: What,
    /// The policies that have the greatest part in it, the greatest first.
    pub policies: Vec<Text>,
}

/// So many policies are named.
const NAMED: usize = 3;

impl Explosion {
    /// Of policies and how much each has of it.
    pub(super) fn of<'a>(what: What, parts: impl IntoIterator<Item = (&'a Text, usize)>) -> Self {
        let mut parts: Vec<(&Text, usize)> = Vec::from_iter(parts);
        parts.sort_by_key(|(_, part)| std::cmp::Reverse(*part));
        let mut policies: Vec<Text> = Vec::new();
        for (id, _) in parts {
            if policies.len() < NAMED && !policies.contains(id) {
                policies.push(Text::clone(id));
            }
        }
        Self { what, policies }
    }
}

fn named(policies: &[Text]) -> String {
    policies.iter().map(|id| format!("{id:?}")).collect::<Vec<_>>().join(", ")
}
