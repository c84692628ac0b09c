//! Read-only globals: set by user space before the programs are loaded, constants to the verifier.

use aya_ebpf::Global;
use collector_ebpf::abi;

/// The contract's version; user space reads it from the object before it loads it.
#[unsafe(no_mangle)]
pub(crate) static ABI_VERSION: Global<u32> = Global::new(abi::VERSION);

/// CPUs that have slots in the caches; a packet on another one goes straight to the tables.
#[unsafe(no_mangle)]
pub(crate) static CPUS: Global<u32> = Global::new(1);

/// Slots of one CPU and epoch in the IPv4 cache; a power of two.
#[unsafe(no_mangle)]
pub(crate) static SLOTS_4: Global<u32> = Global::new(16);

/// The same of the IPv6 cache.
#[unsafe(no_mangle)]
pub(crate) static SLOTS_6: Global<u32> = Global::new(16);

/// Entries that one CPU may add to the IPv4 table in an epoch before user space is told to drain it at once.
#[unsafe(no_mangle)]
pub(crate) static HIGH_WATER_4: Global<u32> = Global::new(u32::MAX);

/// The same for IPv6.
#[unsafe(no_mangle)]
pub(crate) static HIGH_WATER_6: Global<u32> = Global::new(u32::MAX);

/// Mixed into the hash, so that nobody can choose packets that meet in one slot.
#[unsafe(no_mangle)]
pub(crate) static HASH_SEED: Global<u64> = Global::new(0);

/// New flows that a processing unit gains on each CPU per tick, in 1,024ths.
#[unsafe(no_mangle)]
pub(crate) static FLOWS_PER_TICK: Global<u32> = Global::new(400 << 10);

/// New flows that a processing unit can have saved up on each CPU, in 1,024ths.
#[unsafe(no_mangle)]
pub(crate) static FLOWS_BURST: Global<u32> = Global::new(100_000 << 10);

/// The bits of `skb->mark` that hold a processing unit's mark; 0 writes none.
#[unsafe(no_mangle)]
pub(crate) static MARK_MASK: Global<u32> = Global::new(0);

/// How far the mark is shifted to reach those bits.
#[unsafe(no_mangle)]
pub(crate) static MARK_SHIFT: Global<u32> = Global::new(0);

/// 1 on a kernel where softirqs can be preempted (`PREEMPT_RT`): a slot could see two packets at once, so
/// every packet is counted in the tables, whose additions are atomic.
#[unsafe(no_mangle)]
pub(crate) static NO_CACHE: Global<u32> = Global::new(0);
