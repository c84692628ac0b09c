//! Loads the embedded programs and maps, sized for this host.

use std::sync::Arc;

use aya::{
    Ebpf, EbpfError, EbpfLoader, include_bytes_aligned,
    maps::{
        Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray, ProgramArray, lpm_trie::LpmTrie,
    },
};
use aya_log::EbpfLogger;
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY;
use collector_ebpf::abi::{
    bench::{self, Walk},
    control::Control,
    counter::{PUS_PER_CHUNK, PuCounters},
    filter::{self, Machine},
    flow::{Slot4, Slot6, TableKey4, TableKey6},
    pu::Role,
    trace::Trace,
};

use crate::kernel::{
    btf::{Btf, BtfError},
    cgroups::{self, Cgroups},
    cpus::{self, give_slots, slots_of_one},
    drops::{Drops, Prepared},
    ends,
    error::KernelError,
    maps::{data, mapped, outer, shared, tables, typed},
    memory::SharedArray,
    networks::Networks,
    packet_filter,
    policies::Policies,
    ports::Ports,
    programs::{EGRESS, INGRESS, Programs, classifier, load_anchor, load_classifiers},
    requirements::{self, check_object, is_preempt_rt, kernel_version, may_lock, ticks_per_second},
    settings::Settings,
    superpackets,
    transport::{ReadCounts, Sizes, Source},
    users::Users,
    xdp,
};

/// The object, or nothing where it was not built.
pub(super) static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/datapath.o"));

/// From here on maps count against the memory of the control group, not against `RLIMIT_MEMLOCK`.
const COUNTED_BY_MEMCG: (u32, u32) = (5, 11);

/// The maps and programs of a loaded object, by what they are for.
pub struct Loaded {
    /// The programs.
    pub programs: Programs,
    /// What the programs obey.
    pub control: ControlMaps,
    /// What they count for flows.
    pub flows: FlowMaps,
    /// What they count for processing units.
    pub counters: CounterMaps,
    /// What became of every packet and record.
    pub ledgers: Ledgers,
    /// Control groups and their units, or why this kernel has none for sockets; `None` where they were not asked for.
    pub cgroups: Option<Result<Cgroups, KernelError>>,
    /// Users of sockets, and the units that declare some.
    pub users: Users,
    /// The units that declare ports.
    pub ports: Ports,
    /// Networks inside of tunnels.
    pub networks: Networks,
    /// Flows that begin and end.
    pub events: Source,
    /// How much of them was read.
    pub read_counts: ReadCounts,
    /// Where it is told how much of the buffers of packets that are traced was read.
    pub packets_read: ReadCounts,
    /// Packets that are traced.
    pub packets: Source,
    /// Packets that are dropped.
    pub dropped: Source,
    /// Rare faults that the programs tell in words.
    pub faults: EbpfLogger<&'static dyn log::Log>,
    /// Why the programs do not know how the kernel cuts super-packets, where they do not.
    pub super_packets: Option<Arc<BtfError>>,
    /// What counts what the kernel drops, or why there is nothing that does; `None` where it was not asked for.
    pub drops: Option<Result<Drops, KernelError>>,
    /// Whether there is a program at XDP, or why not; `None` where it was not asked for.
    pub xdp: Option<Result<(), KernelError>>,
    /// What the programs of the bench walk over, where they were asked for.
    pub reference: Option<ReferenceMaps>,
}

/// Maps of the programs that the bench compares with.
pub struct ReferenceMaps {
    /// Where the walk over flows stands.
    pub walk: SharedArray<Walk>,
    /// The flows, in the order of the walk.
    pub steps: SharedArray<u64>,
    /// What `floor` has counted, by flow.
    pub floor: MapData,
    /// What steps of the walk go on with, as long as this is kept.
    pub programs: ProgramArray<MapData>,
}

/// Maps that only [`control`](crate::kernel::control) writes.
pub struct ControlMaps {
    /// Epoch, generation, lease: an entry a CPU.
    pub control: SharedArray<Control>,
    /// Interface roles.
    pub roles: Array<MapData, Role>,
    /// Roles that found their entry taken.
    pub roles_more: HashMap<MapData, u32, Role>,
    /// Addresses of this host.
    pub locals: HashMap<MapData, [u8; 16], u32>,
    /// Tunnels that end here.
    pub tunnels: HashMap<MapData, u32, u32>,
    /// Declared ranges.
    pub cidrs: LpmTrie<MapData, [u8; 16], u32>,
    /// Whose packets are reported.
    pub traced: HashMap<MapData, u32, Trace>,
    /// The programs of the packet filter.
    pub filters: Array<MapData, filter::Program>,
    /// What each unit's policies are.
    pub policies: Policies,
    /// The outer map of the IPv4 tables: writing it waits for every program that runs.
    pub tables_4: ArrayOfMaps<MapData>,
}

