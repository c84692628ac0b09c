//! A frame that this collector's own program at XDP drops for a policy: counted and reported as what the kernel drops is.
//!
//! In a driver there is no more of it than octets on a page. On a veth, and behind a driver, the frame is a socket buffer all
//! the same ([`role::FREED`]), which the kernel frees as dropped right afterwards: that is not counted once more. Nothing else but
//! where its octets lie tells that buffer; on that CPU nothing else can have come there meanwhile.

use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_boot_ns};
use collector_ebpf::abi::{
    drop::{AT_XDP, DropKey, UNITS},
    packet::{event, link},
    pu::role,
};

use super::{ledger, lost, may_report, shape, wanted};
use crate::{
    Frame,
    identity::Who,
    maps::{DROP_BUDGETS, XDP_GONE},
    packet::Linear,
    read::Packet,
    reject,
    settings::{DROP_SNAP, NAMESPACE, PACKETS_BY_RING, XDP_WORD},
    transport,
};

/// Ticks, one to ten seconds of them: a virtual machine's CPU may be taken away for long between a frame's drop and its
/// buffer's. A frame that was redirected into a veth has no buffer, and where it lay another packet may, later.
const LONGEST_STALL: u64 = 1000;

/// A frame that was dropped on this CPU.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Gone {
    /// Where it began; 0 where there is none.
    start: u64,
    /// The tick.
    at: u64,
}

/// Counts a frame of so many octets that is dropped. 0.
#[inline(never)]
pub(crate) fn count(frame: Frame, packet: &Packet, who: u64, length: u32) -> u32 {
    // Nobody asks for drops.
    if NAMESPACE.load() == 0 {
        return 0;
    }
    let who = Who::unpack(who);
    let start = remember(frame, packet.role.flags & role::FREED != 0);
    ledger(|ledger| &raw mut ledger.seen);
    let key = DropKey { place: AT_XDP, reason: 0, pu: who.pu, by_policy: 1 };
    if super::count(&key, 1, length).is_none() {
        ledger(|ledger| &raw mut ledger.table_full);
        lost(who.pu, |budget| &raw mut budget.table_full);
        return 0;
    }
    let wanted = wanted::ask_frame(start, Linear::of_frame(frame).length(), length);
    if wanted == wanted::NO {
        ledger(|ledger| &raw mut ledger.filtered);
    } else if may_report(who.pu) != 0 {
        report(
            frame,
            packet,
            u64::from(who.number()) << 32 | u64::from(wanted) << 16 | u64::from(who.pu),
            length,
        );
    }
    0
}

/// Where the frame lies; it is remembered if the kernel is about to free it.
#[inline(always)]
fn remember(frame: Frame, is_freed: bool) -> u64 {
    let Some(gone) = XDP_GONE.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's own entry; the kernel hands the program a live context. By way of memory a pointer to a packet
    // becomes a number.
    unsafe {
        (&raw mut (*gone).start).cast::<usize>().write_volatile((*frame).data as usize);
        (&raw mut (*gone).at).write_volatile(bpf_jiffies64());
        let start = (&raw const (*gone).start).read_volatile();
        if !is_freed {
            (&raw mut (*gone).start).write_volatile(0);
        }
        start
    }
}

/// Another frame passes: whatever lies where the last one lay is not that one.
#[inline(always)]
pub(crate) fn passes() {
    if NAMESPACE.load() != 0
        && let Some(gone) = XDP_GONE.get_ptr_mut(0)
    {
        // SAFETY: this CPU's own entry.
        unsafe { (&raw mut (*gone).start).write_volatile(0) };
    }
}

/// Whether the buffer is that of the frame that the program at XDP has just dropped on this CPU. Once for each.
#[inline(always)]
pub(super) fn has_counted(skb: *const u8) -> bool {
    if XDP_WORD.load() == 0 {
        return false;
    }
    let Some(gone) = XDP_GONE.get_ptr_mut(0) else { return false };
    // SAFETY: the entry is live, and only this CPU writes to it. The helper has no arguments.
    unsafe {
        let start = (&raw const (*gone).start).read_volatile();
        if start == 0
            || !shape::begins_at(skb, start)
            || bpf_jiffies64().wrapping_sub((*gone).at) > LONGEST_STALL
        {
            return false;
        }
        (&raw mut (*gone).start).write_volatile(0);
    }
    true
}

/// Hands a report to user space. `said` is the number of the verdict, what the packet filter said, and the unit. 0.
#[inline(never)]
fn report(frame: Frame, packet: &Packet, said: u64, length: u32) -> u32 {
    let Some(record) = transport::record() else { return 0 };
    let pu = said as u16;
    let linear = Linear::of_frame(frame).length();
    let wanted = length.min(DROP_SNAP.load());
    // Only a perf buffer takes what lies in further buffers, too.
    let captured = if PACKETS_BY_RING.load() == 0 { wanted } else { wanted.min(linear) };
    let held_back = DROP_BUDGETS.get(u32::from(pu) % UNITS).map_or(0, |budget| budget.held_back);
    // SAFETY: the record is this CPU's own. One by one: LLVM would make the whole on the stack first. The helpers have no
    // arguments.
    let error = unsafe {
        (*record).boot_ns = bpf_ktime_get_boot_ns();
        (*record).place = AT_XDP;
        (*record).ifindex = packet.role.ifindex;
        (*record).mark = 0;
        (*record).reason = 0;
        (*record).suppressed = held_back as u32;
        (*record).length = length;
        (*record).captured = captured;
        (*record).packets = 1;
        (*record).namespace = NAMESPACE.load();
        (*record).cpu = bpf_get_smp_processor_id();
        (*record).pu = pu;
        (*record).vlan_tci = 0;
        (*record).vlan_protocol = 0;
        (*record).event = event::DROPPED;
        (*record).link = if captured == 0 { link::NONE } else { link::ETHERNET };
        (*record).end = reject::end_of(packet);
        (*record).filtered = (said >> 16) as u8;
        (*record).policy = (said >> 32) as u16;
        transport::frame(frame, record, captured)
    };
    if error == 0 {
        ledger(|ledger| &raw mut ledger.reported);
    } else {
        ledger(|ledger| &raw mut ledger.output_failed);
        lost(pu, |budget| &raw mut budget.output_failed);
    }
    0
}
