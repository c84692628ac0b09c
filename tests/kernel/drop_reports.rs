//! Which drops are told one by one: what is no news and what the filter does not want costs no report, and whole packets
//! are told where they are asked for.

use std::{
    io::Write as _,
    net::{IpAddr, TcpListener, TcpStream},
};

use anyhow::ensure;
use collector_tests::{
    PATIENCE, Result,
    books::assert_explained,
    collector::{Finished, Running, declared, options},
    filters, frames,
    lab::{End, Wire},
    program::{self, Hook},
    release,
    traffic::{PacketSocket, sender},
};
use collector_user::{
    daemon::Options,
    event::{DropClass, Event, PacketEvent, PacketReport},
    kernel::drops::DropLimits,
    pu::registry::{Declared, Side},
};

use crate::drops::{Between, Packet, dropped};

/// As many as a unit may save up, and no more come meanwhile.
const BUDGET: u32 = 50;

/// A budget that is spent at once.
fn few_reports() -> Options {
    let mut options = options();
    options.settings.drops = Some(DropLimits { per_second: 1, burst: BUDGET, ..DropLimits::default() });
    options
}

fn reports(finished: &Finished) -> Vec<&PacketReport> {
    let packets = finished.events.iter().filter_map(|event| match event {
        Event::Packet(report) if report.event == PacketEvent::Dropped => Some(report),
        _ => None,
    });
    packets.collect()
}

/// Sends answers to questions that nobody has asked: the kernel drops them where they have done their work.
fn send_answers(count: u64, from: &End, to: &End) -> Result<()> {
    // RFC 792: type 0, code 0, a checksum that is filled in, an identifier, a number.
    let mut answer = [0, 0, 0, 0, 0x12, 0x34, 0, 1, 0, 0, 0, 0];
    let checksum = frames::checksum(&answer).to_be_bytes();
    answer[2..4].copy_from_slice(&checksum);
    let mut packet = frames::ipv4((from.v4, to.v4), &[], 0x4000, frames::ICMP, &answer);
    let checksum = frames::checksum(&packet[..20]).to_be_bytes();
    packet[10..12].copy_from_slice(&checksum);
    let frame = frames::ethernet_between(from.mac, to.mac, &[], frames::IPV4, &packet);
    let socket = PacketSocket::new(from)?;
    (0..count).try_for_each(|_| socket.send(&frame))
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_no_news_by_its_place_costs_no_report() -> Result<()> {
    const ANSWERS: u64 = 3000;
    let wire = Wire::new()?;
    let collector = Running::start(&wire.a.place, few_reports())?;
    send_answers(ANSWERS, &wire.b, &wire.a)?;
    Packet::udp(&wire.b, wire.a.v4).send(BUDGET.into(), &wire.b, &wire.a)?;
    let finished = collector.stop()?;
    assert_explained(&finished);
    let ledger = &finished.status.ledger;
    let of = |class: DropClass| {
        let rows = finished.status.drops.iter().filter(|row| &*row.puid == "host" && row.class == class);
        rows.map(|row| row.packets).sum::<u64>()
    };
    assert_eq!((of(DropClass::EndOfLife), of(DropClass::NoSocket)), (ANSWERS, BUDGET.into()));
    assert_eq!((reports(&finished).len() as u32, ledger.drop_reports_held_back), (BUDGET, 0), "{ledger:?}");
    assert_eq!(ledger.drop_reports_folded, ANSWERS, "{ledger:?}");
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_the_filter_does_not_want_costs_no_report() -> Result<()> {
    const OTHERS: u64 = 3000;
    let wire = Wire::new()?;
    let mut options = few_reports();
    options.settings.filter = Some(filters::of("udp port 53")?);
    let collector = Running::start(&wire.a.place, options)?;
    Packet::udp(&wire.b, wire.a.v4).send(OTHERS, &wire.b, &wire.a)?;
    let socket = sender(&wire.b, 4, 40_000)?;
    for _ in 0..BUDGET {
        ensure!(socket.send_to(&[0; 64], (IpAddr::V4(wire.a.v4), 53))? == 64, "all of it is sent");
    }
    let finished = collector.stop()?;
    assert_explained(&finished);
    let (reports, ledger) = (reports(&finished), &finished.status.ledger);
    assert!(reports.iter().all(|report| report.destination_port == 53), "{reports:?}");
    assert_eq!((reports.len() as u32, ledger.drop_reports_held_back), (BUDGET, 0), "{ledger:?}");
    assert_eq!(ledger.drop_reports_filtered, OTHERS, "{ledger:?}");
    // What nobody wants to read is counted all the same.
    let all = OTHERS + u64::from(BUDGET);
    assert_eq!(dropped(&finished, "host", &["NO_SOCKET"], DropClass::NoSocket), all);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_dropped_on_its_way_into_a_unit_is_its_own() -> Result<()> {
    if !release::is_at_least((6, 6)) {
        // No program of another's can hang there: TCX is of 6.6.
        return Ok(());
    }
    let between = Between::new()?;
    let behind = Declared { side: Some(Side::Behind), ..declared("behind", &[&between.inner[1].dev], &[])? };
    let collector = Running::start(between.place(), Options { units: vec![behind], ..options() })?;
    let _program = program::Dropping::at(&between.inner[1], Hook::TcEgress)?;
    between.send(between.packet(between.outer[1].v4), 25)?;
    let finished = collector.stop()?;
    assert_explained(&finished);
    assert_eq!(
        dropped(&finished, "behind", &["TC_EGRESS"], DropClass::Policy),
        25,
        "{:#?}",
        finished.status.drops
    );
    for report in reports(&finished) {
        assert_eq!((&*report.puid, report.destination_port), ("behind", 6001));
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn whole_packets_are_told_wherever_they_lie() -> Result<()> {
    const SIZE: usize = 1400;
    let wire = Wire::new()?;
    wire.a.place.nft(
        "table inet t { chain o { type filter hook output priority 0; tcp dport 6003 meta length > 500 drop; }; \
         chain i { type filter hook input priority 0; udp dport 6001 drop; }; }",
    )?;
    let collector = Running::start(&wire.a.place, Options { snaplen: u16::MAX, ..options() })?;
    // In one piece.
    let whole = Packet { size: SIZE, ..Packet::udp(&wire.b, wire.a.v4) };
    whole.send(3, &wire.b, &wire.a)?;
    // In several, as TCP keeps what it sends; it may send that again before the host is stopped.
    let service = wire.b.place.within(|| Ok(TcpListener::bind((wire.b.v4, 6003))?))?;
    let mut stream =
        wire.a.place.within(|| Ok(TcpStream::connect_timeout(&service.local_addr()?, PATIENCE)?))?;
    stream.write_all(&[0xA5; SIZE])?;
    let finished = collector.stop()?;
    assert_explained(&finished);
    let of = |port: u16| reports(&finished).into_iter().filter(move |report| report.destination_port == port);
    let frame = whole.frame(&wire.b, &wire.a);
    assert_eq!(of(6001).count(), 3);
    assert!(of(6001).all(|report| report.payload.as_ref() == &frame[14..]), "the IP packet, whole");
    assert!(of(6003).count() > 0, "{:#?}", finished.status.drops);
    for report in of(6003) {
        let headers = report.payload.len() - SIZE;
        assert_eq!(usize::from(report.payload[32] >> 4) * 4 + 20, headers, "options of TCP (RFC 9293)");
        assert!(report.payload.ends_with(&[0xA5; SIZE]), "{report:?}");
    }
    Ok(())
}
