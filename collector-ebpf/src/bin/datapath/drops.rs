//! What the kernel drops, wherever it does: each counted by its unit, the kernel's reason and the place; some reported.
//!
//! The program hangs on the tracepoint of `kfree_skb` and runs anywhere: in a process, in an interrupt's softirq, one in
//! the midst of another on kernels before 6.1. So nothing is kept in memory of a CPU's own across a helper's call, all
//! that is added is added atomically, and [`shape`] reads structures where this kernel's type information says.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_NOEXIST,
    helpers::generated::{
        bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_boot_ns, bpf_probe_read_kernel,
    },
    programs::BtfTracePointContext,
};
use collector_ebpf::abi::{
    drop::{DropBudget, DropCounts, DropKey, DropLedger, ELSEWHERE, PARTS, UNITS},
    packet::{PacketRecord, end, event, link},
    pu::{Role, index, role},
};

use crate::{
    atomic, classify,
    maps::{DROP_BUDGETS, DROP_LEDGER, DROPS},
    packet::opaque,
    read::role_of_index,
    settings::{
        DROP_BURST, DROP_INTERVAL, DROP_REASONS, DROP_SNAP, NAMESPACE, PACKETS_BY_RING, RELEASE,
        RELEASE_LENGTH, TRIAL, TRIAL_LENGTH,
    },
    transport,
};

mod folded;
pub(crate) mod frame;
mod shape;
mod wanted;

use shape::Dropped;

/// Octets of the packet that this program itself copies: with the record, half of the stack.
const WINDOW: usize = 192;

/// A record, and the octets behind it.
#[repr(C, align(8))]
struct Report {
    record: PacketRecord,
    octets: [u8; WINDOW],
}

/// Adds one to a number of this CPU's ledger; the run may have moved to another CPU meanwhile.
#[inline(always)]
fn ledger(number: impl FnOnce(&mut DropLedger) -> *mut u64) {
    if let Some(ledger) = DROP_LEDGER.get_ptr_mut(0) {
        // SAFETY: the entry is live; numbers are changed atomically only.
        unsafe { atomic::add(number(&mut *ledger), 1) };
    }
}

/// Adds one to what the unit lost.
#[inline(always)]
fn lost(pu: u16, number: impl FnOnce(&mut DropBudget) -> *mut u64) {
    if let Some(budget) = DROP_BUDGETS.get_ptr_mut(u32::from(pu) % UNITS) {
        // SAFETY: the entry is live; what was lost is changed atomically only.
        unsafe { atomic::add(number(&mut *budget), 1) };
    }
}

/// Counts a socket buffer that the kernel frees because it drops it.
#[inline(always)]
pub(crate) fn run(ctx: &BtfTracePointContext) {
    let skb: *const u8 = ctx.arg(0);
    if frame::has_counted(skb) {
        return;
    }
    ledger(|ledger| &raw mut ledger.seen);
    let is_in = |function: u64, length: u64| place(ctx).wrapping_sub(function) < length;
    let is_trial = is_in(TRIAL.load(), TRIAL_LENGTH.load());
    // The pieces of a packet that is freed as a whole: that one is told of by itself.
    let is_piece = is_in(RELEASE.load(), RELEASE_LENGTH.load());
    let Some(dropped) = (if is_trial || is_piece { None } else { Dropped::of(skb) }) else {
        ledger(|ledger| &raw mut ledger.no_packet);
        return;
    };
    let own = shape::signed(skb);
    let whose = if own == 0 { unit(&dropped).into() } else { own };
    let pu = whose as u16;
    let by_policy = u16::from(own != 0);
    let key = DropKey { place: place(ctx), reason: reason(ctx), pu, by_policy };
    let Some(is_folded) = count(&key, dropped.packets, dropped.length) else {
        ledger(|ledger| &raw mut ledger.table_full);
        lost(pu, |budget| &raw mut budget.table_full);
        return;
    };
    if pu == ELSEWHERE {
        return;
    }
    if is_folded {
        ledger(|ledger| &raw mut ledger.folded);
        return;
    }
    // Before the budget: what nobody wants costs nobody a report.
    let wanted = wanted::ask(&dropped);
    if wanted == wanted::NO {
        ledger(|ledger| &raw mut ledger.filtered);
    } else if may_report(pu) != 0 {
        report(ctx, &dropped, whose | u64::from(wanted) << FILTERED_AT);
    }
}

/// Where it is dropped. Read again wherever it is needed: kept, it takes stack that the report has no room for before Linux 6.13.
#[inline(always)]
fn place(ctx: &BtfTracePointContext) -> u64 {
    ctx.arg(1)
}

