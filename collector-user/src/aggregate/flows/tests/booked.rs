//! Whose counters get what the flows have counted, and when.

use collector_ebpf::abi::{flow::how, report::kind};

use super::{TCP, UDP, delta, id, never, news, nobody};
use crate::{
    aggregate::{
        booking::{Credit, HostEnd},
        flows::Flows,
        lives::{Lives, SECOND},
    },
    drain::flow::{FlowDelta, FlowId},
    event::Ended,
};

/// A packet for this host, about which nothing is known yet but that `pu` may be meant.
fn guess(id: FlowId, packets: u64, pu: u16) -> FlowDelta {
    FlowDelta { pu, how: how::PROVISIONAL, ..delta(id, [packets, 0], 1) }
}

fn received(flows: &Flows, pu: u16) -> u64 {
    flows.credits().of(pu).boundary[0].packets
}

#[test]
fn what_is_undecided_is_booked_when_the_answer_decides() {
    let mut flows = Flows::new(Lives::default(), 100);
    let id = id(UDP, 8080);
    flows.add(&guess(id, 3, 1), SECOND, SECOND, &nobody, never);
    flows.settle(SECOND, SECOND, &nobody, never);
    assert_eq!(received(&flows, 1), 0, "an answer may come yet");
    // The answer came in by another interface: it is forwarded. A CPU that has not heard of it goes on guessing.
    flows.add(&FlowDelta { pu: 2, how: 0, ..delta(id, [1, 4], 0) }, SECOND, SECOND, &nobody, never);
    flows.add(&guess(id, 5, 1), SECOND, SECOND, &nobody, never);
    flows.settle(SECOND, SECOND, &nobody, never);
    assert_eq!((received(&flows, 1), received(&flows, 2)), (0, 9), "each packet once, for whom it was");
    let mut units = Vec::new();
    flows.cut_off(&nobody, |_, flow| units.push((flow.pu, flow.packets)));
    assert_eq!(units, [(2, [9, 4])]);
}

#[test]
fn what_nobody_answers_is_booked_as_it_was_guessed() {
    let mut flows = Flows::new(Lives::default(), 100);
    let id = id(UDP, 8080);
    flows.add(&guess(id, 3, 1), SECOND, SECOND, &nobody, never);
    let mut told = Vec::new();
    flows.settle(4 * SECOND, 4 * SECOND, &nobody, |_, flow| told.push((flow.pu, flow.packets[0])));
    assert_eq!((received(&flows, 1), told), (3, vec![(1, 3)]), "and a record says so");
    // What is guessed later waits for its record; what is cut off does not wait at all.
    flows.add(&guess(id, 2, 1), 5 * SECOND, 5 * SECOND, &nobody, never);
    flows.settle(5 * SECOND, 5 * SECOND, &nobody, never);
    assert_eq!(received(&flows, 1), 3);
    flows.cut_off(&nobody, |_, _| {});
    assert_eq!(received(&flows, 1), 5);
    assert_eq!(received(&flows, 2), 0);
}

#[test]
fn what_is_decided_late_is_its_owners_from_there_on_in_records_and_counters() {
    let mut flows = Flows::new(Lives { report: 60 * SECOND, ..Lives::default() }, 100);
    let id = id(UDP, 8080);
    let mut told = Vec::new();
    // Nobody answers for long, then somebody does: what came since the guess's record is that one's.
    for (now, delta) in [
        (1, Some(guess(id, 7, 4))),
        (4, None),
        (5, Some(guess(id, 2, 4))),
        (6, Some(FlowDelta { pu: 1, how: 0, ..delta(id, [1, 2], 0) })),
    ] {
        let now = now * SECOND;
        if let Some(delta) = delta {
            flows.add(&delta, now, now, &nobody, |_, flow| told.push((flow.pu, flow.packets)));
        }
        flows.settle(now, now, &nobody, |_, flow| told.push((flow.pu, flow.packets)));
    }
    flows.cut_off(&nobody, |_, flow| told.push((flow.pu, flow.packets)));
    assert_eq!(told, [(4, [7, 0]), (1, [3, 2])]);
    assert_eq!((received(&flows, 4), received(&flows, 1)), (7, 3));
}

