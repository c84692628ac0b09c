//! What differs between IPv4 and IPv6 on the way: keys, caches, tables.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    btf_maps::{HashMap, LruHashMap},
};
use collector_ebpf::abi::{
    control::Control,
    flow::{FlowKey4, FlowKey6, Identity, SlotCounts, TableCounts, TableKey4, TableKey6},
};

use crate::{
    atomic,
    fill::Filling,
    maps::{CACHE4, CACHE6, LIVE4, LIVE6, NEW4, NEW6, TABLES4, TABLES6},
    settings::{CPUS, HASH_SEED, HIGH_WATER_4, HIGH_WATER_6, SLOTS_4, SLOTS_6},
};

/// A slot of a cache: where its key and its counts lie.
#[derive(Clone, Copy)]
pub(crate) struct Slot<K> {
    pub(crate) key: *mut K,
    pub(crate) counts: *mut SlotCounts,
}

/// A flow key as the caches, the tables and the identities of its family know it.
pub(crate) trait Key: Copy + 'static {
    /// 4 or 6.
    const FAMILY: u8;

    /// Whether both are one flow's: compared in words, as LLVM would not.
    fn is(&self, other: &Self) -> bool;

    /// Exchanges the local and the remote end.
    fn turn(&mut self);

    /// Whether the local end is the lesser of the two: by address (any order will do), or by port where that
    /// is the same. Tells the two directions of a loopback flow apart.
    fn is_in_order(&self) -> bool;

    /// Both ends are the same, so that only what a packet says tells its direction.
    fn is_symmetric(&self) -> bool;

    /// The slot that this flow would have on `cpu` in `epoch`.
    fn slot(&self, epoch: u32, cpu: u32) -> Option<Slot<Self>>;

    /// Adds counts to the table of the epoch in `word`; `false` where it is full.
    fn add_to_table(&self, word: u64, cpu: u32, counts: &SlotCounts) -> bool;

    /// The identities of newcomers.
    fn newcomers() -> &'static LruHashMap<Self, Identity, 1>;

    /// The identities of those that live on.
    fn lived() -> &'static HashMap<Self, Identity, 1>;

    /// The local end's address, IPv4 as `::ffff:a.b.c.d`.
    fn local(&self) -> [u8; 16];

    /// The remote end's address, IPv4 as `::ffff:a.b.c.d`.
    fn remote(&self) -> [u8; 16];

    /// What both families' keys hold alike.
    fn rest(&self) -> Rest;
}

/// The part of a key that does not depend on the family.
#[derive(Clone, Copy)]
pub(crate) struct Rest {
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    pub(crate) boundary: u16,
    pub(crate) protocol: u8,
    pub(crate) ports: u8,
}

/// An odd number with well-mixed bits: the fraction of the golden ratio.
const MIX_1: u64 = 0x9E37_79B9_7F4A_7C15;
/// Another: the fraction of the square root of 3.
const MIX_2: u64 = 0xBB67_AE85_84CA_A73B;

#[inline(always)]
fn mix(hash: u64, word: u64, factor: u64) -> u64 {
    let hash = (hash ^ word).wrapping_mul(factor);
    hash ^ hash >> 32
}

/// The index of a slot: epochs, in them CPUs, in them slots. Beyond the array for a CPU that has none.
#[inline(always)]
fn slot_index(hash: u64, slots: u32, epoch: u32, cpu: u32) -> Option<u32> {
    let cpus = CPUS.load();
    if cpu >= cpus {
        return None;
    }
    Some((epoch * cpus + cpu) * slots + ((hash >> 32) as u32 & (slots - 1)))
}

#[inline(always)]
fn words4(key: &FlowKey4) -> [u64; 2] {
    // SAFETY: the key is 16 octets without padding, aligned to 8.
    unsafe { core::mem::transmute(*key) }
}

#[inline(always)]
fn words6(key: &FlowKey6) -> [u64; 5] {
    // SAFETY: the key is 40 octets without padding, aligned to 8.
    unsafe { core::mem::transmute(*key) }
}

