//! The tables behind the caches: where counts belong in them, and how an entry is made.

use aya_ebpf::{bindings::BPF_NOEXIST, btf_maps::HashMap, helpers::bpf_get_smp_processor_id};
use collector_ebpf::abi::flow::{TableCounts, rest_of};

use crate::fill::Filling;

/// Where in the tables counts belong, beside the flow's key.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// The control word of the epoch.
    pub(crate) word: u64,
    pub(crate) cpu: u16,
    /// The number of the verdict.
    pub(crate) verdict: u16,
    /// The tick of the first packet, for a new entry.
    pub(crate) first: u32,
    pub(crate) pu: u16,
    /// What else tells them apart ([`rest_of`]).
    pub(crate) rest: u16,
}

impl Place {
    /// For counts on this CPU of the unit `pu`, which was found as `how` says, with that at the flow's other end.
    #[inline(always)]
    pub(crate) fn new(word: u64, first: u32, (pu, how, host_pu): (u16, u8, u16), verdict: u16) -> Self {
        // SAFETY: no arguments, no memory. The kernel has at most 8,192 CPUs (`NR_CPUS`).
        let cpu = unsafe { bpf_get_smp_processor_id() } as u16;
        Self { word, cpu, verdict, first, pu, rest: rest_of(how, host_pu) }
    }
}

/// The entry of a table with that key; a new one where there is none. `None` where the table is full.
#[inline(always)]
pub(crate) fn entry<T>(
    table: &HashMap<T, TableCounts, 1>,
    key: &T,
    at: &Place,
    filling: &Filling,
) -> Option<*mut TableCounts> {
    if let Some(entry) = table.get_ptr_mut(key) {
        return Some(entry);
    }
    // Inserted empty, from memory that is not the stack, of which there is too little for a copy. The entry can have
    // come meanwhile only where softirqs are preempted: its key names this CPU.
    let inserted = table.insert(key, &NOTHING, u64::from(BPF_NOEXIST)).is_ok();
    let entry = table.get_ptr_mut(key)?;
    if inserted {
        // SAFETY: the entry is live for the run, and this CPU's alone.
        unsafe { (*entry).first = at.first };
    }
    filling.count();
    Some(entry)
}

static NOTHING: TableCounts = TableCounts {
    bytes: [0; 2],
    packets: [0; 2],
    skbs: [0; 2],
    begun: 0,
    first: 0,
    last: 0,
    interface: 0,
    tcp_flags: [0; 2],
    how: 0,
    _pad: [0; 3],
    rejected: [0; 2],
};
