//! The programs, by their names: what is attached, what is run by hand, what the kernel tells of them.

use aya::{
    Ebpf,
    programs::{Program, RawTracePointRunOptions, SchedClassifier, TestRun as _, Xdp},
};
use collector_ebpf::abi::control::Anchor;

use super::{drops, error::KernelError, memory::SharedArray, xdp};

/// The loaded programs.
#[derive(Debug)]
pub struct Programs {
    pub(super) ebpf: Ebpf,
    /// The program at XDP, where one is loaded.
    pub(super) xdp: Option<&'static str>,
    /// Where `anchor` writes.
    pub(super) anchored: SharedArray<Anchor>,
}

/// The program that counts what comes in.
pub const INGRESS: &str = "tc_ingress";
/// The program that counts what goes out.
pub const EGRESS: &str = "tc_egress";
const ANCHOR: &str = "anchor";
/// The programs of the bench: nothing, and the usual way to count flows, as they are and with a packet of another flow
/// in each run; those that count, with a packet of another flow in each run; and the packet filter alone.
pub const REFERENCES: [&str; 8] =
    ["empty", "floor", "walk_empty", "walk_floor", "walk_ingress", "walk_egress", "walk_held", FILTER_PROBE];
/// The program that says whether the filter wants a packet, among those of the bench.
pub const FILTER_PROBE: &str = "filter_probe";

/// Loads those at TC, and those of the bench if they are asked for.
pub(super) fn load_classifiers(ebpf: &mut Ebpf, with_references: bool) -> Result<(), KernelError> {
    let reference: &[&'static str] = if with_references { &REFERENCES } else { &[] };
    for name in [INGRESS, EGRESS].iter().chain(reference) {
        let program = classifier(ebpf, name)?;
        program.load().map_err(|source| KernelError::Program { program: name, source })?;
    }
    Ok(())
}

/// Loads the one that is run by hand.
pub(super) fn load_anchor(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    match ebpf.program_mut(ANCHOR) {
        Some(Program::RawTracePoint(program)) => {
            program.load().map_err(|source| KernelError::Program { program: ANCHOR, source })
        }
        _ => Err(KernelError::Missing { what: "program", name: ANCHOR }),
    }
}

/// A program at TC.
pub(super) fn classifier<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, KernelError> {
    match ebpf.program_mut(name) {
        Some(Program::SchedClassifier(program)) => Ok(program),
        _ => Err(KernelError::Missing { what: "program", name }),
    }
}

impl Programs {
    /// A program by its name.
    ///
    /// # Errors
    ///
    /// [`KernelError::Missing`].
    pub fn classifier(&mut self, name: &'static str) -> Result<&mut SchedClassifier, KernelError> {
        classifier(&mut self.ebpf, name)
    }

    /// The program at XDP.
    ///
    /// # Errors
    ///
    /// [`KernelError::Missing`]: none is loaded.
    pub fn xdp(&mut self) -> Result<&mut Xdp, KernelError> {
        let name = self.xdp.ok_or(KernelError::Missing { what: "program", name: "xdp_ingress" })?;
        xdp::program(&mut self.ebpf, name)
    }

    /// The kernel's number of the program at XDP; `None` where there is none, or it does not tell.
    pub fn xdp_id(&mut self) -> Option<u32> {
        Some(self.xdp().ok()?.info().ok()?.id())
    }

    /// The program at XDP that does nothing, among those of the bench.
    ///
    /// # Errors
    ///
    /// [`KernelError::Missing`].
    pub fn xdp_empty(&mut self) -> Result<&mut Xdp, KernelError> {
        xdp::program(&mut self.ebpf, xdp::EMPTY)
    }

    /// The kernel's numbers of the programs on the ingress and on the egress hook; `None` where it does not tell them.
    pub fn ids(&mut self) -> Option<[u32; 2]> {
        let mut id = |name| Some(self.classifier(name).ok()?.info().ok()?.id());
        Some([id(INGRESS)?, id(EGRESS)?])
    }

    /// Hangs the drop program on its tracepoint.
    ///
    /// # Errors
    ///
    /// [`KernelError::Program`].
    pub fn attach_drops(&mut self) -> Result<(), KernelError> {
        drops::attach(&mut self.ebpf, drops::DROPS)
    }

    /// Hangs what the bench compares it with beside it.
    ///
    /// # Errors
    ///
    /// [`KernelError::Program`].
    pub fn attach_empty_drops(&mut self) -> Result<(), KernelError> {
        drops::attach(&mut self.ebpf, drops::EMPTY)
    }

    /// Nanoseconds and runs of both.
    ///
    /// # Errors
    ///
    /// [`KernelError::Program`].
    pub fn drop_runs(&mut self) -> Result<[(u64, u64); 2], KernelError> {
        Ok([drops::runs(&mut self.ebpf, drops::DROPS)?, drops::runs(&mut self.ebpf, drops::EMPTY)?])
    }

    /// Takes it off again.
    pub fn detach_drops(&mut self) {
        drops::detach(&mut self.ebpf);
    }

    /// Drops for which the kernel did not run it.
    pub fn skipped_drops(&mut self) -> u64 {
        drops::skipped(&mut self.ebpf)
    }

    /// How many instructions the verifier looked at before it took each of the programs that are loaded for good, by their
    /// names. None where the kernel does not tell (before Linux 5.16).
    pub fn verified(&mut self) -> Vec<(&'static str, Option<u32>)> {
        let drops = self.ebpf.program(drops::DROPS).and_then(|program| program.info().ok());
        let xdp = self.xdp.map(|name| (name, self.xdp().ok().and_then(|program| program.info().ok())));
        let classifiers = [INGRESS, EGRESS]
            .map(|name| (name, self.classifier(name).ok().and_then(|program| program.info().ok())));
        let all = classifiers.into_iter().chain(xdp).chain([(drops::DROPS, drops)]);
        all.filter_map(|(name, info)| Some((name, info?.verified_instruction_count()))).collect()
    }

    /// One moment on both of the kernel's clocks.
    ///
    /// # Errors
    ///
    /// [`KernelError::Run`].
    pub fn anchor(&self) -> Result<Anchor, KernelError> {
        let missing = KernelError::Missing { what: "program", name: ANCHOR };
        let Some(Program::RawTracePoint(program)) = self.ebpf.program(ANCHOR) else { return Err(missing) };
        program
            .test_run(RawTracePointRunOptions::default())
            .map_err(|source| KernelError::Run { program: ANCHOR, source })?;
        self.anchored.read(0).ok_or(KernelError::Missing { what: "map", name: "ANCHOR" })
    }
}
