//! How much the kernel side may hold.

use std::ops::RangeInclusive;

use serde::Deserialize;

/// How much room tables take, and how fast they may fill. None of them is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
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
}

impl Default for Limits {
    fn default() -> Self {
        Self { flow_slots: 131_072, flows: 131_072, new_flows_per_second: 100_000 }
    }
}

impl Limits {
    /// The first key whose value is out of its range, with the value and the range.
    pub(super) fn out_of_range(&self) -> Option<(&'static str, u32, RangeInclusive<u32>)> {
        [
            ("limits.flow_slots", self.flow_slots, 64..=1 << 26),
            ("limits.flows", self.flows, 64..=1 << 24),
            ("limits.new_flows_per_second", self.new_flows_per_second, 1..=u32::MAX),
        ]
        .into_iter()
        .find(|(_, value, range)| !range.contains(value))
    }
}