#[test]
fn an_end_is_told_once_by_whoever_has_the_flow_then() {
    let mut flows = Flows::new(Lives::default(), 10);
    let id = id(TCP, 40_000);
    flows.learn(&news(id, kind::START, SECOND), &nobody, never);
    flows.learn(&news(id, kind::END_FIN, 2 * SECOND), &nobody, never);
    let mut told = Vec::new();
    for pu in [1, 101] {
        let delta = FlowDelta { pu, ..delta(id, [1, 1], 0) };
        flows.add(&delta, SECOND, SECOND, &nobody, |_, flow| told.push((flow.pu, flow.ended)));
    }
    flows.settle(3 * SECOND, 3 * SECOND, &nobody, |_, flow| told.push((flow.pu, flow.ended)));
    flows.cut_off(&nobody, never);
    assert_eq!(told, [(1, Ended::Live), (101, Ended::Fin)]);
}

#[test]
fn a_record_and_the_counters_name_the_same_unit() {
    let mut flows = Flows::new(Lives { report: 1, ..Lives::default() }, 1);
    flows.add(&guess(id(UDP, 1), 3, 1), SECOND, SECOND, &nobody, never);
    // No room for a second one: its record cannot wait, and so its counts cannot.
    let mut told = 0;
    flows.add(&guess(id(UDP, 2), 2, 7), SECOND, SECOND, &nobody, |_, flow| told = flow.packets[0]);
    assert_eq!((told, received(&flows, 7)), (2, 2));
    flows.settle(SECOND + 1, SECOND, &nobody, |_, flow| told = flow.packets[0]);
    assert_eq!((told, received(&flows, 1)), (3, 3), "told before the patience is over, and booked with it");
}

#[test]
fn what_left_the_host_knows_its_end_in_whatever_order_cpus_are_drained() {
    let container = FlowId { boundary: 4097, ..id(UDP, 40_000) };
    let host = |_: &FlowId, _: u16| HostEnd { pu: 1, is_remote: true };
    for truth in [0, how::HOST_END] {
        // One CPU has seen what came in for a socket, or for none; another one what left.
        let guess = FlowDelta { pu: 101, how: truth ^ how::HOST_END, ..delta(container, [0, 3], 0) };
        let knows = FlowDelta { pu: 101, how: truth, ..delta(container, [3, 0], 0) };
        for order in [[&guess, &knows], [&knows, &guess]] {
            let mut flows = Flows::new(Lives::default(), 10);
            for delta in order {
                flows.add(delta, 0, 0, &host, never);
            }
            flows.cut_off(&host, |_, flow| assert_eq!(flow.how, truth));
            let given = flows.credits().of(1).local.map(|amounts| amounts.packets);
            assert_eq!(given, if truth == 0 { [0, 0] } else { [3, 3] });
        }
    }
}

#[test]
fn the_hosts_end_of_a_containers_flow_is_counted_for_the_host() {
    let mut flows = Flows::new(Lives::default(), 100);
    let container = FlowId { boundary: 4097, ..id(TCP, 40000) };
    let host = |_: &FlowId, _: u16| HostEnd { pu: 1, is_remote: true };
    flows.add(&FlowDelta { pu: 101, ..delta(container, [0, 2], 1) }, SECOND, SECOND, &nobody, never);
    flows.settle(SECOND, SECOND, &nobody, never);
    let answered = FlowDelta { pu: 101, how: how::HOST_END, ..delta(container, [3, 0], 0) };
    flows.add(&answered, SECOND, SECOND, &host, never);
    flows.settle(4 * SECOND, 4 * SECOND, &host, never);
    let [received, sent] = flows.credits().of(1).local;
    assert_eq!((received.packets, sent.packets), (2, 3));
    let Credit { boundary: [received, sent], local } = flows.credits().of(101);
    assert_eq!((received.packets, sent.packets, local), (3, 2, Credit::default().local));
}

#[test]
fn what_the_programs_know_of_the_hosts_end_is_counted_for_that() {
    let container = FlowId { boundary: 4097, ..id(UDP, 40000) };
    let known = |_: &FlowId, known: u16| HostEnd { pu: known, is_remote: true };
    let of = |host_pu: u16, received: u64| FlowDelta {
        pu: 101,
        how: how::HOST_END,
        host_pu,
        ..delta(container, [received, 0], 0)
    };
    let mut flows = Flows::new(Lives::default(), 100);
    // The socket of one service, then that of another, then what a CPU had counted before.
    for delta in [of(102, 3), of(103, 5), of(102, 1)] {
        flows.add(&delta, SECOND, SECOND, &known, never);
    }
    flows.cut_off(&known, |_, flow| assert_eq!(flow.packets, [9, 0], "one flow"));
    // What the container received, each of them has sent.
    let sent = |pu| flows.credits().of(pu).local[1].packets;
    assert_eq!([sent(102), sent(103), sent(1)], [4, 5, 0]);
}
