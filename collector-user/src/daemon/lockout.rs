//! Whether policies would cut off who is logged in: which units a session may be subject to, as the programs would find them.

use std::collections::BTreeSet;

use collector_ebpf::abi::pu::index;

use super::{Daemon, interfaces::Interface, matchers::Matchers};
use crate::{
    error::with_causes,
    host::ssh,
    policy::{
        lockout::{self, Connection, Enforcement, LockOut},
        rule::{Policy, Subject},
    },
    pu::{registry::Side, role::Kind, workload},
};

/// Of what SSH goes by.
const IPPROTO_TCP: u8 = 6;

impl Daemon<'_> {
    /// Refuses policies that would cut off who is logged in, if that is asked for; a sentence where that cannot be known.
    pub(super) fn check_lockout(
        &self,
        policies: &[Policy],
        enforcement: Enforcement,
    ) -> Result<Option<String>, LockOut> {
        let is_asked = enforcement == Enforcement::On && !policies.is_empty();
        if is_asked { self.would_cut_off(policies) } else { Ok(None) }
    }

    /// Whether policies, once enforced, would cut off who is logged in; a sentence where that cannot be known.
    fn would_cut_off(&self, policies: &[Policy]) -> Result<Option<String>, LockOut> {
        let sessions = match ssh::sessions() {
            Ok(sessions) => sessions,
            Err(error) => {
                return Ok(Some(format!(
                    "whether the policies cut off somebody who is logged in by SSH: {}",
                    with_causes(&error)
                )));
            }
        };
        let matchers = self.users.matchers_of(&self.units);
        let connection = |session: &ssh::Session| Connection {
            local: session.local,
            remote: session.remote,
            is_certain: session.is_certain,
            units: self.units_of(session, &matchers),
        };
        let connections: Vec<Connection> = sessions.iter().map(connection).collect();
        lockout::check(policies, &connections).map(|()| None)
    }

    /// The units whose policies a session may be subject to, as units are declared now: those of interfaces that are a unit's on
    /// the host's side; that of its address, that of its port, that of the server's cgroup; that of its socket's user, where none
    /// of these is declared; and the host where the cgroup has none.
    fn units_of(&self, session: &ssh::Session, matchers: &Matchers) -> Vec<Subject> {
        let of_interfaces = self.watched.interfaces.values().filter_map(|it| self.unit_on(it));
        let by_address = self.units.of_address(session.local.ip()).map(|unit| unit.index);
        let by_port = matchers.ports.get(&(IPPROTO_TCP, session.local.port())).copied();
        let declared: BTreeSet<u16> =
            session.cgroups.iter().filter_map(|path| Some(self.units.of_cgroup(path)?.0.index)).collect();
        // As the programs ask, one after the other.
        let by_user = session.user.filter(|_| {
            let [are_matched, _] = self.users.are_matched();
            are_matched && by_address.is_none() && by_port.is_none() && declared.is_empty()
        });
        let by_user = by_user.and_then(|user| matchers.users.get(&user)).copied();
        let found = session.cgroups.iter().filter_map(|path| {
            let root = self.workloads.groups.of_root.get(&workload::of(path)?.root)?;
            self.workloads.groups.alive.get(root).map(|alive| alive.unit)
        });
        let by_cgroup: BTreeSet<u16> = if declared.is_empty() { found.collect() } else { declared };
        let host = by_cgroup.is_empty().then_some(index::HOST);
        let indexes: BTreeSet<u16> = of_interfaces
            .chain(by_address)
            .chain(by_port)
            .chain(by_user)
            .chain(by_cgroup)
            .chain(host)
            .collect();
        indexes.into_iter().filter_map(|index| self.units.get(index)).map(Subject::from).collect()
    }

    /// The unit whose own the host's side of an interface is, or will be once what is declared holds; none where it is the
    /// host's, or of a unit behind it.
    fn unit_on(&self, interface: &Interface) -> Option<u16> {
        if matches!(interface.decision.kind, Kind::NotSelected | Kind::Loopback) {
            return None;
        }
        match self.units.of_interface(&interface.name) {
            Some(unit) => (unit.side.unwrap_or(interface.side) == Side::Host).then_some(unit.index),
            None => interface.is_overlay.then_some(index::OVERLAY),
        }
    }
}
