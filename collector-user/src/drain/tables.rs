//! Drains what the programs counted in a retired epoch: the caches through shared memory, the tables behind them in
//! batches.
#![expect(
    unsafe_code,
    reason = "the retired half of a cache is borrowed as a slice, which only a drain may do"
)]

use std::io;

use aya::maps::MapData;
use collector_ebpf::abi::flow::{
    FlowKey4, FlowKey6, Identity, Slot4, Slot6, TableCounts, TableKey4, TableKey6, how,
};

use crate::{
    drain::flow::{FlowDelta, FlowId},
    kernel::{batch, error::KernelError, memory::SharedArray, object::FlowMaps},
};

impl FlowMaps {
    /// Hands on all that was counted in `epoch`, and leaves it zeroed for the next time.
    ///
    /// The epoch must be retired: [`swap`](crate::kernel::control::Controller::swap) has returned it, and it was not
    /// drained since.
    ///
    /// # Errors
    ///
    /// [`KernelError::Call`] where a table cannot be read; everything else has been handed on by then.
    pub fn drain(&mut self, epoch: usize, mut take: impl FnMut(&FlowDelta)) -> Result<(), KernelError> {
        sweep(&mut self.cache_4, epoch, |slot: &Slot4| {
            (!slot.counts.is_empty())
                .then(|| take(&FlowDelta::of_slot(FlowId::from(&slot.key), &slot.counts)))
                .is_some()
        });
        sweep(&mut self.cache_6, epoch, |slot: &Slot6| {
            (!slot.counts.is_empty())
                .then(|| take(&FlowDelta::of_slot(FlowId::from(&slot.key), &slot.counts)))
                .is_some()
        });
        let epoch = epoch & 1;
        let failed = |map| move |source: io::Error| KernelError::Call { map, action: "drained", source };
        if let Some(table) = self.tables_4.get(epoch) {
            batch::take_all(table.fd(), |key: &TableKey4, counts: &TableCounts| {
                take(&FlowDelta::of_table(FlowId::from(&key.flow), key.pu, key.rest, key.verdict, counts));
            })
            .map_err(failed("TABLES4"))?;
        }
        if let Some(table) = self.tables_6.get(epoch) {
            batch::take_all(table.fd(), |key: &TableKey6, counts: &TableCounts| {
                take(&FlowDelta::of_table(FlowId::from(&key.flow), key.pu, key.rest, key.verdict, counts));
            })
            .map_err(failed("TABLES6"))?;
        }
        Ok(())
    }

    /// Shows every flow whose identity is kept because it lived on, with the boot time of its first packet in
    /// nanoseconds.
    ///
    /// # Errors
    ///
    /// [`KernelError::Call`].
    pub fn lived(&self, mut see: impl FnMut(FlowId, u64)) -> Result<(), KernelError> {
        let failed = |map| move |source: io::Error| KernelError::Call { map, action: "listed", source };
        let [_, lived] = &self.identities_4;
        batch::each(lived.fd(), |key: &FlowKey4, identity: &Identity| {
            see(FlowId::from(key), identity.first_ns);
        })
        .map_err(failed("LIVE4"))?;
        let [_, lived] = &self.identities_6;
        batch::each(lived.fd(), |key: &FlowKey6, identity: &Identity| {
            see(FlowId::from(key), identity.first_ns);
        })
        .map_err(failed("LIVE6"))
    }

    /// The user at a flow's local end, as far as the programs know it: the id in the initial user namespace. Two system calls at
    /// most.
    ///
    /// # Errors
    ///
    /// [`KernelError::Call`].
    pub fn user(&self, flow: &FlowId) -> Result<Option<u32>, KernelError> {
        let failed = |map| move |source: io::Error| KernelError::Call { map, action: "read", source };
        let mut user = 0;
        // Those that live on, first: who sent an answer is there.
        for (map, identities) in ["LIVE4", "NEW4"].iter().zip(self.identities_4.iter().rev()) {
            let Some(key) = flow.key4().filter(|_| user == 0) else { break };
            let identity: Option<Identity> = batch::get(identities.fd(), &key).map_err(failed(map))?;
            user = identity.map_or(0, |identity| identity.user);
        }
        for (map, identities) in ["LIVE6", "NEW6"].iter().zip(self.identities_6.iter().rev()) {
            let Some(key) = flow.key6().filter(|_| user == 0) else { break };
            let identity: Option<Identity> = batch::get(identities.fd(), &key).map_err(failed(map))?;
            user = identity.map_or(0, |identity| identity.user);
        }
        Ok(user.checked_sub(1))
    }

