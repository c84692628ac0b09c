//! The only writer of what the programs obey.
//!
//! A swap of the count epoch is what a drain begins with: the new epoch is stored, then a barrier waits for every
//! program that may still have seen the old one; from then on nobody writes to what the old epoch counted.

use std::{cell::Cell, net::IpAddr, sync::atomic::Ordering};

use aya::maps::{MapError, lpm_trie::Key};
use collector_ebpf::abi::{
    control::{Anchor, Control},
    packet::MOST_CAPTURED,
    pu::{self, ROLES, Role, index, role},
    trace::Trace,
};

use crate::{
    host::{links::Tunnel, pcap::Filter},
    kernel::{
        error::KernelError,
        object::{ControlMaps, FlowMaps},
        packet_filter,
        policies::Policies,
    },
};

/// How long the programs go on counting after the last renewal.
pub const LEASE_SECONDS: u32 = 10;

/// Writes the control maps.
pub struct Controller {
    maps: ControlMaps,
    swaps: u32,
    generation: u32,
    lease: Cell<u64>,
    hz: u32,
}

impl Controller {
    /// Takes the maps over. The programs count nothing until the lease is renewed for the first time.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`] where the role of interfaces without one cannot be written.
    pub fn new(maps: ControlMaps, hz: u32) -> Result<Self, KernelError> {
        let mut controller = Self { maps, swaps: 0, generation: 0, lease: Cell::new(0), hz };
        // Entry 0 is no interface's: it stands for those that nothing was said about.
        let unknown = Role { ifindex: 0, pu: index::UNKNOWN, flags: role::UPLINK, ..Role::default() };
        controller.maps.roles.set(0, unknown, 0).map_err(failed("ROLES", "written"))?;
        Ok(controller)
    }

    /// Lets the programs count for another [`LEASE_SECONDS`] from `now` on.
    pub fn renew_lease(&self, now: &Anchor) {
        let until = now.jiffies + u64::from(LEASE_SECONDS) * u64::from(self.hz);
        self.lease.set(until);
        self.store(std::mem::offset_of!(Control, lease), until);
    }

    /// Whether a lease was given and has run out: packets have passed uncounted since.
    pub fn lease_has_run_out(&self, jiffies: u64) -> bool {
        (1..=jiffies).contains(&self.lease.get())
    }

    /// Makes the programs count into the other epoch, and waits until none of them can still write to the one before;
    /// returns that one. What it counted must be drained and zeroed before the next swap.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`] where the barrier fails: then the old epoch may not be read.
    pub fn swap(&mut self, flows: &FlowMaps) -> Result<usize, KernelError> {
        let retired = self.swaps as usize & 1;
        self.swaps = self.swaps.wrapping_add(1);
        self.publish();
        self.barrier(flows)?;
        Ok(retired)
    }

