//! What the kernel drops: the program on its tracepoint, and what that has counted.
//!
//! The program reads the kernel's own structures. Where their fields lie is looked up in the running kernel's type
//! information; where that does not say it without doubt, the program is left out, and everything else works.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _};

use aya::{
    Btf as AyaBtf, Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray},
    programs::{BtfTracePoint, Program},
};
use collector_ebpf::abi::drop::{DropBudget, DropCounts, DropKey, DropLedger, FoldedPlace, PARTS};
use collector_ebpf::abi::packet::MOST_CAPTURED;

use super::{
    btf::{Btf, BtfError, Wanted},
    error::KernelError,
    folding::Folding,
    maps::typed,
    reasons::Reasons,
    requirements::{kernel_version, ticks_per_second},
    superpackets,
};
use crate::host::{
    modules::Modules,
    symbols::{Symbols, SymbolsError},
};

/// The program's name, and the tracepoint's.
pub const DROPS: &str = "kfree_skb";
/// Does nothing on the same tracepoint, for the bench.
pub const EMPTY: &str = "empty_drop";

/// Where the program finds what it reads, on this kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    places: Vec<(&'static str, u32)>,
    /// The kernel tells why it drops.
    pub has_reasons: bool,
}

const FIELDS: [Wanted; 17] = [
    ("SKB_DEV", "sk_buff", &["dev"], 8),
    ("SKB_SK", "sk_buff", &["sk"], 8),
    ("SKB_LEN", "sk_buff", &["len"], 4),
    ("SKB_DATA_LEN", "sk_buff", &["data_len"], 4),
    ("SKB_PROTOCOL", "sk_buff", &["protocol"], 2),
    ("SKB_NETWORK", "sk_buff", &["network_header"], 2),
    ("SKB_MAC", "sk_buff", &["mac_header"], 2),
    ("SKB_IIF", "sk_buff", &["skb_iif"], 4),
    ("SKB_MARK", "sk_buff", &["mark"], 4),
    ("SKB_VLAN_TCI", "sk_buff", &["vlan_tci"], 2),
    ("SKB_VLAN_PROTO", "sk_buff", &["vlan_proto"], 2),
    ("SHARED_SIZES", "skb_shared_info", &["gso_size"], 2),
    ("DEV_INDEX", "net_device", &["ifindex"], 4),
    ("DEV_TYPE", "net_device", &["type"], 2),
    ("DEV_NET", "net_device", &["nd_net", "net"], 8),
    ("SOCK_NET", "sock", &["__sk_common", "skc_net", "net"], 8),
    ("NET_INODE", "net", &["ns", "inum"], 4),
];

impl Shape {
    /// Looks everything up.
    ///
    /// # Errors
    ///
    /// [`BtfError`]: the first field that is not where it could be read.
    pub fn find(btf: &Btf) -> Result<Self, BtfError> {
        let mut places = btf.places(&FIELDS)?;
        places.extend(btf.places(&superpackets::FIELDS)?);
        let [size, segments] = ["gso_size", "gso_segs"].map(|name| btf.place("skb_shared_info", &[name], 2));
        if segments? != size? + 2 {
            return Err(BtfError::Missing { what: "skb_shared_info.gso_segs behind gso_size".to_owned() });
        }
        let kind = btf.field("sk_buff", &["pkt_type"])?;
        places.extend([("SKB_PKT_TYPE", kind.offset), ("SKB_PKT_TYPE_BIT", kind.bit)]);
        // Linux 6.2 took it out: a tag that is absent has no protocol then.
        if let Ok(field) = btf.field("sk_buff", &["vlan_present"]) {
            places.extend([("SKB_VLAN_PRESENT", field.offset), ("SKB_VLAN_PRESENT_BIT", 1 << field.bit)]);
        }
        // What our own programs at TC sign there; where that cannot be told, they are not told apart from those of others.
        if let (Ok(block), Ok(data)) = (btf.field("sk_buff", &["cb"]), btf.field("qdisc_skb_cb", &["data"])) {
            places.push(("SKB_CB", block.offset + data.offset));
        }
        let arguments = btf.arguments(DROPS)?;
        if arguments.first().is_none_or(|first| first != "sk_buff") {
            return Err(BtfError::Missing {
                what: format!("socket buffer as the first argument of {DROPS}"),
            });
        }
        let has_reasons = arguments.get(2).is_some_and(|third| third == "skb_drop_reason");
        Ok(Self { places, has_reasons })
    }
}

