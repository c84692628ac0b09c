//! The steady state of a flow: read the packet, hit its slot, add. Its processing unit gets what its flows have counted
//! when user space drains them.
//!
//! What is not the steady state goes to [`cold`](crate::cold), which reads the packet again: nothing that it
//! needs has to be kept here, and the registers and the stack of the hot path stay free.

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_jiffies64};
use collector_ebpf::{
    abi::{
        control::{Control, Crossed, UPLINKS},
        flow::{RX, TX},
        pu::{Role, role},
    },
    wire::transport::Transport,
};

use crate::{
    Skb, cold,
    cold::Outcome,
    count::{add, ledger, mark},
    family::Key,
    maps::CONTROL,
    packet::wire,
    read::{read4, read6, role_of_index, unit_sent},
    reject, slot, superpacket, trace,
};

/// `PACKET_LOOPBACK` (`include/uapi/linux/if_packet.h`): a copy of own multicast or broadcast.
const PACKET_LOOPBACK: u32 = 5;

/// Counts one socket buffer. Returns where it is to pass on.
#[inline(always)]
pub(crate) fn run<const EGRESS: bool>(skb: Skb) {
    let Some(control) = control() else { return };
    // SAFETY: no arguments, no memory.
    let now = unsafe { bpf_jiffies64() };
    // SAFETY: the entry is live; its ledger is this CPU's own.
    let word = unsafe {
        if now >= (&raw const (*control).lease).read_volatile() {
            return;
        }
        (*control).ledger.seen += 1;
        word(control)
    };
    // SAFETY: the kernel hands the program a live context.
    if !EGRESS && unsafe { (*skb).pkt_type } == PACKET_LOOPBACK {
        // It lost its Ethernet header on the way, and was counted when it was sent.
        looped();
        return;
    }
    // SAFETY: the kernel hands the program a live context.
    let role = role_of_index(unsafe { (*skb).ifindex });
    if let Some(role) = role {
        // SAFETY: the entry is live; what it counts is this CPU's own.
        unsafe { cross::<EGRESS>(control, skb, role, 1) };
    }
    let counted = match role {
        Some(role) if role.flags & rare::<EGRESS>() == 0 || is_plain::<EGRESS>(skb, role) => {
            let run = Run { skb, control, word, now };
            match hot4::<EGRESS>(&run, role) {
                Hot::Other => hot6::<EGRESS>(&run, role),
                counted => counted,
            }
        }
        _ => Hot::Missed,
    };
    let outcome = if let Hot::Counted(pu) = counted {
        Outcome { pu, marked: pu, family: 0, dropped: false }
    } else {
        let outcome = if EGRESS { cold::egress(skb) } else { cold::ingress(skb) };
        if outcome.dropped {
            // The drop program reports it.
            reject::end();
        }
        outcome
    };
    // SAFETY: the entry is live. User space writes it by one aligned store; a volatile read is one load.
    if unsafe { (&raw const (*control).captured).read_volatile() } != 0 && outcome.pu != 0 {
        trace::trace_packet(skb, outcome.pu.into(), EGRESS.into());
    }
    // Last, so that a report shows the mark as it was found.
    mark(skb, outcome.marked);
}

/// This CPU's entry of the control map.
#[inline(always)]
pub(crate) fn control() -> Option<*mut Control> {
    // SAFETY: no arguments, no memory.
    CONTROL.get_ptr_mut(unsafe { bpf_get_smp_processor_id() })
}

/// Epoch and generation, as they are now.
///
/// # Safety
///
/// The entry is live.
#[inline(always)]
pub(crate) unsafe fn word(control: *const Control) -> u64 {
    // SAFETY: the caller's promise. User space writes it by one aligned store; a volatile read is one load.
    unsafe { (&raw const (*control).word).read_volatile() }
}

/// Counts `times` a buffer that crosses its interface.
///
/// # Safety
///
/// The entry is live, and this CPU's.
#[inline(always)]
pub(crate) unsafe fn cross<const EGRESS: bool>(control: *mut Control, skb: Skb, role: &Role, times: i64) {
    // SAFETY: the caller's promise. The kernel hands the program a live context.
    unsafe { cross_with::<EGRESS>(control, i64::from((*skb).gso_segs.max(1)), role, times) };
}

