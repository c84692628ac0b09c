//! Who receives events: the trait [`EventCollector`], and the collectors that come with it.
//!
//! [`default::DefaultCollector`] writes to the log, [`fanout::Fanout`] hands on to any number of others,
//! [`filter::Filter`] to one and only some kinds. [`stash::Stash`] merges flows before it hands them on to another,
//! [`memory::Recorder`] keeps events for tests, and with the feature `mock` there is `mock::MockEventCollector`, which
//! fails a test that calls otherwise than it was told to expect. What writes to the world stands behind a queue of its own
//! ([`sink`](mod@crate::sink)). Packets as they were seen, not reports of them, go to a [`capture::PacketCapture`].

pub mod capture;
pub mod default;
pub mod fanout;
pub mod filter;
pub mod memory;
#[cfg(feature = "mock")]
pub mod mock;
pub(crate) mod shares;
pub mod stash;

use std::sync::Arc;

use crate::event::{
    ContainerRecord, CounterReport, DnsRequestReport, Event, FlowRecord, PacketReport, PingReport, UserRecord,
};

/// Receives everything that the collector sees, one call an event.
///
/// # Who calls
///
/// The daemon's task, one call at a time and in the order of emission. A collector that is also called by others must
/// stand that: the methods take `&self`, and the trait asks for `Send + Sync`.
///
/// # What a method may do
///
/// It must not block: while it runs, nothing is drained from the kernel. Whatever waits (a file, a socket, a lock that
/// others hold for long) belongs behind a bounded queue, such as [`sink::queue`](mod@crate::sink::queue). Records are
/// lent for the call; who needs them longer clones them, which is cheap. There is nothing to return: a collector that
/// loses an event counts it. One that panics under a [`Fanout`](fanout::Fanout) loses that event only.
///
/// # Shutdown
///
/// The daemon stops draining, makes the last flow and counter records, hands them over as any others, and drops the
/// collector. After the last call nothing tells it that it was the last, but its drop.
pub trait EventCollector: Send + Sync {
    /// A flow ended, was cut off, or went on for a report interval.
    fn collect_flow_event(&self, record: &FlowRecord);

    /// A processing unit came, changed or went.
    fn collect_container_event(&self, record: &ContainerRecord);

    /// A user was seen. The collector fills in the record's id before it returns
    /// ([`stats_user_hash`](crate::event::hash::stats_user_hash)); the caller reads it at once.
    fn collect_user_event(&self, record: &mut UserRecord);

    /// Lines of a packet trace came.
    fn collect_trace_event(&self, records: &[String]);

    /// A packet was dropped, or traced.
    fn collect_packet_event(&self, report: &PacketReport);

    /// The counters of a processing unit, each counter interval.
    fn collect_counter_event(&self, report: &CounterReport);

    /// A processing unit looked a name up.
    fn collect_dns_requests(&self, request: &DnsRequestReport);

    /// A ping was sent or answered.
    fn collect_ping_event(&self, report: &PingReport);
}

/// Calls the method that `event` is for, with its record. The status is for none.
pub fn hand_over(event: &Event, collector: &(impl EventCollector + ?Sized)) {
    match event {
        Event::Flow(record) => collector.collect_flow_event(record),
        Event::Container(record) => collector.collect_container_event(record),
        // The collector fills in the id of a copy: the event has its own.
        Event::User(record) => collector.collect_user_event(&mut record.clone()),
        Event::Trace(record) => collector.collect_trace_event(&record.records),
        Event::Packet(report) => collector.collect_packet_event(report),
        Event::Counter(report) => collector.collect_counter_event(report),
        Event::Dns(request) => collector.collect_dns_requests(request),
        Event::Ping(report) => collector.collect_ping_event(report),
        Event::Status(_) => {}
    }
}

/// Hands every method on to what a pointer points to.
macro_rules! through_pointer {
    ($($pointer:ty),+ $(,)?) => {$(
        impl<C: EventCollector + ?Sized> EventCollector for $pointer {
            fn collect_flow_event(&self, record: &FlowRecord) {
                (**self).collect_flow_event(record);
            }

            fn collect_container_event(&self, record: &ContainerRecord) {
                (**self).collect_container_event(record);
            }

            fn collect_user_event(&self, record: &mut UserRecord) {
                (**self).collect_user_event(record);
            }

            fn collect_trace_event(&self, records: &[String]) {
                (**self).collect_trace_event(records);
            }

            fn collect_packet_event(&self, report: &PacketReport) {
                (**self).collect_packet_event(report);
            }

            fn collect_counter_event(&self, report: &CounterReport) {
                (**self).collect_counter_event(report);
            }

            fn collect_dns_requests(&self, request: &DnsRequestReport) {
                (**self).collect_dns_requests(request);
            }

            fn collect_ping_event(&self, report: &PingReport) {
                (**self).collect_ping_event(report);
            }
        }
    )+};
}

through_pointer!(&C, Box<C>, Arc<C>);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{EventCollector, hand_over, memory::Recorder};
    use crate::event::{
        ContainerRecord, CounterReport, DnsRequestReport, Event, FlowRecord, PacketReport, PingReport,
        UserRecord,
    };

    /// Calls every method once, in the trait's order.
    pub(super) fn call_all(collector: &dyn EventCollector) {
        collector.collect_flow_event(&FlowRecord::default());
        collector.collect_container_event(&ContainerRecord::default());
        collector.collect_user_event(&mut UserRecord::default());
        collector.collect_trace_event(&["line".to_owned()]);
        collector.collect_packet_event(&PacketReport::default());
        collector.collect_counter_event(&CounterReport::default());
        collector.collect_dns_requests(&DnsRequestReport::default());
        collector.collect_ping_event(&PingReport::default());
    }

    pub(super) const KINDS: [&str; 8] =
        ["flow", "container", "user", "trace", "packet", "counter", "dns", "ping"];

    #[test]
    fn pointers_hand_on_each_method() {
        let recorder = Arc::new(Recorder::new());
        let shared: Arc<dyn EventCollector> = Arc::clone(&recorder) as _;
        let boxed: Box<dyn EventCollector> = Box::new(Arc::clone(&recorder));
        call_all(&&*recorder);
        call_all(&shared);
        call_all(&boxed);
        let kinds: Vec<_> = recorder.events().iter().map(Event::kind).collect();
        assert_eq!(kinds, KINDS.repeat(3));
    }

    #[test]
    fn an_event_finds_its_method() {
        let (first, second) = (Recorder::new(), Recorder::new());
        call_all(&first);
        for event in first.events() {
            hand_over(&event, &second);
        }
        hand_over(&Event::Status(Box::default()), &second);
        assert_eq!(first.events(), second.events());
    }
}