/// Maps that hold what was counted for flows.
#[derive(Debug)]
pub struct FlowMaps {
    /// The IPv4 caches: epochs, in them CPUs, in them slots.
    pub cache_4: SharedArray<Slot4>,
    /// The IPv6 caches.
    pub cache_6: SharedArray<Slot6>,
    /// The IPv4 tables, by epoch.
    pub tables_4: [MapData; 2],
    /// The IPv6 tables, by epoch.
    pub tables_6: [MapData; 2],
    /// Identities: newcomers and those that live on, IPv4.
    pub identities_4: [MapData; 2],
    /// Identities: newcomers and those that live on, IPv6.
    pub identities_6: [MapData; 2],
}

/// Maps of what processing units have and no flow holds.
pub struct CounterMaps {
    /// Chunks of processing units.
    pub units: ArrayOfMaps<MapData>,
    /// The chunks that exist.
    pub chunks: Vec<PerCpuArray<MapData, PuCounters>>,
}

/// The ledgers that the programs keep.
pub struct Ledgers {
    /// An entry a CPU.
    pub(super) cpus: SharedArray<Control>,
    /// The machines of the packet filter, which count too.
    pub(super) machines: PerCpuArray<MapData, Machine>,
}

/// Loads everything; attaches nothing.
///
/// # Errors
///
/// [`KernelError`]: a stub, an object of another version, a kernel too old, a privilege that is missing, or what the
/// kernel refuses.
pub fn load(settings: &Settings) -> Result<Loaded, KernelError> {
    check_object(OBJECT)?;
    requirements::check()?;
    let possible = cpus::possible()?;
    let online = cpus::online()?;
    // A slot could see two packets at once where softirqs are preempted.
    let with_slots =
        if is_preempt_rt() { &[] } else { settings.slots_on.as_ref().unwrap_or(&online).as_slice() };
    let cpus = (with_slots.len() as u32).max(1);
    let (slots_4, slots_6) = (slots_of_one(settings.slots_4, cpus), slots_of_one(settings.slots_6, cpus));
    let (entries_4, entries_6) = (2 * cpus * slots_4, 2 * cpus * slots_6);
    let hz = ticks_per_second()?;
    // In 1,024ths of a flow.
    let per_tick = scaled(u64::from(settings.new_flows_per_second) * 1024 / u64::from(hz)).max(1);
    let fragment_ticks = scaled(u64::from(settings.fragment_seconds) * u64::from(hz));
    let burst = scaled(u64::from(settings.new_flows_burst) * 1024);
    let (shift_4, shift_6) = (slot_shift(slots_4), slot_shift(slots_6));
    let factors = hash_factors()?;
    let (mark_mask, mark_shift) = (settings.mark_mask, settings.mark_mask.trailing_zeros() & 31);
    // Three quarters of a table, shared fairly: a CPU alone asks for a drain too early, never too late.
    let high_water = |entries: u32| (entries / 4 * 3 / online.len().max(1) as u32).max(1);
    // 0 would be no signature.
    let signature = random()? | 1;
    let (high_water_4, high_water_6) = (high_water(settings.table_4), high_water(settings.table_6));

    let btf = Btf::of_kernel().map_err(Arc::new);
    let btf = || btf.as_ref().map_err(Arc::clone);
    let super_packets = superpackets::Told::new(btf());
    let prepared = settings.drops.as_ref().map(|limits| Prepared::new(limits, btf()?));
    let filtered = u32::from(settings.filter.is_some());
    let xdp_told = xdp::Told::new(settings)?;
    let cgroups_told = cgroups::Told::new(settings, possible);
    let ends_told = ends::Told::new(settings, cgroups_told.are_wanted());
    let sizes = Sizes::new(settings, possible, online.len() as u32, may_lock());

    let mut loader = EbpfLoader::new();
    super_packets.tell(&mut loader);
    if let Some(Ok(prepared)) = &prepared {
        prepared.told.tell(&mut loader);
    }
    xdp_told.tell(&mut loader);
    cgroups_told.tell(&mut loader);
    ends_told.tell(&mut loader);
    sizes.tell(&mut loader);
    loader
        .override_global("SLOT_SHIFT_4", &shift_4, true)
        .override_global("SLOT_SHIFT_6", &shift_6, true)
        .override_global("FLOWS_PER_TICK", &per_tick, true)
        .override_global("FLOWS_BURST", &burst, true)
        .override_global("FRAGMENT_TICKS", &fragment_ticks, true)
        .override_global("POSSIBLE_CPUS", &possible, true)
        .override_global("MARK_MASK", &mark_mask, true)
        .override_global("MARK_SHIFT", &mark_shift, true)
        .override_global("FILTERED", &filtered, true)
        .override_global("SIGNATURE", &signature, true)
        .override_global("HIGH_WATER_4", &high_water_4, true)
        .override_global("HIGH_WATER_6", &high_water_6, true)
        .map_max_entries("CONTROL", possible);
    give_room(&mut loader, settings, [entries_4, entries_6]);
    for (name, factor) in HASH_FACTORS.into_iter().zip(&factors) {
        loader.override_global(name, factor, true);
    }
    let mut ebpf = loader.load(OBJECT).map_err(explain)?;
    // Before any map is taken out: a program refers to its maps by descriptor until the kernel has it.
    load_classifiers(&mut ebpf, settings.reference_programs)?;
    load_anchor(&mut ebpf)?;
    let (xdp_program, xdp) = xdp::load(&mut ebpf, settings);
    let drops = prepared
        .map(|prepared| prepared.and_then(|prepared| prepared.load(&mut ebpf, settings.reference_programs)));

    let mut outer_4 = outer(&mut ebpf, "TABLES4")?;
    let flows = FlowMaps::take(&mut ebpf, &mut outer_4, settings, [entries_4, entries_6])?;
    let control_map = data(&mut ebpf, "CONTROL")?;
    let control = mapped(&control_map, "CONTROL", possible)?;
    let control = ControlMaps::take(&mut ebpf, control, outer_4, settings)?;
    let counters = CounterMaps { units: outer(&mut ebpf, "PUS")?, chunks: Vec::new() };
    let machines = typed(&mut ebpf, "FILTER_RUNS")?;
    let ledgers = Ledgers { cpus: mapped(&control_map, "CONTROL", possible)?, machines };
    give_slots(&control.control, with_slots, slots_4, slots_6);
    let cgroups = cgroups_told.take(&mut ebpf, possible)?;
    let (users, ports) = ends_told.take(&mut ebpf)?;
    let networks = Networks::new(typed(&mut ebpf, "NETWORKS")?, typed(&mut ebpf, "NETWORKS_MADE")?);
    let [events, packets, dropped] = sizes.take(&mut ebpf)?;
    let [read_counts, packets_read] = ReadCounts::both(&control_map, possible)?;
    let faults = EbpfLogger::init(&mut ebpf)?;
    let anchored = shared(&mut ebpf, "ANCHOR", 1)?;
    let reference = settings.reference_programs.then(|| reference_maps(&mut ebpf)).transpose()?;
    let programs = Programs { ebpf, xdp: xdp_program, anchored };
    Ok(Loaded {
        programs,
        control,
        flows,
        counters,
        ledgers,
        cgroups,
        users,
        ports,
        networks,
        events,
        read_counts,
        packets_read,
        packets,
        dropped,
        faults,
        super_packets: super_packets.missing,
        drops,
        xdp,
        reference,
    })
}