/// Why. An argument that this kernel's tracepoint lacks may not even be looked at.
#[inline(always)]
fn reason(ctx: &BtfTracePointContext) -> u32 {
    if DROP_REASONS.load() != 0 { ctx.arg(2) } else { 0 }
}

/// Whose packet it is, in the lower half, and which of its [ends](end), in the upper one. The end that is looked at first is
/// the one that the packet had come to, or had not left.
///
/// A subprogram: what it needs on the stack is free again for the report.
#[inline(never)]
fn unit(dropped: &Dropped) -> u32 {
    let is_here = dropped.namespace == NAMESPACE.load();
    // Where a buffer waits in a queue, its device's place is taken for other things: then only addresses tell, but for those that
    // each namespace has.
    let may_be_here = |address| is_here || dropped.namespace == 0 && !is_everywhere(address);
    let role = if is_here { role_of_index(dropped.interface) } else { None };
    let ends = dropped.ends();
    if ends.known
        && dropped.came_in
        && may_be_here(ends.destination)
        && let Some(pu) = classify::own(ends.destination)
    {
        return whose(pu.get(), end::DESTINATION);
    }
    // It had left the one, and come to the other.
    if is_here
        && dropped.came_in
        && dropped.at != dropped.interface
        && let Some(role) = role_of_index(dropped.at)
        && role.pu >= index::FIRST
    {
        return whose_interface(role, false);
    }
    if let Some(role) = role
        && role.pu >= index::FIRST
    {
        return whose_interface(role, dropped.came_in);
    }
    if !ends.known {
        return whose(
            if is_here { role.map_or(index::HOST, |role| role.pu) } else { ELSEWHERE },
            end::NEITHER,
        );
    }
    let (from, to) = ((ends.source, end::SOURCE), (ends.destination, end::DESTINATION));
    for (address, end) in if dropped.came_in { [to, from] } else { [from, to] } {
        if may_be_here(address)
            && let Some(pu) = classify::own(address)
        {
            return whose(pu.get(), end);
        }
        if let Some(pu) = classify::declared(address) {
            return whose(pu.get(), end);
        }
    }
    if !is_here {
        whose(ELSEWHERE, end::NEITHER)
    } else if !dropped.came_in {
        whose(index::HOST, end::SOURCE)
    } else if dropped.is_for_many {
        whose(index::HOST, end::DESTINATION)
    } else {
        whose(index::FORWARDED, end::NEITHER)
    }
}

/// Whether each network namespace has an address: `127.0.0.0/8` or `::1`.
#[inline(always)]
fn is_everywhere(address: [u8; 16]) -> bool {
    /// `::ffff:127.0.0.0/104` (RFC 4291 section 2.5.5.2).
    const MAPPED: u128 = 0xFFFF << 8 | 127;
    let number = u128::from_be_bytes(address);
    number == 1 || number >> 24 == MAPPED
}

/// The unit of an interface, and the end of a packet that comes in by it, or leaves.
#[inline(always)]
fn whose_interface(role: &Role, comes_in: bool) -> u32 {
    // What its interface sends, it has; what comes in by that end of it which is the host's, it has sent.
    let has_sent = (role.flags & role::FAR != 0) == comes_in;
    whose(role.pu, if has_sent { end::SOURCE } else { end::DESTINATION })
}

/// A subprogram returns one register.
#[inline(always)]
const fn whose(pu: u16, end: u8) -> u32 {
    pu as u32 | (end as u32) << 16
}

/// Adds to the row of the key; whether no report is wanted of its drops. `None` where there is no room for a new row.
#[inline(always)]
fn count(key: &DropKey, packets: u32, length: u32) -> Option<bool> {
    let mut row = DROPS.get_ptr_mut(key);
    if row.is_none() {
        add_row(key);
        row = DROPS.get_ptr_mut(key);
    }
    let row = row?;
    // SAFETY: a row is removed only once nothing has counted by its unit for long; all that is added is added atomically.
    unsafe {
        if packets > 1 {
            atomic::add(&raw mut (*row).more, u64::from(packets - 1));
        }
        atomic::add(&raw mut (*row).skbs, 1);
        atomic::add(&raw mut (*row).bytes, u64::from(length));
        Some((*row).folded != 0)
    }
}

/// Makes the row of the key, unless another CPU makes it first. 0.
#[inline(never)]
fn add_row(key: &DropKey) -> u32 {
    let folded = if key.by_policy != 0 { 0 } else { folded::is_folded(key.reason, key.place) };
    let row = DropCounts { more: 0, skbs: 0, bytes: 0, folded, _pad: 0 };
    let _ = DROPS.insert(key, &row, u64::from(BPF_NOEXIST));
    0
}

