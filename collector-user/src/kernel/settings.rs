//! What is decided before the programs are loaded.

use serde::Deserialize;

use super::{cpus, drops::DropLimits, error::KernelError};
use crate::host::pcap::Filter;

/// How the programs' records come to user space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Transport {
    /// Events of flows by a ring buffer of all CPUs, packets by a perf buffer of each.
    #[default]
    Auto,
    /// All by ring buffers: one for events, one for packets that are traced, one for those that are dropped.
    Ring,
    /// All by perf buffers: on each CPU one for events, one for packets that are traced, one for those that are dropped.
    Perf,
}

impl Transport {
    /// The name in the file, on the command line and in the status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ring => "ring",
            Self::Perf => "perf",
        }
    }

    /// Whether events of flows go by perf buffers.
    pub const fn events_by_perf(self) -> bool {
        matches!(self, Self::Perf)
    }

    /// Whether single packets go by a ring buffer.
    pub const fn packets_by_ring(self) -> bool {
        matches!(self, Self::Ring)
    }
}

/// What is asked about the ends of flows on this host, beside their control groups.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The user of the socket at the local end is found, where the kernel's type information says where it stands.
    pub users: bool,
    /// Units declare users, or may while the programs run: what their sockets send and take belongs to these.
    pub declared_users: bool,
    /// Units declare ports of this host, or may while the programs run.
    pub declared_ports: bool,
}

impl Default for Ends {
    fn default() -> Self {
        Self { users: true, declared_users: false, declared_ports: false }
    }
}

/// What an operator can bound, and what a host decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Slots of all CPUs together in one epoch of the IPv4 cache; rounded up to a power of two on each CPU.
    pub slots_4: u32,
    /// The same of the IPv6 cache.
    pub slots_6: u32,
    /// Flows and CPUs that the IPv4 table behind the caches holds in one epoch.
    pub table_4: u32,
    /// The same for IPv6.
    pub table_6: u32,
    /// IPv4 flows whose identity is kept once they live on; half as many newcomers.
    pub identities_4: u32,
    /// The same for IPv6.
    pub identities_6: u32,
    /// New flows that a processing unit may gain in a second, on each CPU.
    pub new_flows_per_second: u32,
    /// New flows that it may save up, on each CPU.
    pub new_flows_burst: u32,
    /// Seconds that the first fragment of a datagram is remembered, so that those behind it are counted in its flow.
    pub fragment_seconds: u32,
    /// How records come to user space.
    pub transport: Transport,
    /// Octets of the ring of events; a power of two of at least a page. Where they go by perf buffers, those of all CPUs
    /// together have as many.
    pub ring: u32,
    /// Octets of the buffer for packets that are traced on each CPU, and of that for those that are dropped; a power of two of
    /// at least a page. There is none as long as nobody asks for such packets. Who may not lock memory (`CAP_IPC_LOCK`) has half
    /// of it, and a quarter. Where they go by rings, these have as many for each CPU, from the start.
    pub packets: u32,
    /// The CPUs that have perf buffers at first; all that are online where nothing is said. Others have theirs when they
    /// come online.
    pub buffers_on: Option<Vec<u32>>,
    /// The bits of `skb->mark` that hold a processing unit's mark; contiguous, or 0 for none.
    pub mark_mask: u32,
    /// What is sent and taken by this host's own addresses belongs to the units of its sockets' control groups (cgroup v2).
    /// Where there is no such hierarchy, it is left off.
    pub cgroups: bool,
    /// What else is asked about the ends of flows on this host.
    pub ends: Ends,
    /// The CPUs that have slots; all that are online where nothing is said. A packet on another one is counted in the
    /// tables, and so is every packet on a kernel with `PREEMPT_RT`.
    pub slots_on: Option<Vec<u32>>,
    /// Count and report what the kernel drops, within these limits.
    pub drops: Option<DropLimits>,
    /// Pairs of classes that the policies of all units may say something of.
    pub verdicts: u32,
    /// Load the program at XDP, too. The daemon decides by its own option.
    pub xdp: bool,
    /// The single packets that are wanted; all where there is no filter.
    pub filter: Option<Filter>,
    /// Load the programs that the bench compares with, too.
    pub reference_programs: bool,
}

impl Settings {
    /// The CPUs that have perf buffers at first.
    ///
    /// # Errors
    ///
    /// [`KernelError::Host`] where the kernel does not say which are online.
    pub fn with_buffers(&self) -> Result<Vec<u32>, KernelError> {
        self.buffers_on.clone().map_or_else(cpus::online, Ok)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            slots_4: 1 << 17,
            slots_6: 1 << 15,
            table_4: 1 << 16,
            table_6: 1 << 14,
            identities_4: 1 << 17,
            identities_6: 1 << 15,
            new_flows_per_second: 100_000,
            new_flows_burst: 200_000,
            // As long as Linux waits for the rest of a datagram (net.ipv4.ipfrag_time).
            fragment_seconds: 30,
            transport: Transport::Auto,
            ring: 1 << 22,
            // With the page that perf adds, what the kernel lets a user lock on each CPU (perf_event_mlock_kb).
            packets: 1 << 19,
            buffers_on: None,
            mark_mask: 0xFFFC_0000,
            cgroups: false,
            ends: Ends::default(),
            slots_on: None,
            drops: Some(DropLimits::default()),
            // The kernel keeps 16 octets for each from the start.
            verdicts: 1 << 16,
            xdp: false,
            filter: None,
            reference_programs: false,
        }
    }
}
