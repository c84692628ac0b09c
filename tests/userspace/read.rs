//! Captures made here, octet by octet, as flows: what a live run would have told of the same packets.

use std::{net::IpAddr, time::Duration};

use collector_tests::frames::{
    ACK, ENDS_4, ENDS_6, FIN, IPV4, ONE_4, PSH, RST, SYN, TWO_4, UDP, arp, ethernet, ipv4, udp,
};
use collector_user::{
    collector::memory::Recorder,
    event::{ActionType, Ended, Event, FlowRecord, InitiatorBy, PacketEvent, ResetBy, Status, Time, Tunnel},
    pu::registry::Declared,
    read::{
        container::{Direction, DropNote, Marks, Record, links},
        replay::{LocalNetworks, Oddity, Options, Replay},
    },
};

const SECOND: i64 = 1_000_000_000;
/// 2023-11-14.
const BEGIN: i64 = 1_700_000_000 * SECOND;

fn options() -> Options {
    Options {
        units: Vec::new(),
        networks: Vec::new(),
        local: LocalNetworks::default(),
        inner: false,
        flow_interval: Duration::from_secs(5),
        counter_interval: Duration::from_secs(30),
        most_flows: 1000,
    }
}

fn record(time: i64, octets: &[u8]) -> Record<'_> {
    Record {
        offset: 0,
        interface: 0,
        link: links::ETHERNET,
        time: Some(BEGIN + time),
        octets,
        length: octets.len() as u32,
        direction: Direction::Unknown,
        marks: Marks::NONE,
    }
}

/// What becomes of records.
fn read(options: &Options, records: &[Record<'_>]) -> (Vec<FlowRecord>, Status, Recorder) {
    let recorder = Recorder::new();
    let mut replay = Replay::new(options, &recorder).unwrap();
    for record in records {
        replay.take(record);
    }
    let status = replay.finish();
    let ledger = &status.ledger;
    assert_eq!((ledger.seen, ledger.explained()), (records.len() as u64, records.len() as u64), "{ledger:?}");
    let flows = recorder.events().into_iter().filter_map(|event| match event {
        Event::Flow(record) => Some(record),
        _ => None,
    });
    (flows.collect(), status, recorder)
}

fn amounts(flow: &FlowRecord) -> [u64; 4] {
    [flow.packets, flow.bytes, flow.reply_packets, flow.reply_bytes]
}

#[test]
fn a_connection_from_its_syn_to_its_fin_is_one_record() {
    for ends in [ENDS_4, ENDS_6] {
        let (back, mut frames) = (ends.back(), Vec::new());
        for (sender, flags, data) in [
            (ends, SYN, 0),
            (back, SYN | ACK, 0),
            (ends, ACK, 0),
            (ends, PSH | ACK, 100),
            (back, PSH | ACK, 1000),
            (ends, FIN | ACK, 0),
            (back, FIN | ACK, 0),
            (ends, ACK, 0),
        ] {
            frames.push(sender.tcp(flags, data));
        }
        let records: Vec<_> =
            frames.iter().zip(0..).map(|(frame, nth)| record(nth * 400_000_000, frame)).collect();
        let (flows, status, _) = read(&options(), &records);
        let [flow] = flows.as_slice() else { panic!("one record: {flows:#?}") };
        let of = |nths: &[usize]| nths.iter().map(|nth| frames[*nth].len() as u64).sum::<u64>();
        assert_eq!(amounts(flow), [5, of(&[0, 2, 3, 5, 7]), 3, of(&[1, 4, 6])]);
        assert_eq!((flow.count, flow.ended, flow.initiator_by), (1, Ended::Fin, InitiatorBy::Syn));
        let [source, destination] = [&flow.source, &flow.destination].map(|end| end.as_ref().unwrap());
        assert_eq!((source.ip, source.port), (Some(ends.source), ends.source_port));
        assert_eq!((destination.ip, destination.port), (Some(ends.destination), ends.destination_port));
        assert_eq!(flow.first_seen.as_unix_nanos(), i128::from(BEGIN));
        assert_eq!(flow.last_seen.as_unix_nanos(), i128::from(BEGIN + 7 * 400_000_000));
        assert_eq!((status.ledger.flows, &*flow.context_id), (8, "forwarded"));
    }
}

#[test]
fn a_living_flow_is_told_each_interval_and_what_is_over_once_more() {
    let frame = ENDS_4.udp(10);
    let records: Vec<_> = (0..12).map(|second| record(second * SECOND, &frame)).collect();
    let (flows, ..) = read(&options(), &records);
    assert_eq!(flows.iter().map(|flow| flow.packets).sum::<u64>(), 12);
    assert_eq!(flows.iter().map(|flow| flow.count).sum::<u64>(), 1);
    assert!(flows.len() >= 3, "every five seconds, and at the end: {flows:#?}");
    // Two minutes without a packet end it; the next one is another flow.
    let records = [record(0, &frame), record(130 * SECOND, &frame), record(131 * SECOND, &frame)];
    let (flows, ..) = read(&options(), &records);
    let counts: Vec<_> = flows.iter().map(|flow| (flow.packets, flow.count)).collect();
    assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 2, "{counts:?}");
}