/// The same for one that stands for so many packets.
///
/// # Safety
///
/// As above.
#[inline(always)]
pub(crate) unsafe fn cross_with<const EGRESS: bool>(
    control: *mut Control,
    segments: i64,
    role: &Role,
    times: i64,
) {
    let direction = if EGRESS { TX } else { RX };
    // SAFETY: the caller's promise; the index is masked.
    unsafe {
        let crossed = (&raw mut (*control).crossed).cast::<Crossed>();
        let crossed = crossed.add(role.uplink as usize & (UPLINKS - 1));
        *(&raw mut (*crossed).skbs).cast::<u64>().add(direction) += times as u64;
        *(&raw mut (*crossed).packets).cast::<u64>().add(direction) += (times * segments) as u64;
    }
}

/// Roles that need a second look before the steady state may count.
const RARE: u16 = role::LOOPBACK | role::RAW_IP | role::MIRRORED;

/// The same, and what makes one only of what comes in.
#[inline(always)]
const fn rare<const EGRESS: bool>() -> u16 {
    if EGRESS { RARE } else { RARE | role::COPIED }
}

/// Whether the steady state may count a packet of such a role all the same: an ifb is there, and has not handed it back,
/// which it can only to what leaves.
#[inline(always)]
fn is_plain<const EGRESS: bool>(skb: Skb, role: &Role) -> bool {
    role.flags & rare::<EGRESS>() == role::MIRRORED && !(EGRESS && may_be_second_pass(skb, role))
}

/// Whether an ifb may have handed the packet back, which was counted before it went there.
#[inline(always)]
pub(crate) fn may_be_second_pass(skb: Skb, role: &Role) -> bool {
    // SAFETY: the kernel hands the program a live context.
    role.flags & role::MIRRORED != 0 && unsafe { (*skb).ingress_ifindex } != 0
}

#[inline(never)]
fn looped() -> u32 {
    ledger(|ledger| ledger.looped += 1);
    0
}

/// A run of a program: its packet, and what it was told.
struct Run {
    skb: Skb,
    control: *const Control,
    word: u64,
    now: u64,
}

/// What the steady state made of a packet.
enum Hot {
    /// It was counted for this unit.
    Counted(u16),
    /// Nothing was counted.
    Missed,
    /// Not this family's; nothing was counted.
    Other,
}

#[inline(always)]
fn hot4<const EGRESS: bool>(run: &Run, role: &Role) -> Hot {
    let Some((mut key, transport)) = read4(run.skb, role) else { return Hot::Other };
    let sent = unit_sent::<EGRESS>(role);
    if !sent {
        key.turn();
    }
    hit(run, role, &key, &transport, sent)
}

/// The same for IPv6.
#[inline(always)]
fn hot6<const EGRESS: bool>(run: &Run, role: &Role) -> Hot {
    let Some((mut key, transport)) = read6(run.skb, role) else { return Hot::Missed };
    let sent = unit_sent::<EGRESS>(role);
    if !sent {
        key.turn();
    }
    hit(run, role, &key, &transport, sent)
}

/// Counts a packet whose flow holds its slot; `Missed` where there is more to do than to add.
#[inline(always)]
fn hit<K: Key>(run: &Run, role: &Role, key: &K, transport: &Transport, sent: bool) -> Hot {
    let Some(slot) = slot::of(key, key.index(run.control, run.word)) else { return Hot::Missed };
    let direction = if sent { TX } else { RX };
    if !slot::is_steady(&slot, direction, transport.tcp_flags) {
        return Hot::Missed;
    }
    // SAFETY: the slot is live, and this CPU's alone while softirqs are off.
    unsafe {
        let wire = wire(run.skb, transport.headers, false);
        if wire.packets != 1 && !superpacket::is_last(run.skb, transport.protocol) {
            return Hot::Missed;
        }
        add(slot.counts(), direction, wire, run.now, role.interface, transport.tcp_flags);
        Hot::Counted((*slot.counts()).pu)
    }
}
