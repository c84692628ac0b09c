//! The programs, run on bytes by `BPF_PROG_TEST_RUN`, and all that they counted.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use collector_ebpf::abi::{
    counter::{DirectionCounters, Ledger, PuCounters},
    flow::FlowKey4,
    pu::{Role, index, role},
    xdp::XdpLedger,
};
use collector_user::{
    clock,
    drain::{
        decode::{DecodeError, FlowNews, Packet, Record},
        events::Events,
        flow::{FlowDelta, FlowId},
        packets::Packets,
        sequence::Sequences,
    },
    kernel::{
        batch,
        cgroups::Cgroups,
        control::Controller,
        cpus,
        networks::Networks,
        object::{self, CounterMaps, FlowMaps, Ledgers, Loaded, ReferenceMaps},
        programs::{EGRESS, FILTER_PROBE, INGRESS, Programs},
        requirements,
        settings::Settings,
        transport::Source,
    },
};

use tokio::runtime::Runtime;

use crate::{Result, privilege, release};

/// `XDP_PASS`.
pub const XDP_PASS: u32 = 2;
/// Octets that a program at XDP may put before a frame.
const METADATA: usize = 256;
/// `TC_ACT_UNSPEC`.
pub const PASS_ON: i32 = -1;
/// The interface that a frame is on where its context names none: loopback.
pub const IFINDEX: u32 = 1;
/// The first processing unit that has a name.
pub const UNIT: u16 = index::FIRST;
/// The number by which flow counts name the interface.
pub const INTERFACE: u16 = 9;

/// What a unit has beside its flows where they hold all.
pub const NOTHING: [DirectionCounters; 2] = [DirectionCounters { packets: 0, bytes: 0, skbs: 0 }; 2];

/// The loaded programs, attached to nothing.
pub struct Datapath {
    /// The programs.
    pub programs: Programs,
    /// What they obey.
    pub controller: Controller,
    flows: FlowMaps,
    counters: CounterMaps,
    ledgers: Ledgers,
    /// Control groups, where the settings ask for them.
    pub cgroups: Option<Cgroups>,
    /// Networks inside of tunnels.
    pub networks: Networks,
    events: Events,
    packets: Option<Source>,
    /// What the programs of the bench walk over, where the settings ask for them.
    pub reference: Option<ReferenceMaps>,
    /// How often the ring asked for a drain before its time.
    pub pressed: u64,
    /// The numbers of the records read so far.
    pub sequences: Sequences,
    units_before: BTreeMap<u16, PuCounters>,
    ledger_before: Ledger,
    runtime: Runtime,
}

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// What comes in.
    Ingress,
    /// What goes out.
    Egress,
}

impl Hook {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    /// The program's name.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Ingress => INGRESS,
            Self::Egress => EGRESS,
        }
    }
}

/// What a frame has beside its octets. The kernel takes no more for a test (`convert___skb_to_skb`): a VLAN tag beside the frame and the packet's type are not among it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The mark.
    pub mark: u32,
    /// The interface that it came in by before.
    pub ingress_ifindex: u32,
    /// Octets of payload in each segment, 0 for a packet.
    pub gso_size: u32,
    /// Segments.
    pub gso_segs: u32,
}

/// Octets of `struct __sk_buff` (include/uapi/linux/bpf.h), and where the fields lie.
const SKB: usize = 192;
const MARK: usize = 8;
const INGRESS_IFINDEX: usize = 36;
const GSO_SEGS: usize = 164;
const GSO_SIZE: usize = 176;

impl Context {
    fn bytes(self) -> [u8; SKB] {
        let mut bytes = [0; SKB];
        for (at, value) in [
            (MARK, self.mark),
            (INGRESS_IFINDEX, self.ingress_ifindex),
            (GSO_SEGS, self.gso_segs),
            (GSO_SIZE, self.gso_size),
        ] {
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }
}

/// Whether a test is left out since the kernel refuses a frame that came in by another interface before.
pub fn lacks_ingress_ifindex() -> bool {
    release::lacks("for the test, runs with an earlier interface", (5, 16))
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What the program returned.
    pub action: i32,
    /// The frame's mark.
    pub mark: u32,
}

/// What a flow counted, from slots and tables together; pairs are indexed by `RX` and `TX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Wire packets.
    pub packets: [u64; 2],
    /// Wire octets.
    pub bytes: [u64; 2],
    /// Buffers.
    pub skbs: [u64; 2],
    /// Connections begun.
    pub begun: u64,
    /// The unit's index.
    pub pu: u16,
    /// The interface's number.
    pub interface: u16,
    /// TCP flags.
    pub tcp_flags: [u8; 2],
    /// Bits of `how`.
    pub how: u8,
}

