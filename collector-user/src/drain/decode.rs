//! From the bytes of records to what the rest of user space works with. Anything that is not what the contract
//! says is counted, never guessed.
#![expect(unsafe_code, reason = "bytes become a value of the contract in one place, here")]

use std::net::{IpAddr, Ipv6Addr};

use bytes::Bytes;
use collector_ebpf::abi::{
    packet::{PacketRecord, event, link},
    report::{FlowEvent, kind},
};

use super::flow::FlowId;

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
    /// Index of the unit at the other end on this host, as in [`FlowDelta`](super::flow::FlowDelta).
    pub host_pu: u16,
    /// Who owns the socket at the local end, if that is known: the id in the initial user namespace.
    pub user: Option<u32>,
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

/// A packet that a program reports, and its first octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What the program says of it.
    pub record: PacketRecord,
    /// As many octets as were captured, without padding.
    pub octets: Bytes,
}

/// Why a record is not one of ours.
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
    /// Octets of a packet that are not there, or more than belong to it.
    #[error("a record of {found} octets, with a packet of which {captured} octets are said to follow")]
    Captured {
        /// The record's length.
        found: usize,
        /// What it says.
        captured: u32,
    },
    /// A kind of link layer that this version does not know.
    #[error("a record of unknown link type {link}")]
    Link {
        /// Its number.
        link: u8,
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

/// What a transport may put behind a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// Nothing: a ring's.
    None,
    /// Up to seven octets, so that the next begins at a multiple of 8: a perf buffer's.
    Perf,
}

impl Padding {
    const fn allows(self, octets: usize) -> bool {
        match self {
            Self::None => octets == 0,
            Self::Perf => octets < 8,
        }
    }
}

/// Reads a record of the ring `EVENTS`, or of the buffers `NEWS`.
///
/// # Errors
///
/// [`DecodeError`].
pub fn flow_event(bytes: &[u8], padding: Padding) -> Result<Record, DecodeError> {
    let (found, expected) = (bytes.len(), size_of::<FlowEvent>());
    if !found.checked_sub(expected).is_some_and(|behind| padding.allows(behind)) {
        return Err(DecodeError::Length { found, expected });
    }
    // SAFETY: as long as the type at least, any bytes of which are a value; the address may be unaligned.
    let event = unsafe { bytes.as_ptr().cast::<FlowEvent>().read_unaligned() };
    let record = |news| Record { cpu: event.cpu.into(), sequence: event.sequence, news };
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
        host_pu: event.host_pu,
        user: event.user.checked_sub(1),
    })))
}