/// Says how many entries the maps have whose size is not what the programs say.
fn give_room(loader: &mut EbpfLoader<'_>, settings: &Settings, [entries_4, entries_6]: [u32; 2]) {
    loader
        .map_max_entries("CACHE4", entries_4)
        .map_max_entries("CACHE6", entries_6)
        .map_max_entries("NEW4", settings.identities_4 / 2)
        .map_max_entries("NEW6", settings.identities_6 / 2)
        .map_max_entries("LIVE4", settings.identities_4)
        .map_max_entries("LIVE6", settings.identities_6)
        .map_max_entries("VERDICTS", settings.verdicts.max(1));
    if settings.reference_programs {
        loader.map_max_entries("STEPS", bench::STEPS).map_max_entries("FLOOR_FLOWS", FLOOR_FLOWS);
    }
}

/// Flows that `floor` can tell apart.
pub const FLOOR_FLOWS: u32 = 1 << 20;

fn reference_maps(ebpf: &mut Ebpf) -> Result<ReferenceMaps, KernelError> {
    let mut programs: ProgramArray<_> = typed(ebpf, "PROGRAMS")?;
    for (index, name) in
        [(bench::EMPTY, "empty"), (bench::FLOOR, "floor"), (bench::INGRESS, INGRESS), (bench::EGRESS, EGRESS)]
    {
        let program =
            classifier(ebpf, name)?.fd().map_err(|source| KernelError::Program { program: name, source })?;
        programs.set(index, program, 0).map_err(|source| KernelError::Map {
            map: "PROGRAMS",
            action: "filled",
            source,
        })?;
    }
    Ok(ReferenceMaps {
        walk: shared(ebpf, "WALK", 1)?,
        steps: shared(ebpf, "STEPS", bench::STEPS)?,
        floor: data(ebpf, "FLOOR_FLOWS")?,
        programs,
    })
}

