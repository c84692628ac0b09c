//! What was counted becomes records: one an interval, one at the end, and their sums are the totals.

use crate::nobody;
use collector_ebpf::{
    abi::{
        flow::{how, ports},
        report::kind,
    },
    wire::tcp::{ACK, FIN, RST, SYN},
};
use collector_user::{
    aggregate::{flow::Flow, flows::Flows, lives::Lives, record::Scribe},
    clock::Moment,
    drain::{
        decode::FlowNews,
        flow::{FlowDelta, FlowId},
    },
    event::{Ended, FlowRecord, InitiatorBy, ResetBy},
    policy::verdicts::Verdicts,
    pu::registry::Registry,
};

const SECOND: u64 = 1_000_000_000;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const LIVES: Lives = Lives {
    report: 5 * SECOND,
    ended: 10 * SECOND,
    tcp: 3600 * SECOND,
    other: 120 * SECOND,
    icmp: 30 * SECOND,
    at_once: usize::MAX,
    undecided: SECOND,
};

/// Flows and what was recorded of them.
struct Desk {
    flows: Flows,
    records: Vec<FlowRecord>,
}

impl Desk {
    fn new(most: usize) -> Self {
        Self { flows: Flows::new(LIVES, most), records: Vec::new() }
    }

    fn add(&mut self, delta: &FlowDelta, at: u64) {
        let Self { flows, records } = self;
        flows.add(delta, at, at, &nobody, |id, flow| records.push(record(id, flow)));
    }

    fn learn(&mut self, id: FlowId, kind: u8, how: u8, at: u64) {
        let Self { flows, records } = self;
        let news = FlowNews { id, boot_ns: at, pu: 1, interface: 1, kind, how, host_pu: 0, user: None };
        flows.learn(&news, &nobody, |id, flow| records.push(record(id, flow)));
    }

    fn settle(&mut self, now: u64) -> Vec<FlowId> {
        let Self { flows, records } = self;
        flows.settle(now, now, &nobody, |id, flow| records.push(record(id, flow)))
    }

    fn cut_off(&mut self) {
        let Self { flows, records } = self;
        flows.cut_off(&nobody, |id, flow| records.push(record(id, flow)));
    }

    /// What was recorded since this was asked last.
    fn take(&mut self) -> Vec<FlowRecord> {
        std::mem::take(&mut self.records)
    }
}

fn record(id: &FlowId, flow: &Flow) -> FlowRecord {
    let registry = Registry::new(&[]).unwrap();
    let moment = Moment { jiffies: 0, boot_ns: 0, wall_ns: 1_000 * SECOND as i64, hz: 250 };
    Scribe::default().flow(id, flow, None, &Verdicts::default(), &registry, &moment)
}

fn id(protocol: u8) -> FlowId {
    FlowId {
        local: [10, 0, 0, 1].into(),
        remote: [10, 0, 0, 2].into(),
        local_port: 40_000,
        remote_port: 5001,
        boundary: 0,
        protocol,
        ports: ports::TRANSPORT,
    }
}

const BY_SYN: u8 = how::BY_SYN << how::INITIATOR_SHIFT;

/// Packets to and from the local end, of 100 octets each.
fn counted(id: FlowId, received: u64, sent: u64, begun: u64) -> FlowDelta {
    FlowDelta {
        id,
        bytes: [received * 100, sent * 100],
        packets: [received, sent],
        skbs: [received, sent],
        begun,
        first: 0,
        last: 0,
        pu: 1,
        interface: 1,
        tcp_flags: [0; 2],
        how: how::LOCAL_INITIATED,
        host_pu: 0,
        verdict: 0,
        rejected: [0; 2],
    }
}

fn with_flags(received: u8, sent: u8, delta: FlowDelta) -> FlowDelta {
    FlowDelta { tcp_flags: [received, sent], how: how::LOCAL_INITIATED | BY_SYN, ..delta }
}