#[test]
fn the_same_ends_once_more_are_another_connection_within_a_second_too() {
    let (ends, back) = (ENDS_4, ENDS_4.back());
    let frames = [
        ends.tcp(SYN, 0),
        back.tcp(RST | ACK, 0),
        ends.tcp(SYN, 0),
        back.tcp(SYN | ACK, 0),
        ends.tcp(RST, 0),
    ];
    let records: Vec<_> = frames.iter().zip(0..).map(|(frame, nth)| record(nth, frame)).collect();
    let (flows, ..) = read(&options(), &records);
    let told: Vec<_> =
        flows.iter().map(|flow| (flow.packets, flow.reply_packets, flow.ended, flow.reset_by)).collect();
    assert_eq!(told, [(1, 1, Ended::Refused, ResetBy::Destination), (2, 1, Ended::Reset, ResetBy::Source)]);
}

#[test]
fn pieces_are_in_the_flow_of_the_first_and_others_in_none_with_ports() {
    let ends = (ONE_4, TWO_4);
    let first = ethernet(&[], IPV4, &ipv4(ends, &[], 0x2000, UDP, &udp(ENDS_4.ports(), 24)));
    let later = ethernet(&[], IPV4, &ipv4(ends, &[], 0x0004, UDP, &[0x55; 8]));
    let records = [record(0, &later), record(1, &first), record(2, &later)];
    let (flows, status, _) = read(&options(), &records);
    let mut ports: Vec<_> =
        flows.iter().map(|flow| (flow.destination.as_ref().unwrap().port, flow.packets)).collect();
    ports.sort_unstable();
    assert_eq!(ports, [(0, 1), (ENDS_4.destination_port, 2)]);
    assert_eq!(status.ledger.orphan_fragments, 1);
}

#[test]
fn what_was_cut_counts_as_long_as_it_was_and_what_stands_for_many_as_many() {
    let frame = ENDS_4.tcp(ACK, 1000);
    let cut = Record { octets: &frame[..60], ..record(0, &frame) };
    let many = Record { marks: Marks { packets: 4, dropped: None }, ..record(1, &frame) };
    let (flows, status, _) = read(&options(), &[cut, many]);
    let [flow] = flows.as_slice() else { panic!("one record: {flows:#?}") };
    // Each of the other three segments repeats Ethernet, IPv4 and TCP.
    assert_eq!(amounts(flow)[..2], [5, 2 * frame.len() as u64 + 3 * 54]);
    assert_eq!((status.ledger.cut, status.ledger.flows), (1, 2));
}

