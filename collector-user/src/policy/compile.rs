//! Lists of rules as classes, with a verdict for each pair of them.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use super::{
    classes::Classes,
    explosion::{Explosion, What},
    remotes::{self, Remotes},
    rule::{Action, Observe, Opened, Rule},
    services::{self, Services},
    verdict::Verdict,
};
pub use super::{
    remotes::RemoteEntry,
    services::{ServiceEntry, UnreadEntry},
};
use crate::event::ActionType;

/// A list of rules, compiled. [`lookup`](Self::lookup) finds in it what [`search`](super::search::search) finds in the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// The class of each remote address: of the longest prefix that it has, 0 where it has none.
    pub remotes: Vec<RemoteEntry>,
    /// The class of each protocol and port: of the longest prefix that it has, 0 where it has none.
    pub services: Vec<ServiceEntry>,
    /// The class of packets of a protocol that were not understood, 0 where it has none.
    pub unread: Vec<UnreadEntry>,
    /// Of pairs of classes of which something else is said than [`otherwise`](Self::otherwise).
    pub pairs: Vec<Pair>,
    /// What is said of all others: a place in [`verdicts`](Self::verdicts).
    pub otherwise: usize,
    /// All verdicts that occur.
    pub verdicts: Vec<Verdict>,
}

/// What is said of a pair of classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The class of the remote address.
    pub remote: u16,
    /// The class of the service.
    pub service: u16,
    /// What is said: a place in [`Compiled::verdicts`].
    pub verdict: usize,
}

/// Compiles the rules of a unit in one direction, in their order.
///
/// # Errors
///
/// [`Explosion`] where there are more classes than numbers for them, or more entries than the programs have room for.
pub fn compile(rules: &[Arc<Rule>]) -> Result<Compiled, Explosion> {
    if rules.is_empty() {
        return Ok(Compiled { verdicts: vec![Verdict::default()], ..Compiled::default() });
    }
    let remotes = remotes::classes(rules)?;
    let services = services::classes(rules)?;
    let mut said = Said { rules, places: HashMap::new(), verdicts: Vec::new() };
    let by_condition = ByCondition::of(rules, &remotes, &services);
    let members = members(&services.classes, services.conditions);
    // What rules say that are about every remote end.
    let everywhere: Vec<Hits> =
        services.classes.each().map(|(_, holding)| by_condition.of_everywhere.hits(holding)).collect();
    let otherwise = everywhere.first().map_or(0, |hits| said.place(*hits));
    let usual: Vec<(u16, usize)> = (0..)
        .zip(everywhere.iter().map(|hits| said.place(*hits)))
        .filter(|(_, verdict)| *verdict != otherwise)
        .collect();

    let mut pairs = Vec::new();
    // What rules say of each service that are about the remote class at hand, and the services that these are about.
    let mut own = vec![Hits::default(); services.classes.len()];
    let mut touched: Vec<u16> = Vec::new();
    for (remote, holding) in remotes.classes.each() {
        let of_it = || holding.iter().filter_map(|condition| by_condition.of_remote.get(*condition as usize));
        let of_all = of_it().fold(Hits::default(), |hits, rules| hits.and(rules.of_all));
        for (condition, hits) in of_it().flat_map(|rules| &rules.of_service) {
            for service in members.get(*condition as usize).into_iter().flatten() {
                if let Some(own) = own.get_mut(usize::from(*service)) {
                    *own = own.and(*hits);
                    touched.push(*service);
                }
            }
        }
        touched.sort_unstable();
        touched.dedup();
        let mut say = |service: u16, verdict| pairs.push(Pair { remote, service, verdict });
        let anywhere = by_condition.of_everywhere.of_all;
        if anywhere.and(of_all) == anywhere {
            // Nothing is said of this remote class but of some services.
            for (service, verdict) in &usual {
                if touched.binary_search(service).is_err() {
                    say(*service, *verdict);
                }
            }
            for service in &touched {
                let at = usize::from(*service);
                let (Some(own), Some(everywhere)) = (own.get(at), everywhere.get(at)) else { continue };
                let verdict = said.place(own.and(*everywhere));
                if verdict != otherwise {
                    say(*service, verdict);
                }
            }
        } else {
            for (service, (own, everywhere)) in (0..).zip(own.iter().zip(&everywhere)) {
                let verdict = said.place(of_all.and(*own).and(*everywhere));
                if verdict != otherwise {
                    say(service, verdict);
                }
            }
        }
        for service in touched.drain(..) {
            if let Some(own) = own.get_mut(usize::from(service)) {
                *own = Hits::default();
            }
        }
        if pairs.len() > What::Pairs.most() {
            return Err(too_many_pairs(rules, &remotes, &services));
        }
        if said.verdicts.len() > What::Verdicts.most() {
            return Err(Explosion::of(What::Verdicts, rules.iter().map(|rule| (&rule.id, 1))));
        }
    }
    Ok(Compiled {
        remotes: remotes.entries,
        services: services.entries,
        unread: services.unread,
        pairs,
        otherwise,
        verdicts: said.verdicts,
    })
}

