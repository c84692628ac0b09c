//! Users: who owns the sockets at the local ends of flows, and the units that declare users and ports.

use std::cell::RefCell;

use super::{Daemon, DaemonError, Options, matchers::Matchers};
use crate::{
    aggregate::{flow::Flow, users::Users as Seen},
    collector::EventCollector,
    error::with_causes,
    event::FlowRecord,
    host::users::Users as Names,
    kernel::{error::KernelError, ports::Ports, settings::Ends, users::Users as Programs},
    pu::{
        overlaps,
        registry::{Registry, Unit},
    },
};

/// What the programs are to ask about the ends of flows.
pub(super) fn ends(options: &Options) -> Ends {
    let asked = options.settings.ends;
    Ends {
        declared_ports: asked.declared_ports || options.units.iter().any(|unit| !unit.ports.is_empty()),
        declared_users: asked.declared_users || options.units.iter().any(|unit| !unit.users.is_empty()),
        ..asked
    }
}

/// What is known of users.
pub(super) struct Users {
    seen: RefCell<Seen>,
    names: Names,
    programs: Programs,
    ports: Ports,
    /// What the programs were told of whose what is.
    pub(super) matchers: Matchers,
}

impl Users {
    /// On the heap: the daemon's future is large enough.
    pub(super) fn new(programs: Programs, ports: Ports) -> Box<Self> {
        let (seen, names) = (RefCell::default(), Names::open());
        Box::new(Self { seen, names, programs, ports, matchers: Matchers::default() })
    }

    /// The matchers of units, as users are named now.
    pub(super) fn matchers_of(&self, units: &Registry) -> Matchers {
        Matchers::of(units, |name| self.names.id(name))
    }

    /// Where the programs are told of users and ports.
    pub(super) fn programs(&mut self) -> (&mut Programs, &Ports) {
        (&mut self.programs, &self.ports)
    }

    /// Whether the programs look whose a flow is by its user, and by its port.
    pub(super) const fn are_matched(&self) -> [bool; 2] {
        [self.programs.are_matched(), self.ports.are_asked()]
    }

    /// Where the matchers of units overlap, and users that they declare by names which nobody has, in sentences.
    pub(super) fn notes(&self, units: &Registry) -> [Vec<String>; 2] {
        [overlaps::declared(units, |name| self.names.id(name)), self.unnamed(units)]
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

    /// Users that units declare by names which nobody has.
    fn unnamed(&self, units: &Registry) -> Vec<String> {
        let names = &self.names;
        let sentence = |unit: &Unit| {
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
        units.iter().filter_map(sentence).collect()
    }
}

impl Daemon<'_> {
    /// Tells the programs whose addresses, ports and users units declare; what is missing, in sentences.
    pub(super) fn begin_matchers(&mut self) -> Result<Vec<String>, DaemonError> {
        self.match_by(self.users.matchers_of(&self.units))?;
        let [overlaps, unnamed] = self.users.notes(&self.units);
        for said in overlaps {
            tracing::warn!("{said}");
        }
        let Users { names, programs, .. } = &mut *self.users;
        let missing = [programs.missing.as_ref().map(|error| with_causes(error)), names.missing.take()];
        Ok(missing.into_iter().flatten().chain(unnamed).collect())
    }

    /// The user database has changed: names may be others', and have ids that they had not.
    pub(super) fn follow_users(&mut self) -> Result<(), DaemonError> {
        let warn = |error: KernelError| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "some users that units declare are not those of their names"
            );
        };
        match self.match_by(self.users.matchers_of(&self.units)) {
            Ok(Some(losers)) => {
                self.disown(&losers).unwrap_or_else(warn);
                self.controller.barrier(&self.flow_maps)?;
                self.controller.next_generation();
                self.drain()?;
                self.let_go(&losers);
            }
            Ok(None) => {}
            Err(error) => warn(error),
        }
        Ok(())
    }

    /// Says where a declared unit has what would be found by itself.
    pub(super) fn tell_declared<'b>(&self, cgroups: impl Iterator<Item = &'b str>) {
        for said in overlaps::found(&self.units, cgroups) {
            tracing::warn!("{said}");
        }
    }

    /// Asks the programs for the users of flows of which no report has told them.
    pub(super) fn ask_users(&mut self) -> Result<(), DaemonError> {
        for id in self.flows.take_to_ask() {
            if let Some(user) = self.flow_maps.user(&id)? {
                self.flows.set_user(&id, user);
            }
        }
        Ok(())
    }
}
