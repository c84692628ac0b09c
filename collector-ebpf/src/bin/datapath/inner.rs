//! What lies inside of a tunnel's packet, as a flow of its own beside the tunnel's: where that was asked for
//! ([`role::INNER`]), and in no unit's totals, which have the tunnel's own packets.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_get_smp_processor_id};
use collector_ebpf::{
    abi::{
        flow::{FlowKey4, FlowKey6, how},
        network,
        pu::index,
    },
    wire::{
        bytes::Bytes as _,
        tunnel::{self, Inside},
    },
};

use crate::{
    Skb,
    classify::{Attribution, declared, own},
    count::ledger,
    family::Key,
    fragments,
    maps::{NETWORKS, NETWORKS_MADE},
    packet::Copied,
    read::{self, Packet},
    settings::POSSIBLE_CPUS,
};

/// Reads what lies inside of the packet of this run, and makes that the packet of this run. The family of its flow; 0 where
/// it cannot be told, which the ledger says.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn read_inner(skb: Skb) -> u32 {
    let Some(packet) = Packet::of_run() else { return 0 };
    ledger(|ledger| ledger.inner_seen += 1);
    let family = if packet.family == FlowKey4::FAMILY {
        enter::<FlowKey4>(skb, packet)
    } else {
        enter::<FlowKey6>(skb, packet)
    };
    if family == 0 {
        ledger(|ledger| ledger.inner_unparsed += 1);
    }
    family
}

/// From the tunnel's packet to the one inside; its family, or 0.
#[inline(never)]
fn enter<K: Key>(skb: Skb, packet: &mut Packet) -> u32 {
    let Some(bytes) = Copied::of(skb) else { return 0 };
    let rest = packet.key::<K>().rest();
    // Whose port it is depends on who sent the packet: that of the destination tells the tunnel.
    let port = u16::from_be(if packet.sent() { rest.remote_port } else { rest.local_port });
    let Some(inside) = tunnel::inside(&bytes, rest.protocol, port, packet.transport_end()) else { return 0 };
    let Inside { kind, id, frame, packet: at } = inside;
    let boundary = boundary_of(network::key(kind, id)) as u16;
    let Some([version_length]) = bytes.array(at) else { return 0 };
    if boundary == 0 {
        return 0;
    }
    packet.enter(frame);
    if version_length >> 4 == 4 {
        if read::general4(skb, packet, at, boundary) != 0 {
            return 0;
        }
        packet.orient_inside::<FlowKey4>();
        fragments::tie::<FlowKey4>(packet);
        4
    } else {
        if read::general6(skb, packet, at, boundary) != 0 {
            return 0;
        }
        packet.orient_inside::<FlowKey6>();
        fragments::tie::<FlowKey6>(packet);
        6
    }
}

/// The number that stands for a network in the keys of flows: one is made where there is none yet. 0 where there are too
/// many.
///
/// Each CPU makes numbers of its own, so that none has to ask another one; that which loses the race makes it again for
/// the next network.
#[inline(never)]
fn boundary_of(key: u64) -> u32 {
    // SAFETY: an entry is written once, before anybody can find it.
    if let Some(boundary) = unsafe { NETWORKS.get(&key) } {
        return *boundary;
    }
    let Some(made) = NETWORKS_MADE.get_ptr_mut(0) else { return 0 };
    // SAFETY: no arguments, no memory; and this CPU's own entry.
    let (cpu, own) = unsafe { (bpf_get_smp_processor_id(), *made) };
    let number = own.wrapping_mul(POSSIBLE_CPUS.load()).wrapping_add(cpu);
    if number >= network::MOST {
        return 0;
    }
    if NETWORKS.insert(&key, &(u32::from(network::FIRST) + number), u64::from(BPF_NOEXIST)).is_ok() {
        // SAFETY: as above.
        unsafe { *made = own + 1 };
    }
    // SAFETY: as above.
    unsafe { NETWORKS.get(&key) }.map_or(0, |boundary| *boundary)
}

/// Whose the flow inside of a tunnel is. Only addresses tell: the interface and the socket are the tunnel's.
#[inline(always)]
pub(crate) fn unit<K: Key>(packet: &Packet) -> Attribution {
    let local = packet.key::<K>().local();
    if let Some(pu) = declared(local) {
        return Attribution::by(pu.get(), how::BY_CIDR);
    }
    if own(local).is_some() {
        return Attribution::by(index::OVERLAY, how::BY_ADDRESS);
    }
    Attribution::by(index::FORWARDED, how::BY_NONE)
}
