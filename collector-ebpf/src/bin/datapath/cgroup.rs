//! Whose a socket of this host is: the unit of the control group (cgroup v2) that it was made in, or the one that declares its
//! [`user`], where the group's is not declared.
//!
//! What leaves has its sender's socket, whose group a helper tells. What comes in has none yet: it is looked up, and TC may
//! not ask the kernel for a looked-up socket's group, so that is read where the running kernel's type information says.
//!
//! A group that nobody knows has a unit at once, from a list that user space keeps filled, so that its counters are right
//! before its name is known.

use aya_ebpf::{
    Global,
    bindings::BPF_NOEXIST,
    helpers::generated::{bpf_get_smp_processor_id, bpf_probe_read_kernel, bpf_skb_cgroup_id},
};
use collector_ebpf::{
    abi::{
        flow::{how, ports},
        pu::{DECLARED, FREE_UNITS as FREE_OF_CPU, ROOT_CGROUP, index},
    },
    wire::tcp,
};

use crate::{
    Skb, account,
    count::ledger,
    family::{Key, Rest},
    maps::{ASKED, Asked, CGROUPS, FREE_UNITS},
    read::Packet,
    settings::{BY_CGROUP, BY_USER},
    user,
};

/// Where `sock.sk_cgrp_data` has the group, in octets from the socket's beginning; 0 where that is not known.
#[unsafe(no_mangle)]
pub(crate) static SOCK_CGROUP: Global<u32> = Global::new(0);
/// Where `cgroup.kn` lies.
#[unsafe(no_mangle)]
pub(crate) static CGROUP_KN: Global<u32> = Global::new(0);
/// Where `kernfs_node.id` lies.
#[unsafe(no_mangle)]
pub(crate) static KN_ID: Global<u32> = Global::new(0);

/// `IPPROTO_ICMP` and `IPPROTO_ICMPV6`.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The unit of the socket that sends the packet; `HOST` where nothing else is known.
#[inline(always)]
pub(crate) fn of_sender<K: Key>(skb: Skb, packet: &Packet) -> u16 {
    if BY_CGROUP.load() | BY_USER.load() == 0 || is_kernels_own::<K>(packet) {
        return index::HOST;
    }
    // SAFETY: the context is live.
    let group = if BY_CGROUP.load() == 0 { 0 } else { unsafe { bpf_skb_cgroup_id(skb) } };
    unit(group, if BY_USER.load() == 0 { 0 } else { user::of_sender(skb) }) as u16
}

/// Whether the kernel itself makes such a packet, through sockets of its own: these count as made in the group of whoever
/// made the network namespace, which has nothing to do with it.
#[inline(always)]
pub(crate) fn is_kernels_own<K: Key>(packet: &Packet) -> bool {
    let Rest { protocol, ports, .. } = packet.key::<K>().rest();
    match protocol {
        // Somebody here asks; the kernel answers.
        ICMP | ICMPV6 => {
            let asks = (packet.initiator & how::LOCAL_INITIATED != 0) == packet.sent();
            ports != ports::ECHO || !asks
        }
        _ => packet.tcp_flags & tcp::RST != 0,
    }
}

/// The unit of the socket that was looked up last in this run; `HOST` where nothing else is known.
#[inline(always)]
pub(crate) fn of_receiver() -> u16 {
    if BY_CGROUP.load() | BY_USER.load() == 0 {
        return index::HOST;
    }
    // SAFETY: this CPU's own entry.
    let (group, owner) =
        ASKED.get_ptr(0).map_or((0, 0), |asked| unsafe { ((*asked).cgroup, (*asked).owner) });
    unit(group, owner) as u16
}

