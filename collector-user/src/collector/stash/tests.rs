use std::{sync::Arc, time::Duration};

use super::{Aggregate, LONGEST, Limits, QUIET, Stash, StashCounts, USER_WINDOW};
use crate::{
    collector::{
        EventCollector,
        memory::Recorder,
        tests::{KINDS, call_all},
    },
    event::{
        ActionType, ContainerRecord, CounterReport, DnsRequestReport, EndPoint, Ended, Event, FlowRecord,
        InitiatorBy, PacketReport, PingReport, Time, UserRecord,
    },
};

const TCP: u8 = 6;
const UDP: u8 = 17;

fn stash(aggregate: Aggregate) -> Stash<Recorder> {
    Stash::new(Recorder::new(), aggregate, Limits::default())
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A record of `packets` packets and 100 times as many octets, half as much in reply, seen in second `at`.
fn flow(protocol: u8, source_port: u16, count: u64, packets: u64, at: i64) -> FlowRecord {
    let end = |id: &str, last, port| {
        Some(EndPoint { id: id.into(), ip: Some([10, 0, 0, last].into()), port, ..EndPoint::default() })
    };
    FlowRecord {
        context_id: "web".into(),
        source: end("a", 1, source_port),
        destination: end("b", 2, 443),
        count,
        action: ActionType::ACCEPT,
        l4_protocol: protocol,
        packets,
        bytes: packets * 100,
        reply_packets: packets / 2,
        reply_bytes: packets * 50,
        skbs: packets,
        reply_skbs: packets / 2,
        first_seen: Time::from_unix_nanos(at * 1_000_000_000),
        last_seen: Time::from_unix_nanos(at * 1_000_000_000 + 1),
        ..FlowRecord::default()
    }
}

fn flows(stash: &Stash<Recorder>) -> Vec<FlowRecord> {
    let events = stash.inner().take().into_iter();
    events
        .filter_map(|event| match event {
            Event::Flow(record) => Some(record),
            _ => None,
        })
        .collect()
}

fn assert_balanced(counts: &StashCounts) {
    let StashCounts { taken, handed_on, merged, repeated, queue_full, held, no_room: _ } = *counts;
    assert_eq!(taken, handed_on + merged + repeated + queue_full + held, "{counts:?}");
}

#[test]
fn a_service_counts_as_the_original_does() {
    let stash = stash(Aggregate::Service);
    let other = FlowRecord { drop_reason: "policy".into(), ..flow(TCP, 1, 33, 1, 1) };
    for record in [flow(TCP, 1, 0, 1, 1), other, flow(TCP, 1, 10, 1, 1)] {
        stash.collect_flow_event(&record);
    }
    assert!(flows(&stash).is_empty(), "they wait");
    stash.flush(seconds(1));
    let mut counts: Vec<_> = flows(&stash).iter().map(|record| record.count).collect();
    counts.sort_unstable();
    assert_eq!(counts, [11, 33]);
    stash.flush(seconds(2));
    assert!(flows(&stash).is_empty());
}

#[test]
fn a_service_sums_amounts_and_keeps_the_first_records_words() {
    let stash = stash(Aggregate::Service);
    let first = FlowRecord { tcp_flags: 0x02, initiator_by: InitiatorBy::Syn, ..flow(TCP, 1000, 1, 4, 5) };
    let second = FlowRecord {
        context_id: "other".into(),
        tcp_flags: 0x11,
        vlan: 9,
        ended: Ended::Fin,
        ..flow(UDP, 2000, 1, 10, 3)
    };
    stash.collect_flow_event(&first);
    stash.collect_flow_event(&second);
    stash.flush(seconds(1));
    let want = FlowRecord {
        count: 2,
        packets: 14,
        bytes: 1400,
        reply_packets: 7,
        reply_bytes: 700,
        skbs: 14,
        reply_skbs: 7,
        first_seen: second.first_seen,
        tcp_flags: 0x13,
        ..first
    };
    assert_eq!(flows(&stash), [want]);
}

#[test]
fn a_connection_is_one_record_with_its_stragglers() {
    let stash = stash(Aggregate::Connection);
    stash.collect_flow_event(&flow(TCP, 1, 1, 4, 0));
    stash.flush(seconds(5));
    stash.collect_flow_event(&FlowRecord { interface: "eth1".into(), ..flow(TCP, 1, 0, 10, 5) });
    stash.flush(seconds(10));
    let end = FlowRecord { ended: Ended::Fin, interface: "eth1".into(), ..flow(TCP, 1, 0, 2, 6) };
    stash.collect_flow_event(&end);
    stash.flush(seconds(11));
    assert!(flows(&stash).is_empty(), "more may come");
    stash.collect_flow_event(&FlowRecord { interface: "eth1".into(), ..flow(TCP, 1, 0, 2, 7) });
    stash.flush(seconds(12));
    assert!(flows(&stash).is_empty(), "more may come");
    stash.flush(seconds(13));
    let want = FlowRecord {
        ended: Ended::Fin,
        interface: "eth1".into(),
        last_seen: flow(TCP, 1, 0, 0, 7).last_seen,
        ..flow(TCP, 1, 1, 18, 0)
    };
    assert_eq!(flows(&stash), [want]);
    assert_balanced(&stash.counts());
}

#[test]
fn the_same_ends_once_more_are_another_connection() {
    let stash = stash(Aggregate::Connection);
    let ended = |count, packets, at| FlowRecord { ended: Ended::Reset, ..flow(TCP, 1, count, packets, at) };
    for record in [ended(1, 3, 0), ended(1, 4, 1), ended(0, 1, 1), ended(1, 5, 2)] {
        stash.collect_flow_event(&record);
    }
    assert_eq!(flows(&stash).iter().map(|record| record.packets).collect::<Vec<_>>(), [3, 5]);
    // One that was met in its middle, and ended, is not the one that begins now.
    stash.collect_flow_event(&FlowRecord { count: 0, ended: Ended::Fin, ..flow(TCP, 2, 0, 6, 3) });
    stash.collect_flow_event(&flow(TCP, 2, 1, 7, 4));
    assert_eq!(flows(&stash).iter().map(|record| record.packets).collect::<Vec<_>>(), [6]);
    stash.close();
    assert_eq!(flows(&stash).iter().map(|record| record.packets).collect::<Vec<_>>(), [5, 7]);
    assert_balanced(&stash.counts());
}

#[test]
fn what_makes_a_connection_keeps_it_apart() {
    let stash = stash(Aggregate::Connection);
    let plain = || flow(TCP, 1, 1, 1, 0);
    let with_user = |record: FlowRecord| {
        let destination = record.destination.map(|end| EndPoint { user_id: "u".into(), ..end });
        FlowRecord { destination, ..record }
    };
    let apart = [
        plain(),
        flow(UDP, 1, 1, 1, 0),
        flow(TCP, 2, 1, 1, 0),
        with_user(plain()),
        FlowRecord { context_id: "other".into(), ..plain() },
        FlowRecord { namespace: "/n".into(), ..plain() },
        FlowRecord { vlan: 7, ..plain() },
        FlowRecord { action: ActionType::REJECT, ..plain() },
        FlowRecord { observed_action: ActionType::REJECT, ..plain() },
        FlowRecord { drop_reason: "policy".into(), ..plain() },
        FlowRecord { policy_id: "p".into(), ..plain() },
        FlowRecord { observed_policy_id: "p".into(), ..plain() },
        FlowRecord { service_id: "s".into(), ..plain() },
        FlowRecord { source: None, ..plain() },
    ];
    for record in &apart {
        stash.collect_flow_event(record);
    }
    assert_eq!(stash.counts().held, apart.len() as u64);
    stash.close();
    let got = flows(&stash);
    assert!(apart.iter().all(|record| got.contains(record)));
}

#[test]
fn what_never_ends_is_handed_on_when_it_is_quiet_or_old() {
    let stash = stash(Aggregate::Connection);
    stash.collect_flow_event(&flow(UDP, 1, 1, 1, 0));
    stash.collect_flow_event(&flow(TCP, 2, 1, 2, 0));
    stash.flush(seconds(1));
    stash.flush(QUIET);
    assert!(flows(&stash).is_empty());
    stash.flush(QUIET + seconds(1));
    assert_eq!(flows(&stash).iter().map(|record| record.l4_protocol).collect::<Vec<_>>(), [UDP]);
    // A clock that goes back harms nobody.
    stash.flush(seconds(0));
    stash.flush(LONGEST.saturating_sub(seconds(1)));
    assert!(flows(&stash).is_empty());
    stash.collect_flow_event(&flow(TCP, 2, 0, 3, 0));
    stash.flush(LONGEST);
    assert_eq!(flows(&stash).iter().map(|record| record.packets).collect::<Vec<_>>(), [5]);
}

#[test]
fn a_flood_of_one_units_reports_leaves_room_to_others() {
    let limits = Limits { reports: 100, ..Limits::default() };
    let stash = Stash::new(Recorder::new(), Aggregate::Connection, limits);
    let report = |unit: &str| PacketReport { puid: unit.into(), ..PacketReport::default() };
    for _ in 0..2 {
        (0..1000).for_each(|_| stash.collect_packet_event(&report("loud")));
        (0..10).for_each(|_| stash.collect_packet_event(&report("still")));
        // Four fifths, and the one that makes them so.
        stash.flush(seconds(1));
        assert_eq!(stash.inner().take().len(), 81 + 10);
    }
    assert_eq!(stash.books().queue_full_of(), [("loud".into(), 2 * (1000 - 81))].into());
    assert_eq!(stash.counts().queue_full, 2 * (1000 - 81));
    assert_balanced(&stash.counts());
}

#[test]
fn without_room_flows_are_handed_on_as_they_are() {
    for (aggregate, count) in [(Aggregate::Connection, 0), (Aggregate::Service, 1)] {
        let limits = Limits { flows: 1, ..Limits::default() };
        let stash = Stash::new(Recorder::new(), aggregate, limits);
        stash.collect_flow_event(&flow(TCP, 1, 1, 1, 0));
        let other = FlowRecord { drop_reason: "policy".into(), ..flow(TCP, 2, 0, 2, 0) };
        stash.collect_flow_event(&other);
        assert_eq!(flows(&stash), [FlowRecord { count, ..other }]);
        stash.collect_flow_event(&FlowRecord { ended: Ended::Fin, ..flow(TCP, 1, 0, 3, 0) });
        stash.close();
        assert_eq!(flows(&stash).iter().map(|record| record.packets).collect::<Vec<_>>(), [4]);
        let counts = stash.counts();
        assert_eq!((counts.no_room, counts.merged, counts.queue_full), (1, 1, 0));
        assert_balanced(&counts);
    }
}

#[test]
fn a_user_is_told_once_in_a_window_and_always_named() {
    let limits = Limits { users: 1, ..Limits::default() };
    let stash = Stash::new(Recorder::new(), Aggregate::Service, limits);
    let seen = |claim: &str| {
        let mut record = UserRecord { claims: vec!["z=1".into(), claim.into()], ..UserRecord::default() };
        stash.collect_user_event(&mut record);
        assert_eq!(record.id.len(), 64);
        stash.inner().take().len()
    };
    stash.flush(seconds(100));
    assert_eq!([seen("a=1"), seen("a=1")], [1, 0]);
    assert_eq!([seen("a=2"), seen("a=2")], [1, 1], "there is no room to remember it");
    stash.flush(seconds(99) + USER_WINDOW);
    assert_eq!(seen("a=1"), 0);
    stash.flush(seconds(100) + USER_WINDOW);
    assert_eq!([seen("a=1"), seen("a=1")], [1, 0]);
    assert_eq!(stash.counts().repeated, 3);
    assert_balanced(&stash.counts());
}

#[test]
fn reports_beyond_the_queue_are_lost_and_counted() {
    let limits = Limits { reports: 1, ..Limits::default() };
    let stash = Stash::new(Recorder::new(), Aggregate::Service, limits);
    stash.collect_packet_event(&PacketReport { length: 1, ..PacketReport::default() });
    stash.collect_packet_event(&PacketReport { length: 2, ..PacketReport::default() });
    stash.collect_ping_event(&PingReport::default());
    stash.collect_dns_requests(&DnsRequestReport::default());
    assert_eq!((stash.counts().held, stash.counts().queue_full), (1, 3));
    stash.flush(seconds(1));
    assert_eq!(stash.inner().take(), [Event::Packet(PacketReport { length: 1, ..PacketReport::default() })]);
    stash.collect_ping_event(&PingReport::default());
    stash.flush(seconds(2));
    assert_eq!(stash.inner().take(), [Event::Ping(PingReport::default())]);
    assert_balanced(&stash.counts());
}

#[test]
fn what_may_not_wait_does_not() {
    let stash = stash(Aggregate::Connection);
    call_all(&stash);
    let kinds = || stash.inner().take().iter().map(Event::kind).collect::<Vec<_>>();
    assert_eq!(kinds(), ["container", "user", "trace", "counter"]);
    stash.close();
    assert_eq!(kinds(), ["flow", "packet", "dns", "ping"]);
    assert_eq!(stash.counts(), StashCounts { taken: 8, handed_on: 8, ..StashCounts::default() });
}

#[test]
fn its_drop_hands_on_what_it_holds() {
    let recorder = Arc::new(Recorder::new());
    let stash = Stash::new(Arc::clone(&recorder), Aggregate::Service, Limits::default());
    call_all(&stash);
    drop(stash);
    assert_eq!(recorder.take().len(), KINDS.len());
}

/// Panics at every other flow.
#[derive(Default)]
struct Every2nd(Recorder, std::sync::atomic::AtomicU64);

impl EventCollector for Every2nd {
    fn collect_flow_event(&self, record: &FlowRecord) {
        if self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 2 == 1 {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
        self.0.collect_flow_event(record);
    }

    fn collect_container_event(&self, _: &ContainerRecord) {}
    fn collect_user_event(&self, _: &mut UserRecord) {}
    fn collect_trace_event(&self, _: &[String]) {}
    fn collect_packet_event(&self, _: &PacketReport) {}
    fn collect_counter_event(&self, _: &CounterReport) {}
    fn collect_dns_requests(&self, _: &DnsRequestReport) {}
    fn collect_ping_event(&self, _: &PingReport) {}
}

#[test]
fn a_panic_behind_loses_its_event_only() {
    let stash = Stash::new(Every2nd::default(), Aggregate::Connection, Limits::default());
    for port in 0..3 {
        stash.collect_flow_event(&flow(TCP, port, 1, 1, 0));
    }
    let close = || stash.close();
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(close)).is_err());
    assert_eq!(stash.counts().held, 1);
    stash.close();
    assert_eq!(stash.inner().0.take().len(), 2);
    assert_eq!(stash.counts().handed_on, 3);
}