/// 1 if the unit's budget pays for a report.
#[inline(never)]
fn may_report(pu: u16) -> u32 {
    let Some(budget) = DROP_BUDGETS.get_ptr_mut(u32::from(pu) % UNITS) else { return 0 };
    // SAFETY: no arguments, no memory.
    let now = unsafe { bpf_jiffies64() } * PARTS;
    // SAFETY: the entry is live. Two CPUs may read the same number and spend the same report; what is held back is
    // added atomically.
    unsafe {
        let paid = &raw mut (*budget).paid_until;
        let saved = now.saturating_sub(DROP_BURST.load());
        let until = paid.read_volatile().max(saved) + DROP_INTERVAL.load();
        if until <= now {
            paid.write_volatile(until);
            return 1;
        }
        atomic::add(&raw mut (*budget).held_back, 1);
    }
    0
}

/// Where, among what else is said of a drop in one number, stands whether the packet filter has been asked.
const FILTERED_AT: u32 = 24;

/// Hands a report to user space: the record, and the beginning of the packet. Of `whose` and what the packet filter said
/// see [`FILTERED_AT`].
///
/// What lies in front of where the kernel has come to is copied here. Where more is wanted than there is room for, the
/// kernel adds the rest, from wherever it lies.
#[inline(never)]
fn report(ctx: &BtfTracePointContext, dropped: &Dropped, whose: u64) -> u32 {
    let pu = whose as u16;
    let mut report = MaybeUninit::<Report>::uninit();
    // Word by word: for a value LLVM calls a function, whose stack there is no room for before Linux 6.13.
    // SAFETY: all of it is written, with zeros, which it may be.
    let report = unsafe {
        let words = report.as_mut_ptr().cast::<u64>();
        for word in 0..size_of::<Report>() / size_of::<u64>() {
            words.add(word).write_volatile(0);
        }
        report.assume_init_mut()
    };
    let wanted = dropped.length.min(DROP_SNAP.load());
    let here = dropped.linear.min(wanted).min(WINDOW as u32);
    let has_rest = wanted > here && dropped.before <= here && PACKETS_BY_RING.load() == 0;
    let added = if has_rest { wanted - dropped.before } else { 0 };
    // LLVM knows the bound and would leave the comparison out; the verifier wants to see it.
    let copied = opaque(if added == 0 { here } else { dropped.before } as usize);
    if copied > WINDOW {
        return 0;
    }
    // SAFETY: as much as there is room for; an address that cannot be read is an error.
    let failed = unsafe {
        bpf_probe_read_kernel(
            report.octets.as_mut_ptr().cast(),
            copied as u32,
            dropped.start as *const c_void,
        )
    };
    let (copied, added) = if failed == 0 { (copied, added) } else { (0, 0) };
    let captured = copied as u32 + added;
    let held_back = DROP_BUDGETS.get(u32::from(pu) % UNITS).map_or(0, |budget| budget.held_back);
    // One by one: LLVM would make the whole once more on the stack.
    let record = &mut report.record;
    // SAFETY: no arguments, no memory.
    record.boot_ns = unsafe { bpf_ktime_get_boot_ns() };
    record.place = place(ctx);
    record.ifindex = dropped.interface;
    record.mark = dropped.mark;
    record.reason = reason(ctx);
    record.suppressed = held_back as u32;
    record.length = dropped.length;
    record.captured = captured;
    record.packets = dropped.packets;
    record.namespace = dropped.namespace;
    // SAFETY: no arguments, no memory.
    record.cpu = unsafe { bpf_get_smp_processor_id() };
    record.pu = pu;
    record.vlan_tci = dropped.vlan_tci;
    record.vlan_protocol = dropped.vlan_protocol;
    record.event = event::DROPPED;
    record.link = if captured == 0 { link::NONE } else { dropped.link };
    record.end = (whose >> 16) as u8;
    record.filtered = (whose >> FILTERED_AT) as u8;
    record.policy = (whose >> shape::POLICY_AT) as u16;
    let size = size_of::<PacketRecord>() + copied;
    // SAFETY: the kernel's context and its buffer.
    let error = unsafe {
        if added == 0 {
            transport::whole(ctx.as_ptr(), report, size)
        } else {
            transport::with_rest(ctx.arg(0), report, size, added)
        }
    };
    if error == 0 {
        ledger(|ledger| &raw mut ledger.reported);
    } else {
        ledger(|ledger| &raw mut ledger.output_failed);
        lost(pu, |budget| &raw mut budget.output_failed);
    }
    0
}
