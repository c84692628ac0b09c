//! A capture of mixed traffic, the same in each run.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use collector_tests::{
    Result,
    frames::{
        ACK, ARP, C_TAG, Ends, FIN, ICMP, ICMPV6, IPV4, PSH, SYN, TCP, TIMESTAMPS, UDP, ethernet, icmp, ipv4,
        tcp, udp,
    },
    measure::Random,
};

/// What it is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// Frames.
    pub(crate) frames: u32,
    /// Pairs of hosts that talk, of which the nth has a share of 1/n (Zipf). A pair's TCP connections follow one another.
    pub(crate) pairs: usize,
}

/// Frames in a second: 290 Mbit/s of these sizes.
const RATE: u64 = 100_000;
/// 2026-01-01 00:00:00 UTC, in seconds.
const BEGIN: u64 = 1_767_225_600;
/// Frames of a TCP connection at most.
const CONNECTION: u32 = 512;
/// Octets of a frame without its check sequence, seven, four, and one in twelve (the "simple IMIX").
const SIZES: [usize; 12] = [60, 60, 60, 60, 60, 60, 60, 590, 590, 590, 590, 1514];

/// Writes it as pcap with microseconds; octets of the file.
pub(crate) fn write(path: &Path, traffic: Traffic) -> Result<u64> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let header: [u32; 6] = [0xA1B2_C3D4, 4 << 16 | 2, 0, 0, 1 << 18, 1];
    header.iter().try_for_each(|word| out.write_all(&word.to_le_bytes()))?;
    let mut octets = 24;
    let mut talk = Talk::new(traffic.pairs);
    let (mut written, mut later) = (0, None);
    while written < traffic.frames {
        let frame = match later.take() {
            Some(frame) => frame,
            None => talk.next(&mut later),
        };
        let micros = u64::from(written) * 1_000_000 / RATE;
        let length = frame.len() as u32;
        let record = [(BEGIN + micros / 1_000_000) as u32, (micros % 1_000_000) as u32, length, length];
        record.iter().try_for_each(|word| out.write_all(&word.to_le_bytes()))?;
        out.write_all(&frame)?;
        octets += 16 + u64::from(length);
        written += 1;
    }
    out.flush()?;
    Ok(octets)
}

/// Pairs of hosts under way.
struct Talk {
    random: Random,
    /// Up to each pair, the sum of all shares so far.
    shares: Vec<f64>,
    /// Frames of its connection so far, and how many were before it.
    connections: Vec<(u32, u16)>,
}

impl Talk {
    fn new(pairs: usize) -> Self {
        let shares = (1..=pairs).scan(0.0, |sum, nth| {
            *sum += 1.0 / nth as f64;
            Some(*sum)
        });
        Self { random: Random::new(7), shares: shares.collect(), connections: vec![(0, 0); pairs] }
    }

    /// The next frame, and in `later` the one that follows it where they are two fragments.
    fn next(&mut self, later: &mut Option<Vec<u8>>) -> Vec<u8> {
        let share = self.random.fraction() * self.shares.last().copied().unwrap_or(0.0);
        let pair = self.shares.partition_point(|sum| *sum < share).min(self.shares.len() - 1);
        let dice = self.random.next();
        let size = SIZES[(dice >> 8) as usize % SIZES.len()];
        let from_client = dice >> 16 & 1 == 0;
        if (dice >> 20).is_multiple_of(1024) {
            return ethernet(&[], ARP, &[0; 46]);
        }
        // What a pair talks is its own: in a hundred 20 are UDP, 2 of them in pieces, and 1 is ICMP.
        match pair % 100 {
            50..=67 => Self::udp(pair, from_client, size),
            68..=69 => self.fragments(pair, from_client, later),
            70 => Self::ping(pair, from_client),
            _ => self.tcp(pair, from_client, size),
        }
    }

    fn udp(pair: usize, from_client: bool, size: usize) -> Vec<u8> {
        let ends = ends(pair, 0, 443, from_client);
        ends.udp(size.saturating_sub(before(ends) + 8))
    }

    fn tcp(&mut self, pair: usize, from_client: bool, size: usize) -> Vec<u8> {
        let (frames, number) = &mut self.connections[pair];
        let (flags, from_client) = match *frames {
            0 => (SYN, true),
            1 => (SYN | ACK, false),
            nth if nth == CONNECTION - 2 => (FIN | ACK, true),
            nth if nth == CONNECTION - 1 => (FIN | ACK, false),
            _ if size > 60 => (PSH | ACK, from_client),
            _ => (ACK, from_client),
        };
        let ends = ends(pair, *number, 443, from_client);
        let headers = before(ends) + 20 + TIMESTAMPS.len();
        let data = if flags & PSH == 0 { 0 } else { size.saturating_sub(headers) };
        *frames += 1;
        if *frames == CONNECTION {
            (*frames, *number) = (0, *number + 1);
        }
        let frame = ends.frame(TCP, &tcp(ends.ports(), flags, &TIMESTAMPS, data));
        // One pair in sixteen is on a VLAN.
        if pair % 16 == 5 { tagged(&frame) } else { frame }
    }

    fn ping(pair: usize, from_client: bool) -> Vec<u8> {
        let ends = ends(pair, 0, 0, from_client);
        let is_4 = ends.source.is_ipv4();
        let (protocol, kind) = match (is_4, from_client) {
            (true, true) => (ICMP, 8),
            (true, false) => (ICMP, 0),
            (false, true) => (ICMPV6, 128),
            (false, false) => (ICMPV6, 129),
        };
        ends.frame(protocol, &icmp(kind, 0))
    }

    /// A datagram of 2,000 octets over IPv4 in two pieces.
    fn fragments(&mut self, pair: usize, from_client: bool, later: &mut Option<Vec<u8>>) -> Vec<u8> {
        const MORE: u16 = 0x2000;
        const FIRST: usize = 1480;
        let ends = ends(pair, 0, 53, from_client);
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (ends.source, ends.destination) else {
            return ends.udp(400);
        };
        let datagram = udp(ends.ports(), 2_000);
        let (first, rest) = datagram.split_at(FIRST);
        let id = self.random.next().to_be_bytes();
        let piece = |offset: u16, data| {
            let mut packet = ipv4((source, destination), &[], offset, UDP, data);
            packet[4..6].copy_from_slice(&id[..2]);
            ethernet(&[], IPV4, &packet)
        };
        *later = Some(piece(FIRST as u16 / 8, rest));
        piece(MORE, first)
    }
}

/// Who talks: one pair in four over IPv6.
fn ends(pair: usize, connection: u16, port: u16, from_client: bool) -> Ends {
    let [_, high, middle, low] = (pair as u32).to_be_bytes();
    let (source, destination): (IpAddr, IpAddr) = if pair % 4 == 3 {
        let of = |last| Ipv6Addr::new(0x2001, 0xDB8, u16::from(high), pair as u16, 0, 0, 0x1234, last).into();
        (of(0xABCD), of(1))
    } else {
        (Ipv4Addr::new(10, high, middle, low).into(), Ipv4Addr::new(198, 51, 100, middle).into())
    };
    let source_port = if port == 0 { 0 } else { 32_768 + connection % 16_384 };
    let ends = Ends { source, destination, source_port, destination_port: port };
    if from_client { ends } else { ends.back() }
}

/// Octets before the transport header.
fn before(ends: Ends) -> usize {
    14 + if ends.source.is_ipv4() { 20 } else { 40 }
}

fn tagged(frame: &[u8]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    [addresses, &C_TAG.to_be_bytes(), &42_u16.to_be_bytes(), rest].concat()
}