/// Numbers without a pattern (an LCG with the constants of Knuth's MMIX), the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[test]
fn sums_are_totals_whatever_comes() {
    for (aggregate, flows_held) in [(Aggregate::Connection, 40), (Aggregate::Service, 2)] {
        let mut numbers = Numbers(1);
        let limits = Limits { flows: flows_held, ..Limits::default() };
        let stash = Stash::new(Recorder::new(), aggregate, limits);
        let (mut sent, mut now) = (Vec::new(), Duration::ZERO);
        for at in 0..20_000 {
            let protocol = if numbers.below(2) == 0 { TCP } else { UDP };
            let words = ["", "policy", "state"];
            let ends = [Ended::Live, Ended::Live, Ended::Live, Ended::Fin];
            let record = FlowRecord {
                ended: ends[numbers.below(4) as usize],
                drop_reason: words[numbers.below(3) as usize].into(),
                ..flow(protocol, numbers.below(20) as u16, numbers.below(2), numbers.below(1000), at)
            };
            stash.collect_flow_event(&record);
            sent.push(record);
            if numbers.below(10) == 0 {
                now += seconds(numbers.below(60));
                stash.flush(now);
                assert_balanced(&stash.counts());
            }
        }
        stash.close();
        let got = flows(&stash);
        let sum = |of: fn(&FlowRecord) -> u64| {
            let total = |records: &[FlowRecord]| records.iter().map(of).sum::<u64>();
            (total(&got), total(&sent))
        };
        for (got, sent) in [
            sum(|flow| flow.packets),
            sum(|flow| flow.bytes),
            sum(|flow| flow.reply_packets),
            sum(|flow| flow.reply_bytes),
            sum(|flow| flow.skbs),
            sum(|flow| flow.reply_skbs),
        ] {
            assert_eq!(got, sent, "{aggregate:?}");
        }
        let (count, begun) = sum(|flow| flow.count);
        let idle = sent.iter().filter(|flow| flow.count == 0).count() as u64;
        assert_eq!(count, if aggregate == Aggregate::Service { begun + idle } else { begun });
        let counts = stash.counts();
        assert!(counts.merged > 1000 && counts.no_room > 100 && counts.held == 0, "{counts:?}");
        assert_eq!(counts.handed_on, got.len() as u64);
        assert_balanced(&counts);
    }
}
