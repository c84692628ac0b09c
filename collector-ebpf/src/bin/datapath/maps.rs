//! Every map, with who writes it. Sizes that depend on the host are set by user space at load.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_fib_lookup},
    btf_maps::{
        Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerfEventArray, ProgramArray, RingBuf,
    },
    macros::btf_map,
};
use collector_ebpf::abi::{
    bench::Walk,
    control::{Anchor, Control},
    counter::{Fill, PU_CHUNKS, PUS_PER_CHUNK, PuCounters},
    drop::{self, DropBudget, DropCounts, DropKey, DropLedger, FoldedPlace},
    filter::{self, Machine},
    flow::{FlowKey4, FlowKey6, Identity, Slot4, Slot6, TableCounts, TableKey4, TableKey6},
    network,
    packet::PacketRecord,
    policy::{self, ClassesKey, PolicyEntry, RemoteKey, ServiceKey},
    pu::{self, FreeUnit, Role},
    report::FlowEvent,
    trace::{self, Trace},
};

use crate::{
    drops::frame::Gone,
    fragments::{Datagram, Said},
    policy::Question,
    read::Packet,
    socket::Tuple,
    untyped::{HASH, PERCPU_ARRAY, Untyped},
    xdp::{self, Known},
};

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
/// Most hosts have a handful of addresses, some have thousands.
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// What user space tells every run, and what became of every packet and record: an entry a CPU. The ledger is counted
/// here, the rest is written by user space through shared memory.
#[btf_map]
pub(crate) static CONTROL: Array<Control, 1, MMAPABLE> = Array::new();

/// One moment on both clocks. Written by `anchor`.
#[btf_map]
pub(crate) static ANCHOR: Array<Anchor, 1, MMAPABLE> = Array::new();

/// Interface roles, by the low bits of the interface index. Written by user space.
#[btf_map]
pub(crate) static ROLES: Array<Role, { pu::ROLES as usize }> = Array::new();

/// Roles of interfaces whose entry in `ROLES` is another's. Written by user space.
#[btf_map]
pub(crate) static ROLES_MORE: HashMap<u32, Role, 1024> = HashMap::new();

/// Slots of IPv4 flows: epochs x CPUs x slots. Filled here, swept and zeroed by user space through shared
/// memory.
#[btf_map]
pub(crate) static CACHE4: Array<Slot4, 32, MMAPABLE> = Array::new();

/// The same for IPv6.
#[btf_map]
pub(crate) static CACHE6: Array<Slot6, 32, MMAPABLE> = Array::new();

/// One table an epoch behind the IPv4 caches. Filled here, drained by user space.
#[btf_map]
pub(crate) static TABLES4: ArrayOfMaps<
    Untyped<{ HASH }, { size_of::<TableKey4>() }, { size_of::<TableCounts>() }, 1>,
    2,
> = ArrayOfMaps::new();

/// The same for IPv6.
#[btf_map]
pub(crate) static TABLES6: ArrayOfMaps<
    Untyped<{ HASH }, { size_of::<TableKey6>() }, { size_of::<TableCounts>() }, 1>,
    2,
> = ArrayOfMaps::new();

/// Identities of new IPv4 flows: a flood evicts its own kind first. Written here.
#[btf_map]
pub(crate) static NEW4: LruHashMap<FlowKey4, Identity, 1> = LruHashMap::new();

/// The same for IPv6.
#[btf_map]
pub(crate) static NEW6: LruHashMap<FlowKey6, Identity, 1> = LruHashMap::new();

/// Identities of IPv4 flows that were answered or lived on. Filled here, aged by user space.
#[btf_map]
pub(crate) static LIVE4: HashMap<FlowKey4, Identity, 1> = HashMap::new();

/// The same for IPv6.
#[btf_map]
pub(crate) static LIVE6: HashMap<FlowKey6, Identity, 1> = HashMap::new();

/// What processing units have and no flow holds, in chunks. Counted here, read by user space.
#[btf_map]
pub(crate) static PUS: ArrayOfMaps<
    Untyped<{ PERCPU_ARRAY }, { size_of::<u32>() }, { size_of::<PuCounters>() }, { PUS_PER_CHUNK as usize }>,
    { PU_CHUNKS as usize },
> = ArrayOfMaps::new();

/// How far this CPU has filled the tables: IPv4, IPv6. Counted here.
#[btf_map]
pub(crate) static FILL: PerCpuArray<Fill, 2> = PerCpuArray::new();

/// Addresses of this host, IPv4 as `::ffff:a.b.c.d`, with the processing unit that each belongs to: an own address is not
/// looked for among the declared ranges as well. Written by user space.
#[btf_map]
pub(crate) static LOCALS: HashMap<[u8; 16], u32, 65536, NO_PREALLOC> = HashMap::new();

/// The units of control groups (cgroup v2), by the group's id. What is known is written by user space; a group that nobody
/// knows is added here. Preallocated: on older kernels a program may not have to ask for memory.
#[btf_map]
pub(crate) static CGROUPS: HashMap<u64, u32, { pu::CGROUPS as usize }> = HashMap::new();