/// The first version that is known to let programs load from where a structure's pointer to octets leads, as from memory that
/// nobody vouches for; on those before 6.17 it is a number like any other.
const LOADS_ANYWHERE: (u32, u32) = (6, 18);

/// What the drop program is told before it is loaded.
pub struct Told {
    shape: Shape,
    reasons: u32,
    loads_anywhere: u32,
    namespace: u32,
    interval: u64,
    burst_parts: u64,
    rows: u32,
    trial: (u64, u64),
    release: (u64, u64),
    folded: [u64; 4],
    places: Vec<FoldedPlace>,
    place_count: u32,
    snap: u32,
}

impl Told {
    /// On a kernel of this shape, with these limits.
    ///
    /// # Errors
    ///
    /// [`KernelError::Host`].
    fn new(
        shape: Shape,
        limits: &DropLimits,
        [trial, release]: [(u64, u64); 2],
        folded: [u64; 4],
        places: Vec<FoldedPlace>,
    ) -> Result<Self, KernelError> {
        let DropLimits { per_second, burst, rows, snap, .. } = *limits;
        let namespace = fs::metadata("/proc/thread-self/ns/net")
            .map_err(|source| KernelError::Host { what: "the network namespace", source })?;
        let interval = (u64::from(ticks_per_second()?) * PARTS / u64::from(per_second.max(1))).max(1);
        Ok(Self {
            reasons: u32::from(shape.has_reasons),
            loads_anywhere: u32::from(kernel_version() >= LOADS_ANYWHERE),
            shape,
            // The kernel numbers namespaces with 32 bits.
            namespace: namespace.ino() as u32,
            interval,
            burst_parts: interval.saturating_mul(u64::from(burst.max(1))),
            rows: rows.max(1),
            trial,
            release,
            folded,
            place_count: places.len() as u32,
            places,
            snap: snap.min(MOST_CAPTURED),
        })
    }

    /// Puts it where the program looks for it.
    pub fn tell<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        for (global, place) in &self.shape.places {
            loader.override_global(global, place, true);
        }
        loader
            .override_global("DROP_REASONS", &self.reasons, true)
            .override_global("LOADS_ANYWHERE", &self.loads_anywhere, true)
            .override_global("NAMESPACE", &self.namespace, true)
            .override_global("DROP_INTERVAL", &self.interval, true)
            .override_global("DROP_BURST", &self.burst_parts, true)
            .override_global("TRIAL", &self.trial.0, true)
            .override_global("TRIAL_LENGTH", &self.trial.1, true)
            .override_global("RELEASE", &self.release.0, true)
            .override_global("RELEASE_LENGTH", &self.release.1, true)
            .override_global("PLACES", &self.place_count, true)
            .override_global("DROP_SNAP", &self.snap, true)
            .map_max_entries("FOLDED_PLACES", self.place_count.max(1))
            .map_max_entries("DROPS", self.rows);
        for (global, bits) in ["FOLDED_0", "FOLDED_1", "FOLDED_2", "FOLDED_3"].into_iter().zip(&self.folded) {
            loader.override_global(global, bits, true);
        }
    }
}

/// What the drop program has counted, and what its numbers are called.
pub struct Drops {
    /// Its maps.
    pub maps: DropMaps,
    /// What the kernel calls its reasons.
    pub reasons: Reasons,
    /// It gives any (Linux 5.17).
    pub has_reasons: bool,
    /// The inode of the network namespace that is watched.
    pub namespace: u32,
    /// What it calls its functions, or why they are not to be had.
    pub symbols: Result<Symbols, SymbolsError>,
    /// The modules that the names of both are of.
    pub modules: Modules,
}

/// What the kernel calls its reasons and functions now that these modules are loaded; none where it does not say. That takes
/// some tenths of a second.
#[must_use]
pub fn names(modules: &Modules) -> Option<(Reasons, Symbols)> {
    let reasons = Btf::of_kernel().and_then(|btf| Reasons::find(&btf)).ok()?;
    Some((reasons, Symbols::read(modules).ok()?))
}

/// What is known of the kernel before anything is loaded.
pub struct Prepared {
    /// What the program is told.
    pub told: Told,
    reasons: Reasons,
    symbols: Result<Symbols, SymbolsError>,
    modules: Modules,
}

