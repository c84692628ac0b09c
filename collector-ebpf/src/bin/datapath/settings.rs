//! Read-only globals: set by user space before the programs are loaded, constants to the verifier.

use aya_ebpf::Global;
use collector_ebpf::abi;

/// The contract's version; user space reads it from the object before it loads it.
#[unsafe(no_mangle)]
pub(crate) static ABI_VERSION: Global<u32> = Global::new(abi::VERSION);

/// How far a hash is shifted to be one of the slots of a CPU and epoch in the IPv4 cache, whose number is a power of two.
#[unsafe(no_mangle)]
pub(crate) static SLOT_SHIFT_4: Global<u32> = Global::new(60);

/// The same of the IPv6 cache.
#[unsafe(no_mangle)]
pub(crate) static SLOT_SHIFT_6: Global<u32> = Global::new(60);

/// Entries that one CPU may add to the IPv4 table in an epoch before user space is told to drain it at once.
#[unsafe(no_mangle)]
pub(crate) static HIGH_WATER_4: Global<u32> = Global::new(u32::MAX);

/// The same for IPv6.
#[unsafe(no_mangle)]
pub(crate) static HIGH_WATER_6: Global<u32> = Global::new(u32::MAX);

/// What the words of a key are multiplied by for its hash: odd numbers, random, so that nobody can choose packets that
/// meet in one slot.
#[unsafe(no_mangle)]
pub(crate) static HASH_FACTOR_1: Global<u64> = Global::new(1);

/// See [`HASH_FACTOR_1`].
#[unsafe(no_mangle)]
pub(crate) static HASH_FACTOR_2: Global<u64> = Global::new(1);

/// See [`HASH_FACTOR_1`].
#[unsafe(no_mangle)]
pub(crate) static HASH_FACTOR_3: Global<u64> = Global::new(1);

/// See [`HASH_FACTOR_1`].
#[unsafe(no_mangle)]
pub(crate) static HASH_FACTOR_4: Global<u64> = Global::new(1);

/// See [`HASH_FACTOR_1`].
#[unsafe(no_mangle)]
pub(crate) static HASH_FACTOR_5: Global<u64> = Global::new(1);

/// New flows that a processing unit gains on each CPU per tick, in 1,024ths.
#[unsafe(no_mangle)]
pub(crate) static FLOWS_PER_TICK: Global<u32> = Global::new(400 << 10);

/// New flows that a processing unit can have saved up on each CPU, in 1,024ths.
#[unsafe(no_mangle)]
pub(crate) static FLOWS_BURST: Global<u32> = Global::new(100_000 << 10);

/// Octets of the ring of events, or of the buffer that each CPU has in its place.
#[unsafe(no_mangle)]
pub(crate) static RING_SIZE: Global<u32> = Global::new(1 << 20);

/// Octets of the ring of packets that are traced, or of the buffer that each CPU has in its place.
#[unsafe(no_mangle)]
pub(crate) static PACKETS_SIZE: Global<u32> = Global::new(1 << 20);

/// 1 where events go by a buffer of each CPU, too, not by a ring.
#[unsafe(no_mangle)]
pub(crate) static EVENTS_BY_PERF: Global<u32> = Global::new(0);

/// 1 where single packets go by a ring, too, not by a buffer of each CPU.
#[unsafe(no_mangle)]
pub(crate) static PACKETS_BY_RING: Global<u32> = Global::new(0);

/// Of the ring of single packets: the logarithm of the octets that are written to it before its reader is woken.
#[unsafe(no_mangle)]
pub(crate) static WAKE_SHIFT: Global<u32> = Global::new(12);

/// For how many ticks the first fragment of a datagram is remembered.
#[unsafe(no_mangle)]
pub(crate) static FRAGMENT_TICKS: Global<u32> = Global::new(30 * 250);

/// CPUs that the kernel may number.
#[unsafe(no_mangle)]
pub(crate) static POSSIBLE_CPUS: Global<u32> = Global::new(1);

/// The bits of `skb->mark` that hold a processing unit's mark; 0 writes none.
#[unsafe(no_mangle)]
pub(crate) static MARK_MASK: Global<u32> = Global::new(0);

/// How far the mark is shifted to reach those bits.
#[unsafe(no_mangle)]
pub(crate) static MARK_SHIFT: Global<u32> = Global::new(0);

