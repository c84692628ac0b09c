//! A flow by its name, and what was counted for it, out of the slots and tables of the contract.

use std::{
    hash::{Hash, Hasher},
    net::IpAddr,
};

use collector_ebpf::abi::flow::{FlowKey4, FlowKey6, SlotCounts, TableCounts, host_pu_of};

/// Names a flow at its boundary: the local end is the processing unit's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowId {
    /// The local end's address.
    pub local: IpAddr,
    /// The remote end's address.
    pub remote: IpAddr,
    /// The local end's port, or what stands in its place.
    pub local_port: u16,
    /// The remote end's port, or what stands in its place.
    pub remote_port: u16,
    /// The VLAN id at an uplink, or an index that was allotted here.
    pub boundary: u16,
    /// The IP protocol number.
    pub protocol: u8,
    /// What stands in the places of the ports: one of [`ports`](mod@collector_ebpf::abi::flow::ports).
    pub ports: u8,
}

impl From<&FlowKey4> for FlowId {
    fn from(key: &FlowKey4) -> Self {
        Self {
            local: IpAddr::from(key.local),
            remote: IpAddr::from(key.remote),
            local_port: u16::from_be(key.local_port),
            remote_port: u16::from_be(key.remote_port),
            boundary: key.boundary,
            protocol: key.protocol,
            ports: key.ports,
        }
    }
}

impl From<&FlowKey6> for FlowId {
    fn from(key: &FlowKey6) -> Self {
        Self {
            local: IpAddr::from(key.local),
            remote: IpAddr::from(key.remote),
            local_port: u16::from_be(key.local_port),
            remote_port: u16::from_be(key.remote_port),
            boundary: key.boundary,
            protocol: key.protocol,
            ports: key.ports,
        }
    }
}

impl Hash for FlowId {
    /// In words: field by field it would take three times as long.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        for address in [self.local, self.remote] {
            match address {
                IpAddr::V4(address) => state.write_u64(address.to_bits().into()),
                IpAddr::V6(address) => {
                    let address = address.to_bits();
                    state.write_u64((address >> 64) as u64);
                    state.write_u64(address as u64);
                }
            }
        }
        state.write_u64(words(
            [self.local_port, self.remote_port, self.boundary],
            [self.protocol, self.ports],
        ));
    }
}

/// What a key has beside its addresses, as one word.
#[inline]
pub(crate) fn words([one, two, three]: [u16; 3], four: [u8; 2]) -> u64 {
    u64::from(one) | u64::from(two) << 16 | u64::from(three) << 32 | u64::from(u16::from_ne_bytes(four)) << 48
}

impl FlowId {
    /// The key of this flow in the IPv4 maps, if it is an IPv4 flow.
    pub fn key4(&self) -> Option<FlowKey4> {
        let (IpAddr::V4(local), IpAddr::V4(remote)) = (self.local, self.remote) else { return None };
        Some(FlowKey4 {
            local: local.octets(),
            remote: remote.octets(),
            local_port: self.local_port.to_be(),
            remote_port: self.remote_port.to_be(),
            boundary: self.boundary,
            protocol: self.protocol,
            ports: self.ports,
        })
    }

    /// The key of this flow in the IPv6 maps, if it is an IPv6 flow.
    pub fn key6(&self) -> Option<FlowKey6> {
        let (IpAddr::V6(local), IpAddr::V6(remote)) = (self.local, self.remote) else { return None };
        Some(FlowKey6 {
            local: local.octets(),
            remote: remote.octets(),
            local_port: self.local_port.to_be(),
            remote_port: self.remote_port.to_be(),
            boundary: self.boundary,
            protocol: self.protocol,
            ports: self.ports,
        })
    }
}

/// What was counted for a flow since it was last drained; pairs are indexed by `RX` and `TX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowDelta {
    /// The flow.
    pub id: FlowId,
    /// Wire octets.
    pub bytes: [u64; 2],
    /// Wire packets.
    pub packets: [u64; 2],
    /// Socket buffers.
    pub skbs: [u64; 2],
    /// Connections that began.
    pub begun: u64,
    /// Low 32 bits of the tick of the first packet.
    pub first: u32,
    /// Low 32 bits of the tick of the last packet.
    pub last: u32,
    /// Index of the processing unit.
    pub pu: u16,
    /// Number of the interface that the last packet crossed.
    pub interface: u16,
    /// TCP flags, combined.
    pub tcp_flags: [u8; 2],
    /// Bits of [`how`](mod@collector_ebpf::abi::flow::how).
    pub how: u8,
    /// Index of the unit at the other end on this host, whose socket it is: of a flow with
    /// [`HOST_END`](collector_ebpf::abi::flow::how::HOST_END) the host's end, of a loopback flow the remote one. 0 where the
    /// programs know no control groups.
    pub host_pu: u16,
    /// The number of the verdict that its packets passed by, or were rejected by.
    pub verdict: u16,
    /// Wire packets that a policy rejected and the programs dropped. Those of them that came in by the interface are among
    /// [`packets`](Self::packets), too.
    pub rejected: [u64; 2],
}

impl FlowDelta {
    /// What a cache slot holds.
    pub fn of_slot(id: FlowId, counts: &SlotCounts) -> Self {
        Self {
            id,
            bytes: counts.amounts.map(|amounts| amounts.octets()),
            packets: counts.amounts.map(|amounts| amounts.packets.into()),
            skbs: counts.amounts.map(|amounts| amounts.skbs.into()),
            begun: u64::from(counts.begun),
            first: counts.first,
            last: counts.last,
            pu: counts.pu,
            interface: counts.interface,
            tcp_flags: counts.tcp_flags,
            how: counts.how,
            host_pu: counts.host_pu(),
            verdict: counts.verdict(),
            // Who is rejected has no slot.
            rejected: [0; 2],
        }
    }

    /// What a table entry holds; the units and the verdict stand in its key.
    pub fn of_table(id: FlowId, pu: u16, rest: u16, verdict: u16, counts: &TableCounts) -> Self {
        Self {
            id,
            bytes: counts.bytes,
            packets: counts.packets,
            skbs: counts.skbs,
            begun: counts.begun,
            first: counts.first,
            last: counts.last,
            pu,
            interface: counts.interface,
            tcp_flags: counts.tcp_flags,
            how: counts.how,
            host_pu: host_pu_of(rest),
            verdict,
            rejected: counts.rejected,
        }
    }
}

#[cfg(test)]
mod tests {
    use collector_ebpf::abi::flow::FlowKey4;

    use super::FlowId;

    #[test]
    fn keys_round_trip() {
        let key = FlowKey4 {
            local: [1, 2, 3, 4],
            local_port: 80_u16.to_be(),
            boundary: 7,
            ports: 1,
            ..FlowKey4::default()
        };
        let id = FlowId::from(&key);
        assert_eq!((id.key4(), id.key6()), (Some(key), None));
    }
}