/// The units that declare users, by the user's id in the initial user namespace. Written by user space.
#[btf_map]
pub(crate) static USERS: HashMap<u32, u32, 1, NO_PREALLOC> = HashMap::new();

/// The units that declare ports of this host, by [`port`](pu::port); 0 where none does. One entry where none is declared at all.
/// Written by user space through shared memory.
#[btf_map]
pub(crate) static PORTS: Array<u64, 1, MMAPABLE> = Array::new();

/// Indexes for groups that nobody knows: [`FREE_UNITS`](pu::FREE_UNITS) entries a CPU. Filled by user space through shared
/// memory, used up here.
#[btf_map]
pub(crate) static FREE_UNITS: Array<FreeUnit, { pu::FREE_UNITS as usize }, MMAPABLE> = Array::new();

/// Tunnels that end on this host, by [`tunnel`](collector_ebpf::abi::pu::tunnel). Written by user space.
#[btf_map]
pub(crate) static TUNNELS: HashMap<u32, u32, 256, NO_PREALLOC> = HashMap::new();

/// The numbers of networks inside of tunnels, by [`key`](collector_ebpf::abi::network::key). Filled here, read by user
/// space.
#[btf_map]
pub(crate) static NETWORKS: HashMap<u64, u32, { network::MOST as usize }, NO_PREALLOC> = HashMap::new();

/// How many numbers of networks this CPU has made.
#[btf_map]
pub(crate) static NETWORKS_MADE: PerCpuArray<u32, 1> = PerCpuArray::new();

/// Declared address ranges to processing units; IPv4 below `::ffff:0:0/96`. Written by user space.
#[btf_map]
pub(crate) static CIDRS: LpmTrie<[u8; 16], u32, 16384> = LpmTrie::new();

/// What policies each unit has. Written by user space through shared memory.
#[btf_map]
pub(crate) static POLICIES: Array<PolicyEntry, { policy::UNITS as usize }, MMAPABLE> = Array::new();

/// Remote addresses to classes, in each set of rules. Written by user space.
#[btf_map]
pub(crate) static REMOTES: LpmTrie<RemoteKey, u32, { policy::MOST_REMOTES as usize }> = LpmTrie::new();

/// Services to classes, in each set of rules. Written by user space.
#[btf_map]
pub(crate) static SERVICES: LpmTrie<ServiceKey, u32, { policy::MOST_SERVICES as usize }> = LpmTrie::new();

/// Verdicts on both classes. Written by user space.
#[btf_map]
pub(crate) static VERDICTS: HashMap<ClassesKey, u32, { policy::MOST_VERDICTS as usize }, NO_PREALLOC> =
    HashMap::new();

/// Flows that begin and end, where they go by the ring.
#[btf_map]
pub(crate) static EVENTS: RingBuf<FlowEvent, { 1 << 20 }> = RingBuf::new();

/// Flows that begin and end, where they go by a buffer of each CPU.
#[btf_map]
pub(crate) static NEWS: PerfEventArray = PerfEventArray::new();

/// The same buffers, for what wakes their reader at once.
#[btf_map]
pub(crate) static NEWS_AT_ONCE: PerfEventArray = PerfEventArray::new();

/// Packets that are traced, where they go by a buffer of each CPU that user space has made one for: a [`PacketRecord`] each, and
/// its octets behind it.
#[btf_map]
pub(crate) static PACKETS: PerfEventArray = PerfEventArray::new();

/// Packets that are traced, where they go by a ring.
#[btf_map]
pub(crate) static REPORTS: RingBuf<PacketRecord, 4096> = RingBuf::new();

/// Those that are dropped, as [`PACKETS`]: a flood of what is traced leaves them their room.
#[btf_map]
pub(crate) static DROP_PACKETS: PerfEventArray = PerfEventArray::new();

/// Those that are dropped, as [`REPORTS`], which it is as large as.
#[btf_map]
pub(crate) static DROP_REPORTS: RingBuf<PacketRecord, 4096> = RingBuf::new();

/// Where a packet is put together that goes by the ring: an entry a CPU.
#[btf_map]
pub(crate) static ROOM: Array<Room, 1> = Array::new();

/// See [`ROOM`].
#[repr(C, align(8))]
pub(crate) struct Room {
    pub(crate) record: PacketRecord,
    pub(crate) octets: [u8; ROOM_SIZE],
}

/// A power of two, at least what is ever captured of a packet.
pub(crate) const ROOM_SIZE: usize = 1 << 16;

/// Whose packets are reported, by the unit's index. Written by user space.
#[btf_map]
pub(crate) static TRACED: HashMap<u32, Trace, { trace::MOST as usize }, NO_PREALLOC> = HashMap::new();

/// What a run has read of its packet, where it is not the steady state.
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// Questions to the kernel, written where it can read them: the stack has no room.
#[btf_map]
pub(crate) static ASKED: PerCpuArray<Asked, 1> = PerCpuArray::new();

