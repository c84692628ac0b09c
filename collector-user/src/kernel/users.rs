//! Whose a socket is by its user: where the programs find that, and the units that declare users.

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, MapData, MapError},
};
use collector_ebpf::abi::pu::USERS;

use super::{
    btf::{Btf, BtfError},
    control::absent_is_fine,
    error::KernelError,
    maps::typed,
    settings::Settings,
};

/// What the programs are told before they are loaded.
pub(super) struct Told {
    places: [(&'static str, u32); 2],
    declared: u32,
    missing: Option<KernelError>,
}

/// Where the programs find a socket's user, where that is not known.
const NOWHERE: [(&str, u32); 2] = [("SOCK_UID", 0), ("SOCK_LISTENER", 0)];

impl Told {
    /// On this kernel.
    pub(super) fn new(settings: &Settings) -> Self {
        if !settings.ends.users && !settings.ends.declared_users {
            return Self { places: NOWHERE, declared: 0, missing: None };
        }
        match Btf::of_kernel().and_then(|btf| places(&btf)) {
            Ok(places) => Self { places, declared: settings.ends.declared_users.into(), missing: None },
            Err(error) => Self { places: NOWHERE, declared: 0, missing: Some(KernelError::Users(error)) },
        }
    }

    /// Whether units are found by users.
    pub(super) const fn is_declared(&self) -> bool {
        self.declared != 0
    }

    /// Puts it where the programs look for it.
    pub(super) fn tell<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        for (global, place) in &self.places {
            loader.override_global(global, place, true);
        }
        loader.override_global("BY_USER", &self.declared, true);
        if self.is_declared() {
            loader.map_max_entries("USERS", USERS);
        }
    }

    /// Takes the map out of what was loaded.
    pub(super) fn take(self, ebpf: &mut Ebpf) -> Result<Users, KernelError> {
        let units = self.is_declared().then(|| typed(ebpf, "USERS")).transpose()?;
        let [(_, place), _] = self.places;
        Ok(Users { units, are_asked: place != 0, missing: self.missing })
    }
}

/// Where they find it here.
fn places(btf: &Btf) -> Result<[(&'static str, u32); 2], BtfError> {
    Ok([
        ("SOCK_UID", btf.place("sock", &["sk_uid"], 4)?),
        ("SOCK_LISTENER", btf.place("sock_common", &["skc_listener"], 8)?),
    ])
}

/// The users that units declare. The only writer.
pub struct Users {
    units: Option<HashMap<MapData, u32, u32>>,
    /// The programs find the user of a flow's socket.
    pub are_asked: bool,
    /// Why they do not, where they were to.
    pub missing: Option<KernelError>,
}

impl Users {
    /// Whether the programs look whose a user's sockets are: what is [set](Self::set) does nothing where they do not.
    pub const fn are_matched(&self) -> bool {
        self.units.is_some()
    }

    /// Makes the sockets of a user (by the id in the initial user namespace) those of processing unit `pu`, but for those whose
    /// control group is declared. Flows that are known already belong to it from the
    /// [next generation](super::control::Controller::next_generation) on. Does nothing where the programs were loaded without
    /// [`declared_users`](super::settings::Ends::declared_users).
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`]: 4,096 users are declared already, for one.
    pub fn set(&mut self, uid: u32, pu: u16) -> Result<(), KernelError> {
        let Some(units) = &mut self.units else { return Ok(()) };
        units.insert(uid, u32::from(pu), 0).map_err(failed)
    }

    /// Nobody declares that user any more.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn remove(&mut self, uid: u32) -> Result<(), KernelError> {
        let Some(units) = &mut self.units else { return Ok(()) };
        absent_is_fine(units.remove(&uid)).map_err(failed)
    }
}

fn failed(source: MapError) -> KernelError {
    KernelError::Map { map: "USERS", action: "written", source }
}
