//! The programs, run on bytes by `BPF_PROG_TEST_RUN`, and all that they counted and told.

mod counted;
mod told;
mod written;

use std::collections::BTreeMap;

use anyhow::Context as _;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use collector_ebpf::abi::{
    counter::{DirectionCounters, Ledger, PuCounters},
    pu::{Role, index, role},
};
use collector_user::{
    clock,
    drain::{events::Events, sequence::Sequences},
    kernel::{
        cgroups::Cgroups,
        control::Controller,
        cpus,
        networks::Networks,
        object::{self, CounterMaps, FlowMaps, Ledgers, Loaded, ReferenceMaps},
        programs::{EGRESS, FILTER_PROBE, INGRESS, Programs},
        requirements,
        settings::Settings,
        transport::{ReadCounts, Source},
    },
};
pub use counted::{Counted, explained_without_flow};
use tokio::runtime::Runtime;
pub use told::Buffers;

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
    packets: Option<(Source, ReadCounts)>,
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
            packets_read,
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
            packets: Some((packets, packets_read)),
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

    /// Whether the packet filter wants a frame. Needs the programs of the bench.
    pub fn probe(&mut self, frame: &[u8]) -> Result<bool> {
        let program = self.programs.classifier(FILTER_PROBE)?;
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        Ok(program.test_run(options)?.return_value == 1)
    }

    /// Another handle of a program, for another thread.
    pub fn program(&mut self, hook: Hook) -> Result<SchedClassifier> {
        let info = self.programs.classifier(hook.program())?.info()?;
        Ok(SchedClassifier::from_program_info(info, hook.program().into())?)
    }
}