/// See [`ASKED`].
#[repr(C, align(8))]
pub(crate) struct Asked {
    pub(crate) tuple: Tuple,
    _pad: u32,
    pub(crate) fib: bpf_fib_lookup,
    /// When the flow of this run began: the clock is read once.
    pub(crate) begun_ns: u64,
    /// What is told of it by a buffer of this CPU.
    pub(crate) event: FlowEvent,
    /// Not 0 where a drain is to be asked for.
    pub(crate) is_pressed: u64,
    /// The address of a socket that was looked up: of no use but to read what lies there while the socket is held.
    pub(crate) socket: u64,
    /// The id of its control group; 0 where none is known.
    pub(crate) cgroup: u64,
    /// Its user, as in an identity.
    pub(crate) owner: u32,
    /// The user at the local end of the flow of this run, as in an identity.
    pub(crate) user: u32,
    /// That of the flow of this run, where it is a new one.
    pub(crate) identity: Identity,
    /// What the policies are asked.
    pub(crate) question: Question,
}

/// Octets that headers may take in [`SCRATCH`].
pub(crate) const SCRATCH_SIZE: u32 = 256;

/// See [`SCRATCH`].
#[repr(C, align(8))]
pub(crate) struct Scratch {
    /// The start of a packet whose headers do not lie in the linear part of its buffer.
    pub(crate) bytes: [u8; SCRATCH_SIZE as usize],
    /// What is written here and read back is a number that the verifier knows nothing of.
    pub(crate) forgotten: u32,
    _pad: u32,
    /// What piece of a datagram the packet is, as [`packed`](crate::fragments::packed) has it.
    pub(crate) piece: u64,
    /// The name of that datagram.
    pub(crate) datagram: Datagram,
    /// The key of the flow that an ICMP error quotes.
    pub(crate) quoted: [u64; 5],
    /// What all that says.
    pub(crate) packet: Packet,
    /// What is reported of it.
    pub(crate) record: PacketRecord,
}

/// What the first fragments of datagrams said. Written and read here.
#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<Datagram, Said, 4096> = LruHashMap::new();

/// What the kernel has dropped. Counted here, read by user space.
#[btf_map]
pub(crate) static DROPS: HashMap<DropKey, DropCounts, 1> = HashMap::new();

/// What became of what was dropped. Counted here.
#[btf_map]
pub(crate) static DROP_LEDGER: PerCpuArray<DropLedger, 1> = PerCpuArray::new();

/// Functions in which some drops are no news. Written by user space before any program runs.
#[btf_map]
pub(crate) static FOLDED_PLACES: Array<FoldedPlace, 1> = Array::new();

/// What units may still report of their drops. Written here, read by user space.
#[btf_map]
pub(crate) static DROP_BUDGETS: Array<DropBudget, { drop::UNITS as usize }> = Array::new();

/// Whose the addresses are that the XDP program has looked up on this CPU. Written and read here.
#[btf_map]
pub(crate) static XDP_KNOWN: PerCpuArray<Known, { xdp::KNOWN }> = PerCpuArray::new();

/// The frame that the XDP program has dropped last on this CPU, if the kernel has not freed a buffer of it. Written and read
/// here.
#[btf_map]
pub(crate) static XDP_GONE: PerCpuArray<Gone, 1> = PerCpuArray::new();

/// The programs of the packet filter, by the kind of link. Written by user space before any program runs.
#[btf_map]
pub(crate) static FILTER: Array<filter::Program, { filter::PROGRAMS as usize }> = Array::new();

/// The machines that run them. Written here; what they count is read by user space.
#[btf_map]
pub(crate) static FILTER_RUNS: PerCpuArray<Machine, { filter::MACHINES as usize }> = PerCpuArray::new();

/// Runs that would have this CPU's machine of the drop program. Written and read here.
#[btf_map]
pub(crate) static FILTER_USERS: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Written by the reference program `floor` only. As small as can be where it is not loaded, as what follows.
#[btf_map]
pub(crate) static FLOOR_FLOWS: HashMap<FlowKey4, [u64; 2], 1> = HashMap::new();

/// Written by the reference program `floor` only.
#[btf_map]
pub(crate) static FLOOR_COUNTERS: PerCpuArray<[u64; 2], 4> = PerCpuArray::new();

/// Where the bench's walk stands. Written by user space, and by the programs whose names begin with `walk`.
#[btf_map]
pub(crate) static WALK: Array<Walk, 1, MMAPABLE> = Array::new();

/// The flows of the bench's walk, in their order. Written by user space.
#[btf_map]
pub(crate) static STEPS: Array<u64, 1, MMAPABLE> = Array::new();

/// The programs that the steps of a walk go on with, by the numbers of `abi::bench`. Written by user space.
#[btf_map]
pub(crate) static PROGRAMS: ProgramArray<4> = ProgramArray::new();