/// 1 where flows belong to the units of their sockets' control groups.
#[unsafe(no_mangle)]
pub(crate) static BY_CGROUP: Global<u32> = Global::new(0);

/// 1 where units declare ports of this host.
#[unsafe(no_mangle)]
pub(crate) static BY_PORT: Global<u32> = Global::new(0);

/// 1 where units declare users.
#[unsafe(no_mangle)]
pub(crate) static BY_USER: Global<u32> = Global::new(0);

/// 1 where any of the three holds: whose a socket at an end is, is worth a question.
#[unsafe(no_mangle)]
pub(crate) static BY_ENDS: Global<u32> = Global::new(0);

/// 1 if the kernel tells why it drops (Linux 5.17).
#[unsafe(no_mangle)]
pub(crate) static DROP_REASONS: Global<u32> = Global::new(0);

/// 1 where a program may load from wherever a pointer to octets leads, as 0 where it leads nowhere (Linux 6.18).
#[unsafe(no_mangle)]
pub(crate) static LOADS_ANYWHERE: Global<u32> = Global::new(0);

/// The inode of the network namespace that is watched.
#[unsafe(no_mangle)]
pub(crate) static NAMESPACE: Global<u32> = Global::new(0);

/// Where the kernel frees what a program was tried on (`BPF_PROG_TEST_RUN`), which is no packet: the function's first
/// address, and its octets.
#[unsafe(no_mangle)]
pub(crate) static TRIAL: Global<u64> = Global::new(0);
/// See [`TRIAL`].
#[unsafe(no_mangle)]
pub(crate) static TRIAL_LENGTH: Global<u64> = Global::new(0);

/// Where the kernel's function begins that frees the pieces of a packet; as long as [`RELEASE_LENGTH`].
#[unsafe(no_mangle)]
pub(crate) static RELEASE: Global<u64> = Global::new(0);
/// See [`RELEASE`].
#[unsafe(no_mangle)]
pub(crate) static RELEASE_LENGTH: Global<u64> = Global::new(0);

/// Reasons of which no report is wanted: a bit for each of the first 256, which are all that the kernel's core has.
#[unsafe(no_mangle)]
pub(crate) static FOLDED_0: Global<u64> = Global::new(0);
/// See [`FOLDED_0`]: from 64 on.
#[unsafe(no_mangle)]
pub(crate) static FOLDED_1: Global<u64> = Global::new(0);
/// See [`FOLDED_0`]: from 128 on.
#[unsafe(no_mangle)]
pub(crate) static FOLDED_2: Global<u64> = Global::new(0);
/// See [`FOLDED_0`]: from 192 on.
#[unsafe(no_mangle)]
pub(crate) static FOLDED_3: Global<u64> = Global::new(0);

/// Entries of `FOLDED_PLACES`.
#[unsafe(no_mangle)]
pub(crate) static PLACES: Global<u32> = Global::new(0);

/// What a report of a drop costs its unit, in parts of a tick.
#[unsafe(no_mangle)]
pub(crate) static DROP_INTERVAL: Global<u64> = Global::new(1);

/// What a unit may save up for reports of drops.
#[unsafe(no_mangle)]
pub(crate) static DROP_BURST: Global<u64> = Global::new(1);

/// What says that the metadata before a frame is the XDP program's of this load: random, so that nobody can send what looks
/// like it. 0 where that program was not asked for.
#[unsafe(no_mangle)]
pub(crate) static XDP_WORD: Global<u64> = Global::new(0);

/// 1 where the XDP program may remember whose the addresses are that it has looked up: 0 where softirqs are preempted, for
/// two runs could meet in one entry.
#[unsafe(no_mangle)]
pub(crate) static XDP_REMEMBERS: Global<u32> = Global::new(0);

/// Octets of a dropped packet that are reported.
#[unsafe(no_mangle)]
pub(crate) static DROP_SNAP: Global<u32> = Global::new(0);

/// 1 where there is a packet filter; 0 where every packet is wanted.
#[unsafe(no_mangle)]
pub(crate) static FILTERED: Global<u32> = Global::new(0);

/// What this load's programs at TC sign a packet with that they drop: random, so that nobody else's looks like it.
#[unsafe(no_mangle)]
pub(crate) static SIGNATURE: Global<u64> = Global::new(0);

/// 1 where the places of fields are known that say how the kernel cuts a super-packet.
#[unsafe(no_mangle)]
pub(crate) static KNOWS_SUPER_PACKETS: Global<u32> = Global::new(0);
