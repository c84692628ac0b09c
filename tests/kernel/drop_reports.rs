//! Which drops are told one by one: what is no news and what the filter does not want costs no report, and whole packets
//! are told where they are asked for; one that is told is a report and a record of its flow.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    panic,
    sync::{Mutex, mpsc},
    thread,
};

use anyhow::ensure;
use collector_tests::{
    PATIENCE, Result,
    books::{assert_balanced, assert_explained},
    collector::{Finished, Running, all_of_the_host, declared, often, options},
    events, filters, frames,
    lab::{End, Wire},
    program::{self, Hook},
    release,
    traffic::{Datagrams, Host, PacketSocket, send, sender},
};
use collector_user::{
    daemon::Options,
    event::{ActionType, DropClass, Event, PacketEvent, PacketReport},
    kernel::{
        drops::DropLimits,
        settings::{Settings, Transport},
    },
    pu::registry::{Declared, Side},
};

use crate::drops::cause::{Between, Packet, caused, counted_by_rules, dropped};

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
    // No program of another's can hang there without.
    if release::lacks("for the test, programs of others by TCX", release::TCX) {
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

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn the_storm_of_one_unit_costs_another_no_report() -> Result<()> {
    const FEW: u64 = 1000;
    // Ten seconds of a million each take too long for every change.
    let storm: u64 = std::env::var("STORM").ok().map_or(Ok(200_000), |storm| storm.parse())?;
    let wire = Wire::new()?;
    wire.a
        .place
        .nft("table inet t { chain o { type filter hook output priority 0; udp dport 9 counter drop; }; }")?;
    let own = ["storm", "few"].into_iter().zip([11, 12]);
    let units = own.map(|(id, last)| {
        wire.a.place.ip(&format!("addr add 10.77.0.{last}/32 dev {}", wire.a.dev))?;
        declared(id, &[], &[format!("10.77.0.{last}/32")])
    });
    let mut options = Options { units: units.collect::<Result<_>>()?, ..options() };
    // Room for what both may save up.
    options.settings.packets = 1 << 21;
    let limits = DropLimits { per_second: 100, burst: FEW as u32, ..DropLimits::default() };
    options.settings.drops = Some(limits);
    let collector = Running::start(&wire.a.place, options)?;
    let (go_on, goes_on) = mpsc::channel();
    let send = |last: u8, count: u64, between: &(dyn Fn(u64) + Sync)| {
        let socket =
            wire.a.place.within(|| Ok(UdpSocket::bind((Ipv4Addr::new(10, 77, 0, last), 40_000))?))?;
        for number in 0..count {
            between(number);
            // That a rule refuses it is told to the sender.
            let _ = socket.send_to(&[0; 10], (wire.b.v4, 9));
        }
        Ok::<_, anyhow::Error>(())
    };
    thread::scope(|scope| -> Result<()> {
        let few = scope.spawn(|| {
            let goes_on: Mutex<mpsc::Receiver<()>> = Mutex::new(goes_on);
            send(12, FEW, &|_| {
                // One in the midst of each part of the storm; the rest when it is over.
                let _ = goes_on.lock().map(|goes_on| goes_on.recv());
            })
        });
        send(11, storm, &|number| {
            if number % (storm / FEW) == 0 {
                let _ = go_on.send(());
            }
        })?;
        few.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
    })?;
    let counted = counted_by_rules(&wire.a.place)?;
    let finished = collector.stop()?;
    assert_explained(&finished);
    let of = |unit: &str| dropped(&finished, unit, &["NETFILTER_DROP"], DropClass::Policy);
    let reports = |unit: &str| {
        let reports = finished.events.iter().filter_map(|event| match event {
            Event::Packet(report) if report.event == PacketEvent::Dropped => Some(report),
            _ => None,
        });
        let of_unit: Vec<_> = reports.filter(|report| &*report.puid == unit).collect();
        (of_unit.len() as u64, of_unit.iter().map(|report| report.suppressed).sum::<u64>())
    };
    let skipped = finished.status.ledger.drops_skipped;
    assert_eq!((counted, of("storm") + of("few") + skipped), (storm + FEW, storm + FEW));
    let (told, held_back) = reports("few");
    assert!(told + skipped >= FEW && held_back == 0, "{told} of {FEW}, {held_back} held back");
    let (told, held_back) = reports("storm");
    let ledger = &finished.status.ledger;
    let whose = [("storm".to_owned(), of("storm") - told)].into();
    assert_eq!(ledger.drop_reports_held_back, of("storm") - told, "{ledger:?}");
    assert_eq!(ledger.drop_reports_held_back_of, whose, "the ledger says whose");
    // What was held back after its last report stands in the ledger only.
    assert!(told >= FEW && held_back <= ledger.drop_reports_held_back, "{told} told, {held_back} held back");
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_flood_of_what_is_traced_costs_no_report_of_a_drop() -> Result<()> {
    const FLOOD: u64 = 5000;
    const PORT: u16 = 5001;
    // Far less than the flood, and more than the drops take.
    const OCTETS: u32 = 1 << 16;
    for transport in [Transport::Auto, Transport::Ring] {
        let wire = Wire::new()?;
        let settings = Settings { transport, packets: OCTETS, ..options().settings };
        let options = Options { traces: vec![all_of_the_host()], settings, ..often() };
        let collector = Running::start(&wire.a.place, options)?;
        let host = Host::new(&wire.b, &[PORT])?;
        let flood = Datagrams { to: host.address(4, PORT), count: FLOOD, size: 100 };
        let held = collector.hold()?;
        send(&sender(&wire.a, 4, 40_000)?, &flood)?;
        Packet::udp(&wire.b, wire.a.v4).send(BUDGET.into(), &wire.b, &wire.a)?;
        drop(held);
        let finished = collector.stop()?;
        let ledger = &finished.status.ledger;
        assert!(ledger.output_failed > 0, "{transport:?}: the flood finds room: {ledger:?}");
        assert_eq!(reports(&finished).len() as u32, BUDGET, "{transport:?}: {ledger:?}");
        assert_eq!(
            (ledger.drop_reports_failed, ledger.drop_reports_lost),
            (0, 0),
            "{transport:?}: {ledger:?}"
        );
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn every_drop_of_a_unit_is_a_report_or_is_named() -> Result<()> {
    const WANTED: u64 = 300;
    const UNWANTED: u64 = 70;
    const BENIGN: u64 = 40;
    let few = DropLimits { per_second: 1, burst: 100, ..DropLimits::default() };
    let many = DropLimits { per_second: 1_000_000, burst: 1_000_000, ..DropLimits::default() };
    // What goes beyond a budget is held back; what goes beyond a buffer of one page is not written.
    for (limits, octets) in [(few, 1 << 19), (many, 1 << 12)] {
        let wire = Wire::new()?;
        wire.a
            .place
            .nft("table inet t { chain i { type filter hook input priority 0; meta l4proto udp drop; }; }")?;
        let mut options = options();
        options.settings.drops = Some(limits);
        options.settings.packets = octets;
        options.settings.filter = Some(filters::of("udp port 53")?);
        let collector = Running::start(&wire.a.place, options)?;
        let unwanted = Packet::udp(&wire.b, wire.a.v4);
        let size = unwanted.size;
        unwanted.send(UNWANTED, &wire.b, &wire.a)?;
        let datagram = frames::udp([0x9C, 0x40, 0, 53], size);
        let packet = frames::ipv4((wire.b.v4, wire.a.v4), &[], 0x4000, frames::UDP, &datagram);
        let frame = |to: [u8; 6], packet: &[u8]| {
            frames::ethernet_between(wire.b.mac, to, &[], frames::IPV4, &frames::with_checksums(packet))
        };
        let socket = PacketSocket::new(&wire.b)?;
        (0..WANTED).try_for_each(|_| socket.send(&frame(wire.a.mac, &packet)))?;
        // For somebody else's card.
        (0..BENIGN).try_for_each(|_| socket.send(&frame([0x02, 0x77, 0, 0, 9, 9], &packet)))?;
        let finished = collector.stop()?;
        let ledger = &finished.status.ledger;
        let reports = finished.events.iter();
        let reports =
            reports.filter(|event| matches!(event, Event::Packet(report) if &*report.puid == "host"));
        assert_eq!(ledger.drops_of_units, WANTED + UNWANTED + BENIGN, "{:#?}", finished.status);
        assert_eq!(ledger.drops_explained(), ledger.drops_of_units, "{ledger:?}");
        assert_eq!(ledger.drop_reports, reports.count() as u64 + ledger.drop_reports_lost, "{ledger:?}");
        // Before this there is no reason that says whose the packet was.
        if !release::is_at_least((5, 19)) {
            continue;
        }
        assert_eq!(ledger.drop_reports_folded, BENIGN, "{ledger:?}");
        if octets > 1 << 12 {
            assert_eq!((ledger.drop_reports, ledger.drop_reports_filtered), (100, UNWANTED), "{ledger:?}");
            assert_eq!(ledger.drop_reports_held_back, WANTED - 100, "{ledger:?}");
        } else {
            let written = ledger.drop_reports + ledger.drop_reports_failed;
            assert_eq!((written, ledger.drop_reports_held_back), (WANTED, 0), "{ledger:?}");
            assert_eq!(ledger.drop_reports_filtered, UNWANTED, "{ledger:?}");
        }
        let failed = ledger.drop_reports_failed;
        let whose = [("host".to_owned(), failed)].into_iter().filter(|_| failed != 0).collect();
        assert_eq!(ledger.drop_reports_failed_of, whose, "the ledger says whose");
        assert!(failed > 0 || octets > 1 << 12, "the buffer had room for all: {ledger:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn drops_without_a_row_say_whose_they_were() -> Result<()> {
    const EACH: u64 = 300;
    let wire = Wire::new()?;
    let units = [("first", "10.77.0.11/32"), ("second", "10.77.0.12/32")];
    for (_, address) in units {
        wire.a.place.ip(&format!("addr add {address} dev {}", wire.a.dev))?;
    }
    let units = units.into_iter().map(|(id, address)| declared(id, &[], &[address.to_owned()]));
    let mut options = Options { units: units.collect::<Result<_>>()?, ..options() };
    options.settings.drops = Some(DropLimits { rows: 1, ..DropLimits::default() });
    let collector = Running::start(&wire.a.place, options)?;
    // What is dropped first has the row, if not another host on this kernel has it.
    for last in [11, 12] {
        Packet::udp(&wire.b, [10, 77, 0, last].into()).send(EACH, &wire.b, &wire.a)?;
    }
    let finished = collector.stop()?;
    let ledger = &finished.status.ledger;
    assert_eq!(
        ledger.drops_seen,
        ledger.drops_counted + ledger.drops_no_packet + ledger.drops_table_full,
        "{ledger:?}"
    );
    let of = |unit: &str| ledger.drops_table_full_of.get(unit).copied().unwrap_or_default();
    assert!(ledger.drops_of_units + of("first") + ledger.drops_skipped >= EACH, "{ledger:?}");
    assert!(of("second") + ledger.drops_skipped >= EACH && of("second") <= EACH, "{ledger:?}");
    let losses = ledger.losses();
    assert!(losses.contains(&("drops_table_full.second".to_owned(), of("second"))), "{losses:?}");
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_drop_is_a_report_and_a_record_of_its_flow() -> Result<()> {
    const COUNT: u64 = 20;
    let finished = caused(|wire| {
        wire.a
            .place
            .nft("table inet t { chain i { type filter hook input priority 0; udp dport 6001 drop; }; }")?;
        Packet::udp(&wire.b, wire.a.v4).send(COUNT, &wire.b, &wire.a)
    })?;
    assert_balanced(&finished);
    let reports: Vec<_> = finished
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Packet(report) => Some(report),
            _ => None,
        })
        .collect();
    assert_eq!(reports.len() as u64, COUNT);
    for report in reports {
        assert_eq!((report.event, &*report.puid), (PacketEvent::Dropped, "host"));
        assert_eq!((&*report.drop_reason, report.drop_class), ("policy", DropClass::Policy));
        assert!(report.drop_place.contains('+') && report.advice.contains("nft"), "{report:?}");
        assert_eq!((report.source_port, report.destination_port, report.protocol), (40_000, 6001, 17));
        assert_eq!((report.length, report.payload.len(), report.packet_id), (88, 64, 0xABCD));
        assert_eq!((report.payload[0], report.packets, report.suppressed), (0x45, 1, 0));
        if release::is_at_least((5, 18)) {
            assert_eq!(&*report.kernel_reason, "NETFILTER_DROP");
        }
    }
    // Its packets came, and are counted, too: that is another record.
    let rejected: Vec<_> = events::rejected(&finished.events).collect();
    assert_eq!(rejected.iter().map(|flow| flow.dropped_packets).sum::<u64>(), COUNT);
    for flow in rejected {
        assert_eq!((flow.action, &*flow.drop_reason), (ActionType::REJECT, "policy"));
        assert_eq!((&*flow.context_id, flow.packets, flow.count), ("host", 0, 0));
        assert_eq!(events::port_of(flow.destination.as_ref()), 6001);
    }
    assert_eq!(events::total(&finished.events, |flow| events::is_to(flow, 17, 6001)).packets, COUNT);
    Ok(())
}