#[test]
fn directions_addresses_and_units_say_whose_a_flow_is() {
    let (there, back) = (ENDS_4.udp(4), ENDS_4.back().udp(4));
    let whose = |options: &Options, direction| {
        let records = [
            Record { direction, ..record(0, &there) },
            Record {
                direction: if direction == Direction::Inbound { Direction::Outbound } else { direction },
                ..record(1, &back)
            },
        ];
        let (flows, ..) = read(options, &records);
        let [flow] = flows.as_slice() else { panic!("one record: {flows:#?}") };
        assert_eq!((flow.packets, flow.reply_packets), (1, 1));
        flow.context_id.to_string()
    };
    assert_eq!(whose(&options(), Direction::Unknown), "forwarded");
    assert_eq!(whose(&options(), Direction::Inbound), "host");
    let local = Options { local: LocalNetworks(vec!["198.51.100.0/24".parse().unwrap()]), ..options() };
    assert_eq!(whose(&local, Direction::Unknown), "host");
    let web = Declared {
        id: "web".into(),
        ranges: vec!["198.51.100.2/32".parse().unwrap()],
        ..Declared::default()
    };
    assert_eq!(whose(&Options { units: vec![web], ..options() }, Direction::Unknown), "web");
}

fn dropped<'a>(reason: &'a str, unit: &'a str) -> Marks<'a> {
    let note = DropNote { reason, place: "__udp4_lib_rcv+0x4b", unit, mark: 5 };
    Marks { packets: 1, dropped: Some(note) }
}

#[test]
fn what_the_kernel_had_dropped_is_reported_and_counted_as_a_live_run_does() {
    let (frame, strange) = (ENDS_4.udp(4), ethernet(&[], 0x0806, &arp()));
    let records = [
        record(0, &frame),
        Record { marks: dropped("NO_SOCKET", "host"), ..record(1, &frame) },
        Record { marks: Marks { packets: 3, ..dropped("NO_SOCKET", "host") }, ..record(2, &frame) },
        // A unit that this configuration does not know, and what nobody misses.
        Record { marks: dropped("OTHERHOST", "gone%20one"), ..record(3, &frame) },
        Record { marks: dropped("unknown", ""), ..record(4, &strange) },
    ];
    let (flows, status, recorder) = read(&options(), &records);
    let rows: Vec<_> =
        status.drops.iter().map(|it| (&*it.puid, &*it.kernel_reason, it.packets, it.skbs)).collect();
    assert_eq!(
        rows,
        [("host", "NO_SOCKET", 4, 2), ("unknown", "", 1, 1), ("unknown", "OTHERHOST", 1, 1)],
        "{:#?}",
        status.drops
    );
    let reports: Vec<_> = recorder
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Packet(report) => {
                Some((report.event, report.kernel_reason, report.packets, report.destination_port))
            }
            _ => None,
        })
        .collect();
    let to = ENDS_4.destination_port;
    assert_eq!(
        reports,
        [
            (PacketEvent::Dropped, "NO_SOCKET".into(), 1, to),
            (PacketEvent::Dropped, "NO_SOCKET".into(), 3, to),
            (PacketEvent::Dropped, "".into(), 1, 0),
        ]
    );
    let rejected: Vec<_> = flows.iter().filter(|flow| flow.dropped_packets != 0).collect();
    assert!(
        rejected.iter().all(|flow| flow.action == ActionType::REJECT && &*flow.kernel_reason == "NO_SOCKET"),
        "{rejected:#?}"
    );
    assert_eq!(rejected.iter().map(|flow| flow.dropped_packets).sum::<u64>(), 4);
    let ledger = &status.ledger;
    assert_eq!((ledger.drops_seen, ledger.drops_of_units, ledger.drops_explained()), (4, 4, 4), "{ledger:?}");
    assert_eq!((ledger.drop_reports, ledger.drop_reports_folded), (3, 1), "{ledger:?}");
}

