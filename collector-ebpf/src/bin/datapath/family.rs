//! What differs between IPv4 and IPv6 on the way: keys, caches, tables.

use core::mem::offset_of;

use aya_ebpf::{
    bindings::bpf_fib_lookup,
    btf_maps::{HashMap, LruHashMap},
};
use collector_ebpf::abi::{
    control::Control,
    flow::{FlowKey4, FlowKey6, Identity, Slot4, Slot6, SlotCounts, TableCounts, TableKey4, TableKey6},
};

use crate::{
    fill::Filling,
    maps::{CACHE4, CACHE6, LIVE4, LIVE6, NEW4, NEW6, TABLES4, TABLES6},
    settings::{
        HASH_FACTOR_1, HASH_FACTOR_2, HASH_FACTOR_3, HASH_FACTOR_4, HASH_FACTOR_5, HIGH_WATER_4,
        HIGH_WATER_6, SLOT_SHIFT_4, SLOT_SHIFT_6,
    },
    socket::Tuple,
    table::{Place, entry},
};

/// A slot of a cache: its key, and behind that its counts. One address, for there are few registers.
#[derive(Clone, Copy)]
pub(crate) struct Slot<K> {
    pub(crate) key: *mut K,
}

impl<K> Slot<K> {
    /// Where its counts lie.
    #[inline(always)]
    pub(crate) fn counts(self) -> *mut SlotCounts {
        // SAFETY: a slot is a key with counts behind it, as is asserted below.
        unsafe { self.key.add(1).cast() }
    }
}

const _: () = assert!(offset_of!(Slot4, counts) == size_of::<FlowKey4>());
const _: () = assert!(offset_of!(Slot6, counts) == size_of::<FlowKey6>());

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

    /// The index of the first of the two slots that this flow may have on the CPU that `control` is for; the other's
    /// differs in the lowest bit. Beyond the cache for a CPU that has no slots.
    fn index(&self, control: *const Control, word: u64) -> u32;

    /// The slot with an index.
    fn slot(index: u32) -> Option<Slot<Self>>;

    /// The entry of this flow, CPU and unit in the table of the current epoch; a new one where there is none. `None` where
    /// the table is full.
    fn table_entry(&self, at: &Place) -> Option<*mut TableCounts>;

    /// The identities of newcomers.
    fn newcomers() -> &'static LruHashMap<Self, Identity, 1>;

    /// The identities of those that live on.
    fn lived() -> &'static HashMap<Self, Identity, 1>;

    /// The local end's address, IPv4 as `::ffff:a.b.c.d`.
    fn local(&self) -> [u8; 16];

    /// The remote end's address, IPv4 as `::ffff:a.b.c.d`.
    fn remote(&self) -> [u8; 16];

    /// Writes the tuple of a socket at one end, the remote one or the local one; the other end is left open where
    /// `any` says so. Returns its size in octets.
    ///
    /// # Safety
    ///
    /// `tuple` may be written to.
    unsafe fn write_tuple(&self, tuple: *mut Tuple, of_remote: bool, any: bool) -> u32;

    /// Writes what is asked about the way from the remote end to the local one; the interface is left as it is.
    ///
    /// # Safety
    ///
    /// `fib` may be written to.
    unsafe fn write_route(&self, fib: *mut bpf_fib_lookup);

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

/// The slot for a key, from the sum of its words, each multiplied by a random odd number: of that the highest bits depend
/// on every bit of the key, and two keys meet no more often than twice the share of one slot (M. Dietzfelbinger et al.,
/// "A reliable randomized algorithm for the closest-pair problem", 1997). The products do not wait for one another.
#[inline(always)]
fn slot_of(sum: u64, shift: u32) -> u32 {
    (sum >> (shift & 63)) as u32
}

#[inline(always)]
fn times(word: u64, factor: u64) -> u64 {
    word.wrapping_mul(factor)
}

