//! Reports of single packets, where they were asked for: after a packet was counted, for then it is known whose it is.
//!
//! Nothing here is run as long as nothing is traced. What is traced is `filtered`, `sampled`, `output_failed` or reported,
//! and the ledger has each.

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns};
use collector_ebpf::{
    abi::{
        control::Control,
        packet::{event, link},
        pu::{Role, role},
        trace::{ALL, Trace},
    },
    wire::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};

use crate::{
    Skb, account, count, filter,
    maps::{ROLES, TRACED},
    packet::metadata_vlan,
    read::{self, Packet},
    share, transport,
};

/// Reports the packet, which was counted for unit `pu`, if that is traced: one that `is_leaving`, or came in. 0.
///
/// A global function, so that it is verified once, and not behind every way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn trace_packet(skb: Skb, pu: u32, is_leaving: u32) -> u32 {
    // SAFETY: the kernel hands the program a live context.
    let ifindex = unsafe { (*skb).ifindex };
    // One without a role was counted under that of entry 0.
    let Some(role) = read::role_of_index(ifindex).or_else(|| ROLES.get(0)) else { return 0 };
    // The clock costs as much as all that was done so far: most packets are not asked for.
    let Some(trace) = entry(pu).or_else(|| entry(ALL)) else { return 0 };
    let is_leaving = is_leaving != 0;
    let sent = is_leaving != (role.flags & role::FAR != 0);
    // SAFETY: no arguments, no memory.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let mut every = one_of(trace, sent, now);
    if every == 0 {
        // Its own may be over, or be about the other direction.
        every = entry(ALL).map_or(0, |trace| one_of(trace, sent, now));
    }
    if every == 0 {
        return 0;
    }
    count::ledger(|ledger| ledger.traced += 1);
    if !filter::wants(skb, link_of(skb, role, is_leaving).into()) {
        count::ledger(|ledger| ledger.filtered += 1);
    } else if !is_due(pu as u16, every) {
        count::ledger(|ledger| ledger.sampled += 1);
    } else if output(skb, pu as u16, is_leaving, now, role) != 0 {
        count::ledger(|ledger| ledger.output_failed += 1);
        if let Some(unit) = count::unit(pu as u16) {
            // SAFETY: this CPU's own entry.
            unsafe { (*unit).output_failed += 1 };
        }
    }
    0
}

/// What user space says of a unit.
#[inline(always)]
fn entry(unit: u32) -> Option<&'static Trace> {
    // SAFETY: user space puts whole entries in the place of those before, which stay as long as the program runs.
    unsafe { TRACED.get(&unit) }
}

/// Of how many packets one is to be reported by this entry; 0 where none is.
#[inline(always)]
fn one_of(trace: &Trace, is_sent: bool, now: u64) -> u32 {
    let [received, sent] = trace.until_ns;
    let until = if is_sent { sent } else { received };
    if now < until { trace.every } else { 0 }
}

/// What a packet begins with.
#[inline(always)]
fn link_of(skb: Skb, role: &Role, is_leaving: bool) -> u8 {
    if role.flags & role::RAW_IP != 0 {
        return link::RAW_IP;
    }
    // Then it was read by the cold path, whatever it is.
    if role.flags & role::COPIED != 0
        && !is_leaving
        && Packet::of_run().is_some_and(|packet| packet.lost != 0)
    {
        // SAFETY: the kernel hands the program a live context.
        let protocol = u16::from_be(unsafe { (*skb).protocol } as u16);
        let is_ip = protocol == ETHERTYPE_IPV4 || protocol == ETHERTYPE_IPV6;
        return if is_ip { link::RAW_IP } else { link::NONE };
    }
    link::ETHERNET
}

/// Whether the packet is the one of so `many` of its unit that is reported: the first of them.
#[inline(always)]
fn is_due(pu: u16, many: u32) -> bool {
    let Some(unit) = count::unit(pu) else { return true };
    // SAFETY: this CPU's own entry.
    unsafe {
        // More are left out than shall be where there were more before.
        let left_out = (*unit).left_out.min(many - 1);
        let due = left_out == 0;
        (*unit).left_out = if due { many - 1 } else { left_out - 1 };
        due
    }
}

/// Writes the record, with the packet's first octets behind it; 0, or why the kernel did not take it.
#[inline(never)]
fn output(skb: Skb, pu: u16, is_leaving: bool, now: u64, role: &Role) -> i64 {
    let link = link_of(skb, role, is_leaving);
    let packets = packets(skb, role);
    let (Some(record), Some(control)) = (transport::record(), account::control()) else { return -1 };
    // SAFETY: the record and the control entry are live for the run; the kernel hands the program a live context. What
    // is written lies in a map, field by field: LLVM would make the whole on the stack first.
    unsafe {
        let length = (*skb).len;
        let captured = length.min(octets(control));
        let tag = metadata_vlan(skb);
        (*record).boot_ns = now;
        (*record).place = 0;
        (*record).ifindex = (*skb).ifindex;
        (*record).mark = (*skb).mark;
        (*record).reason = 0;
        (*record).suppressed = 0;
        (*record).length = length;
        (*record).captured = captured;
        (*record).packets = packets;
        (*record).namespace = 0;
        (*record).cpu = bpf_get_smp_processor_id();
        (*record).pu = pu;
        (*record).vlan_tci = tag.unwrap_or(0);
        // The kernel keeps it in network byte order.
        (*record).vlan_protocol = if tag.is_some() { (*skb).vlan_proto as u16 } else { 0 };
        (*record).event = if is_leaving { event::TRANSMITTED } else { event::RECEIVED };
        (*record).link = link;
        (*record).end = 0;
        (*record).filtered = 0;
        (*record).policy = 0;
        if share::take_packet(pu, captured) == 0 {
            return -1;
        }
        let failed = transport::packet(skb, record, captured);
        share::wrote_packet(pu, captured, failed != 0);
        failed
    }
}

/// How many octets of a packet are reported.
///
/// # Safety
///
/// The entry is live.
#[inline(always)]
unsafe fn octets(control: *const Control) -> u32 {
    // SAFETY: the caller's promise. User space writes it by one aligned store.
    unsafe { (&raw const (*control).captured).read_volatile() as u32 }
}

/// The wire packets that the buffer stands for.
#[inline(always)]
fn packets(skb: Skb, role: &Role) -> u32 {
    // SAFETY: the kernel hands the program a live context.
    let (size, segments) = unsafe { ((*skb).gso_size, (*skb).gso_segs) };
    if size == 0 || segments != 0 {
        return segments.max(1);
    }
    // Its sender has not counted them: what they are depends on where the headers end. It was counted, so nobody needs any
    // more what was read of it.
    let Some(packet) = Packet::of_run() else { return 1 };
    packet.begin::<false>(role, 0, 0, 0);
    read::read_packet(skb);
    Packet::of_run().map_or(1, |packet| packet.wire(skb).packets)
}