/// Keeps the group of a looked-up socket, which is a whole one: what a connection has before it is accepted and after it is
/// closed ends before the field.
///
/// # Safety
///
/// The socket at this address is held, and `asked` is this CPU's own entry.
#[inline(always)]
pub(crate) unsafe fn keep(asked: *mut Asked, socket: u64) {
    if SOCK_CGROUP.load() == 0 {
        return;
    }
    // SAFETY: the caller's promise; what is read is the kernel's memory as its type information says, and 0 where there is
    // none.
    unsafe {
        let group = read(socket, SOCK_CGROUP.load());
        // Before Linux 5.15 two bits say that what stands there is not a group (sock_cgroup_ptr).
        (*asked).cgroup = if group & 3 != 0 || group == 0 {
            ROOT_CGROUP
        } else {
            read(read(group, CGROUP_KN.load()), KN_ID.load())
        };
    }
}

/// Reads a word of the kernel's; 0 where there is nothing.
///
/// # Safety
///
/// Any address may be asked for.
#[inline(always)]
pub(crate) unsafe fn read(at: u64, offset: u32) -> u64 {
    let mut word = 0_u64;
    let from = at.wrapping_add(offset.into()) as *const core::ffi::c_void;
    // SAFETY: the helper checks where it reads; the word has as many octets.
    unsafe { bpf_probe_read_kernel((&raw mut word).cast(), size_of::<u64>() as u32, from) };
    word
}

/// The unit of a socket of this control group and user (0 where it is not known or does not matter): what is declared of the
/// group goes before what is declared of the user, and that before whose group is only found.
///
/// A global function, so that it is verified once, and not behind every way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn unit(cgroup: u64, owner: u32) -> u32 {
    if BY_USER.load() == 0 || owner == 0 {
        return of_group(cgroup);
    }
    let by_group = known(cgroup).unwrap_or(0);
    if by_group & DECLARED == 0
        && let Some(unit) = user::declared(owner)
    {
        return unit;
    }
    if by_group == 0 { of_group(cgroup) } else { by_group }
}

/// The unit of a control group. `HOST` for what is in none or in the root, unless user space says otherwise, and where no
/// index is left for one that nobody knows.
#[inline(always)]
fn of_group(cgroup: u64) -> u32 {
    if cgroup == 0 {
        return index::HOST.into();
    }
    if let Some(unit) = known(cgroup) {
        return unit;
    }
    if cgroup == ROOT_CGROUP {
        return index::HOST.into();
    }
    let given = give(cgroup);
    if given != 0 {
        return given;
    }
    ledger(|ledger| ledger.units_exhausted += 1);
    index::HOST.into()
}

#[inline(always)]
fn known(cgroup: u64) -> Option<u32> {
    // SAFETY: user space changes a value by one store, and the programs never do.
    unsafe { CGROUPS.get(&cgroup) }.copied()
}

/// Gives the group the next free index of this CPU, or the one that another CPU has given it meanwhile; 0 where none is left.
#[inline(always)]
fn give(cgroup: u64) -> u32 {
    let Some(control) = account::control() else { return 0 };
    // SAFETY: the entry is live, and the number this CPU's programs' own. The helper has no arguments.
    let (taken, cpu) = unsafe { ((*control).units_taken, bpf_get_smp_processor_id()) };
    let entry = cpu.wrapping_mul(FREE_OF_CPU).wrapping_add(taken as u32 % FREE_OF_CPU);
    let Some(free) = FREE_UNITS.get_ptr_mut(entry) else { return 0 };
    // SAFETY: the entry is live, and its words are aligned. While there is a unit it is this CPU's, whose softirqs are off:
    // where these are preempted (PREEMPT_RT), user space leaves the list empty.
    unsafe {
        let unit = (&raw const (*free).unit).read_volatile() as u32;
        if unit == 0 {
            return 0;
        }
        if CGROUPS.insert(&cgroup, &unit, u64::from(BPF_NOEXIST)).is_err() {
            // The index stays for the next group: another CPU was first, or there are too many of them.
            return known(cgroup).unwrap_or(0);
        }
        (*control).units_taken = taken.wrapping_add(1);
        (&raw mut (*free).cgroup).write_volatile(cgroup);
        (&raw mut (*free).unit).write_volatile(0);
        unit
    }
}