/// Of two, that of the epoch.
#[inline(always)]
fn epochs_own(both: &[u32; 2], word: u64) -> u32 {
    let [even, odd] = *both;
    if Control::epoch(word) == 0 { even } else { odd }
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
        self.turn();
    }

    #[inline(always)]
    fn is_in_order(&self) -> bool {
        self.is_in_order()
    }

    #[inline(always)]
    fn is_symmetric(&self) -> bool {
        self.is_symmetric()
    }

    #[inline(always)]
    fn index(&self, control: *const Control, word: u64) -> u32 {
        let [addresses, rest] = words4(self);
        let sum = times(addresses, HASH_FACTOR_1.load()).wrapping_add(times(rest, HASH_FACTOR_2.load()));
        // SAFETY: the entry is live; user space wrote these before the programs ran.
        let first = unsafe { epochs_own(&(*control).first_slot_4, word) };
        first + slot_of(sum, SLOT_SHIFT_4.load())
    }

    #[inline(always)]
    fn slot(index: u32) -> Option<Slot<Self>> {
        Some(Slot { key: CACHE4.get_ptr_mut(index)?.cast() })
    }

    #[inline(always)]
    fn table_entry(&self, at: &Place) -> Option<*mut TableCounts> {
        let key = TableKey4 { flow: *self, cpu: at.cpu, verdict: at.verdict, pu: at.pu, rest: at.rest };
        let table = TABLES4.get(Control::epoch(at.word))?.hash();
        entry(table, &key, at, &Filling { word: at.word, table: 0, high_water: HIGH_WATER_4.load() })
    }

    fn newcomers() -> &'static LruHashMap<Self, Identity, 1> {
        &NEW4
    }

    fn lived() -> &'static HashMap<Self, Identity, 1> {
        &LIVE4
    }

    #[inline(always)]
    unsafe fn write_tuple(&self, tuple: *mut Tuple, of_remote: bool, any: bool) -> u32 {
        let [addresses, rest] = words4(self);
        // Addresses and ports lie side by side, those of the local end in the lower half.
        let (addresses, ports) = if of_remote {
            (addresses, rest as u32)
        } else {
            (addresses.rotate_left(32), (rest as u32).rotate_left(16))
        };
        let (addresses, ports) =
            if any { (addresses & OWN_ADDRESS, ports & OWN_PORT) } else { (addresses, ports) };
        // SAFETY: the caller's promise.
        unsafe {
            (*tuple)[0] = addresses as u32;
            (*tuple)[1] = (addresses >> 32) as u32;
            (*tuple)[2] = ports;
        }
        12
    }

    #[inline(always)]
    unsafe fn write_route(&self, fib: *mut bpf_fib_lookup) {
        const AF_INET: u8 = 2;
        // SAFETY: the caller's promise.
        unsafe {
            write_route(fib, AF_INET, self.protocol);
            (*fib).__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(self.remote);
            (*fib).__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(self.local);
        }
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
        self.turn();
    }

    #[inline(always)]
    fn is_in_order(&self) -> bool {
        self.is_in_order()
    }

    #[inline(always)]
    fn is_symmetric(&self) -> bool {
        self.is_symmetric()
    }

    #[inline(always)]
    fn index(&self, control: *const Control, word: u64) -> u32 {
        let [l0, l1, r0, r1, rest] = words6(self);
        let sum = times(l0, HASH_FACTOR_1.load())
            .wrapping_add(times(l1, HASH_FACTOR_2.load()))
            .wrapping_add(times(r0, HASH_FACTOR_3.load()))
            .wrapping_add(times(r1, HASH_FACTOR_4.load()))
            .wrapping_add(times(rest, HASH_FACTOR_5.load()));
        // SAFETY: the entry is live; user space wrote these before the programs ran.
        let first = unsafe { epochs_own(&(*control).first_slot_6, word) };
        first + slot_of(sum, SLOT_SHIFT_6.load())
    }

    #[inline(always)]
    fn slot(index: u32) -> Option<Slot<Self>> {
        Some(Slot { key: CACHE6.get_ptr_mut(index)?.cast() })
    }

    #[inline(always)]
    fn table_entry(&self, at: &Place) -> Option<*mut TableCounts> {
        let key = TableKey6 { flow: *self, cpu: at.cpu, verdict: at.verdict, pu: at.pu, rest: at.rest };
        let table = TABLES6.get(Control::epoch(at.word))?.hash();
        entry(table, &key, at, &Filling { word: at.word, table: 1, high_water: HIGH_WATER_6.load() })
    }

    fn newcomers() -> &'static LruHashMap<Self, Identity, 1> {
        &NEW6
    }

    fn lived() -> &'static HashMap<Self, Identity, 1> {
        &LIVE6
    }

    #[inline(always)]
    unsafe fn write_tuple(&self, tuple: *mut Tuple, of_remote: bool, any: bool) -> u32 {
        let [l0, l1, r0, r1, rest] = words6(self);
        let (own, other, ports) = if of_remote {
            // The ports lie in the low half, the local one first.
            ([r0, r1], [l0, l1], rest as u32)
        } else {
            ([l0, l1], [r0, r1], (rest as u32).rotate_left(16))
        };
        let (other, ports) = if any { ([0; 2], ports & OWN_PORT) } else { (other, ports) };
        // SAFETY: the caller's promise.
        unsafe {
            (*tuple)[0] = other[0] as u32;
            (*tuple)[1] = (other[0] >> 32) as u32;
            (*tuple)[2] = other[1] as u32;
            (*tuple)[3] = (other[1] >> 32) as u32;
            (*tuple)[4] = own[0] as u32;
            (*tuple)[5] = (own[0] >> 32) as u32;
            (*tuple)[6] = own[1] as u32;
            (*tuple)[7] = (own[1] >> 32) as u32;
            (*tuple)[8] = ports;
        }
        36
    }

    #[inline(always)]
    unsafe fn write_route(&self, fib: *mut bpf_fib_lookup) {
        const AF_INET6: u8 = 10;
        // SAFETY: the caller's promise; addresses of 16 octets, the kernel's in words.
        unsafe {
            write_route(fib, AF_INET6, self.protocol);
            (*fib).__bindgen_anon_3.ipv6_src = core::mem::transmute::<[u8; 16], [u32; 4]>(self.remote);
            (*fib).__bindgen_anon_4.ipv6_dst = core::mem::transmute::<[u8; 16], [u32; 4]>(self.local);
        }
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

/// The second of two ports. BPF runs little-endian here, as everywhere that the object is built for (bpfel).
const OWN_PORT: u32 = 0xFFFF_0000;
/// The second of two IPv4 addresses.
const OWN_ADDRESS: u64 = 0xFFFF_FFFF_0000_0000;

/// What is asked of both families alike.
#[inline(always)]
unsafe fn write_route(fib: *mut bpf_fib_lookup, family: u8, protocol: u8) {
    // SAFETY: the caller's promise.
    unsafe {
        (*fib).family = family;
        (*fib).l4_protocol = protocol;
        (*fib).sport = 0;
        (*fib).dport = 0;
        (*fib).__bindgen_anon_1.tot_len = 0;
        (*fib).__bindgen_anon_2.flowinfo = 0;
    }
}

/// An IPv4 address in the form of an IPv6 one (RFC 4291 section 2.5.5.2).
#[inline(always)]
pub(crate) fn mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    // In words: LLVM would store sixteen octets one by one.
    let words = [0, u64::from_ne_bytes([0, 0, 0xFF, 0xFF, a, b, c, d])];
    // SAFETY: both are 16 octets.
    unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(words) }
}