#[test]
fn a_drop_is_whose_the_configuration_says_before_whose_the_capture_does() {
    let (frame, back) = (ENDS_4.udp(4), ENDS_4.back().udp(4));
    let declared = |id: &str, address: IpAddr| Declared {
        id: id.to_owned(),
        ranges: vec![address.into()],
        ..Declared::default()
    };
    let units = vec![declared("one", ENDS_4.source), declared("other", ENDS_4.destination)];
    let options = Options { units, ..options() };
    // A unit of the capture's host that is declared here; one of no name; and the host, which is none of this configuration's.
    for (frame, unit, pu, address) in [
        (&frame, "one", "one", ENDS_4.source),
        (&back, "one", "one", ENDS_4.source),
        (&frame, "other", "other", ENDS_4.destination),
        (&frame, "host", "other", ENDS_4.destination),
        (&back, "", "one", ENDS_4.source),
    ] {
        let (flows, status, _) =
            read(&options, &[Record { marks: dropped("NO_SOCKET", unit), ..record(0, frame) }]);
        assert_eq!(&*status.drops[0].puid, pu, "{unit}");
        let [flow] = flows.as_slice() else { panic!("one record: {flows:#?}") };
        let own = [&flow.source, &flow.destination].map(|end| end.as_ref().unwrap());
        let own = own.into_iter().find(|end| end.ip == Some(address)).unwrap();
        assert_eq!((&*flow.context_id, &*own.id), (pu, pu), "{unit}: {flow:#?}");
    }
}

#[test]
fn a_capture_that_makes_up_reasons_fills_a_table_and_no_more() {
    const MOST: usize = 16_384;
    let frame = ENDS_4.udp(4);
    let reasons: Vec<_> = (0..MOST + 5).map(|number| number.to_string()).collect();
    let records: Vec<_> =
        reasons.iter().map(|reason| Record { marks: dropped(reason, ""), ..record(0, &frame) }).collect();
    let (flows, status, _) = read(&options(), &records);
    assert_eq!((status.drops.len(), status.ledger.drops_table_full), (MOST, 5));
    // Each that has a row has its report and the record of its flow.
    assert_eq!((status.ledger.drop_reports, status.ledger.drop_flows_lost), (MOST as u64, 0));
    assert_eq!(flows.iter().filter(|flow| flow.dropped_packets == 1).count(), MOST);
}

#[test]
fn every_frame_has_a_fate() {
    let (frame, strange) = (ENDS_4.udp(4), ethernet(&[], 0x0806, &arp()));
    let records = [
        record(0, &frame),
        record(1, &strange),
        record(2, &frame[..20]),
        record(3, &[]),
        Record { link: 127, ..record(4, &frame) },
        Record { marks: dropped("NO_SOCKET", ""), ..record(5, &frame) },
        Record { time: None, ..record(0, &frame) },
    ];
    let (_, status, recorder) = read(&options(), &records);
    let ledger = status.ledger;
    assert_eq!((ledger.flows, ledger.captured_drops), (2, 1));
    let unparsed: Vec<_> = ledger.unparsed.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    assert_eq!(unparsed, [("arp", 1), ("link_type", 1), ("truncated", 2)]);
    assert!(recorder.events().iter().any(|event| matches!(event, Event::Counter(_))), "a last report");
}

#[test]
fn a_full_table_loses_flows_and_no_packet() {
    let frames: Vec<_> = (0..20).map(|port| ENDS_4.from_port(1000 + port).udp(4)).collect();
    let records: Vec<_> = frames.iter().map(|frame| record(0, frame)).collect();
    let (flows, status, _) = read(&Options { most_flows: 15, ..options() }, &records);
    assert_eq!((flows.len(), status.ledger.flows, status.ledger.table_full), (15, 15, 5));
}

#[test]
fn time_that_runs_backwards_is_said_and_counted_and_nothing_falls_due_by_it() {
    let frame = ENDS_4.udp(4);
    let recorder = Recorder::new();
    let mut replay = Replay::new(&options(), &recorder).unwrap();
    let times = [10 * SECOND, 10 * SECOND - 5, 8 * SECOND, 11 * SECOND, -BEGIN - 5];
    let odd: Vec<_> = times.iter().map(|time| replay.take(&record(*time, &frame))).collect();
    assert_eq!(odd, [None, None, Some(Oddity::Backwards), None, Some(Oddity::Backwards)]);
    assert_eq!(
        replay.take(&Record { octets: &[], length: 0, ..record(11 * SECOND, &[]) }),
        Some(Oddity::Empty)
    );
    let ledger = replay.finish().ledger;
    assert_eq!((ledger.seen, ledger.flows, ledger.backwards), (6, 5, 2));
}

