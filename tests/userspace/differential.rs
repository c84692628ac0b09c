//! Two hundred thousand frames (or `FRAMES` of them), generated and changed, read by the parser and by `etherparse`, which knows nothing of it.
//! Where they differ, the difference is one of those that are named here.

#![expect(clippy::indexing_slicing, reason = "a test that looks where nothing is shall fail there")]

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
};

use collector_ebpf::{
    abi::{counter::Unparsed, flow::ports},
    wire::{self, Addresses, Frame, Link, Packet},
};
use collector_tests::{
    frames::{AH, C_TAG, MPLS, OLD_TAG, PPPOE, S_TAG, SCTP, TCP, UDP, UDP_LITE},
    generated,
};
use etherparse::{Ipv6ExtensionSlice, NetSlice, SlicedPacket, TransportSlice, err::packet::SliceError};
use proptest::{
    collection,
    prelude::{ProptestConfig, any},
    test_runner::{FileFailurePersistence, TestCaseError, TestRunner},
};

/// What the other one reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    vlan: u16,
    ends: (IpAddr, IpAddr),
    protocol: u8,
    /// The packet is a piece.
    is_piece: bool,
    /// It is not the first one.
    is_later: bool,
    /// Extension headers that it followed.
    extensions: usize,
    /// Ports and flags, and where the header ends, of the transport protocols that it knows.
    transport: Option<([u8; 4], u8, u32)>,
}

fn theirs(link: Link, bytes: &[u8]) -> Result<Option<Reading>, SliceError> {
    let packet = match link {
        Link::Ethernet => SlicedPacket::from_ethernet(bytes)?,
        Link::RawIp => SlicedPacket::from_ip(bytes)?,
    };
    let vlan = packet.vlan_ids().first().map_or(0, |id| id.value());
    let (ends, payload, is_later, extensions) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let ends = (header.source_addr().into(), header.destination_addr().into());
            let extensions = usize::from(ip.extensions().auth.is_some());
            (ends, ip.payload(), header.fragments_offset().value() != 0, extensions)
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let ends = (header.source_addr().into(), header.destination_addr().into());
            let extensions = ip.extensions().clone().into_iter();
            let is_later = extensions.clone().any(|extension| {
                matches!(extension, Ipv6ExtensionSlice::Fragment(it) if it.fragment_offset().value() != 0)
            });
            (ends, ip.payload(), is_later, extensions.count())
        }
        _ => return Ok(None),
    };
    let start = (payload.payload.as_ptr() as usize - bytes.as_ptr() as usize) as u32;
    let transport = packet.transport.and_then(|transport| match transport {
        TransportSlice::Tcp(tcp) => {
            let octets = tcp.slice();
            let ports = [octets[0], octets[1], octets[2], octets[3]];
            Some((ports, octets[13], start + tcp.header_len() as u32))
        }
        TransportSlice::Udp(udp) => {
            let octets = udp.slice();
            Some(([octets[0], octets[1], octets[2], octets[3]], 0, start + 8))
        }
        TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) => Some(([0; 4], 0, start + 8)),
        TransportSlice::Igmp(_) => None,
    });
    let (protocol, is_piece) = (payload.ip_number.0, payload.fragmented);
    Ok(Some(Reading { vlan, ends, protocol, is_piece, is_later, extensions, transport }))
}

pub(super) fn ends(packet: &Packet) -> (IpAddr, IpAddr) {
    match packet.addresses {
        Addresses::V4(source, destination) => (source.into(), destination.into()),
        Addresses::V6(source, destination) => (source.into(), destination.into()),
    }
}

/// The two readings of a frame that both read.
fn compare(own: &Packet, other: &Reading) -> Result<(), String> {
    let transport = own.transport;
    if own.vlan != other.vlan {
        return Err(format!("VLAN {} or {}", own.vlan, other.vlan));
    }
    if ends(own) != other.ends {
        return Err(format!("{:?} or {:?}", ends(own), other.ends));
    }
    let is_later = transport.kind == ports::FRAGMENT;
    if is_later != other.is_later {
        return Err(format!("later fragment: {is_later} or {}", other.is_later));
    }
    if transport.protocol != other.protocol {
        return Err(format!("protocol {} or {}", transport.protocol, other.protocol));
    }
    if let Some((ports, flags, end)) = other.transport {
        if matches!(other.protocol, TCP | UDP) && (transport.ports, transport.tcp_flags) != (ports, flags) {
            return Err(format!("ports {:?} or {ports:?}", transport.ports));
        }
        if transport.headers != end {
            return Err(format!("the header ends at {} or {end}", transport.headers));
        }
    }
    Ok(())
}

