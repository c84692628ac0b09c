//! What user space is told at once: flows that begin and end, and the clock.

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_boot_ns};
use collector_ebpf::abi::report::FlowEvent;

use crate::{
    count,
    family::{Key, Rest},
    identity::Who,
    maps::{ANCHOR, EVENTS},
    read::Packet,
};

/// Reports that the packet's flow began or ended, where `who` says so.
#[inline(never)]
pub(crate) fn flow<K: Key>(packet: &Packet, who: u32) -> u32 {
    let Who { pu, how, event: kind, .. } = Who::unpack(who);
    if kind == 0 {
        return 0;
    }
    let Some(mut entry) = EVENTS.reserve(0) else {
        count::ledger(|ledger| ledger.reserve_failed += 1);
        return 0;
    };
    let key = packet.key::<K>();
    let Rest { local_port, remote_port, boundary, protocol, ports } = key.rest();
    entry.write(FlowEvent {
        // SAFETY: no arguments, no memory.
        boot_ns: unsafe { bpf_ktime_get_boot_ns() },
        local: key.local(),
        remote: key.remote(),
        local_port,
        remote_port,
        boundary,
        protocol,
        ports,
        pu,
        interface: packet.role.interface,
        kind,
        how,
        family: K::FAMILY,
        tcp_flags: packet.tcp_flags,
    });
    entry.submit(0);
    count::ledger(|ledger| ledger.reported += 1);
    0
}

/// Writes down one moment on both clocks.
#[inline(always)]
pub(crate) fn anchor() {
    let Some(anchor) = ANCHOR.get_ptr_mut(0) else { return };
    // SAFETY: run by one thread of user space at a time.
    unsafe {
        (*anchor).jiffies = bpf_jiffies64();
        (*anchor).boot_ns = bpf_ktime_get_boot_ns();
    }
}
