//! Whether the packet filter wants a dropped packet.
//!
//! The program of drops may run in the midst of itself, and its CPU has one machine for it: a run that finds that taken
//! leaves the question to user space.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use collector_ebpf::{
    abi::{
        filter::{AT_DROPS, AT_TC, Machine, TAG, WINDOW},
        packet::link,
    },
    filter::NO_MATCH,
};

use super::shape::Dropped;
use crate::{
    atomic,
    filter::{insert_tag, run_filter},
    maps::{FILTER_RUNS, FILTER_USERS},
    packet::opaque,
    settings::FILTERED,
};

/// The machine was taken, or the packet could not be read.
pub(super) const NOT_ASKED: u32 = 0;
/// It is wanted, or there is no filter.
pub(super) const YES: u32 = 1;
/// It is not.
pub(super) const NO: u32 = 2;

/// One of [`YES`], [`NO`] and [`NOT_ASKED`].
#[inline(never)]
pub(super) fn ask(dropped: &Dropped) -> u32 {
    if FILTERED.load() == 0 {
        return YES;
    }
    let (Some(machine), Some(users)) = (FILTER_RUNS.get_ptr_mut(AT_DROPS), FILTER_USERS.get_ptr_mut(0))
    else {
        return NOT_ASKED;
    };
    // Older kernels cannot say what a number was before something was added to it. Of two that add at the same time both
    // may leave; never does more than one stay.
    // SAFETY: the entry is live for the run; the number is changed atomically only.
    let alone = unsafe {
        atomic::add(users, 1);
        users.read_volatile() == 1
    };
    let said = if !alone || show(dropped, machine) == 0 {
        NOT_ASKED
    } else if run_filter(AT_DROPS, dropped.link.into()) != NO_MATCH {
        YES
    } else {
        NO
    };
    // SAFETY: as above.
    unsafe { atomic::add(users, u64::MAX) };
    said
}

/// The same of a frame at XDP that begins there, of which so many octets lie in one piece and so many are all. The program
/// there runs with softirqs off, as those at TC do: never in the midst of one.
#[inline(never)]
pub(super) fn ask_frame(start: u64, linear: u32, length: u32) -> u32 {
    if FILTERED.load() == 0 {
        return YES;
    }
    let Some(machine) = FILTER_RUNS.get_ptr_mut(AT_TC) else { return NOT_ASKED };
    let copied = opaque(linear.min(WINDOW) as usize) as u32;
    if copied == 0 || copied > WINDOW || copied < length.min(WINDOW) {
        return NOT_ASKED;
    }
    // SAFETY: the entry is live for the run, and this CPU's own; the window has room for WINDOW octets. An address that cannot
    // be read is an error.
    unsafe {
        let window = (&raw mut (*machine).window).cast::<u8>();
        if bpf_probe_read_kernel(window.cast(), copied, start as *const _) != 0 {
            return NOT_ASKED;
        }
        (*machine).length = length;
        (*machine).copied = copied;
    }
    if run_filter(AT_TC, link::ETHERNET.into()) == NO_MATCH { NO } else { YES }
}

/// Puts the packet into the window as it would be captured, with the tag that the kernel keeps beside it in its place. 0
/// where it cannot be read, or not as far as the window: what lies in other pieces is there in a report only.
#[inline(always)]
fn show(dropped: &Dropped, machine: *mut Machine) -> u32 {
    let tagged = dropped.link == link::ETHERNET && dropped.vlan_protocol != 0;
    let behind = if tagged { TAG } else { 0 };
    let copied = opaque(dropped.linear.min(WINDOW) as usize) as u32;
    if copied == 0 || copied > WINDOW || copied < dropped.length.min(WINDOW) {
        return 0;
    }
    // SAFETY: the entry is live for the run, and this run's alone. The window has room for a tag beside WINDOW octets. An
    // address that cannot be read is an error.
    unsafe {
        let window = (&raw mut (*machine).window).cast::<u8>();
        if bpf_probe_read_kernel(window.add(behind as usize).cast(), copied, dropped.start as *const _) != 0 {
            return 0;
        }
        if tagged {
            insert_tag(machine, dropped.vlan_protocol, dropped.vlan_tci);
        }
        (*machine).length = dropped.length + behind;
        (*machine).copied = copied + behind;
    }
    1
}
