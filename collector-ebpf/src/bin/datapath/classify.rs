//! Who a flow belongs to: asked once, at its first packet.

use collector_ebpf::abi::{
    flow::how,
    pu::{index, role},
};

use aya_ebpf::btf_maps::lpm_trie::Key as Prefix;

use crate::{
    Skb,
    family::Key,
    maps::{CIDRS, LOCALS},
    packet::forget,
    read::Packet,
};

/// A processing unit and how it was found.
#[derive(Clone, Copy)]
pub(crate) struct Attribution {
    pub(crate) pu: u16,
    /// One of the methods of [`how`].
    pub(crate) by: u8,
}

/// `PACKET_BROADCAST` and `PACKET_MULTICAST` (`include/uapi/linux/if_packet.h`).
const TO_ALL: [u32; 2] = [1, 2];

/// Who the packet's flow belongs to.
#[inline(always)]
pub(crate) fn classify<K: Key>(skb: Skb, packet: &Packet) -> Attribution {
    // Many ways lead to an answer, and all go on alike from here.
    let answer = forget(skb, ask::<K>(skb, packet));
    Attribution { pu: answer as u16, by: (answer >> 16) as u8 }
}

/// A subprogram returns one register.
#[inline(never)]
fn ask<K: Key>(skb: Skb, packet: &Packet) -> u32 {
    let Attribution { pu, by } = in_order::<K>(skb, packet);
    u32::from(pu) | u32::from(by) << 16
}

/// Asks in the order of what is surest.
#[inline(always)]
fn in_order<K: Key>(skb: Skb, packet: &Packet) -> Attribution {
    let role = packet.role;
    if role.flags & role::OWN != 0 {
        let by = if role.pu >= index::FIRST { how::BY_INTERFACE } else { how::BY_ADDRESS };
        return Attribution { pu: role.pu, by };
    }
    // Both ends are this host, and both directions are the one unit's.
    if role.flags & role::LOOPBACK != 0 {
        return Attribution { pu: role.pu, by: how::BY_ADDRESS };
    }
    let uplink = role.flags & role::UPLINK != 0;
    // SAFETY: the kernel hands the program a live context.
    let from_elsewhere = uplink && packet.egress && unsafe { (*skb).ingress_ifindex } != 0;
    if from_elsewhere {
        return Attribution { pu: index::FORWARDED, by: how::BY_ROUTE };
    }
    let local = packet.key::<K>().local();
    if let Some(pu) = CIDRS.get(&Prefix::new(ADDRESS_BITS, local)) {
        return Attribution { pu: *pu as u16, by: how::BY_CIDR };
    }
    if !uplink {
        return Attribution { pu: role.pu, by: how::BY_VETH };
    }
    // SAFETY: only user space writes to this map, and only whole numbers are read.
    if unsafe { LOCALS.get(&local) }.is_some() {
        return Attribution { pu: role.pu, by: how::BY_ADDRESS };
    }
    if packet.egress {
        // It came in nowhere, so it was made here, whatever its source address says (DHCP, duplicate address
        // detection).
        return Attribution { pu: role.pu, by: how::BY_ROUTE };
    }
    // SAFETY: the kernel hands the program a live context.
    let to_all = unsafe { (*skb).pkt_type };
    if to_all == TO_ALL[0] || to_all == TO_ALL[1] {
        return Attribution { pu: role.pu, by: how::BY_ADDRESS };
    }
    Attribution { pu: index::FORWARDED, by: how::BY_NONE }
}

const ADDRESS_BITS: u32 = 128;
