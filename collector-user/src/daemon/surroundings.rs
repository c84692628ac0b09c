//! What lies around the interfaces and matters to what crosses them: the host's addresses, the tunnels that end here, the
//! bridges between.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use collector_ebpf::abi::pu::{index, role as flag};

use super::{Daemon, DaemonError, interfaces::Interface};
use crate::{
    error::root_cause,
    host::links::{Link, Tunnel},
    pu::role,
};

impl Daemon<'_> {
    /// Tells the programs the host's addresses; `true` where flows that are known have to be attributed anew.
    pub(super) fn follow_addresses(
        &mut self,
        links: &BTreeMap<u32, Link>,
        missing: &mut Vec<String>,
    ) -> Result<bool, DaemonError> {
        let addresses = links.values().flat_map(|link| &link.addresses);
        let now: BTreeSet<IpAddr> = addresses.map(|address| address.ip).collect();
        for address in now.difference(&self.watched.locals) {
            let pu = self.units.of_address(*address).map_or(index::HOST, |unit| unit.index);
            if let Err(error) = self.controller.add_local(*address, pu) {
                missing.push(format!(
                    "{address} and other addresses of this host, whose packets count as forwarded: {}",
                    root_cause(&error)
                ));
                break;
            }
        }
        for address in self.watched.locals.difference(&now) {
            self.controller.remove_local(*address)?;
        }
        let changed = now != self.watched.locals;
        self.watched.locals = now;
        Ok(changed)
    }

    /// Tells the programs which tunnels end here; `true` where flows that are known have to be attributed anew.
    pub(super) fn follow_tunnels(
        &mut self,
        links: &BTreeMap<u32, Link>,
        missing: &mut Vec<String>,
    ) -> Result<bool, DaemonError> {
        let now: BTreeSet<Tunnel> = links.values().flat_map(|link| link.carriers.iter().copied()).collect();
        for tunnel in now.difference(&self.watched.tunnels) {
            if let Err(error) = self.controller.add_tunnel(*tunnel) {
                missing.push(format!(
                    "some tunnels, whose packets count for whoever declares this host's address: {}",
                    root_cause(&error)
                ));
                break;
            }
        }
        for tunnel in self.watched.tunnels.difference(&now) {
            self.controller.remove_tunnel(*tunnel)?;
        }
        let changed = now != self.watched.tunnels;
        self.watched.tunnels = now;
        Ok(changed)
    }
}

/// Completes what the programs are told of each interface by what lies around it.
pub(super) fn surround(described: &mut BTreeMap<u32, Interface>, links: &BTreeMap<u32, Link>) {
    let is_far = |index: u32| {
        let role = described.get(&index).and_then(|interface| interface.role);
        role.is_some_and(|role| role.flags & flag::FAR != 0)
    };
    let inside = role::inside(links, is_far);
    let has_ifb = links.values().any(|link| link.kind == "ifb");
    for (index, interface) in described {
        let Some(link) = links.get(index) else { continue };
        match &mut interface.role {
            None => {
                interface.role = role::for_others(link, &inside);
                if interface.role.is_some_and(|role| role.flags & flag::INSIDE != 0) {
                    interface.decision.reason.push_str("; host-side ends lie behind it");
                }
            }
            Some(role) => {
                if has_ifb {
                    role.flags |= flag::MIRRORED;
                }
                if role.flags & flag::UPLINK != 0
                    && link.master.is_some_and(|master| inside.contains(&master))
                {
                    role.flags |= flag::SWITCHED;
                }
            }
        }
    }
}