#[test]
fn a_flow_that_lives_has_a_record_each_interval_with_what_came_since_the_last() {
    let mut desk = Desk::new(10);
    desk.add(&counted(id(UDP), 1, 2, 1), SECOND);
    desk.settle(2 * SECOND);
    assert!(desk.take().is_empty(), "not due yet");
    desk.add(&counted(id(UDP), 10, 20, 0), 3 * SECOND);
    desk.settle(6 * SECOND);
    let [first] = &desk.take()[..] else { panic!("one record") };
    assert_eq!((first.packets, first.bytes, first.skbs, first.count), (22, 2200, 22, 1));
    assert_eq!((first.reply_packets, first.reply_bytes, first.reply_skbs), (11, 1100, 11));
    assert_eq!(first.first_seen.as_unix_nanos(), 1_001 * i128::from(SECOND));
    assert_eq!(first.last_seen.as_unix_nanos(), 1_003 * i128::from(SECOND));
    desk.settle(12 * SECOND);
    assert!(desk.take().is_empty(), "silence is no record");
    desk.add(&counted(id(UDP), 0, 5, 0), 13 * SECOND);
    desk.settle(13 * SECOND);
    let [second] = &desk.take()[..] else { panic!("one record") };
    assert_eq!((second.packets, second.reply_packets, second.count), (5, 0, 0));
    assert_eq!((second.first_seen, second.ended), (first.first_seen, Ended::Live));
}

#[test]
fn the_source_never_turns_round() {
    let mut desk = Desk::new(10);
    desk.add(&counted(id(UDP), 0, 1, 1), SECOND);
    desk.cut_off();
    // Later the programs saw it anew, the other way round, with better evidence even.
    for how in [0, BY_SYN, how::BY_ECHO << how::INITIATOR_SHIFT] {
        desk.add(&FlowDelta { how, ..counted(id(UDP), 7, 1, 0) }, 2 * SECOND);
        desk.cut_off();
    }
    let records = desk.take();
    assert_eq!(records.len(), 4);
    for record in &records {
        assert_eq!(record.source.as_ref().map(|end| end.port), Some(40_000));
        assert_eq!((record.packets, record.initiator_by), (1, InitiatorBy::FirstPacket));
    }
}

#[test]
fn a_connection_that_both_sides_close_ends_once() {
    let mut desk = Desk::new(10);
    desk.learn(id(TCP), kind::START, how::LOCAL_INITIATED | BY_SYN, SECOND);
    desk.learn(id(TCP), kind::END_FIN, how::LOCAL_INITIATED | BY_SYN, 2 * SECOND);
    desk.add(&with_flags(SYN | ACK | FIN, SYN | ACK | FIN, counted(id(TCP), 4, 5, 1)), 2 * SECOND);
    desk.settle(3 * SECOND);
    let [record] = &desk.take()[..] else { panic!("one record") };
    assert_eq!((record.packets, record.reply_packets, record.count), (5, 4, 1));
    assert_eq!(
        (record.ended, record.reset_by, record.initiator_by),
        (Ended::Fin, ResetBy::Nobody, InitiatorBy::Syn)
    );
    assert_eq!(record.tcp_flags, u16::from(SYN | ACK | FIN));
    // A last acknowledgement is still this connection's, and begins no other.
    desk.add(&with_flags(0, ACK, counted(id(TCP), 0, 1, 0)), 4 * SECOND);
    assert!(desk.settle(5 * SECOND).is_empty());
    let [straggler] = &desk.take()[..] else { panic!("one record") };
    assert_eq!((straggler.packets, straggler.count, straggler.ended), (1, 0, Ended::Fin));
    assert_eq!(desk.settle(14 * SECOND), [id(TCP)], "ten seconds after its last packet it is forgotten");
    assert!(desk.take().is_empty());
}

#[test]
fn a_reset_says_who_did_it() {
    let cases = [
        (kind::END_RESET_LOCAL, SYN | ACK, SYN | ACK | RST, Ended::Reset, ResetBy::Source),
        (kind::END_RESET_REMOTE, SYN | ACK | RST, SYN | ACK, Ended::Reset, ResetBy::Destination),
        (kind::END_RESET_REMOTE, RST | ACK, SYN, Ended::Refused, ResetBy::Destination),
    ];
    // The ring may have been full: the flags alone must tell the same.
    for news in [true, false] {
        for (kind, received, sent, ended, reset_by) in cases {
            let mut desk = Desk::new(10);
            if news {
                desk.learn(id(TCP), kind::START, how::LOCAL_INITIATED | BY_SYN, SECOND);
                desk.learn(id(TCP), kind, 0, SECOND);
            }
            desk.add(&with_flags(received, sent, counted(id(TCP), 1, 1, 1)), SECOND);
            desk.settle(2 * SECOND);
            let [record] = &desk.take()[..] else { panic!("one record") };
            assert_eq!((record.ended, record.reset_by, record.count), (ended, reset_by, 1), "news {news}");
        }
    }
}

