//! Where the host sends a packet on to.

use aya_ebpf::helpers::generated::bpf_fib_lookup;

use crate::{Skb, family::Key, maps::ASKED, read::Packet};

/// Results of `bpf_fib_lookup` that name the next interface (`include/uapi/linux/bpf.h`).
const SUCCESS: i64 = 0;
const NO_NEIGHBOUR: i64 = 7;
const TOO_LONG: i64 = 8;

/// The interface that the host's routes send a packet to which came in for the flow's local end; 0 where it is
/// delivered here, or not forwarded at all.
#[inline(never)]
pub(crate) fn next_interface<K: Key>(skb: Skb, packet: &Packet) -> u32 {
    let Some(asked) = ASKED.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's own entry, initialised by the map and by what follows; the context is live.
    unsafe {
        let fib = &raw mut (*asked).fib;
        packet.key::<K>().write_route(fib);
        (*fib).ifindex = packet.role.ifindex;
        let result =
            bpf_fib_lookup(skb.cast(), fib, size_of::<aya_ebpf::bindings::bpf_fib_lookup>() as i32, 0);
        match result {
            SUCCESS | NO_NEIGHBOUR | TOO_LONG => (*fib).ifindex,
            _ => 0,
        }
    }
}
