//! A mock of the trait, for tests of who uses this library (feature `mock`).

#![expect(clippy::struct_field_names, reason = "the mock has a field a method, named as the method is")]

use mockall::mock;

use crate::{
    collector::EventCollector as Trait,
    event::{
        ContainerRecord, CounterReport, DnsRequestReport, FlowRecord, PacketReport, PingReport, UserRecord,
    },
};

mock! {
    /// A collector that is told which calls to expect, each by its method `expect_...`, and panics at any other. When it
    /// is dropped, it panics if a call it was to get has not come.
    #[derive(Debug)]
    pub EventCollector {}

    impl Trait for EventCollector {
        fn collect_flow_event(&self, record: &FlowRecord);
        fn collect_container_event(&self, record: &ContainerRecord);
        fn collect_user_event(&self, record: &mut UserRecord);
        fn collect_trace_event(&self, records: &[String]);
        fn collect_packet_event(&self, report: &PacketReport);
        fn collect_counter_event(&self, report: &CounterReport);
        fn collect_dns_requests(&self, request: &DnsRequestReport);
        fn collect_ping_event(&self, report: &PingReport);
    }
}