    /// Has it asked anew, at the next packet in either direction, whose the flows are that belong to such units by the sockets
    /// at their ends: by themselves they stay with these as long as no other unit has the sockets. What a program writes to a
    /// flow's identity in the very moment is lost, as if the packet had not been looked at.
    ///
    /// # Errors
    ///
    /// [`KernelError::Call`]; some may be asked for.
    pub fn ask_anew(&self, is_such: impl Fn(u16) -> bool) -> Result<(), KernelError> {
        let failed = |map| move |source: io::Error| KernelError::Call { map, action: "changed", source };
        for (map, identities) in ["NEW4", "LIVE4"].iter().zip(&self.identities_4) {
            forget_owners::<FlowKey4>(identities, &is_such).map_err(failed(map))?;
        }
        for (map, identities) in ["NEW6", "LIVE6"].iter().zip(&self.identities_6) {
            forget_owners::<FlowKey6>(identities, &is_such).map_err(failed(map))?;
        }
        Ok(())
    }

    /// Forgets flows that are over: if they come again, they begin again.
    ///
    /// # Errors
    ///
    /// [`KernelError::Call`].
    pub fn forget(&self, flows: &[FlowId]) -> Result<(), KernelError> {
        let failed = |map| move |source: io::Error| KernelError::Call { map, action: "aged", source };
        let keys: Vec<_> = flows.iter().filter_map(FlowId::key4).collect();
        for (map, identities) in ["NEW4", "LIVE4"].iter().zip(&self.identities_4) {
            batch::remove(identities.fd(), &keys).map_err(failed(map))?;
        }
        let keys: Vec<_> = flows.iter().filter_map(FlowId::key6).collect();
        for (map, identities) in ["NEW6", "LIVE6"].iter().zip(&self.identities_6) {
            batch::remove(identities.fd(), &keys).map_err(failed(map))?;
        }
        Ok(())
    }
}

/// Makes the identities of those flows as if their units had never been decided.
fn forget_owners<K: aya::Pod>(identities: &MapData, is_such: impl Fn(u16) -> bool) -> io::Result<()> {
    let is_owned =
        |identity: &Identity| how::attributed_by(identity.how) == how::BY_SOCKET && is_such(identity.pu);
    let mut owned = Vec::new();
    batch::each(identities.fd(), |key: &K, identity: &Identity| {
        if is_owned(identity) {
            owned.push(*key);
        }
    })?;
    for key in owned {
        // As it is now: programs go on writing.
        let now: Option<Identity> = batch::get(identities.fd(), &key)?;
        if let Some(identity) = now.filter(is_owned) {
            let how = identity.how & !(how::ATTRIBUTION_MASK << how::ATTRIBUTION_SHIFT);
            batch::replace(identities.fd(), &key, Identity { how, decided: 0, ..identity })?;
        }
    }
    Ok(())
}

/// Shows `take` every slot of the half that `epoch` counts in, and zeroes those that it took.
fn sweep<T: aya::Pod>(cache: &mut SharedArray<T>, epoch: usize, mut take: impl FnMut(&T) -> bool) {
    let half = cache.len() / 2;
    // SAFETY: the epoch is retired, so the programs neither read nor write this half until it is current again, which
    // takes another swap by the thread that is here.
    let Some(slots) = (unsafe { cache.quiet((epoch & 1) * half, half) }) else { return };
    for slot in slots {
        if take(slot) {
            // SAFETY: all zero is a value of every type of the contract.
            *slot = unsafe { std::mem::zeroed() };
        }
    }
}
