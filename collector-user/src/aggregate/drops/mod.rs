//! What the kernel has dropped: rows by unit, reason and place, and their sums by class.

use std::collections::BTreeMap;

use collector_ebpf::abi::drop::{AT_XDP, DropCounts, DropKey, ELSEWHERE};

use crate::{
    event::{DropClass, Dropped, Text},
    host::symbols::Symbols,
    kernel::reasons::Reasons,
    pu::registry::Registry,
};

pub mod ended;
pub mod meaning;
pub mod met;
pub mod queues;
pub mod rejected;

use ended::Ended;
use meaning::Meaning;

/// What the numbers of the drop program are called.
#[derive(Debug, Default)]
pub struct Names {
    reasons: Reasons,
    /// The kernel gives reasons.
    has_reasons: bool,
    symbols: Symbols,
}

/// Why and where, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The kernel's own reason; empty where it gives none.
    pub reason: Text,
    /// The function, and how far in it.
    pub place: Text,
    /// What that means.
    pub meaning: Meaning,
}

/// What the kernel calls a drop by a program at XDP (Linux 5.18), where there is a socket buffer to be dropped.
const XDP: &str = "XDP";

impl Names {
    /// Those of this kernel.
    #[must_use]
    pub const fn new(reasons: Reasons, has_reasons: bool, symbols: Symbols) -> Self {
        Self { reasons, has_reasons, symbols }
    }

    /// What they are called now that other modules are loaded.
    pub fn renew(&mut self, reasons: Reasons, symbols: Symbols) {
        (self.reasons, self.symbols) = (reasons, symbols);
    }

    /// Whether the kernel has a reason of this name.
    #[must_use]
    pub fn has_reason(&self, name: &str) -> bool {
        self.has_reasons && self.reasons.has(name)
    }

    /// What the numbers of a drop mean, which was `by_policy` of this collector's own, or anybody's.
    #[must_use]
    pub fn cause(&self, reason: u32, place: u64, by_policy: bool) -> Cause {
        if place == AT_XDP {
            let reason = if self.has_reason(XDP) { XDP } else { "" };
            return Cause {
                reason: reason.into(),
                place: "xdp_ingress".into(),
                meaning: meaning::BY_OWN_POLICY,
            };
        }
        let reason = if self.has_reasons { self.reasons.name(reason) } else { String::new() };
        // The address that a call returns to may be that behind the function's end.
        let found = self.symbols.of(place.saturating_sub(1));
        let meaning = if by_policy {
            meaning::BY_OWN_POLICY
        } else {
            meaning::of(&reason, found.map_or("", |(function, _)| function))
        };
        let place = found.map_or_else(
            || format!("{place:#x}"),
            |(function, before)| format!("{function}+{:#x}", before + 1),
        );
        Cause { reason: reason.into(), place: place.into(), meaning }
    }

    /// A row in words, of the unit of this id and namespace.
    fn told(&self, unit: Option<(&Text, &Text)>, key: &DropKey, counts: &DropCounts) -> Dropped {
        let Cause { reason, place, meaning } = self.cause(key.reason, key.place, key.by_policy != 0);
        Dropped {
            puid: unit.map(|(id, _)| id.clone()).unwrap_or_default(),
            namespace: unit.map(|(_, namespace)| namespace.clone()).unwrap_or_default(),
            kernel_reason: reason,
            place,
            class: meaning.class,
            drop_reason: meaning.word.into(),
            advice: meaning.advice.into(),
            packets: counts.packets(),
            skbs: counts.skbs,
            bytes: counts.bytes,
        }
    }
}

/// The rows in words, those with the most drops first: what stands in the table, and what of it is `ended`.
#[must_use]
pub fn rows(
    rows: &BTreeMap<DropKey, DropCounts>,
    names: &Names,
    units: &Registry,
    ended: &Ended,
) -> Vec<Dropped> {
    let live = rows.iter().map(|(key, counts)| {
        let unit = units.get(key.pu).map(|unit| (&unit.id, &unit.namespace));
        names.told(unit, key, counts)
    });
    // A unit may have had several indexes, one after another.
    let mut sums = BTreeMap::new();
    for row in live.chain(ended.rows().cloned()) {
        let whose = (row.puid.clone(), row.namespace.clone());
        let key = (whose, row.kernel_reason.clone(), row.place.clone(), row.advice.clone());
        ended::add(&mut sums, key, &row);
    }
    let mut told: Vec<_> = sums.into_values().collect();
    told.sort_by_key(|row| std::cmp::Reverse(row.packets));
    told
}

/// A unit's drops: all of its wire packets and octets, and the packets of each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfUnit {
    /// Wire packets.
    pub packets: u64,
    /// Octets.
    pub bytes: u64,
    /// Wire packets by class, in the order of [`DropClass::ALL`].
    pub classes: [u64; DropClass::ALL.len()],
}

impl OfUnit {
    fn add(&mut self, key: &DropKey, counts: &DropCounts, names: &Names) {
        let class = names.cause(key.reason, key.place, key.by_policy != 0).meaning.class;
        self.packets += counts.packets();
        self.bytes += counts.bytes;
        for (of_class, count) in DropClass::ALL.iter().zip(&mut self.classes) {
            if *of_class == class {
                *count += counts.packets();
            }
        }
    }
}

/// What was dropped of each index, whosever it was: what stands in the table, and what of it is `ended`. These sums never go
/// back.
#[must_use]
pub fn by_unit(rows: &BTreeMap<DropKey, DropCounts>, names: &Names, ended: &Ended) -> BTreeMap<u16, OfUnit> {
    let mut units = ended.by_index().clone();
    for (key, counts) in rows.iter().filter(|(key, _)| key.pu != ELSEWHERE) {
        units.entry(key.pu).or_default().add(key, counts, names);
    }
    units
}
