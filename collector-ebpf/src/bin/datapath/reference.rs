//! The reference that the bench compares with: parse, one update of a hash with a 16-octet key, one counter.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use collector_ebpf::{abi::flow::FlowKey4, wire::short};

use crate::{
    Skb, atomic,
    maps::{FLOOR_COUNTERS, FLOOR_FLOWS},
    packet::Linear,
};

/// Counts one packet the usual way.
#[inline(always)]
pub(crate) fn floor(skb: Skb) {
    let Some(key) = key(skb) else { return };
    // SAFETY: the kernel hands the program a live context.
    let length = u64::from(unsafe { (*skb).len });
    if let Some(counts) = FLOOR_FLOWS.get_ptr_mut(&key) {
        // SAFETY: the entry is live for the run, its numbers are aligned.
        unsafe {
            atomic::add(&raw mut (*counts)[0], length);
            (*counts)[1] = bpf_ktime_get_ns();
        }
    } else {
        let _ = FLOOR_FLOWS.insert(&key, [length, 0], 0);
    }
    if let Some(counter) = FLOOR_COUNTERS.get_ptr_mut(0) {
        // SAFETY: this CPU's own entry.
        unsafe {
            (*counter)[0] += 1;
            (*counter)[1] += length;
        }
    }
}

/// A key of 16 octets; an IPv6 address is cut to its last four, which is enough to measure with.
#[inline(always)]
fn key(skb: Skb) -> Option<FlowKey4> {
    let bytes = Linear::of(skb);
    // SAFETY: the kernel hands the program a live context.
    let length = unsafe { (*skb).len };
    let (local, remote, transport) = if let Some(ip) = short::ipv4(&bytes, length) {
        (ip.source, ip.destination, ip.transport)
    } else {
        let ip = short::ipv6(&bytes, length)?;
        let [.., s0, s1, s2, s3] = ip.source;
        let [.., d0, d1, d2, d3] = ip.destination;
        ([s0, s1, s2, s3], [d0, d1, d2, d3], ip.transport)
    };
    let [s0, s1, d0, d1] = transport.ports;
    Some(FlowKey4 {
        local,
        remote,
        local_port: u16::from_ne_bytes([s0, s1]),
        remote_port: u16::from_ne_bytes([d0, d1]),
        boundary: 0,
        protocol: transport.protocol,
        ports: transport.kind,
    })
}