/// Reads a record of the buffers `PACKETS`, or of the ring `REPORTS`.
///
/// # Errors
///
/// [`DecodeError`].
pub fn packet(sample: &Bytes, padding: Padding) -> Result<Packet, DecodeError> {
    let (found, expected) = (sample.len(), size_of::<PacketRecord>());
    let Some(behind) = found.checked_sub(expected) else {
        return Err(DecodeError::Length { found, expected });
    };
    // SAFETY: as long as the type, any bytes of which are a value; the address may be unaligned.
    let record = unsafe { sample.as_ptr().cast::<PacketRecord>().read_unaligned() };
    let captured = record.captured as usize;
    let is_padding = behind.checked_sub(captured).is_some_and(|octets| padding.allows(octets));
    if record.captured > record.length || !is_padding {
        return Err(DecodeError::Captured { found, captured: record.captured });
    }
    if !(event::RECEIVED..=event::DROPPED).contains(&record.event) {
        return Err(DecodeError::Kind { kind: record.event });
    }
    if record.link > link::NONE {
        return Err(DecodeError::Link { link: record.link });
    }
    Ok(Packet { record, octets: sample.slice(expected..expected + captured) })
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use bytes::Bytes;
    use collector_ebpf::abi::{
        packet::{PacketRecord, event, link},
        report::FlowEvent,
    };

    use super::{DecodeError, Padding, Record};

    fn flow_event(bytes: &[u8]) -> Result<Record, DecodeError> {
        super::flow_event(bytes, Padding::None)
    }

    fn packet(sample: &Bytes) -> Result<super::Packet, DecodeError> {
        super::packet(sample, Padding::Perf)
    }

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
    fn only_perf_pads_a_record() {
        let whole = bytes(event());
        for padding in 0..16 {
            let padded = [&whole[..], &[0xAA; 16][..padding]].concat();
            let wrong = DecodeError::Length { found: padded.len(), expected: whole.len() };
            let expected = |allowed| if allowed { flow_event(&whole) } else { Err(wrong) };
            assert_eq!(super::flow_event(&padded, Padding::None), expected(padding == 0));
            assert_eq!(super::flow_event(&padded, Padding::Perf), expected(padding < 8));
            let sample = sample(record(16), &[0xAA; 32][..16 + padding]);
            assert_eq!(super::packet(&sample, Padding::None).is_ok(), padding == 0);
            assert_eq!(super::packet(&sample, Padding::Perf).is_ok(), padding < 8);
        }
    }

    #[test]
    fn a_mapped_address_of_an_ipv6_flow_stays_one() {
        let news = flow_event(&bytes(FlowEvent { family: 6, ..event() })).unwrap().news.unwrap();
        assert!(news.id.local.is_ipv6());
    }

    #[test]
    fn a_user_is_known_or_not() {
        let user = |user| flow_event(&bytes(FlowEvent { user, ..event() })).unwrap().news.unwrap().user;
        assert_eq!([0, 1, 1001, u32::MAX].map(user), [None, Some(0), Some(1000), Some(u32::MAX - 1)]);
    }

    #[test]
    fn pressure_is_no_news_of_a_flow() {
        let record = flow_event(&bytes(FlowEvent { kind: 5, sequence: 1, ..event() })).unwrap();
        assert_eq!(record, Record { cpu: 0, sequence: 1, news: None });
    }

    #[test]
    fn what_is_not_a_record_is_named() {
        assert_eq!(flow_event(&[0; 3]), Err(DecodeError::Length { found: 3, expected: 72 }));
        assert_eq!(flow_event(&[0; 73]), Err(DecodeError::Length { found: 73, expected: 72 }));
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

    fn sample(record: PacketRecord, behind: &[u8]) -> Bytes {
        // SAFETY: a value of the contract has no padding.
        let head = unsafe {
            std::slice::from_raw_parts((&raw const record).cast::<u8>(), size_of::<PacketRecord>())
        };
        [head, behind].concat().into()
    }

    fn record(captured: u32) -> PacketRecord {
        PacketRecord { length: 1514, captured, packets: 1, event: event::RECEIVED, ..PacketRecord::default() }
    }

    #[test]
    fn a_packet_is_as_long_as_its_record_says_whatever_pads_it() {
        for captured in 0..=17_u32 {
            let octets: Vec<u8> = (1..=captured as u8).collect();
            for padding in 0..8 {
                let sample = sample(record(captured), &[&octets[..], &[0xAA; 8][..padding]].concat());
                let read = packet(&sample).unwrap();
                assert_eq!((read.record, &read.octets[..]), (record(captured), &octets[..]), "{padding}");
                let mut shifted = vec![0];
                shifted.extend_from_slice(&sample);
                assert_eq!(packet(&Bytes::from(shifted).slice(1..)), Ok(read));
            }
        }
    }

    #[test]
    fn what_is_not_a_packet_is_named() {
        for length in 0..64 {
            let found = DecodeError::Length { found: length, expected: 64 };
            assert_eq!(packet(&Bytes::from(vec![0; length])), Err(found));
        }
        let wrong = |record, behind: &[u8]| packet(&sample(record, behind)).unwrap_err();
        let short = DecodeError::Captured { found: 66, captured: 3 };
        assert_eq!(wrong(record(3), &[0; 2]), short);
        assert_eq!(wrong(record(0), &[0; 8]), DecodeError::Captured { found: 72, captured: 0 });
        assert_eq!(wrong(record(u32::MAX), &[0; 8]), DecodeError::Captured { found: 72, captured: u32::MAX });
        let longer_than_itself = PacketRecord { length: 3, ..record(4) };
        assert_eq!(wrong(longer_than_itself, &[0; 4]), DecodeError::Captured { found: 68, captured: 4 });
        for kind in [0, 4, u8::MAX] {
            assert_eq!(wrong(PacketRecord { event: kind, ..record(0) }, &[]), DecodeError::Kind { kind });
        }
        for link in [link::NONE + 1, u8::MAX] {
            assert_eq!(wrong(PacketRecord { link, ..record(0) }, &[]), DecodeError::Link { link });
        }
    }
}
