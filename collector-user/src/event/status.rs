//! How the collector stands.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dropped, Ledger};

/// What the collector is attached to, and the ledger: the last record of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The interfaces it knows, those it left out among them.
    pub interfaces: Vec<InterfaceStatus>,
    /// How the programs' records come to user space: `auto` (events of flows by a ring buffer, packets by perf buffers),
    /// `ring` or `perf` (all of them).
    #[serde(default)]
    pub transport: String,
    /// What the kernel dropped, those of which there are most first.
    #[serde(default)]
    pub drops: Vec<Dropped>,
    /// What the queueing disciplines of all interfaces dropped, and what of that is among the rows.
    #[serde(default)]
    pub queues: QueueSum,
    /// What became of every packet and record.
    pub ledger: Ledger,
}

/// An interface, as the collector sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// What it is: `uplink`, `declared`, `unknown`, `overlay`, ...
    pub role: String,
    /// Why it is that.
    pub reason: String,
    /// Where the programs run: `ingress+egress`, `xdp+ingress+egress`; empty where none does.
    pub hook: String,
    /// How they are attached: `tcx` or `clsact`; empty where they are not.
    pub mechanism: String,
    /// Where the program at XDP runs: `native` (in the driver) or `generic` (behind it); empty where none does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub xdp: String,
    /// At an uplink: what crossed it and was not seen, as far as that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<Unseen>,
    /// What the device has dropped, by its own counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_drops: Option<DeviceDrops>,
    /// What its queueing discipline has dropped, by its own counters; none where it has no queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_drops: Option<QueueDrops>,
}

/// Buffers that the queueing discipline by which an interface sends has dropped since the collector started, by its own
/// counters (`tc -s qdisc`): those of the root, which has those below it in its sum. Of one that was put in the place of
/// another meanwhile, those since then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueDrops {
    /// What it is: `fq_codel`, `tbf`, ...
    pub discipline: String,
    /// Dropped.
    pub dropped: u64,
    /// Times that it had more than it might send at once: nothing is lost by that.
    pub over_limits: u64,
}

/// What the queueing disciplines of all interfaces dropped by their own counters (`queue_drops`), and what the kernel told
/// of it packet by packet. In buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueSum {
    /// By the counters.
    pub dropped: u64,
    /// Those in the rows of units whose reason is a queueing discipline's (`QDISC_DROP`, ...); none where the kernel has no
    /// such reason (before Linux 5.18), or drops are not looked at.
    pub told: Option<u64>,
    /// `dropped` less `told`: those that no program was told of; none, too, where a discipline or its interface has gone since
    /// the collector started, whose rows are there and whose counter is not.
    pub untold: Option<u64>,
}

/// Packets that an interface has dropped since it was first seen, by its own counters (`ip -s -s link`). Those of the kernel's
/// stack are among the rows of drops, too; what a card drops never was a buffer, and is told nowhere else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceDrops {
    /// Received, and not taken by anybody (`rx_dropped`).
    pub received: u64,
    /// Come while the card had no room for them (`rx_missed_errors`).
    pub missed: u64,
    /// Handed to it, and not sent (`tx_dropped`).
    pub sent: u64,
}

/// Packets by which an interface's own counters differ from what the programs saw cross it since they hang there: more than
/// the wire packets, or fewer than the socket buffers. In no unit's totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unseen {
    /// Received, and taken by others before the programs.
    pub received: u64,
    /// Sent past the queueing discipline, or by others behind it.
    pub sent: u64,
    /// Seen on their way out, and not sent: dropped by the queueing discipline or the driver.
    pub dropped_behind: u64,
}
