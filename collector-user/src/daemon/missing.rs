//! What an operator would expect and does not get, in words: of interfaces that are not watched, or not as one would think.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    host::{links::Link, names},
    pu::{
        registry::{Registry, Unit},
        role::{self, Kind},
    },
};

/// What units declare and is not there; it may come later, and may be misspelt.
pub(super) fn absent(units: &Registry, links: &BTreeMap<u32, Link>) -> Vec<String> {
    let names: BTreeSet<&str> = links.values().map(|link| &*link.name).collect();
    let sentence = |unit: &Unit| {
        let absent: Vec<&str> =
            unit.interfaces.iter().map(|name| &**name).filter(|name| !names.contains(name)).collect();
        (!absent.is_empty())
            .then(|| format!("{} of {}, which is watched once it comes", absent.join(", "), unit.id))
    };
    units.iter().filter_map(sentence).collect()
}

/// Who named both has asked for both; the sums hold no more.
pub(super) fn counted_twice(kind: impl Fn(u32) -> Option<Kind>, links: &BTreeMap<u32, Link>) -> Vec<String> {
    let name = |index: u32| links.get(&index).map_or("", |link| &link.name);
    let pairs = role::doubled(links, kind);
    // A sentence for each upper one: a bridge may have hundreds of ports.
    let mut lower: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for (above, below) in pairs {
        lower.entry(above).or_default().push(name(below));
    }
    let sentence = |(above, below): (u32, Vec<&str>)| {
        let (first, more) = (below.first().copied().unwrap_or_default(), below.len().saturating_sub(1));
        let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
        let above = name(above);
        format!(
            "sums without doubles: a packet that crosses {above} and {first}{more} below it is counted at both"
        )
    };
    lower.into_iter().map(sentence).collect()
}

/// Interfaces that were there before these were listed, are there still, and are not among them.
pub(super) fn unlisted(mut names: BTreeSet<Vec<u8>>, links: &BTreeMap<u32, Link>) -> Vec<String> {
    for link in links.values() {
        names.remove(link.name.as_bytes());
    }
    if names.is_empty() {
        return Vec::new();
    }
    let now = names::all();
    let why = |name: &[u8]| match str::from_utf8(name) {
        Ok(_) => "what the kernel says of it is not understood",
        Err(_) => "its name is no UTF-8; give it another: ip link set NAME name OTHER",
    };
    let lost = names.iter().filter(|name| now.contains(*name));
    lost.map(|name| format!("{} is not watched: {}", name.escape_ascii(), why(name))).collect()
}