#[test]
fn a_clock_that_was_set_back_or_was_once_far_ahead_is_gone_by_from_there_on() {
    let frame = ENDS_4.udp(4);
    for ahead in [3600 * SECOND, i64::MAX - BEGIN] {
        let recorder = Recorder::new();
        let mut replay = Replay::new(&options(), &recorder).unwrap();
        replay.take(&record(ahead, &frame));
        let odd = (1..=3000).filter(|second| replay.take(&record(second * SECOND, &frame)).is_some()).count();
        assert_eq!(odd, 1000, "those until it is believed");
        let told = recorder.events().into_iter().filter(|event| matches!(event, Event::Flow(_))).count();
        assert!(told > 300, "{told} records before the end: one falls due every 5 s");
        let ledger = replay.finish().ledger;
        assert_eq!((ledger.seen, ledger.explained(), ledger.backwards), (3001, 3001, 1000));
    }
    // Times that no clock has.
    let recorder = Recorder::new();
    let mut replay = Replay::new(&options(), &recorder).unwrap();
    for time in [i64::MIN, i64::MAX, i64::MAX, i64::MIN, 0, i64::MAX] {
        replay.take(&Record { time: Some(time), ..record(0, &frame) });
    }
    assert_eq!(replay.finish().ledger.explained(), 6);
}

#[test]
fn a_capture_of_before_is_another_run_in_the_same_ledger() {
    let frame = ENDS_4.tcp(ACK, 4);
    let recorder = Recorder::new();
    let mut replay = Replay::new(&options(), &recorder).unwrap();
    for times in [[100, 101], [102, 103], [50, 51]] {
        replay.begin_capture();
        for second in times {
            assert_eq!(replay.take(&record(second * SECOND, &frame)), None);
        }
    }
    let ledger = replay.finish().ledger;
    assert_eq!((ledger.seen, ledger.flows, ledger.backwards), (6, 6, 0));
    let flows = recorder.events().into_iter().filter_map(|event| match event {
        Event::Flow(record) => Some(record),
        _ => None,
    });
    let times = |time: Time| (time.as_unix_nanos() - i128::from(BEGIN)) / i128::from(SECOND);
    let told: Vec<_> =
        flows.map(|it| (it.packets, times(it.first_seen), times(it.last_seen), it.ended)).collect();
    // The second one goes on where the first one ended.
    assert_eq!(told, [(4, 100, 103, Ended::Live), (2, 50, 51, Ended::Live)]);
}

#[test]
fn what_a_tunnel_carries_is_a_flow_beside_the_tunnels_if_asked_for() {
    // VXLAN (RFC 7348 section 5) of network 5.
    let carried = ENDS_6.udp(30);
    let payload = [&[8, 0, 0, 0, 0, 0, 5, 0][..], &carried].concat();
    let mut datagram = udp([0x9C, 0x40, 0x12, 0xB5], payload.len());
    datagram.truncate(8);
    let frame = ENDS_4.frame(UDP, &[&datagram, &payload[..]].concat());
    let records = [record(0, &frame), record(1, &frame)];
    let (flows, status, _) = read(&options(), &records);
    assert_eq!((flows.len(), status.ledger.inner_seen), (1, 0));
    let (mut flows, status, _) = read(&Options { inner: true, ..options() }, &records);
    flows.sort_by_key(|flow| flow.tunnel_id);
    let told: Vec<_> =
        flows.iter().map(|flow| (flow.tunnel, flow.tunnel_id, flow.packets, flow.bytes)).collect();
    assert_eq!(
        told,
        [(Tunnel::None, 0, 2, 2 * frame.len() as u64), (Tunnel::Vxlan, 5, 2, 2 * carried.len() as u64)]
    );
    let ledger = status.ledger;
    assert_eq!((ledger.flows, ledger.inner_seen, ledger.inner_flows, ledger.inner_explained()), (2, 2, 2, 2));
}