/// Frames of a run, unless the environment says another number.
const FRAMES: u32 = 200_000;

/// How a test of generated frames runs: as many as the environment says, those first that it failed at before.
pub(super) fn config(seeds: &'static str) -> ProptestConfig {
    let cases = std::env::var("FRAMES").map_or(FRAMES, |number| number.parse().unwrap());
    let failure_persistence = Some(Box::new(FileFailurePersistence::Direct(seeds)) as _);
    ProptestConfig { cases, failure_persistence, ..ProptestConfig::default() }
}

#[test]
#[expect(clippy::print_stdout, reason = "how often each difference was met is shown with `--nocapture`")]
fn generated_frames_are_read_as_another_parser_reads_them() {
    let config = config(concat!(env!("CARGO_MANIFEST_DIR"), "/data/differential.txt"));
    let cases = config.cases;
    let [read, refused] = [Cell::new(0), Cell::new(0)];
    let explained = RefCell::new([0; EXPLAINED.len()]);
    let result = TestRunner::new(config).run(&collection::vec(any::<u8>(), 0..60), |choices| {
        let (link, bytes) = generated::frame(&choices);
        let own = wire::parse(&bytes.as_slice(), link, Frame { length: bytes.len() as u32, gso: false });
        let other = theirs(link, &bytes);
        let differs = match (&own, &other) {
            (Ok(own), Ok(Some(other))) => {
                read.set(read.get() + 1);
                compare(own, other)
            }
            (Err(_), Err(_) | Ok(None)) => {
                refused.set(refused.get() + 1);
                Ok(())
            }
            (Ok(_), Ok(None)) => Err("no IP".to_owned()),
            (Ok(_), Err(error)) => Err(error.to_string()),
            (Err(reason), Ok(Some(_))) => Err(format!("{reason:?}")),
        };
        let Err(what) = differs else { return Ok(()) };
        let difference = Difference { link, bytes: &bytes, own, other };
        let Some(which) = EXPLAINED.iter().position(|(_, holds)| holds(&difference)) else {
            return Err(TestCaseError::fail(format!("{what}: {difference:02x?}")));
        };
        explained.borrow_mut()[which] += 1;
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let (read, refused) = (read.get(), refused.get());
    assert!(
        read > cases / 2 && refused > cases / 20,
        "{read} of {cases} were read by both, {refused} by none"
    );
    for ((why, _), times) in EXPLAINED.iter().zip(explained.into_inner()) {
        println!("{times:6} times: {why}");
    }
    println!("{read} of {cases} were read by both, {refused} by none");
}

/// A frame that the two read differently.
#[derive(Debug)]
struct Difference<'a> {
    link: Link,
    bytes: &'a [u8],
    own: Result<Packet, Unparsed>,
    other: Result<Option<Reading>, SliceError>,
}

impl Difference<'_> {
    /// The protocol at which the other one stopped.
    fn stopped_at(&self) -> Option<u8> {
        self.other.as_ref().ok()?.map(|reading| reading.protocol)
    }

    fn refused_for(&self, words: &str) -> bool {
        self.other.as_ref().is_err_and(|error| error.to_string().contains(words))
    }

    fn number(&self, at: usize) -> u16 {
        self.bytes.get(at..at + 2).map_or(0, |it| u16::from_be_bytes([it[0], it[1]]))
    }

    /// The Ethertype behind the tags, of which there are so many.
    fn ethertype(&self) -> (u16, usize) {
        let tags =
            (0..8).take_while(|tag| matches!(self.number(12 + 4 * tag), C_TAG | S_TAG | OLD_TAG)).count();
        (self.number(12 + 4 * tags), tags)
    }

    /// It is an IPv6 packet, in nothing but tags, that says that nothing is in it.
    fn is_empty_6(&self) -> bool {
        let start = if self.link == Link::RawIp { 0 } else { 14 + 4 * self.ethertype().1 };
        self.number(start) >> 12 == 6 && self.number(start + 4) == 0
    }

    /// Where the transport header begins that the other one reads.
    fn transport_of_other(&self) -> Option<usize> {
        let (_, _, end) = self.other.as_ref().ok()?.as_ref()?.transport?;
        Some(end as usize - 8)
    }
}

