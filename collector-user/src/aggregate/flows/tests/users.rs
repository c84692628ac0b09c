//! Who owns the socket at the local end, and who is asked for.

use collector_ebpf::abi::report::kind;

use super::{UDP, delta, id, news, nobody};
use crate::{
    aggregate::{
        flows::Flows,
        lives::{Lives, SECOND},
    },
    drain::{decode::FlowNews, flow::FlowDelta},
};

/// The user in each record.
fn owners(flows: &mut Flows, now: u64) -> Vec<Option<u32>> {
    let mut owners = Vec::new();
    flows.settle(now, now, &nobody, |_, flow| owners.push(flow.owner.uid()));
    owners
}

#[test]
fn a_user_that_no_report_has_told_is_asked_for_once_its_end_has_sent() {
    let mut flows = Flows::new(Lives::default(), 10).asking_for_users(true);
    let ids = [1, 2, 3].map(|port| id(UDP, port));
    let [told, asked, silent] = ids;
    flows.learn(&FlowNews { user: Some(7), ..news(told, kind::START, 1) }, &nobody, |_, _| {});
    flows.add(&delta(told, [1, 1], 1), 1, 1, &nobody, |_, _| {});
    flows.add(&delta(asked, [1, 0], 1), 1, 1, &nobody, |_, _| {});
    flows.add(&delta(silent, [1, 0], 1), 1, 1, &nobody, |_, _| {});
    flows.add(&FlowDelta { pu: 2, ..delta(id(UDP, 4), [1, 1], 1) }, 1, 1, &nobody, |_, _| {});
    assert_eq!(flows.take_to_ask(), [], "the unit `forwarded` has no sockets");
    for _ in 0..2 {
        flows.add(&delta(asked, [0, 1], 0), 1, 2, &nobody, |_, _| {});
    }
    assert_eq!(flows.take_to_ask(), [asked]);
    flows.set_user(&asked, 0);
    flows.add(&delta(asked, [0, 1], 0), 1, 2, &nobody, |_, _| {});
    assert_eq!(flows.take_to_ask(), []);
    let mut seen = owners(&mut flows, 10 * SECOND);
    seen.sort_unstable();
    assert_eq!(seen, [None, None, Some(0), Some(7)]);
    // What the end tells is not too late.
    flows.add(&delta(silent, [1, 0], 0), 1, 11 * SECOND, &nobody, |_, _| {});
    flows.learn(&FlowNews { user: Some(9), ..news(silent, kind::END_FIN, 11 * SECOND) }, &nobody, |_, _| {});
    assert_eq!(owners(&mut flows, 20 * SECOND), [Some(9)]);
}

#[test]
fn more_users_than_are_asked_for_at_once_are_counted() {
    let mut flows = Flows::new(Lives::default(), usize::MAX).asking_for_users(true);
    for port in 0..5000 {
        flows.add(&delta(id(UDP, port), [0, 1], 1), 1, 1, &nobody, |_, _| {});
    }
    let others = FlowDelta { pu: 9, ..delta(id(UDP, 6000), [0, 1], 1) };
    flows.add(&others, 1, 1, &nobody, |_, _| {});
    let asked = flows.take_to_ask();
    assert_eq!(
        (asked.len(), asked.last()),
        (4096 * 4 / 5 + 2, Some(&others.id)),
        "a flood leaves room to others"
    );
    assert_eq!((flows.unasked(), flows.unasked_of(9)), (5001 - asked.len() as u64, 0));
    assert_eq!(flows.unasked_of(delta(id(UDP, 0), [0, 1], 1).pu), flows.unasked());
}