impl ControlMaps {
    /// `tables_4` is the outer map of the IPv4 tables.
    fn take(
        ebpf: &mut Ebpf,
        control: SharedArray<Control>,
        tables_4: ArrayOfMaps<MapData>,
        settings: &Settings,
    ) -> Result<Self, KernelError> {
        Ok(Self {
            control,
            roles: typed(ebpf, "ROLES")?,
            roles_more: typed(ebpf, "ROLES_MORE")?,
            locals: typed(ebpf, "LOCALS")?,
            tunnels: typed(ebpf, "TUNNELS")?,
            cidrs: typed(ebpf, "CIDRS")?,
            traced: typed(ebpf, "TRACED")?,
            filters: packet_filter::filters(ebpf, settings.filter.as_ref())?,
            policies: Policies::take(ebpf)?,
            tables_4,
        })
    }
}

impl FlowMaps {
    /// `outer_4` is the outer map of the IPv4 tables; `entries` are those of the caches.
    fn take(
        ebpf: &mut Ebpf,
        outer_4: &mut ArrayOfMaps<MapData>,
        settings: &Settings,
        entries: [u32; 2],
    ) -> Result<Self, KernelError> {
        let [entries_4, entries_6] = entries;
        let mut outer_6 = outer(ebpf, "TABLES6")?;
        Ok(Self {
            cache_4: shared(ebpf, "CACHE4", entries_4)?,
            cache_6: shared(ebpf, "CACHE6", entries_6)?,
            tables_4: tables::<TableKey4>(outer_4, "TABLES4", settings.table_4)?,
            tables_6: tables::<TableKey6>(&mut outer_6, "TABLES6", settings.table_6)?,
            identities_4: [data(ebpf, "NEW4")?, data(ebpf, "LIVE4")?],
            identities_6: [data(ebpf, "NEW6")?, data(ebpf, "LIVE6")?],
        })
    }
}

impl CounterMaps {
    /// Makes sure that the chunk which counts processing unit `index` exists.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn ensure(&mut self, index: u16) -> Result<(), KernelError> {
        while self.chunks.len() as u32 * PUS_PER_CHUNK <= u32::from(index) {
            let fail = |action| move |source| KernelError::Map { map: "PUS", action, source };
            let chunk = aya_obj::Map::new_from_params(
                BPF_MAP_TYPE_PERCPU_ARRAY as u32,
                size_of::<u32>() as u32,
                size_of::<PuCounters>() as u32,
                PUS_PER_CHUNK,
                0,
            );
            let chunk = MapData::create(chunk, "PUS.chunk", None).map_err(fail("created"))?;
            self.units.set(self.chunks.len() as u32, &chunk, 0).map_err(fail("extended"))?;
            let chunk = Map::PerCpuArray(chunk).try_into().map_err(fail("opened"))?;
            self.chunks.push(chunk);
        }
        Ok(())
    }
}

/// A map that may not be created although `CAP_BPF` is held lacks memory that may be locked.
fn explain(error: EbpfError) -> KernelError {
    match error {
        EbpfError::MapError(MapError::CreateError { name, io_error })
            if io_error.raw_os_error() == Some(libc::EPERM) && kernel_version() < COUNTED_BY_MEMCG =>
        {
            KernelError::LockedMemory { map: name }
        }
        other => other.into(),
    }
}

/// A number that is as good as no limit where it does not fit.
fn scaled(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// How far a hash is shifted to be one of so many slots.
fn slot_shift(slots: u32) -> u32 {
    u64::BITS - slots.trailing_zeros()
}

/// The factors of the hash, one for each word of the longest key.
const HASH_FACTORS: [&str; 5] =
    ["HASH_FACTOR_1", "HASH_FACTOR_2", "HASH_FACTOR_3", "HASH_FACTOR_4", "HASH_FACTOR_5"];

/// Random odd numbers.
fn hash_factors() -> Result<[u64; HASH_FACTORS.len()], KernelError> {
    let mut factors = [0; HASH_FACTORS.len()];
    for factor in &mut factors {
        *factor = random()? | 1;
    }
    Ok(factors)
}

/// A random number.
pub(super) fn random() -> Result<u64, KernelError> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| KernelError::Host { what: "random numbers", source: error.into() })?;
    Ok(u64::from_ne_bytes(bytes))
}
