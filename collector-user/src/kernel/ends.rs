//! What is asked about the ends of flows on this host: their users and ports, and whether that and their control groups are
//! worth a question at all.

use aya::{Ebpf, EbpfLoader};

use super::{
    error::KernelError,
    ports::{self, Ports},
    settings::Settings,
    users::{self, Users},
};

/// What the programs are told before they are loaded.
pub(super) struct Told {
    users: users::Told,
    ports: ports::Told,
    by_ends: u32,
}

impl Told {
    /// On this kernel, with control groups asked for or not.
    pub(super) fn new(settings: &Settings, by_cgroups: bool) -> Self {
        let (users, ports) = (users::Told::new(settings), ports::Told::new(settings));
        let by_ends = (by_cgroups || users.is_declared() || ports.is_declared()).into();
        Self { users, ports, by_ends }
    }

    /// Puts it where the programs look for it.
    pub(super) fn tell<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        self.users.tell(loader);
        self.ports.tell(loader);
        loader.override_global("BY_ENDS", &self.by_ends, true);
    }

    /// Takes the maps out of what was loaded.
    pub(super) fn take(self, ebpf: &mut Ebpf) -> Result<(Users, Ports), KernelError> {
        Ok((self.users.take(ebpf)?, self.ports.take(ebpf)?))
    }
}