/// The role of [`IFINDEX`] as an uplink that is all [`UNIT`]'s.
pub fn own() -> Role {
    uplink(UNIT, role::OWN)
}

/// The role of [`IFINDEX`] as an uplink.
pub fn uplink(pu: u16, more: u16) -> Role {
    Role { ifindex: IFINDEX, pu, interface: INTERFACE, flags: role::UPLINK | more, ..Role::default() }
}

impl Datapath {
    /// Loads the programs and lets them count on [`IFINDEX`], whose role is [`own`].
    pub fn load(settings: &Settings) -> Result<Self> {
        let mut datapath = Self::load_without_lease(settings)?;
        datapath.renew()?;
        datapath.controller.set_role(own())?;
        Ok(datapath)
    }

    /// Loads the programs. They count nothing.
    pub fn load_without_lease(settings: &Settings) -> Result<Self> {
        privilege::check()?;
        let Loaded {
            programs,
            control,
            flows,
            mut counters,
            ledgers,
            cgroups,
            networks,
            events,
            read_counts,
            packets,
            reference,
            ..
        } = object::load(settings)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let events = {
            let _inside = runtime.enter();
            Events::new(events, read_counts, &cpus::online()?, clock::boot)?
        };
        counters.ensure(UNIT + 2)?;
        let cpus = ledgers.cpus();
        let controller = Controller::new(control, requirements::ticks_per_second()?)?;
        Ok(Self {
            programs,
            controller,
            flows,
            counters,
            ledgers,
            cgroups: cgroups.transpose()?,
            networks,
            events,
            packets: Some(packets),
            reference,
            pressed: 0,
            sequences: Sequences::new(cpus),
            units_before: BTreeMap::new(),
            ledger_before: Ledger::default(),
            runtime,
        })
    }

    /// Lets them count for some seconds more.
    pub fn renew(&self) -> Result<()> {
        self.controller.renew_lease(&self.programs.anchor()?);
        Ok(())
    }

    /// The groups that the programs have given an index since the last call, and these; fills their list from `next`.
    pub fn refill(&mut self, next: impl FnMut() -> Option<u16>) -> Result<Vec<(u64, u16)>> {
        Ok(self.cgroups.as_mut().context("groups were not asked for")?.refill(next)?)
    }

    /// Runs a program on a frame.
    pub fn run(&mut self, hook: Hook, frame: &[u8]) -> Result<Verdict> {
        self.run_with(hook, frame, Context::default())
    }