/// The function in which the kernel frees what a program was tried on: by others, for ours is tried on nothing.
const TRIAL: &str = "bpf_prog_test_run_skb";
/// The function in which the kernel frees the fragments of a datagram that was put together, and what a receive offload has
/// chained: since Linux 6.0 it says so by the same tracepoint as of a drop. Before it does so in one that frees others, too.
const RELEASE: &str = "skb_release_data";

impl Prepared {
    /// Looks at the kernel with this type information.
    ///
    /// # Errors
    ///
    /// [`KernelError::Shape`], [`KernelError::Host`].
    pub fn new(limits: &DropLimits, btf: &Btf) -> Result<Self, KernelError> {
        // What is loaded from here on is found to be new later.
        let modules = Modules::read();
        let (shape, reasons) = (Shape::find(btf)?, Reasons::find(btf)?);
        let symbols = Symbols::read(&modules);
        let extent =
            |name| symbols.as_ref().ok().and_then(|symbols| symbols.extent(name)).unwrap_or_default();
        let functions = [extent(TRIAL), extent(RELEASE)];
        let (folded, places) = match &limits.folding {
            None => Default::default(),
            Some(folding) => (
                reasons.bits(folding.reasons),
                symbols.as_ref().map_or_else(|_| Vec::new(), |symbols| folding.places(&reasons, symbols)),
            ),
        };
        Ok(Self { told: Told::new(shape, limits, functions, folded, places)?, reasons, symbols, modules })
    }

    /// Loads the program, once everything else is.
    ///
    /// # Errors
    ///
    /// [`KernelError`].
    pub fn load(self, ebpf: &mut Ebpf, with_reference: bool) -> Result<Drops, KernelError> {
        load(ebpf, DROPS)?;
        if with_reference {
            load(ebpf, EMPTY)?;
        }
        let mut places: Array<_, FoldedPlace> = typed(ebpf, "FOLDED_PLACES")?;
        for (at, place) in (0..).zip(&self.told.places) {
            let failed = |source| KernelError::Map { map: "FOLDED_PLACES", action: "write", source };
            places.set(at, place, 0).map_err(failed)?;
        }
        let has_reasons = self.told.shape.has_reasons;
        let namespace = self.told.namespace;
        let Self { reasons, symbols, modules, .. } = self;
        Ok(Drops { maps: DropMaps::take(ebpf)?, reasons, has_reasons, namespace, symbols, modules })
    }
}

/// What an operator can bound of drops.
#[derive(Clone, Debug)]
pub struct DropLimits {
    /// Reports of single drops that a unit may have in a second.
    pub per_second: u32,
    /// Reports that it may save up.
    pub burst: u32,
    /// Rows of unit, reason and place.
    pub rows: u32,
    /// Octets of a dropped packet that are reported.
    pub snap: u32,
    /// Which drops are counted and not reported; all are where nothing is said.
    pub folding: Option<Folding>,
}

/// Octets of a dropped packet that are reported where nothing is said: its headers, however many there are.
pub const DEFAULT_SNAP: u32 = 192;

impl Default for DropLimits {
    fn default() -> Self {
        Self { per_second: 100, burst: 200, rows: 16_384, snap: DEFAULT_SNAP, folding: None }
    }
}

/// The maps of the drop program.
pub struct DropMaps {
    rows: HashMap<MapData, DropKey, DropCounts>,
    ledger: PerCpuArray<MapData, DropLedger>,
    budgets: Array<MapData, DropBudget>,
}

