//! How drops are caused, to the packet, and what is said of them then.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use collector_tests::{
    Result,
    books::assert_explained,
    collector::{Finished, Running, options},
    frames,
    lab::{Addressed, End, Wire, host, join},
    netns::{NetNs, Place},
    traffic::PacketSocket,
};
use collector_user::event::DropClass;

/// A packet from one host to another, as octets.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) from: Ipv4Addr,
    pub(crate) to: Ipv4Addr,
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    pub(crate) size: usize,
    /// 1 makes the header's checksum wrong.
    pub(crate) error: u16,
    /// Of UDP: 0 is none.
    pub(crate) checksum: u16,
}

impl Packet {
    pub(crate) const fn udp(from: &End, to: Ipv4Addr) -> Self {
        Self { from: from.v4, to, protocol: frames::UDP, ttl: 64, size: 60, error: 0, checksum: 0 }
    }

    /// The frame that carries it to the next hop, to port 6001.
    pub(crate) fn frame(self, from: &End, next: &End) -> Vec<u8> {
        let mut datagram = frames::udp([0x9C, 0x40, 0x17, 0x71], self.size);
        datagram[6..8].copy_from_slice(&self.checksum.to_be_bytes());
        let mut packet = frames::ipv4((self.from, self.to), &[], 0x4000, self.protocol, &datagram);
        packet[8] = self.ttl;
        let checksum = frames::checksum(&packet[..20]) ^ self.error;
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        frames::ethernet_between(from.mac, next.mac, &[], frames::IPV4, &packet)
    }

    /// Sends it so often.
    pub(crate) fn send(self, count: u64, from: &End, next: &End) -> Result<()> {
        let socket = PacketSocket::new(from)?;
        let frame = self.frame(from, next);
        (0..count).try_for_each(|_| socket.send(&frame))
    }
}

/// Two hosts; the daemon counts on the first. What `cause` does there is dropped.
pub(crate) fn caused(cause: impl FnOnce(&Wire) -> Result<()>) -> Result<Finished> {
    let wire = Wire::new()?;
    let collector = Running::start(&wire.a.place, options())?;
    cause(&wire)?;
    collector.stop().map(told)
}

/// Says what each drop was, as this kernel tells it: what a run of `cargo xtask vm` is read for.
#[expect(clippy::print_stdout, reason = "the rows are for who runs the test")]
pub(crate) fn told(finished: Finished) -> Finished {
    for row in &finished.status.drops {
        println!(
            "DROPPED {} {:?} {} of {:?}, {}",
            row.packets,
            row.kernel_reason,
            row.class.text(),
            row.puid,
            row.place
        );
    }
    finished
}

/// A host between two: what the first sends through it to the second is forwarded.
pub(crate) struct Between {
    pub(crate) inner: [End; 2],
    pub(crate) outer: [End; 2],
    _hosts: [NetNs; 3],
}

impl Between {
    pub(crate) fn new() -> Result<Self> {
        let hosts = [host()?, host()?, host()?];
        let (first, a) = join(&hosts[0], &hosts[1], 1, Addressed::Both)?;
        let (second, b) = join(&hosts[0], &hosts[2], 2, Addressed::Both)?;
        hosts[0].place().sysctl(&[("ipv4/ip_forward", "1")])?;
        Ok(Self { inner: [first, second], outer: [a, b], _hosts: hosts })
    }

    pub(crate) fn place(&self) -> &Place {
        &self.inner[0].place
    }

    /// Sends packets in at the first wire.
    pub(crate) fn send(&self, packet: Packet, count: u64) -> Result<()> {
        packet.send(count, &self.outer[0], &self.inner[0])
    }

    pub(crate) fn packet(&self, to: Ipv4Addr) -> Packet {
        Packet::udp(&self.outer[0], to)
    }
}

/// What of a unit was dropped for one of these reasons; where the kernel names none, of this class.
pub(crate) fn dropped(finished: &Finished, unit: &str, reasons: &[&str], class: DropClass) -> u64 {
    let fits = |reason: &str, of: DropClass| {
        if ["", "NOT_SPECIFIED"].contains(&reason) { of == class } else { reasons.contains(&reason) }
    };
    let rows = finished.status.drops.iter();
    rows.filter(|row| &*row.puid == unit && fits(&row.kernel_reason, row.class)).map(|row| row.packets).sum()
}

/// So many, of this unit, and of no other; the class is what people are told.
#[track_caller]
pub(crate) fn assert_dropped(
    finished: &Finished,
    unit: &str,
    reasons: &[&str],
    class: DropClass,
    count: u64,
) {
    assert_explained(finished);
    let rows = &finished.status.drops;
    assert_eq!(dropped(finished, unit, reasons, class), count, "{reasons:?} of {unit} in {rows:#?}");
    let fits = |reason: &str| reasons.contains(&reason);
    for row in rows.iter().filter(|row| fits(&row.kernel_reason)) {
        assert_eq!(row.class, class, "{row:?}");
        assert!(row.place.contains('+'), "a place has a name: {row:?}");
        assert!(&*row.puid == unit || row.puid.is_empty(), "another unit's: {row:?}");
    }
}

/// How many packets the rules of a host have dropped, by their own counters.
pub(crate) fn counted_by_rules(place: &Place) -> Result<u64> {
    let shown = place.run("nft list ruleset")?;
    let numbers =
        shown.split("counter packets ").skip(1).map(|rest| rest.split(' ').next().unwrap_or_default());
    numbers.map(|number| Ok(number.parse::<u64>()?)).sum()
}

/// What the queue of an interface has dropped, as `tc` shows it.
pub(crate) fn dropped_by_queue(end: &End) -> Result<u64> {
    let shown = end.place.run(&format!("tc -s qdisc show dev {} root", end.dev))?;
    let words = shown.split_whitespace().skip_while(|word| *word != "(dropped").nth(1);
    Ok(words.context("how many were dropped")?.trim_end_matches(',').parse()?)
}
