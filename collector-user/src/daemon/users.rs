//! Users: who owns the sockets at the local ends of flows, and the units that declare users and ports.

use std::{cell::RefCell, collections::BTreeMap};

use super::{Daemon, DaemonError, Options};
use crate::{
    aggregate::{flow::Flow, users::Users as Seen},
    collector::EventCollector,
    error::with_causes,
    event::FlowRecord,
    host::users::Users as Names,
    kernel::{error::KernelError, ports::Ports, settings::Ends, users::Users as Programs},
    pu::{overlaps, port},
};

/// What the programs are to ask about the ends of flows.
pub(super) fn ends(options: &Options) -> Ends {
    Ends {
        declared_ports: options.units.iter().any(|unit| !unit.ports.is_empty()),
        declared_users: options.units.iter().any(|unit| !unit.users.is_empty()),
        ..options.settings.ends
    }
}

/// What is known of users.
pub(super) struct Users {
    seen: RefCell<Seen>,
    names: Names,
    programs: Programs,
    ports: Ports,
    /// The users whose sockets the programs take for a unit's, by id.
    declared: BTreeMap<u32, u16>,
    /// The ports that they take for a unit's, by protocol and port.
    declared_ports: BTreeMap<(u8, u16), u16>,
}

impl Users {
    /// On the heap: the daemon's future is large enough.
    pub(super) fn new(programs: Programs, ports: Ports) -> Box<Self> {
        let (declared, declared_ports) = (BTreeMap::new(), BTreeMap::new());
        let (seen, names) = (RefCell::default(), Names::open());
        Box::new(Self { seen, names, programs, ports, declared, declared_ports })
    }

    /// Waits until there are other users, or others by their names.
    pub(super) async fn changed(&mut self) {
        self.names.changed().await;
    }

    /// Users that were forgotten before their time.
    pub(super) fn evicted(&self) -> u64 {
        self.seen.borrow().evicted()
    }

    /// Puts the user of a flow into its record, and tells of the user where that is due.
    pub(super) fn sign(
        &self,
        flow: &Flow,
        record: &mut FlowRecord,
        now: u64,
        collector: &dyn EventCollector,
    ) {
        let Some(uid) = flow.owner.uid() else { return };
        let user = (uid, self.names.name(uid));
        self.seen
            .borrow_mut()
            .sign(record, flow.initiator.local, user, now, |user| collector.collect_user_event(user));
    }
}

impl Daemon<'_> {
    /// Tells the programs of the ports and users that units declare; what is missing, in sentences.
    pub(super) fn begin_users(&mut self) -> Result<Vec<String>, DaemonError> {
        self.declare_ports();
        self.declare_users()?;
        for said in overlaps::declared(&self.units, |name| self.users.names.id(name)) {
            tracing::warn!("{said}");
        }
        let unnamed = self.unnamed_users();
        let Users { names, programs, .. } = &mut *self.users;
        let missing = [programs.missing.as_ref().map(|error| with_causes(error)), names.missing.take()];
        Ok(missing.into_iter().flatten().chain(unnamed).collect())
    }

    /// The user database has changed: names may be others', and have ids that they had not.
    pub(super) fn follow_users(&mut self) {
        match self.declare_users() {
            Ok(true) => self.controller.next_generation(),
            Ok(false) => {}
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "some users that units declare are not those of their names"
            ),
        }
    }

    /// Says where a declared unit has what would be found by itself.
    pub(super) fn tell_declared<'b>(&self, cgroups: impl Iterator<Item = &'b str>) {
        for said in overlaps::found(&self.units, cgroups) {
            tracing::warn!("{said}");
        }
    }

    /// Asks the programs for the users of flows of which no report has told them.
    pub(super) fn ask_users(&mut self) -> Result<(), DaemonError> {
        let to_ask = self.flows.take_to_ask();
        if !self.users.programs.are_asked {
            return Ok(());
        }
        for id in to_ask {
            if let Some(user) = self.flow_maps.user(&id)? {
                self.flows.set_user(&id, user);
            }
        }
        Ok(())
    }

    /// Tells the programs which ports are whose.
    fn declare_ports(&mut self) {
        let Users { ports, declared_ports, .. } = &mut *self.users;
        let wanted = port::owners(&self.units);
        for (protocol, port) in declared_ports.keys().filter(|port| !wanted.contains_key(port)) {
            ports.set(*protocol, *port, 0);
        }
        for ((protocol, port), unit) in &wanted {
            ports.set(*protocol, *port, *unit);
        }
        *declared_ports = wanted;
    }

    /// Tells the programs which users are whose; whether that is news.
    fn declare_users(&mut self) -> Result<bool, KernelError> {
        let Users { names, programs, declared, .. } = &mut *self.users;
        let mut wanted = BTreeMap::new();
        for unit in self.units.iter() {
            for user in &unit.users {
                if let Some(id) = user.id(|name| names.id(name)) {
                    wanted.entry(id).or_insert(unit.index);
                }
            }
        }
        if wanted == *declared {
            return Ok(false);
        }
        for id in declared.keys().filter(|id| !wanted.contains_key(id)) {
            programs.remove(*id)?;
        }
        for (id, unit) in &wanted {
            programs.set(*id, *unit)?;
        }
        *declared = wanted;
        Ok(true)
    }

    /// Users that units declare by names which nobody has.
    fn unnamed_users(&self) -> Vec<String> {
        let names = &self.users.names;
        let sentence = |unit: &crate::pu::registry::Unit| {
            let unnamed = unit.users.iter().filter(|user| user.id(|name| names.id(name)).is_none());
            let unnamed: Vec<_> = unnamed.map(|user| user.to_string().escape_debug().to_string()).collect();
            (!unnamed.is_empty()).then(|| {
                format!(
                    "sockets of {}, which are {}'s once there is a user of that name in /etc/passwd",
                    unnamed.join(", "),
                    unit.id
                )
            })
        };
        self.units.iter().filter_map(sentence).collect()
    }
}