impl Key for FlowKey4 {
    const FAMILY: u8 = 4;

    #[inline(always)]
    fn is(&self, other: &Self) -> bool {
        words4(self) == words4(other)
    }

    #[inline(always)]
    fn turn(&mut self) {
        let Self { local, remote, local_port, remote_port, boundary, protocol, ports } = *self;
        *self = Self {
            local: remote,
            remote: local,
            local_port: remote_port,
            remote_port: local_port,
            boundary,
            protocol,
            ports,
        };
    }

    #[inline(always)]
    fn is_in_order(&self) -> bool {
        let (local, remote) = (u32::from_ne_bytes(self.local), u32::from_ne_bytes(self.remote));
        local < remote || local == remote && self.local_port <= self.remote_port
    }

    #[inline(always)]
    fn is_symmetric(&self) -> bool {
        self.local == self.remote && self.local_port == self.remote_port
    }

    #[inline(always)]
    fn slot(&self, epoch: u32, cpu: u32) -> Option<Slot<Self>> {
        let [addresses, rest] = words4(self);
        let hash = mix(mix(HASH_SEED.load(), addresses, MIX_1), rest, MIX_2);
        let slot = CACHE4.get_ptr_mut(slot_index(hash, SLOTS_4.load(), epoch, cpu)?)?;
        // SAFETY: a pointer to a map value stays valid for the run.
        unsafe { Some(Slot { key: &raw mut (*slot).key, counts: &raw mut (*slot).counts }) }
    }

    #[inline(always)]
    fn add_to_table(&self, word: u64, cpu: u32, counts: &SlotCounts) -> bool {
        let Some(table) = TABLES4.get(Control::epoch(word)) else { return false };
        add(
            table.hash(),
            &TableKey4 { flow: *self, cpu, _pad: 0 },
            counts,
            &Filling { word, table: 0, high_water: HIGH_WATER_4.load() },
        )
    }

    fn newcomers() -> &'static LruHashMap<Self, Identity, 1> {
        &NEW4
    }

    fn lived() -> &'static HashMap<Self, Identity, 1> {
        &LIVE4
    }

    #[inline(always)]
    fn local(&self) -> [u8; 16] {
        mapped(self.local)
    }

    #[inline(always)]
    fn remote(&self) -> [u8; 16] {
        mapped(self.remote)
    }

    #[inline(always)]
    fn rest(&self) -> Rest {
        let Self { local_port, remote_port, boundary, protocol, ports, .. } = *self;
        Rest { local_port, remote_port, boundary, protocol, ports }
    }
}

impl Key for FlowKey6 {
    const FAMILY: u8 = 6;

    #[inline(always)]
    fn is(&self, other: &Self) -> bool {
        let (one, two) = (words6(self), words6(other));
        // Ports and remote address differ most often.
        one[4] == two[4] && one[3] == two[3] && one[2] == two[2] && one[1] == two[1] && one[0] == two[0]
    }

    #[inline(always)]
    fn turn(&mut self) {
        let Self { local, remote, local_port, remote_port, boundary, protocol, ports } = *self;
        *self = Self {
            local: remote,
            remote: local,
            local_port: remote_port,
            remote_port: local_port,
            boundary,
            protocol,
            ports,
        };
    }

    #[inline(always)]
    fn is_in_order(&self) -> bool {
        let (local, remote) = (u128::from_ne_bytes(self.local), u128::from_ne_bytes(self.remote));
        local < remote || local == remote && self.local_port <= self.remote_port
    }

    #[inline(always)]
    fn is_symmetric(&self) -> bool {
        self.local == self.remote && self.local_port == self.remote_port
    }