    /// Runs a program on a frame with a context.
    pub fn run_with(&mut self, hook: Hook, frame: &[u8], context: Context) -> Result<Verdict> {
        let context = context.bytes();
        let mut after = [0; SKB];
        let result = self.programs.classifier(hook.program())?.test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            ctx_out: Some(&mut after),
            ..TestRunOptions::default()
        })?;
        let mut mark = [0; 4];
        mark.copy_from_slice(&after[MARK..MARK + 4]);
        Ok(Verdict { action: result.return_value as i32, mark: u32::from_ne_bytes(mark) })
    }

    /// Runs the program at XDP on a frame; what it returned, and the frame with what was put before it (Linux 5.17: before,
    /// the frame alone).
    pub fn xdp(&mut self, frame: &[u8]) -> Result<(u32, Vec<u8>)> {
        let mut after = vec![0; frame.len() + METADATA];
        let result = self.programs.xdp()?.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut after),
            ..TestRunOptions::default()
        })?;
        after.truncate(result.data_size_out as usize);
        Ok((result.return_value, after))
    }

    /// What became of all frames at XDP since the programs were loaded.
    pub fn xdp_ledger(&self) -> XdpLedger {
        self.ledgers.xdp()
    }

    /// Whether the packet filter wants a frame. Needs the programs of the bench.
    pub fn probe(&mut self, frame: &[u8]) -> Result<bool> {
        let program = self.programs.classifier(FILTER_PROBE)?;
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        Ok(program.test_run(options)?.return_value == 1)
    }

    /// Frames that the filter asked beyond its window for.
    pub fn filter_window(&self) -> Result<u64> {
        Ok(self.ledgers.filter_window()?)
    }

    /// Another handle of a program, for another thread.
    pub fn program(&mut self, hook: Hook) -> Result<SchedClassifier> {
        let info = self.programs.classifier(hook.program())?.info()?;
        Ok(SchedClassifier::from_program_info(info, hook.program().into())?)
    }

    /// Ends the epoch and takes out what it counted, by flow.
    pub fn drain(&mut self) -> Result<BTreeMap<FlowId, Counted>> {
        let epoch = self.controller.swap(&self.flows)?;
        let mut all = BTreeMap::<FlowId, Counted>::new();
        self.flows.drain(epoch, |delta| {
            let sum = all.entry(delta.id).or_default();
            for direction in 0..2 {
                sum.packets[direction] += delta.packets[direction];
                sum.bytes[direction] += delta.bytes[direction];
                sum.skbs[direction] += delta.skbs[direction];
                sum.tcp_flags[direction] |= delta.tcp_flags[direction];
            }
            sum.begun += delta.begun;
            (sum.pu, sum.interface, sum.how) = (delta.pu, delta.interface, delta.how);
        })?;
        Ok(all)
    }

    /// Ends the epoch and throws away what it counted, and what the ring tells.
    pub fn discard(&mut self) -> Result<()> {
        let epoch = self.controller.swap(&self.flows)?;
        self.flows.drain(epoch, |_| {})?;
        self.events.drain(|_| {});
        self.renew()
    }

    /// Empties the table of `floor`.
    pub fn forget_floor(&self) -> Result<()> {
        let reference = self.reference.as_ref().context("the programs of the bench were not loaded")?;
        batch::take_all(reference.floor.fd(), |_: &FlowKey4, _: &[u64; 2]| {})?;
        Ok(())
    }

    /// Ends the epoch and takes out what it counted, as it comes: a flow that changed its unit comes more than once.
    pub fn deltas(&mut self) -> Result<Vec<FlowDelta>> {
        let epoch = self.controller.swap(&self.flows)?;
        let mut all = Vec::new();
        self.flows.drain(epoch, |delta| all.push(*delta))?;
        Ok(all)
    }

    /// Takes out what one flow counted; fails where there is another number of flows.
    pub fn drain_one(&mut self) -> Result<(FlowId, Counted)> {
        let all = self.drain()?;
        ensure!(all.len() == 1, "one flow was expected: {all:#?}");
        all.into_iter().next().context("no flow")
    }

    /// Takes out what is told of flows.
    pub fn news(&mut self) -> Result<Vec<FlowNews>> {
        let mut records = Vec::new();
        self.events.drain(|record| records.push(record));
        self.follow(records)
    }

    /// Waits until the reader of what is told of flows is woken, and takes it out.
    pub fn wait_for_news(&mut self) -> Result<Vec<FlowNews>> {
        let mut records = Vec::new();
        let woken = self.events.next(|record| records.push(record));
        self.runtime.block_on(woken)?;
        self.follow(records)
    }

    fn follow(&mut self, records: Vec<std::result::Result<Record, DecodeError>>) -> Result<Vec<FlowNews>> {
        let mut all = Vec::new();
        for record in records {
            let Record { cpu, sequence, news } = record?;
            ensure!(self.sequences.follow(cpu, sequence), "CPU {cpu} has told its record {sequence} before");
            match news {
                Some(news) => all.push(news),
                None => self.pressed += 1,
            }
        }
        Ok(all)
    }

    /// Makes the buffers for the packets that are traced, which the settings say the size of. Once.
    pub fn buffers(&mut self) -> Result<Buffers> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let source = self.packets.take().context("the buffers are somebody else's")?;
        let packets = {
            let _inside = runtime.enter();
            let mut packets = Packets::new(source)?;
            packets.open(&cpus::online()?)?;
            packets
        };
        Ok(Buffers { packets, runtime })
    }

    /// Forgets every flow that still counts or has just been drained, and counts from here on: what follows is as after
    /// a fresh load, which the verifier makes slow.
    pub fn begin_anew(&mut self, drained: &BTreeMap<FlowId, Counted>) -> Result<()> {
        let mut flows: Vec<_> = self.drain()?.into_keys().collect();
        flows.extend(drained.keys());
        self.flows.forget(&flows)?;
        self.news()?;
        self.pressed = 0;
        for pu in UNITS {
            self.units_before.insert(pu, self.counters.unit(pu)?.unwrap_or_default());
        }
        self.ledger_before = self.ledgers.sum();
        self.renew()
    }

    /// What a unit has that no flow holds.
    pub fn unit(&self, pu: u16) -> Result<PuCounters> {
        let mut unit = self.counters.unit(pu)?.context("no counters of this unit")?;
        let before = self.units_before.get(&pu).copied().unwrap_or_default();
        let both = unit.flowless.iter_mut().chain(&mut unit.local);
        for (direction, before) in both.zip(before.flowless.iter().chain(&before.local)) {
            direction.packets -= before.packets;
            direction.bytes -= before.bytes;
            direction.skbs -= before.skbs;
        }
        for (direction, before) in unit.rejected.iter_mut().zip(before.rejected) {
            *direction -= before;
        }
        unit.flows -= before.flows;
        unit.rate_limited -= before.rate_limited;
        unit.reserve_failed -= before.reserve_failed;
        Ok(unit)
    }

    /// What became of every buffer.
    pub fn ledger(&self) -> Result<Ledger> {
        let mut ledger = self.ledgers.sum();
        // Each by its name: one that is new has to be added here.
        let Ledger {
            seen,
            looped,
            second_pass,
            rejected,
            table_full,
            rate_limited,
            reserve_failed,
            reported,
            identity_full,
            no_role,
            orphan_fragments,
            inner_seen,
            inner_unparsed,
            inner_lost,
            traced,
            filtered,
            sampled,
            output_failed,
            units_exhausted,
            unparsed,
        } = self.ledger_before;
        ledger.seen -= seen;
        ledger.looped -= looped;
        ledger.second_pass -= second_pass;
        ledger.rejected -= rejected;
        ledger.table_full -= table_full;
        ledger.rate_limited -= rate_limited;
        ledger.reserve_failed -= reserve_failed;
        ledger.reported -= reported;
        ledger.identity_full -= identity_full;
        ledger.no_role -= no_role;
        ledger.orphan_fragments -= orphan_fragments;
        ledger.inner_seen -= inner_seen;
        ledger.inner_unparsed -= inner_unparsed;
        ledger.inner_lost -= inner_lost;
        ledger.traced -= traced;
        ledger.filtered -= filtered;
        ledger.sampled -= sampled;
        ledger.output_failed -= output_failed;
        ledger.units_exhausted -= units_exhausted;
        for (reason, before) in ledger.unparsed.iter_mut().zip(unparsed) {
            *reason -= before;
        }
        Ok(ledger)
    }
}