impl Compiled {
    /// What is said of a flow, found as the programs find it.
    pub fn lookup(&self, flow: &Opened) -> Option<&Verdict> {
        let is_of = |entry: &&ServiceEntry| {
            let beyond = 16_u32.saturating_sub(entry.length.into());
            let differing = u32::from(entry.port ^ flow.port);
            entry.protocol == flow.protocol && differing >> beyond == 0
        };
        let service = self.services.iter().filter(is_of).max_by_key(|entry| entry.length);
        self.said(self.remote(flow.remote), service.map_or(0, |entry| entry.class))
    }

    /// What is said of a packet of this protocol, or [`UNKNOWN`](collector_ebpf::wire::UNKNOWN), that was not understood.
    pub fn lookup_unread(&self, remote: IpAddr, protocol: u8) -> Option<&Verdict> {
        let service = self.unread.iter().find(|entry| entry.protocol == protocol);
        self.said(self.remote(remote), service.map_or(0, |entry| entry.class))
    }

    /// The class of a remote address.
    fn remote(&self, address: IpAddr) -> u16 {
        let address = match address {
            IpAddr::V4(four) => four.to_ipv6_mapped(),
            IpAddr::V6(six) => six,
        };
        let is_of = |entry: &&RemoteEntry| {
            let beyond = 128_u32.saturating_sub(entry.length.into());
            let differing = u128::from_be_bytes(entry.address) ^ address.to_bits();
            differing.checked_shr(beyond).unwrap_or(0) == 0 || entry.length == 0
        };
        self.remotes.iter().filter(is_of).max_by_key(|entry| entry.length).map_or(0, |entry| entry.class)
    }

    fn said(&self, remote: u16, service: u16) -> Option<&Verdict> {
        let pair = self.pairs.iter().find(|pair| (pair.remote, pair.service) == (remote, service));
        self.verdicts.get(pair.map_or(self.otherwise, |pair| pair.verdict))
    }
}

/// Which rules of a list are found for a flow: of each kind the first, by its place in the list. Of two lists of matching
/// rules the hits are the lesser ones, each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Hits {
    observed_reject: u32,
    reject: u32,
    observed_accept: u32,
    accept: u32,
    applied: u32,
    is_encrypted: bool,
}

/// No rule is.
const NONE: u32 = u32::MAX;

impl Default for Hits {
    fn default() -> Self {
        Self {
            observed_reject: NONE,
            reject: NONE,
            observed_accept: NONE,
            accept: NONE,
            applied: NONE,
            is_encrypted: false,
        }
    }
}

impl Hits {
    /// A rule at this place of the list.
    fn of(place: u32, rule: &Rule) -> Self {
        let none = Self::default();
        match (rule.observe, rule.action) {
            (Observe::Continue, Action::Reject) => Self { observed_reject: place, ..none },
            (Observe::None, Action::Reject) => Self { reject: place, ..none },
            (Observe::Continue, Action::Accept { .. }) => Self { observed_accept: place, ..none },
            (Observe::None, Action::Accept { encrypt }) => {
                Self { accept: place, is_encrypted: encrypt, ..none }
            }
            (Observe::Apply, _) => Self { applied: place, ..none },
        }
    }

    /// The hits among both. What the search does not come to is left out, so that hits are equal where what is said is.
    fn and(self, other: Self) -> Self {
        let mut both = Self {
            observed_reject: self.observed_reject.min(other.observed_reject),
            reject: self.reject.min(other.reject),
            observed_accept: self.observed_accept.min(other.observed_accept),
            accept: self.accept.min(other.accept),
            applied: self.applied.min(other.applied),
            is_encrypted: self.is_encrypted || other.is_encrypted,
        };
        if both.reject != NONE {
            let Self { observed_reject, reject, .. } = both;
            return Self { observed_reject, reject, ..Self::default() };
        }
        if both.observed_reject != NONE {
            both.observed_accept = NONE;
        }
        if both.accept != NONE {
            both.applied = NONE;
        }
        both
    }
}

