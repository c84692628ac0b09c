//! The ports of this host that units declare.

use std::sync::atomic::Ordering;

use aya::{Ebpf, EbpfLoader};
use collector_ebpf::abi::pu;

use super::{error::KernelError, maps::shared, memory::SharedArray, settings::Settings};

/// What the programs are told before they are loaded.
pub(super) struct Told {
    declared: u32,
}

impl Told {
    pub(super) fn new(settings: &Settings) -> Self {
        Self { declared: settings.ends.declared_ports.into() }
    }

    /// Whether units are found by ports.
    pub(super) const fn is_declared(&self) -> bool {
        self.declared != 0
    }

    /// Puts it where the programs look for it.
    pub(super) fn tell<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        loader.override_global("BY_PORT", &self.declared, true);
        if self.is_declared() {
            loader.map_max_entries("PORTS", pu::PORTS);
        }
    }

    /// Takes the map out of what was loaded.
    pub(super) fn take(&self, ebpf: &mut Ebpf) -> Result<Ports, KernelError> {
        let units = self.is_declared().then(|| shared(ebpf, "PORTS", pu::PORTS)).transpose()?;
        Ok(Ports { units })
    }
}

/// The unit of each port. The only writer.
pub struct Ports {
    units: Option<SharedArray<u64>>,
}

impl Ports {
    /// Whether the programs ask for ports: what is [set](Self::set) does nothing where they do not.
    pub const fn are_asked(&self) -> bool {
        self.units.is_some()
    }

    /// Makes a port of this host that of processing unit `pu`; with 0 it is nobody's. Flows that are known already belong to it
    /// from the [next generation](super::control::Controller::next_generation) on. Costs no system call. Does nothing for
    /// protocols other than TCP, UDP and SCTP, and where the programs were loaded without
    /// [`declared_ports`](super::settings::Ends::declared_ports).
    pub fn set(&self, protocol: u8, port: u16, pu: u16) {
        let entry = pu::port(protocol, port).and_then(|entry| self.units.as_ref()?.word(entry as usize, 0));
        if let Some(unit) = entry {
            unit.store(pu.into(), Ordering::Relaxed);
        }
    }
}
