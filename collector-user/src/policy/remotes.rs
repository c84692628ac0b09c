//! Remote addresses as classes.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;

use super::{
    classes::{Classes, Conditions},
    explosion::{Explosion, What},
    rule::{MAPPED, MAPPED_LENGTH, Remote, Rule},
};

/// The class of the addresses with a prefix, but for those of longer prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteEntry {
    /// The prefix, IPv4 as `::ffff:a.b.c.d`; zeros behind it.
    pub address: [u8; 16],
    /// Its length in bits.
    pub length: u8,
    /// The class. It is 0 only for all of IPv4 within a prefix of IPv6 that has another.
    pub class: u16,
}

/// The classes that the rules of a list make of remote addresses.
pub(super) struct Remotes {
    pub(super) entries: Vec<RemoteEntry>,
    pub(super) classes: Classes,
    /// The condition of each rule; none where it is about every remote end.
    pub(super) of_rule: Vec<Option<u32>>,
    /// How many conditions there are.
    pub(super) conditions: usize,
}

/// A prefix: its bits, and its length.
type Prefix = (u128, u8);

const ALL_IPV4: Prefix = (MAPPED.to_bits(), MAPPED_LENGTH);

/// Divides remote addresses by what rules say of them.
pub(super) fn classes(rules: &[Arc<Rule>]) -> Result<Remotes, Explosion> {
    let conditions = Conditions::of(rules.iter().map(|rule| &rule.remote), Remote::is_everywhere);
    // In the order of addresses, the shorter before the longer, so that what holds another comes before it.
    let mut prefixes: BTreeMap<Prefix, Vec<u32>> = BTreeMap::new();
    for (condition, remote) in conditions.all.iter().enumerate() {
        for network in remote.all() {
            prefixes.entry(prefix(network)).or_default().push(condition as u32);
        }
    }
    let is_around_ipv4 =
        |(address, length): &Prefix| *length < MAPPED_LENGTH && last(*address, *length) >= ALL_IPV4.0;
    // What holds the first of the addresses of IPv4 and is shorter than their prefix holds them all.
    if prefixes.range(..ALL_IPV4).any(|(prefix, _)| is_around_ipv4(prefix)) {
        prefixes.entry(ALL_IPV4).or_default();
    }
    let too_many = |what| Explosion::of(what, rules.iter().map(|rule| (&rule.id, rule.remote.all().count())));
    let mut remotes = Remotes {
        entries: Vec::new(),
        classes: Classes::default(),
        of_rule: conditions.of_rule,
        conditions: conditions.all.len(),
    };
    // The prefixes that hold the one at hand: the last address of each, and its class.
    let mut around: Vec<(u128, u16)> = Vec::new();
    for (prefix @ (address, length), mut holding) in prefixes {
        while around.pop_if(|(last, _)| *last < address).is_some() {}
        let above = around.last().map_or(0, |(_, class)| *class);
        // What is said of IPv6 says nothing of IPv4.
        if prefix != ALL_IPV4 {
            holding.extend(remotes.classes.holding(above));
        }
        holding.sort_unstable();
        holding.dedup();
        let class = remotes.classes.number(&holding).ok_or_else(|| too_many(What::Remotes))?;
        if class != above {
            remotes.entries.push(RemoteEntry { address: address.to_be_bytes(), length, class });
        }
        around.push((last(address, length), class));
    }
    if remotes.entries.len() > What::RemoteEntries.most() {
        return Err(too_many(What::RemoteEntries));
    }
    Ok(remotes)
}

fn prefix(network: IpNet) -> Prefix {
    match network {
        IpNet::V4(four) => {
            (four.network().to_ipv6_mapped().to_bits(), MAPPED_LENGTH.saturating_add(four.prefix_len()))
        }
        IpNet::V6(six) => (six.network().to_bits(), six.prefix_len()),
    }
}

/// The last address of a prefix.
fn last(address: u128, length: u8) -> u128 {
    address | u128::MAX.checked_shr(length.into()).unwrap_or(0)
}