/// The verdicts that a list of rules comes to.
struct Said<'a> {
    rules: &'a [Arc<Rule>],
    places: HashMap<Hits, usize>,
    verdicts: Vec<Verdict>,
}

impl Said<'_> {
    /// Where the verdict of these hits stands.
    fn place(&mut self, hits: Hits) -> usize {
        if let Some(place) = self.places.get(&hits) {
            return *place;
        }
        let place = self.verdicts.len();
        self.verdicts.push(self.verdict(hits));
        self.places.insert(hits, place);
        place
    }

    fn verdict(&self, hits: Hits) -> Verdict {
        let rule = |place: u32| self.rules.get(place as usize);
        let of = |rule: &Arc<Rule>| Verdict::of(rule.bits(), rule.id.clone());
        let done = rule(hits.reject).or_else(|| rule(hits.accept)).or_else(|| rule(hits.applied));
        let mut verdict = done.map_or_else(Verdict::rejected, of);
        if hits.is_encrypted {
            verdict.action = verdict.action | ActionType::ENCRYPT;
        }
        let observed = rule(hits.observed_reject).or_else(|| rule(hits.observed_accept));
        if let Some(rule) = observed.or_else(|| rule(hits.applied)) {
            verdict.observed_action = rule.bits();
            verdict.observed_policy_id = rule.id.clone();
        }
        verdict
    }
}

/// Rules by their conditions.
struct ByCondition {
    /// Those about every remote end.
    of_everywhere: OfRemote,
    /// The others, by their condition on it.
    of_remote: Vec<OfRemote>,
}

/// Rules with one condition on the remote end.
#[derive(Clone, Default)]
struct OfRemote {
    /// Those about every service.
    of_all: Hits,
    /// The others, by their condition on it.
    of_service: HashMap<u32, Hits>,
}

impl ByCondition {
    fn of(rules: &[Arc<Rule>], remotes: &Remotes, services: &Services) -> Self {
        let mut all = Self {
            of_everywhere: OfRemote::default(),
            of_remote: vec![OfRemote::default(); remotes.conditions],
        };
        let conditions = remotes.of_rule.iter().zip(&services.of_rule);
        for ((place, rule), (remote, service)) in (0..).zip(rules).zip(conditions) {
            all.add(*remote, *service, Hits::of(place, rule));
        }
        for (condition, places) in &services.unread_rules {
            for place in places {
                let at = *place as usize;
                let (Some(rule), Some(remote)) = (rules.get(at), remotes.of_rule.get(at)) else { continue };
                all.add(*remote, Some(*condition), Hits::of(*place, rule));
            }
        }
        all
    }

    fn add(&mut self, remote: Option<u32>, service: Option<u32>, hits: Hits) {
        let of_remote = match remote {
            Some(condition) => self.of_remote.get_mut(condition as usize),
            None => Some(&mut self.of_everywhere),
        };
        let Some(of_remote) = of_remote else { return };
        let known = match service {
            Some(condition) => of_remote.of_service.entry(condition).or_default(),
            None => &mut of_remote.of_all,
        };
        *known = known.and(hits);
    }
}

impl OfRemote {
    /// What these rules say of a service for which these conditions hold.
    fn hits(&self, holding: &[u32]) -> Hits {
        let of_service = holding.iter().filter_map(|condition| self.of_service.get(condition));
        of_service.fold(self.of_all, |hits, more| hits.and(*more))
    }
}

/// The classes that each condition holds in.
fn members(classes: &Classes, conditions: usize) -> Vec<Vec<u16>> {
    let mut members = vec![Vec::new(); conditions];
    for (class, holding) in classes.each() {
        for condition in holding {
            if let Some(members) = members.get_mut(*condition as usize) {
                members.push(class);
            }
        }
    }
    members
}

fn too_many_pairs(rules: &[Arc<Rule>], remotes: &Remotes, services: &Services) -> Explosion {
    let of_remote = members(&remotes.classes, remotes.conditions);
    let of_service = members(&services.classes, services.conditions);
    let size = |members: &[Vec<u16>], condition: Option<u32>, all: usize| match condition {
        Some(condition) => members.get(condition as usize).map_or(0, Vec::len),
        None => all,
    };
    let conditions = remotes.of_rule.iter().zip(&services.of_rule);
    Explosion::of(
        What::Pairs,
        rules.iter().zip(conditions).map(|(rule, (remote, service))| {
            let remote = size(&of_remote, *remote, remotes.classes.len());
            (&rule.id, remote.saturating_mul(size(&of_service, *service, services.classes.len())))
        }),
    )
}

#[cfg(test)]
mod tests;
