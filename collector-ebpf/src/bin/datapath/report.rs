//! What user space is told at once: flows that begin and end, that a drain is due, and the clock.

use core::ptr;

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_boot_ns};
use collector_ebpf::abi::report::{FlowEvent, kind};

use crate::{
    Skb, count,
    family::{Key, Rest},
    identity::Who,
    maps::{ANCHOR, ASKED},
    read::Packet,
    settings::EVENTS_BY_PERF,
    share, transport,
};

/// Reports that the packet's flow began or ended, where `who` says so.
#[inline(never)]
pub(crate) fn flow<K: Key>(skb: Skb, packet: &Packet, who: u64) -> u32 {
    let Who { pu, how, event, host_pu, .. } = Who::unpack(who);
    if event == 0 {
        return 0;
    }
    let (cpu, sequence) = (cpu(), sequence());
    if share::take(pu) == 0 {
        count::ledger(|ledger| ledger.reserve_failed += 1);
        return 0;
    }
    let key = packet.key::<K>();
    let Rest { local_port, remote_port, boundary, protocol, ports } = key.rest();
    let written = transport::event(skb, false, || FlowEvent {
        boot_ns: if event == kind::START { begun() } else { now() },
        local: key.local(),
        remote: key.remote(),
        local_port,
        remote_port,
        boundary,
        protocol,
        ports,
        pu,
        interface: packet.role.interface,
        kind: event,
        how,
        family: K::FAMILY,
        tcp_flags: packet.tcp_flags,
        sequence,
        cpu,
        host_pu,
        user: user(),
        _pad: 0,
    });
    if written {
        count::ledger(|ledger| ledger.reported += 1);
    } else {
        count::ledger(|ledger| ledger.reserve_failed += 1);
        share::lost(pu);
    }
    0
}

/// Asks for a drain before its time: at once where that needs no context, else [when there is one](if_pressed).
#[inline(always)]
pub(crate) fn pressure() {
    if EVENTS_BY_PERF.load() == 0 {
        press(ptr::null_mut());
    } else if let Some(asked) = ASKED.get_ptr_mut(0) {
        // SAFETY: this CPU's own entry.
        unsafe { (*asked).is_pressed = 1 };
    }
}

/// Asks for the drain that this run has found due, if it has.
#[inline(always)]
pub(crate) fn if_pressed(skb: Skb) {
    if EVENTS_BY_PERF.load() != 0
        && let Some(asked) = ASKED.get_ptr_mut(0)
        // SAFETY: this CPU's own entry.
        && unsafe { (*asked).is_pressed } != 0
    {
        // SAFETY: as above.
        unsafe { (*asked).is_pressed = 0 };
        press(skb);
    }
}

/// `skb` is of no use to the ring.
#[inline(always)]
fn press(skb: Skb) {
    let (cpu, sequence) = (cpu(), sequence());
    let pressure = || FlowEvent { kind: kind::PRESSURE, family: 4, sequence, cpu, ..NOTHING };
    if transport::event(skb, true, pressure) {
        count::ledger(|ledger| ledger.reported += 1);
    } else {
        count::ledger(|ledger| ledger.reserve_failed += 1);
    }
}

const NOTHING: FlowEvent = FlowEvent {
    boot_ns: 0,
    local: [0; 16],
    remote: [0; 16],
    local_port: 0,
    remote_port: 0,
    boundary: 0,
    protocol: 0,
    ports: 0,
    pu: 0,
    interface: 0,
    kind: 0,
    how: 0,
    family: 0,
    tcp_flags: 0,
    sequence: 0,
    cpu: 0,
    host_pu: 0,
    user: 0,
    _pad: 0,
};

/// What numbers the next record of this CPU: softirqs are off, and nothing else writes one meanwhile. (On a kernel
/// with `PREEMPT_RT` another may; user space follows no numbers there.)
#[inline(always)]
fn sequence() -> u32 {
    let mut sequence = 0;
    count::ledger(|ledger| sequence = (ledger.reported + ledger.reserve_failed) as u32);
    sequence
}

/// The kernel has at most 8,192 of them (`NR_CPUS`).
#[inline(always)]
fn cpu() -> u16 {
    // SAFETY: no arguments, no memory.
    unsafe { bpf_get_smp_processor_id() as u16 }
}

/// The boot clock, which costs as much as a lookup.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: no arguments, no memory.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// A flow begins now; its [report](flow) says the same time.
#[inline(always)]
pub(crate) fn begin() -> u64 {
    let now = now();
    if let Some(asked) = ASKED.get_ptr_mut(0) {
        // SAFETY: this CPU's own entry.
        unsafe { (*asked).begun_ns = now };
    }
    now
}

/// When the flow of this run began.
#[inline(always)]
fn begun() -> u64 {
    // SAFETY: this CPU's own entry.
    ASKED.get_ptr(0).map_or(0, |asked| unsafe { (*asked).begun_ns })
}

/// The user at the local end of the flow of this run.
#[inline(always)]
fn user() -> u32 {
    // SAFETY: this CPU's own entry.
    ASKED.get_ptr(0).map_or(0, |asked| unsafe { (*asked).user })
}

/// Writes down one moment on both clocks.
#[inline(always)]
pub(crate) fn anchor() {
    let Some(anchor) = ANCHOR.get_ptr_mut(0) else { return };
    // SAFETY: run by one thread of user space at a time.
    unsafe {
        (*anchor).jiffies = bpf_jiffies64();
        (*anchor).boot_ns = now();
    }
}
