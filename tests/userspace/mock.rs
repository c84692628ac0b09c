//! The mock, as a test of who uses the library has it.

use collector_user::{
    collector::{EventCollector, fanout::Fanout, mock::MockEventCollector},
    event::{CounterReport, FlowRecord, UserRecord},
};

/// What such a test is about: something that is handed a collector.
fn under_test(collector: &dyn EventCollector) -> UserRecord {
    collector.collect_flow_event(&FlowRecord { count: 3, ..FlowRecord::default() });
    let mut user = UserRecord { claims: vec!["name=alice".into()], ..UserRecord::default() };
    collector.collect_user_event(&mut user);
    user
}

#[test]
fn what_is_expected_is_checked_and_answered() {
    let mut mock = MockEventCollector::new();
    mock.expect_collect_flow_event().withf(|record| record.count == 3).times(1).return_const(());
    mock.expect_collect_user_event().times(1).returning(|record| record.id = "u1".into());
    let user = under_test(&Fanout::new().with("mock", mock));
    assert_eq!(&*user.id, "u1");
}

#[test]
#[should_panic(expected = "collect_counter_event")]
fn what_is_not_expected_fails() {
    MockEventCollector::new().collect_counter_event(&CounterReport::default());
}

#[test]
#[should_panic(expected = "collect_ping_event")]
fn what_does_not_come_fails() {
    let mut mock = MockEventCollector::new();
    mock.expect_collect_ping_event().times(1).return_const(());
    drop(mock);
}
