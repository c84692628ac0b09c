//! From the bytes of the contract to what the rest of user space works with. Anything that is not what the contract
//! says is counted, never guessed.
#![expect(unsafe_code, reason = "bytes become a value of the contract in one place, here")]

use std::net::{IpAddr, Ipv6Addr};

use collector_ebpf::abi::{
    flow::{FlowKey4, FlowKey6, SlotCounts, TableCounts},
    report::{FlowEvent, kind},
};

/// Names a flow at its boundary: the local end is the processing unit's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
}

impl FlowDelta {
    /// What a cache slot holds.
    pub fn of_slot(id: FlowId, counts: &SlotCounts) -> Self {
        Self {
            id,
            bytes: counts.amounts.map(|amounts| amounts.bytes),
            packets: counts.amounts.map(|amounts| amounts.packets.into()),
            skbs: counts.amounts.map(|amounts| amounts.skbs.into()),
            begun: u64::from(counts.begun),
            first: counts.first,
            last: counts.last,
            pu: counts.pu,
            interface: counts.interface,
            tcp_flags: counts.tcp_flags,
            how: counts.how,
        }
    }

    /// What a table entry holds; the unit stands in its key.
    pub fn of_table(id: FlowId, pu: u16, counts: &TableCounts) -> Self {
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
        }
    }
}

/// A flow began or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowNews {
    /// The flow.
    pub id: FlowId,
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub boot_ns: u64,
    /// Index of the processing unit.
    pub pu: u16,
    /// Number of the interface.
    pub interface: u16,
    /// One of [`kind`](mod@collector_ebpf::abi::report::kind).
    pub kind: u8,
    /// Bits of [`how`](mod@collector_ebpf::abi::flow::how).
    pub how: u8,
}

/// A record of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The CPU that wrote it.
    pub cpu: u32,
    /// How many records of that CPU came before, those that found no room among them; low 32 bits.
    pub sequence: u32,
    /// None where it only asks for a drain before its time.
    pub news: Option<FlowNews>,
}

/// Why a record of the ring is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Another length.
    #[error("a record of {found} octets where {expected} are expected")]
    Length {
        /// Its length.
        found: usize,
        /// A record's.
        expected: usize,
    },
    /// A kind that this version does not know.
    #[error("a record of unknown kind {kind}")]
    Kind {
        /// Its kind.
        kind: u8,
    },
    /// Neither IPv4 nor IPv6.
    #[error("a record of unknown address family {family}")]
    Family {
        /// Its family.
        family: u8,
    },
    /// An IPv4 flow whose address is not one that RFC 4291 section 2.5.5.2 maps.
    #[error("a record of an IPv4 flow with the address {address}, which maps none")]
    Address {
        /// Its address.
        address: Ipv6Addr,
    },
}

/// Reads a record of the ring `EVENTS`.
///
/// # Errors
///
/// [`DecodeError`].
pub fn flow_event(bytes: &[u8]) -> Result<Record, DecodeError> {
    let expected = size_of::<FlowEvent>();
    if bytes.len() != expected {
        return Err(DecodeError::Length { found: bytes.len(), expected });
    }
    // SAFETY: as long as the type, any bytes of which are a value; the address may be unaligned.
    let event = unsafe { bytes.as_ptr().cast::<FlowEvent>().read_unaligned() };
    let record = |news| Record { cpu: event.cpu, sequence: event.sequence, news };
    if event.kind == kind::PRESSURE {
        return Ok(record(None));
    }
    if !(kind::START..=kind::END_RESET_REMOTE).contains(&event.kind) {
        return Err(DecodeError::Kind { kind: event.kind });
    }
    let address = |octets: [u8; 16]| {
        let address = Ipv6Addr::from(octets);
        match event.family {
            4 => address.to_ipv4_mapped().map(IpAddr::V4).ok_or(DecodeError::Address { address }),
            6 => Ok(IpAddr::V6(address)),
            family => Err(DecodeError::Family { family }),
        }
    };
    Ok(record(Some(FlowNews {
        id: FlowId {
            local: address(event.local)?,
            remote: address(event.remote)?,
            local_port: u16::from_be(event.local_port),
            remote_port: u16::from_be(event.remote_port),
            boundary: event.boundary,
            protocol: event.protocol,
            ports: event.ports,
        },
        boot_ns: event.boot_ns,
        pu: event.pu,
        interface: event.interface,
        kind: event.kind,
        how: event.how,
    })))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use collector_ebpf::abi::{flow::FlowKey4, report::FlowEvent};

    use super::{DecodeError, FlowId, Record, flow_event};

    fn bytes(event: FlowEvent) -> Vec<u8> {
        // SAFETY: a value of the contract has no padding.
        unsafe { std::slice::from_raw_parts((&raw const event).cast::<u8>(), size_of::<FlowEvent>()) }
            .to_vec()
    }

    fn event() -> FlowEvent {
        FlowEvent {
            boot_ns: 7,
            local: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 10, 0, 0, 1],
            remote: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 10, 0, 0, 2],
            local_port: 443_u16.to_be(),
            kind: 1,
            family: 4,
            ..FlowEvent::default()
        }
    }

    #[test]
    fn a_record_is_read_wherever_it_lies() {
        let record = flow_event(&bytes(FlowEvent { cpu: 3, sequence: 9, ..event() })).unwrap();
        assert_eq!((record.cpu, record.sequence), (3, 9));
        let news = record.news.unwrap();
        assert_eq!((news.id.local, news.id.local_port), (IpAddr::from([10, 0, 0, 1]), 443));
        let mut shifted = vec![0];
        shifted.extend(bytes(FlowEvent { cpu: 3, sequence: 9, ..event() }));
        assert_eq!(flow_event(&shifted[1..]), Ok(record));
    }

    #[test]
    fn a_mapped_address_of_an_ipv6_flow_stays_one() {
        let news = flow_event(&bytes(FlowEvent { family: 6, ..event() })).unwrap().news.unwrap();
        assert!(news.id.local.is_ipv6());
    }

    #[test]
    fn pressure_is_no_news_of_a_flow() {
        let record = flow_event(&bytes(FlowEvent { kind: 5, sequence: 1, ..event() })).unwrap();
        assert_eq!(record, Record { cpu: 0, sequence: 1, news: None });
    }

    #[test]
    fn what_is_not_a_record_is_named() {
        assert_eq!(flow_event(&[0; 3]), Err(DecodeError::Length { found: 3, expected: 64 }));
        assert_eq!(flow_event(&[0; 65]), Err(DecodeError::Length { found: 65, expected: 64 }));
        assert_eq!(flow_event(&bytes(FlowEvent { kind: 9, ..event() })), Err(DecodeError::Kind { kind: 9 }));
        assert_eq!(
            flow_event(&bytes(FlowEvent { family: 5, ..event() })),
            Err(DecodeError::Family { family: 5 })
        );
        let address = Ipv6Addr::LOCALHOST;
        let other = [
            FlowEvent { local: address.octets(), ..event() },
            FlowEvent { remote: address.octets(), ..event() },
        ];
        for event in other {
            assert_eq!(flow_event(&bytes(event)), Err(DecodeError::Address { address }));
        }
    }

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
