//! Whether a packet is one that the filter wants.
//!
//! The packet's start is put into the window of a machine ([`show`]), and the program of its kind of link runs there
//! ([`run_filter`]): apart, since a dropped packet comes into its window in another way.

use core::mem::offset_of;

use aya_ebpf::helpers::bpf_skb_load_bytes;
use collector_ebpf::{
    abi::{
        filter::{AT_TC, Machine, TAG, WINDOW},
        packet::link,
    },
    filter::{self, NO_MATCH},
};

use crate::{
    Skb,
    maps::{FILTER, FILTER_RUNS},
    packet::{metadata_vlan, opaque},
    settings::FILTERED,
};

/// Whether the filter wants a packet at TC, which begins with a header of the kind `link`
/// ([`link`](collector_ebpf::abi::packet::link)). Where there is no filter, every packet is wanted.
#[inline(always)]
pub(crate) fn wants(skb: Skb, link: u32) -> bool {
    FILTERED.load() == 0 || (show(skb, link) != 0 && run_filter(AT_TC, link) != NO_MATCH)
}

/// Runs the program for such a link on what the window of this CPU's machine holds; what the program returns, or
/// [`NO_MATCH`].
///
/// A global function: the verifier follows its loop once, whoever calls.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn run_filter(machine: u32, link: u32) -> u32 {
    // Also here: older kernels verify a global function whether or not anything calls it.
    if FILTERED.load() == 0 {
        return NO_MATCH;
    }
    let Some(run) = FILTER_RUNS.get_ptr_mut(machine) else { return NO_MATCH };
    // SAFETY: the entry is live for the run, and this CPU's own; who runs the filter from where packets are dropped has
    // a machine of its own. Nothing else refers to it meanwhile.
    filter::begin(unsafe { &mut *run });
    for _ in 0..filter::TURNS {
        if turn_filter(machine, link) != 0 {
            break;
        }
    }
    // SAFETY: as above.
    filter::verdict(unsafe { &*run })
}

/// One turn of that run; not 0 where it has come to its end.
///
/// Global as well: the verifier follows the instructions of one turn, and not those of all.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn turn_filter(machine: u32, link: u32) -> u32 {
    if FILTERED.load() == 0 {
        return 1;
    }
    let Some(program) = FILTER.get(link) else { return 1 };
    let Some(machine) = FILTER_RUNS.get_ptr_mut(machine) else { return 1 };
    // SAFETY: as in `run_filter`, which refers to it only between turns.
    u32::from(filter::turn(program, unsafe { &mut *machine }))
}

/// Puts the packet into the window as it would be captured, with the tag that the kernel keeps beside it in its place. 0
/// where it cannot be read.
#[inline(never)]
fn show(skb: Skb, link: u32) -> u32 {
    let Some(machine) = FILTER_RUNS.get_ptr_mut(AT_TC) else { return 0 };
    // SAFETY: the kernel hands the program a live context.
    let length = unsafe { (*skb).len };
    let tagged = link == u32::from(link::ETHERNET) && metadata_vlan(skb).is_some();
    let behind = if tagged { TAG } else { 0 };
    // A mask and an addition, as in `Copied`: the verifier wants to see that the length is not 0.
    let copied = opaque(length.min(WINDOW).wrapping_sub(1) as usize) as u32 % WINDOW + 1;
    // SAFETY: the entry is live for the run, and this CPU's own while softirqs are off. The window has room for a tag
    // beside WINDOW octets.
    unsafe {
        let window = (&raw mut (*machine).window).cast::<u8>();
        if bpf_skb_load_bytes(skb.cast(), 0, window.add(behind as usize).cast(), copied) != 0 {
            return 0;
        }
        if tagged {
            // The protocol is in network byte order already.
            insert_tag(machine, (*skb).vlan_proto as u16, (*skb).vlan_tci as u16);
        }
        (*machine).length = length + behind;
        (*machine).copied = copied + behind;
    }
    1
}

/// Moves both addresses before the place that was left free, and writes the tag between them and the Ethertype; `protocol`
/// is in network byte order.
///
/// # Safety
///
/// The machine is live, and its window holds the frame behind four octets.
#[inline(always)]
pub(crate) unsafe fn insert_tag(machine: *mut Machine, protocol: u16, tci: u16) {
    const { assert!(offset_of!(Machine, window).is_multiple_of(size_of::<u32>())) };
    // SAFETY: the caller's promise.
    unsafe {
        let words = machine.cast::<u32>().add(offset_of!(Machine, window) / size_of::<u32>());
        // One after the other, from the start: each lands where the last one came from.
        for word in 0..3 {
            words.add(word).write_volatile(words.add(word + 1).read_volatile());
        }
        words.add(3).write_volatile(u32::from(protocol) | u32::from(tci.to_be()) << 16);
    }
}

/// For tests and the bench: 1 where the filter wants the packet, by the role of its interface.
#[inline(always)]
pub(crate) fn probe(skb: Skb) -> i32 {
    // SAFETY: the kernel hands the program a live context.
    let role = crate::read::role_of_index(unsafe { (*skb).ifindex });
    let link = match role.map(crate::read::link) {
        Some(collector_ebpf::wire::Link::RawIp) => link::RAW_IP,
        _ => link::ETHERNET,
    };
    i32::from(wants(skb, link.into()))
}