/// The buffers of single packets, which nobody reads but the test.
pub struct Buffers {
    packets: Packets,
    runtime: Runtime,
}

impl Buffers {
    /// Takes out the packets that are there.
    pub fn take(&mut self) -> Result<Vec<Packet>> {
        let mut all = Vec::new();
        self.packets.drain(|packet| all.push(packet));
        all.into_iter().map(|packet| Ok(packet?)).collect()
    }

    /// Waits until a buffer is half full, and takes out some of it.
    pub fn wait(&mut self) -> Result<Vec<Packet>> {
        let mut all = Vec::new();
        self.runtime.block_on(self.packets.next(|packet| all.push(packet)))?;
        all.into_iter().map(|packet| Ok(packet?)).collect()
    }

    /// How many the kernel says it found no room for in perf buffers.
    pub fn skipped(&mut self) -> u64 {
        self.packets.skipped()
    }
}

/// The units that tests count for.
const UNITS: [u16; 5] = [index::HOST, index::FORWARDED, index::UNKNOWN, index::OVERLAY, UNIT];

/// The buffers in the ledger that no flow has, but that are explained.
pub fn explained_without_flow(ledger: &Ledger) -> u64 {
    ledger.looped
        + ledger.second_pass
        + ledger.rejected
        + ledger.table_full
        + ledger.rate_limited
        + ledger.unparsed.iter().sum::<u64>()
}