#[test]
fn the_same_ports_again_are_another_connection() {
    let mut desk = Desk::new(10);
    let bits = how::LOCAL_INITIATED | BY_SYN;
    desk.learn(id(TCP), kind::START, bits, SECOND);
    desk.learn(id(TCP), kind::END_FIN, bits, 2 * SECOND);
    desk.add(&with_flags(SYN | FIN, SYN | FIN, counted(id(TCP), 4, 5, 1)), 2 * SECOND);
    desk.settle(3 * SECOND);
    // This time the other side opens it.
    desk.learn(id(TCP), kind::START, BY_SYN, 4 * SECOND);
    desk.add(&FlowDelta { how: BY_SYN, ..with_flags(SYN, SYN | ACK, counted(id(TCP), 7, 6, 1)) }, 4 * SECOND);
    desk.cut_off();
    let [first, second] = &desk.take()[..] else { panic!("two records") };
    assert_eq!((first.packets, first.count, first.ended), (5, 1, Ended::Fin));
    assert_eq!((second.packets, second.count, second.ended), (7, 1, Ended::Live));
    assert_eq!(second.source.as_ref().map(|end| end.port), Some(5001));
    assert_eq!(second.first_seen.as_unix_nanos(), 1_004 * i128::from(SECOND));
}

#[test]
fn what_is_cut_off_is_told_and_not_told_again() {
    let mut desk = Desk::new(10);
    desk.add(&counted(id(TCP), 1, 2, 1), SECOND);
    desk.add(&counted(id(UDP), 3, 4, 1), SECOND);
    desk.cut_off();
    let records = desk.take();
    assert_eq!(records.iter().map(|record| record.packets).sum::<u64>(), 6);
    assert!(records.iter().all(|record| record.ended == Ended::Live));
    desk.cut_off();
    assert!(desk.take().is_empty());
}

#[test]
fn silence_ends_a_flow_after_the_time_of_its_kind() {
    let answered = with_flags(SYN | ACK, SYN | ACK, counted(id(TCP), 1, 1, 1));
    let unanswered = with_flags(0, SYN, counted(id(TCP), 0, 3, 1));
    let cases = [
        (counted(id(UDP), 1, 1, 1), LIVES.other, Ended::Timeout),
        (counted(id(ICMP), 1, 1, 1), LIVES.icmp, Ended::Timeout),
        (answered, LIVES.tcp, Ended::Timeout),
        (unanswered, LIVES.other, Ended::Unanswered),
    ];
    for (delta, life, ended) in cases {
        let mut desk = Desk::new(10);
        desk.add(&delta, SECOND);
        assert!(desk.settle(SECOND + life - 1).is_empty(), "{delta:?}");
        assert!(desk.take().iter().all(|record| record.ended == Ended::Live));
        assert_eq!(desk.settle(SECOND + life), [delta.id]);
        // Of TCP the end itself is news; of others only what no record holds yet.
        let ends: Vec<_> = desk.take().iter().map(|record| record.ended).collect();
        assert_eq!(ends, if delta.id.protocol == TCP { vec![ended] } else { vec![] }, "{delta:?}");
        assert!(desk.flows.is_empty());
    }
}

#[test]
fn flows_for_which_there_is_no_room_are_told_at_once() {
    let mut desk = Desk::new(2);
    for port in 0..5 {
        let id = FlowId { remote_port: port, ..id(UDP) };
        desk.learn(id, kind::START, how::LOCAL_INITIATED, SECOND);
        desk.add(&counted(id, 1, 2, 1), SECOND);
        desk.add(&counted(id, 3, 4, 0), SECOND);
    }
    assert_eq!((desk.flows.len(), desk.flows.tally().stateless), (2, 6));
    desk.cut_off();
    let records = desk.take();
    assert_eq!(records.iter().map(|record| record.packets).sum::<u64>(), 5 * 6);
    assert_eq!(records.iter().map(|record| record.reply_packets).sum::<u64>(), 5 * 4);
    assert_eq!(records.iter().map(|record| record.count).sum::<u64>(), 5);
}
