//! Records: when one falls due, what it holds, and how a flow ends.

mod booked;
mod users;

use std::net::IpAddr;

use collector_ebpf::{
    abi::{
        flow::{how, ports},
        report::kind,
    },
    wire::tcp::{ACK, FIN, RST, SYN},
};

use super::Flows;
use crate::{
    aggregate::{
        booking::HostEnd,
        flow::Flow,
        lives::{Lives, SECOND},
    },
    drain::{
        decode::FlowNews,
        flow::{FlowDelta, FlowId},
    },
    event::{Ended, InitiatorBy, ResetBy},
};

const UDP: u8 = 17;
const TCP: u8 = 6;

fn id(protocol: u8, local_port: u16) -> FlowId {
    FlowId {
        local: IpAddr::from([10, 0, 0, 1]),
        remote: IpAddr::from([10, 0, 0, 2]),
        local_port,
        remote_port: 5001,
        boundary: 0,
        protocol,
        ports: ports::TRANSPORT,
    }
}

/// So many packets of 100 octets each way.
fn delta(id: FlowId, packets: [u64; 2], begun: u64) -> FlowDelta {
    FlowDelta {
        id,
        bytes: packets.map(|packets| packets * 100),
        packets,
        skbs: packets,
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

fn syn(id: FlowId, flags: [u8; 2], begun: u64) -> FlowDelta {
    let how = how::LOCAL_INITIATED | (how::BY_SYN << how::INITIATOR_SHIFT);
    FlowDelta { tcp_flags: flags, how, ..delta(id, [1, 1], begun) }
}

fn news(id: FlowId, kind: u8, boot_ns: u64) -> FlowNews {
    let how = how::LOCAL_INITIATED | (how::BY_SYN << how::INITIATOR_SHIFT);
    FlowNews { id, boot_ns, pu: 1, interface: 1, kind, how, host_pu: 0, user: None }
}

/// What was emitted: packets both ways, connections begun, the end.
type Emitted = Vec<([u64; 2], u64, Ended)>;

fn told(flow: &Flow) -> ([u64; 2], u64, Ended) {
    (flow.packets, flow.begun, flow.ended)
}

fn settle(flows: &mut Flows, now: u64) -> Emitted {
    let mut emitted = Vec::new();
    flows.settle(now, now, &nobody, |_, flow| emitted.push(told(flow)));
    emitted
}

/// No flow here has an end on this host beside its unit's.
fn nobody(id: &FlowId, _: u16) -> HostEnd {
    panic!("asked for the host's end of {id:?}");
}

fn never(_: &FlowId, flow: &Flow) {
    panic!("not due: {flow:?}");
}

#[test]
fn a_record_an_interval_and_sums_are_totals() {
    let mut flows = Flows::new(Lives::default(), 10);
    let id = id(UDP, 40000);
    flows.add(&delta(id, [0, 3], 1), SECOND, SECOND, &nobody, never);
    assert_eq!(settle(&mut flows, 5 * SECOND), [], "not due before an interval has passed");
    flows.add(&delta(id, [2, 4], 0), 5 * SECOND, 5 * SECOND, &nobody, never);
    assert_eq!(settle(&mut flows, 6 * SECOND), [([2, 7], 1, Ended::Live)]);
    assert_eq!(settle(&mut flows, 60 * SECOND), [], "nothing new, no record");
    flows.add(&delta(id, [1, 0], 0), 61 * SECOND, 61 * SECOND, &nobody, never);
    assert_eq!(settle(&mut flows, 62 * SECOND), [([1, 0], 0, Ended::Live)]);
    assert_eq!(flows.tally().skbs, 10);
}

#[test]
fn a_flow_that_changes_hands_has_a_record_for_each_unit_that_says_what_its_counters_do() {
    let mut flows = Flows::new(Lives::default(), 10);
    let id = id(UDP, 40_000);
    let mut told = Vec::new();
    // Of two CPUs one may have counted for the unit of before until the end of its epoch.
    for (pu, packets, begun) in
        [(1, [0, 3], 1), (1, [2, 0], 0), (101, [1, 1], 0), (1, [0, 4], 0), (101, [5, 0], 0)]
    {
        let delta = FlowDelta { pu, ..delta(id, packets, begun) };
        flows.add(&delta, SECOND, SECOND, &nobody, |_, flow| told.push((flow.pu, flow.packets, flow.begun)));
    }
    flows.cut_off(&nobody, |_, flow| told.push((flow.pu, flow.packets, flow.begun)));
    assert_eq!(told, [(1, [2, 3], 1), (101, [1, 1], 0), (1, [0, 4], 0), (101, [5, 0], 0)]);
    for (pu, want) in [(1, [2, 7]), (101, [6, 1])] {
        assert_eq!(flows.credits().of(pu).boundary.map(|counters| counters.packets), want, "{pu}");
    }
}

#[test]
fn the_interface_is_that_of_the_last_packet_in_whatever_order_cpus_are_drained() {
    let mut flows = Flows::new(Lives::default(), 10);
    for (interface, last) in [(1, 5), (3, 20), (2, 10)] {
        let delta = FlowDelta { interface, ..delta(id(UDP, 40_000), [1, 0], 0) };
        flows.add(&delta, 0, last * SECOND, &nobody, never);
    }
    let mut told = Vec::new();
    flows.cut_off(&nobody, |_, flow| told.push((flow.interface, flow.last)));
    assert_eq!(told, [(3, 20 * SECOND)]);
}

#[test]
fn the_end_comes_at_once_and_once() {
    let mut flows = Flows::new(Lives::default(), 10);
    let id = id(TCP, 40000);
    flows.learn(&news(id, kind::START, SECOND), &nobody, never);
    flows.learn(&news(id, kind::END_FIN, 2 * SECOND), &nobody, never);
    flows.add(&syn(id, [SYN | ACK | FIN, SYN | ACK | FIN], 1), SECOND, 2 * SECOND, &nobody, never);
    assert_eq!(settle(&mut flows, 3 * SECOND), [([1, 1], 1, Ended::Fin)]);
    // The last acknowledgement: counted, and the connection is not begun again.
    flows.add(&syn(id, [0, ACK], 0), 3 * SECOND, 3 * SECOND, &nobody, never);
    assert_eq!(settle(&mut flows, 4 * SECOND), [([1, 1], 0, Ended::Fin)]);
    assert_eq!(settle(&mut flows, 5 * SECOND), []);
    let over = flows.settle(30 * SECOND, 30 * SECOND, &nobody, never);
    assert_eq!((over, flows.len()), (vec![id], 0));
}

#[test]
fn flags_tell_the_end_where_the_ring_lost_it() {
    let mut flows = Flows::new(Lives::default(), 10);
    flows.add(&syn(id(TCP, 1), [SYN | ACK | FIN, SYN | FIN], 1), SECOND, 2 * SECOND, &nobody, never);
    assert_eq!(settle(&mut flows, 3 * SECOND), [([1, 1], 1, Ended::Fin)]);
}

#[test]
fn flags_of_the_connection_before_do_not_end_the_one_that_began_after_it() {
    let mut flows = Flows::new(Lives::default(), 10);
    let id = id(TCP, 40000);
    flows.learn(&news(id, kind::START, SECOND), &nobody, never);
    flows.learn(&news(id, kind::END_FIN, 2 * SECOND), &nobody, never);
    let mut emitted = Vec::new();
    flows.learn(&news(id, kind::START, 3 * SECOND), &nobody, |_, flow| emitted.push(told(flow)));
    assert_eq!(emitted, [([0, 0], 0, Ended::Fin)]);
    // Both connections, counted in one slot.
    flows.add(&syn(id, [SYN | ACK | FIN, SYN | ACK | FIN], 2), SECOND, 3 * SECOND, &nobody, never);
    assert_eq!(settle(&mut flows, 9 * SECOND), [([1, 1], 2, Ended::Live)]);
}

#[test]
fn the_first_packet_is_known_to_the_nanosecond_where_it_was_reported() {
    let mut flows = Flows::new(Lives::default(), 10);
    flows.learn(&news(id(TCP, 1), kind::START, SECOND + 5), &nobody, never);
    flows.add(&syn(id(TCP, 1), [0, SYN], 1), SECOND, SECOND, &nobody, never);
    flows.add(&syn(id(TCP, 2), [0, SYN], 1), SECOND, SECOND, &nobody, never);
    flows.learn(&news(id(TCP, 2), kind::START, SECOND + 5), &nobody, never);
    let mut first = Vec::new();
    flows.cut_off(&nobody, |_, flow| first.push(flow.first));
    assert_eq!(first, [SECOND + 5; 2]);
}

#[test]
fn an_end_in_the_epoch_that_still_runs_waits_for_its_counts() {
    let mut flows = Flows::new(Lives::default(), 10);
    let id = id(TCP, 40000);
    flows.add(&syn(id, [SYN | ACK, SYN], 1), SECOND, SECOND, &nobody, never);
    flows.learn(&news(id, kind::END_FIN, 3 * SECOND), &nobody, never);
    let mut emitted = Vec::new();
    flows.settle(3 * SECOND, 2 * SECOND, &nobody, |_, flow| emitted.push(told(flow)));
    assert_eq!(emitted, [], "drained up to 2 s, ended at 3 s");
    flows.add(&syn(id, [FIN, FIN], 0), 3 * SECOND, 3 * SECOND, &nobody, never);
    assert_eq!(settle(&mut flows, 4 * SECOND), [([2, 2], 1, Ended::Fin)]);
}

#[test]
fn who_reset_it_is_said_as_source_or_destination() {
    for (kind, expected) in
        [(kind::END_RESET_LOCAL, ResetBy::Source), (kind::END_RESET_REMOTE, ResetBy::Destination)]
    {
        let mut flows = Flows::new(Lives::default(), 10);
        let id = id(TCP, 40000);
        flows.learn(&news(id, kind::START, SECOND), &nobody, never);
        flows.add(&syn(id, [SYN | ACK, SYN | ACK], 1), SECOND, SECOND, &nobody, never);
        flows.learn(&news(id, kind, 2 * SECOND), &nobody, never);
        let mut ends = Vec::new();
        flows.settle(3 * SECOND, 3 * SECOND, &nobody, |_, flow| ends.push((flow.ended, flow.reset_by)));
        assert_eq!(ends, [(Ended::Reset, expected)]);
    }
}

#[test]
fn a_reset_in_answer_to_the_opening_packet_is_a_refusal() {
    let mut flows = Flows::new(Lives::default(), 10);
    flows.add(&syn(id(TCP, 40000), [RST | ACK, SYN], 1), SECOND, SECOND, &nobody, never);
    assert_eq!(settle(&mut flows, 2 * SECOND), [([1, 1], 1, Ended::Refused)]);
}

#[test]
fn silence_ends_a_flow() {
    let mut flows = Flows::new(Lives::default(), 10);
    flows.add(&syn(id(TCP, 1), [0, SYN], 1), SECOND, SECOND, &nobody, never);
    flows.add(&syn(id(TCP, 2), [SYN | ACK, SYN], 1), SECOND, SECOND, &nobody, never);
    flows.add(&delta(id(UDP, 3), [0, 1], 1), SECOND, SECOND, &nobody, never);
    let mut emitted = settle(&mut flows, 7 * SECOND);
    assert_eq!(emitted.len(), 3);
    emitted = settle(&mut flows, 122 * SECOND);
    assert_eq!(emitted, [([0, 0], 0, Ended::Unanswered)], "the datagram's flow is just forgotten");
    assert_eq!(flows.len(), 1);
    assert_eq!(settle(&mut flows, 3602 * SECOND), [([0, 0], 0, Ended::Timeout)]);
}

#[test]
fn the_same_ends_again_are_another_connection() {
    let mut flows = Flows::new(Lives::default(), 10);
    let id = id(TCP, 40000);
    flows.learn(&news(id, kind::START, SECOND), &nobody, never);
    flows.add(&syn(id, [SYN | ACK | FIN, SYN | FIN], 1), SECOND, 2 * SECOND, &nobody, never);
    flows.learn(&news(id, kind::END_FIN, 2 * SECOND), &nobody, never);
    let mut emitted = Vec::new();
    flows.learn(&news(id, kind::START, 3 * SECOND), &nobody, |_, flow| emitted.push(told(flow)));
    assert_eq!(emitted, [([1, 1], 1, Ended::Fin)], "what was left of the first is told");
    flows.add(&syn(id, [SYN | ACK, SYN], 1), 3 * SECOND, 3 * SECOND, &nobody, never);
    let mut first = 0;
    flows.cut_off(&nobody, |_, flow| {
        first = flow.first;
        emitted.push(told(flow));
    });
    assert_eq!(emitted.last(), Some(&([1, 1], 1, Ended::Live)));
    assert_eq!(first, 3 * SECOND);
}

#[test]
fn the_initiator_never_turns_round() {
    let mut flows = Flows::new(Lives::default(), 10);
    let id = id(UDP, 40000);
    flows.add(&delta(id, [0, 1], 1), SECOND, SECOND, &nobody, never);
    // Attributed anew, and met from the other side this time.
    flows.add(&FlowDelta { how: 0, ..delta(id, [1, 0], 0) }, 2 * SECOND, 2 * SECOND, &nobody, never);
    let mut seen = Vec::new();
    flows.cut_off(&nobody, |_, flow| seen.push(flow.initiator));
    assert_eq!(seen.len(), 1);
    assert!(seen[0].local && seen[0].by == InitiatorBy::FirstPacket);
}

#[test]
fn a_full_table_loses_nothing() {
    let mut flows = Flows::new(Lives::default(), 1);
    flows.add(&delta(id(UDP, 1), [0, 1], 1), SECOND, SECOND, &nobody, never);
    let mut emitted = Vec::new();
    flows.add(&delta(id(UDP, 2), [0, 5], 1), SECOND, SECOND, &nobody, |_, flow| emitted.push(told(flow)));
    assert_eq!(emitted, [([0, 5], 1, Ended::Live)]);
    assert_eq!((flows.len(), flows.tally().stateless), (1, 1));
}

#[test]
fn cut_off_tells_what_is_left_and_nothing_twice() {
    let mut flows = Flows::new(Lives::default(), 10);
    flows.add(&delta(id(UDP, 1), [0, 1], 1), SECOND, SECOND, &nobody, never);
    let mut emitted = Vec::new();
    flows.cut_off(&nobody, |_, flow| emitted.push(told(flow)));
    flows.cut_off(&nobody, |_, flow| emitted.push(told(flow)));
    assert_eq!(emitted, [([0, 1], 1, Ended::Live)]);
}
