//! How much the kernel side may hold.

use std::ops::RangeInclusive;

use serde::Deserialize;
use toml::Spanned;

use super::error::{Fault, Wrong};

/// How much room tables take, and how fast they may fill. None of them is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Slots of the IPv4 flow caches in one epoch, those of all CPUs together, rounded up to a power of two a CPU; IPv6
    /// has a quarter as many. Best twice the flows active at once. Default 131,072: with both epochs 16 MiB, and
    /// 8 MiB for IPv6.
    pub flow_slots: u32,
    /// IPv4 flows that the kernel side remembers once they live on; IPv6 has a quarter as many, newcomers half, and so
    /// has the table behind the caches in each epoch. User space remembers four times as many. Beyond, packets are in
    /// the totals of their unit only, and the ledger says so. Default 131,072.
    pub flows: u32,
    /// New flows a second that each processing unit may have on each CPU. Beyond, packets are in the unit's totals
    /// only. Default 100,000.
    pub new_flows_per_second: u32,
    /// Reports of single drops a second that each processing unit may have; it may save up those of two seconds. Drops are
    /// counted without a limit. Default 100.
    pub drop_reports_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flow_slots: 131_072,
            flows: 131_072,
            new_flows_per_second: 100_000,
            drop_reports_per_second: 100,
        }
    }
}

/// The table of the file. The forms with underscores are from before the keys had one spelling.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct RawLimits {
    #[serde(alias = "flow_slots")]
    flow_slots: Option<Spanned<u32>>,
    flows: Option<Spanned<u32>>,
    #[serde(alias = "new_flows_per_second")]
    new_flows_per_second: Option<Spanned<u32>>,
    drop_reports_per_second: Option<Spanned<u32>>,
}

impl Limits {
    /// Each key of the table, its value, and the range of that.
    pub(super) const fn each(&self) -> [(&'static str, u32, RangeInclusive<u32>); 4] {
        [
            ("flow-slots", self.flow_slots, 64..=1 << 26),
            ("flows", self.flows, 64..=1 << 24),
            ("new-flows-per-second", self.new_flows_per_second, 1..=u32::MAX),
            ("drop-reports-per-second", self.drop_reports_per_second, 1..=1_000_000),
        ]
    }
}

/// Checks the table of a file.
pub(super) fn check(raw: RawLimits) -> Result<Limits, Wrong> {
    let mut limits = Limits::default();
    let given = [raw.flow_slots, raw.flows, raw.new_flows_per_second, raw.drop_reports_per_second];
    let spans = given.each_ref().map(|given| given.as_ref().map(Spanned::span));
    let values = [
        &mut limits.flow_slots,
        &mut limits.flows,
        &mut limits.new_flows_per_second,
        &mut limits.drop_reports_per_second,
    ];
    for (value, given) in values.into_iter().zip(given) {
        if let Some(given) = given {
            *value = given.into_inner();
        }
    }
    for ((key, given, range), span) in limits.each().into_iter().zip(spans) {
        if !range.contains(&given) {
            let (least, most) = range.into_inner();
            return Err(Wrong {
                span: span.unwrap_or_default(),
                fault: Fault::Range { key, given, least, most },
            });
        }
    }
    Ok(limits)
}