impl DropMaps {
    /// Takes them out of what was loaded.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`], [`KernelError::Missing`].
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            rows: typed(ebpf, "DROPS")?,
            ledger: typed(ebpf, "DROP_LEDGER")?,
            budgets: typed(ebpf, "DROP_BUDGETS")?,
        })
    }

    /// What was dropped since the program was attached, by whose it was, why and where.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn rows(&self) -> Result<BTreeMap<DropKey, DropCounts>, KernelError> {
        // Rows are removed by who asks this, and by nobody else: no step of the iteration can lose its place.
        self.rows.iter().collect::<Result<_, _>>().map_err(failed("DROPS"))
    }

    /// Takes out the rows of units by whose indexes nothing is counted any more. A program that does so all the same adds to a
    /// row of which nobody knows how far it was read: what it counts in that moment is lost.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn take_out(
        &mut self,
        is_over: impl Fn(u16) -> bool,
    ) -> Result<BTreeMap<DropKey, DropCounts>, KernelError> {
        let keys = self.rows.keys().filter(|key| key.as_ref().map_or(true, |key| is_over(key.pu)));
        let keys = keys.collect::<Result<Vec<DropKey>, _>>().map_err(failed("DROPS"))?;
        let mut taken = BTreeMap::new();
        for key in keys {
            let counts = self.rows.get(&key, 0).map_err(failed("DROPS"))?;
            let removed = |source| KernelError::Map { map: "DROPS", action: "remove from", source };
            self.rows.remove(&key).map_err(removed)?;
            taken.insert(key, counts);
        }
        Ok(taken)
    }

    /// The budget of the unit with this index, and what it has lost, ever.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn budget(&self, index: u16) -> Result<DropBudget, KernelError> {
        self.budgets.get(&index.into(), 0).map_err(failed("DROP_BUDGETS"))
    }

    /// What became of what was dropped, and of the reports, over all CPUs.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn ledger(&self) -> Result<DropLedger, KernelError> {
        let cpus = self.ledger.get(&0, 0).map_err(failed("DROP_LEDGER"))?;
        Ok(cpus.iter().fold(DropLedger::default(), |mut sum, cpu| {
            // Each by its name: one that is new has to be added here.
            let DropLedger { seen, no_packet, table_full, reported, folded, filtered, output_failed } = cpu;
            sum.seen += seen;
            sum.no_packet += no_packet;
            sum.table_full += table_full;
            sum.reported += reported;
            sum.folded += folded;
            sum.filtered += filtered;
            sum.output_failed += output_failed;
            sum
        }))
    }

    /// Reports that were held back, ever, of all units up to the one with this index.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn held_back(&self, last: u16) -> Result<u64, KernelError> {
        (0..=last).try_fold(0, |sum, index| Ok(sum + self.budget(index)?.held_back))
    }
}

fn load(ebpf: &mut Ebpf, name: &'static str) -> Result<(), KernelError> {
    let fail = |source| KernelError::Program { program: name, source };
    let btf = AyaBtf::from_sys_fs().map_err(|error| fail(error.into()))?;
    program(ebpf, name)?.load(DROPS, &btf).map_err(fail)
}

/// Hangs it on the tracepoint; it goes with this process.
///
/// # Errors
///
/// [`KernelError::Program`].
pub fn attach(ebpf: &mut Ebpf, name: &'static str) -> Result<(), KernelError> {
    program(ebpf, name)?.attach().map(drop).map_err(|source| KernelError::Program { program: name, source })
}

/// Takes it off again.
pub fn detach(ebpf: &mut Ebpf) {
    if let Ok(program) = program(ebpf, DROPS) {
        // What is not attached cannot be taken off.
        let _ = program.unload();
    }
}

/// Drops for which the kernel did not run the program, since it was running on that CPU (Linux 6.1 and newer; before it
/// runs in the midst of itself). 0 where the kernel does not tell.
#[must_use]
pub fn skipped(ebpf: &mut Ebpf) -> u64 {
    use std::os::fd::{AsFd as _, AsRawFd as _};
    let mut misses = || {
        let descriptor = program(ebpf, DROPS).ok()?.fd().ok()?.as_fd().as_raw_fd();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).ok()?;
        info.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
    };
    misses().unwrap_or(0)
}

/// Nanoseconds that a program has run in all and how often, where the kernel keeps that (`kernel.bpf_stats_enabled`).
///
/// # Errors
///
/// [`KernelError::Program`].
pub fn runs(ebpf: &mut Ebpf, name: &'static str) -> Result<(u64, u64), KernelError> {
    let info =
        program(ebpf, name)?.info().map_err(|source| KernelError::Program { program: name, source })?;
    Ok((u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX), info.run_count()))
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut BtfTracePoint, KernelError> {
    match ebpf.program_mut(name) {
        Some(Program::BtfTracePoint(program)) => Ok(program),
        _ => Err(KernelError::Missing { what: "program", name }),
    }
}

fn failed(map: &'static str) -> impl FnOnce(aya::maps::MapError) -> KernelError {
    move |source| KernelError::Map { map, action: "read", source }
}