/// Whether a difference is of a kind.
type Holds = fn(&Difference<'_>) -> bool;

/// Every difference that there may be, and why. A run says how often each was met.
const EXPLAINED: [(&str, Holds); 15] = [
    ("it knows no LLC, no PPPoE, and no MPLS", |it| {
        it.link == Link::Ethernet && matches!(it.ethertype().0, 0..0x0600 | PPPOE | MPLS | 0x8848)
    }),
    (
        "it takes an IPv6 payload length of 0 for all that is left, with and without the jumbo option (RFC 2675)",
        |it| it.is_empty_6(),
    ),
    ("it follows three tags", |it| it.link == Link::Ethernet && it.ethertype().1 > 3),
    ("it does not follow mobility headers (RFC 6275), nor what is behind them", |it| {
        it.stopped_at() == Some(135)
    }),
    ("it follows one authentication header over IPv4; RFC 4301 allows more", |it| {
        it.stopped_at() == Some(AH)
    }),
    (
        "it reads what is not there in a later fragment: the headers are in the first one (RFC 8200 section 4.5)",
        |it| it.own.as_ref().is_ok_and(|own| own.transport.kind == ports::FRAGMENT),
    ),
    ("it follows extension headers without end, this parser eight of them, or four over IPv4", |it| {
        it.own == Err(Unparsed::ExtensionDepth)
            && it.other.as_ref().is_ok_and(|it| it.is_some_and(|it| it.extensions >= 8))
    }),
    ("it takes a UDP length of 0 for all that is left; RFC 768 knows none below 8", |it| {
        it.own == Err(Unparsed::UdpLength)
            && it.stopped_at() == Some(UDP)
            && it.transport_of_other().is_some_and(|at| it.number(at + 4) == 0)
    }),
    (
        "it looks at no transport header of a piece; TCP's data offset or UDP's length is wrong, or it is cut",
        |it| {
            matches!(it.own, Err(Unparsed::TcpDataOffset | Unparsed::UdpLength | Unparsed::Truncated))
                && it
                    .other
                    .as_ref()
                    .is_ok_and(|it| it.is_some_and(|it| it.is_piece && it.transport.is_none()))
        },
    ),
    ("it does not know UDP-Lite, whose coverage is wrong (RFC 3828 section 3.1), or which is cut", |it| {
        matches!(it.own, Err(Unparsed::ChecksumCoverage | Unparsed::Truncated))
            && it.stopped_at() == Some(UDP_LITE)
    }),
    ("it does not know SCTP, DCCP, GRE and ESP, whose fixed headers are cut", |it| {
        it.own == Err(Unparsed::Truncated) && matches!(it.stopped_at(), Some(SCTP | 33 | 47 | 50))
    }),
    ("it wants hop-by-hop options at once (RFC 8200 section 4.1); Linux skips them anywhere", |it| {
        it.own.is_ok() && it.refused_for("hop-by-hop header not directly after")
    }),
    ("it wants the whole of an ICMP timestamp; a flow shows in the first octets", |it| {
        it.own.is_ok() && it.refused_for("timestamp")
    }),
    ("it wants an authentication header of 12 octets at least; Linux follows what the length says", |it| {
        // By what it says, or since fewer than 12 are left.
        let words =
            ["The payload length must be at least 1", "'IP Authentication header'. 12 byte(s) would be"];
        it.own.is_ok() && words.into_iter().any(|words| it.refused_for(words))
    }),
    ("it wants IGMP of version 3 whole; a flow needs none of it", |it| {
        it.own.is_ok() && it.refused_for("IGMP")
    }),
];