    /// Returns after every program that was running: what those were to write is written. Takes some ten milliseconds.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn barrier(&mut self, flows: &FlowMaps) -> Result<(), KernelError> {
        let [table, _] = &flows.tables_4;
        // Writing to a map of maps returns after every program that was running (maybe_wait_bpf_programs in
        // kernel/bpf/syscall.c); what is written is what stands there already.
        self.maps.tables_4.set(0, table, 0).map_err(failed("TABLES4", "used as a barrier"))
    }

    /// Makes the programs attribute every flow anew, each at its next miss: after the maps of this controller changed.
    pub fn next_generation(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.publish();
    }

    /// Writes an interface's role; the programs may be attached to it from then on.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn set_role(&mut self, role: Role) -> Result<(), KernelError> {
        let entry = role.ifindex % ROLES;
        let holder = self.maps.roles.get(&entry, 0).map_err(failed("ROLES", "read"))?;
        if entry != 0 && (holder.ifindex == 0 || holder.ifindex == role.ifindex) {
            self.maps.roles.set(entry, role, 0).map_err(failed("ROLES", "written"))?;
            // It may have found its entry taken before.
            return absent_is_fine(self.maps.roles_more.remove(&role.ifindex))
                .map_err(failed("ROLES_MORE", "written"));
        }
        self.maps.roles_more.insert(role.ifindex, role, 0).map_err(failed("ROLES_MORE", "written"))
    }

    /// Forgets an interface's role.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn remove_role(&mut self, ifindex: u32) -> Result<(), KernelError> {
        let entry = ifindex % ROLES;
        let holder = self.maps.roles.get(&entry, 0).map_err(failed("ROLES", "read"))?;
        if entry != 0 && holder.ifindex == ifindex {
            self.maps.roles.set(entry, Role::default(), 0).map_err(failed("ROLES", "written"))?;
        }
        absent_is_fine(self.maps.roles_more.remove(&ifindex)).map_err(failed("ROLES_MORE", "written"))
    }

    /// Puts another packet filter in the place of the one that the programs were loaded with; where that was none, they want
    /// every packet all the same. A packet that is looked at meanwhile may meet instructions of both.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn set_filter(&mut self, filter: &Filter) -> Result<(), KernelError> {
        packet_filter::fill(&mut self.maps.filters, filter)
    }

    /// The same in the midst of packets: each meets the filter of before or this one, or, as long as a
    /// [barrier](Self::barrier) takes, none that wants any.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn change_filter(&mut self, filter: &Filter, flows: &FlowMaps) -> Result<(), KernelError> {
        // Whatever of a program is written already, the rest of it ends the run.
        packet_filter::empty(&mut self.maps.filters)?;
        self.barrier(flows)?;
        self.set_filter(filter)
    }

    /// Adds an address of this host, which belongs to processing unit `pu`: the one that declares it, or `HOST`.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn add_local(&mut self, address: IpAddr, pu: u16) -> Result<(), KernelError> {
        self.maps.locals.insert(mapped(address), u32::from(pu), 0).map_err(failed("LOCALS", "written"))
    }

    /// Removes an address of this host.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn remove_local(&mut self, address: IpAddr) -> Result<(), KernelError> {
        absent_is_fine(self.maps.locals.remove(&mapped(address))).map_err(failed("LOCALS", "written"))
    }

    /// Makes a tunnel that ends here known.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn add_tunnel(&mut self, tunnel: Tunnel) -> Result<(), KernelError> {
        self.maps.tunnels.insert(key(tunnel), 1, 0).map_err(failed("TUNNELS", "written"))
    }

    /// Forgets a tunnel.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn remove_tunnel(&mut self, tunnel: Tunnel) -> Result<(), KernelError> {
        absent_is_fine(self.maps.tunnels.remove(&key(tunnel))).map_err(failed("TUNNELS", "written"))
    }

    /// Declares that addresses below `network/prefix` are those of processing unit `pu`.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn add_range(&mut self, network: IpAddr, prefix: u8, pu: u16) -> Result<(), KernelError> {
        self.maps.cidrs.insert(&range(network, prefix), u32::from(pu), 0).map_err(failed("CIDRS", "written"))
    }

    /// Addresses below `network/prefix` are nobody's by declaration any more.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn remove_range(&mut self, network: IpAddr, prefix: u8) -> Result<(), KernelError> {
        absent_is_fine(self.maps.cidrs.remove(&range(network, prefix))).map_err(failed("CIDRS", "written"))
    }

    /// Has packets of an entry reported, or changes what is; it does nothing before there is a [`capture`](Self::capture).
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn trace(&mut self, entry: u32, trace: Trace) -> Result<(), KernelError> {
        self.maps.traced.insert(entry, trace, 0).map_err(failed("TRACED", "written"))
    }

    /// Has them reported no more.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn end_trace(&mut self, entry: u32) -> Result<(), KernelError> {
        absent_is_fine(self.maps.traced.remove(&entry)).map_err(failed("TRACED", "written"))
    }

    /// From here on so many octets of each packet that is traced are reported; with 0 nothing is, and costs nothing.
    pub fn capture(&self, octets: u32) {
        let octets = octets.min(MOST_CAPTURED);
        self.store(std::mem::offset_of!(Control, captured), octets.into());
    }

    /// What writes policies. They hold once [`hold_policies`](Self::hold_policies) was called.
    pub fn policies(&mut self) -> &mut Policies {
        &mut self.maps.policies
    }

    /// Has the programs look at policies from now on. Flows that they met before the time `known_from`, on the boot clock in
    /// nanoseconds, and of which they know no better who opened them than who sent the first packet, are accepted: the first
    /// packet that was seen may not have been the first. That time should lie as far behind the programs' beginning as such
    /// flows may be silent.
    pub fn hold_policies(&self, known_from: u64) {
        self.store(std::mem::offset_of!(Control, policies_from), known_from.max(1));
    }

    /// Says whether what policies reject is dropped: if nothing is, the program at XDP need not look for it.
    pub fn enforce_policies(&self, is_enforced: bool) {
        self.store(std::mem::offset_of!(Control, enforced), is_enforced.into());
    }

    /// Has them look at none: no unit has any. All flows are accepted.
    pub fn lift_policies(&self) {
        self.enforce_policies(false);
        self.store(std::mem::offset_of!(Control, policies_from), 0);
    }

    fn publish(&self) {
        self.store(std::mem::offset_of!(Control, word), Control::word(self.swaps, self.generation));
    }

    fn store(&self, offset: usize, word: u64) {
        for cpu in 0..self.maps.control.len() {
            if let Some(place) = self.maps.control.word(cpu, offset) {
                place.store(word, Ordering::Release);
            }
        }
    }
}

fn key(tunnel: Tunnel) -> u32 {
    pu::tunnel(tunnel.protocol, tunnel.port.to_be())
}

/// A range as the programs compare it.
fn range(network: IpAddr, prefix: u8) -> Key<[u8; 16]> {
    let bits = if network.is_ipv4() { 96 + u32::from(prefix) } else { u32::from(prefix) };
    Key::new(bits, mapped(network))
}

/// An address as the programs compare it: IPv4 as `::ffff:a.b.c.d`.
pub fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn failed(map: &'static str, action: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |source| KernelError::Map { map, action, source }
}

/// What is not there need not be removed.
pub(super) fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(MapError::KeyNotFound) => Ok(()),
        other => other,
    }
}