    #[inline(always)]
    fn slot(&self, epoch: u32, cpu: u32) -> Option<Slot<Self>> {
        let [l0, l1, r0, r1, rest] = words6(self);
        let hash = mix(mix(HASH_SEED.load(), l0 ^ r0.rotate_left(17), MIX_1), l1 ^ r1.rotate_left(29), MIX_2);
        let hash = mix(hash, rest, MIX_1);
        let slot = CACHE6.get_ptr_mut(slot_index(hash, SLOTS_6.load(), epoch, cpu)?)?;
        // SAFETY: a pointer to a map value stays valid for the run.
        unsafe { Some(Slot { key: &raw mut (*slot).key, counts: &raw mut (*slot).counts }) }
    }

    #[inline(always)]
    fn add_to_table(&self, word: u64, cpu: u32, counts: &SlotCounts) -> bool {
        let Some(table) = TABLES6.get(Control::epoch(word)) else { return false };
        add(
            table.hash(),
            &TableKey6 { flow: *self, cpu, _pad: 0 },
            counts,
            &Filling { word, table: 1, high_water: HIGH_WATER_6.load() },
        )
    }

    fn newcomers() -> &'static LruHashMap<Self, Identity, 1> {
        &NEW6
    }

    fn lived() -> &'static HashMap<Self, Identity, 1> {
        &LIVE6
    }

    #[inline(always)]
    fn local(&self) -> [u8; 16] {
        self.local
    }

    #[inline(always)]
    fn remote(&self) -> [u8; 16] {
        self.remote
    }

    #[inline(always)]
    fn rest(&self) -> Rest {
        let Self { local_port, remote_port, boundary, protocol, ports, .. } = *self;
        Rest { local_port, remote_port, boundary, protocol, ports }
    }
}

/// An IPv4 address in the form of an IPv6 one (RFC 4291 section 2.5.5.2).
#[inline(always)]
fn mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    // In words: LLVM would store sixteen octets one by one.
    let words = [0, u64::from_ne_bytes([0, 0, 0xFF, 0xFF, a, b, c, d])];
    // SAFETY: both are 16 octets.
    unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(words) }
}

#[inline(always)]
fn add<T>(table: &HashMap<T, TableCounts, 1>, key: &T, counts: &SlotCounts, filling: &Filling) -> bool {
    if let Some(entry) = table.get_ptr_mut(key) {
        // SAFETY: the entry is live for the run; additions are atomic, the rest is written by this CPU only.
        unsafe { merge(entry, counts) };
        return true;
    }
    // Inserted empty, from memory that is not the stack, of which there is too little for a copy. The entry can have
    // come meanwhile only where softirqs are preempted: its key names this CPU.
    let inserted = table.insert(key, &NOTHING, u64::from(BPF_NOEXIST)).is_ok();
    let Some(entry) = table.get_ptr_mut(key) else { return false };
    // SAFETY: as above.
    unsafe {
        if inserted {
            (*entry).first = counts.first;
        }
        merge(entry, counts);
    }
    filling.count();
    true
}

static NOTHING: TableCounts = TableCounts {
    bytes: [0; 2],
    packets: [0; 2],
    skbs: [0; 2],
    begun: 0,
    first: 0,
    last: 0,
    pu: 0,
    interface: 0,
    tcp_flags: [0; 2],
    how: 0,
    _pad: 0,
};

#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "a direction is RX or TX; a panic would be refused at load")]
unsafe fn merge(entry: *mut TableCounts, counts: &SlotCounts) {
    // SAFETY: the caller's entry is live, and its 64-bit numbers are aligned.
    unsafe {
        for direction in 0..2 {
            atomic::add(&raw mut (*entry).bytes[direction], counts.bytes[direction]);
            atomic::add(&raw mut (*entry).packets[direction], u64::from(counts.packets[direction]));
            atomic::add(&raw mut (*entry).skbs[direction], u64::from(counts.skbs[direction]));
            (*entry).tcp_flags[direction] |= counts.tcp_flags[direction];
        }
        atomic::add(&raw mut (*entry).begun, u64::from(counts.begun));
        (*entry).last = counts.last;
        (*entry).pu = counts.pu;
        (*entry).interface = counts.interface;
        (*entry).how = counts.how;
    }
}
