//! Events kept in memory.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::EventCollector;
use crate::event::{
    ContainerRecord, CounterReport, DnsRequestReport, Event, FlowRecord, PacketReport, PingReport,
    TraceRecord, UserRecord, hash,
};

/// Keeps every event, without bound: for tests and short runs.
#[derive(Debug, Default)]
pub struct Recorder {
    events: Mutex<Vec<Event>>,
    grown: Condvar,
}

impl Recorder {
    /// Nothing recorded yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of what was recorded so far, in order.
    pub fn events(&self) -> Vec<Event> {
        self.lock().clone()
    }

    /// Takes out what was recorded so far.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock())
    }

    /// Waits until what was recorded satisfies `predicate`, which is asked at once and after each event, and says
    /// whether it did before `timeout` had passed.
    pub fn wait_until(&self, timeout: Duration, mut predicate: impl FnMut(&[Event]) -> bool) -> bool {
        let (_events, outcome) = self
            .grown
            .wait_timeout_while(self.lock(), timeout, |events| !predicate(events))
            .unwrap_or_else(PoisonError::into_inner);
        !outcome.timed_out()
    }

    fn push(&self, event: Event) {
        self.lock().push(event);
        self.grown.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        // A predicate that panicked leaves the events as they were.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventCollector for Recorder {
    fn collect_flow_event(&self, record: &FlowRecord) {
        self.push(Event::Flow(record.clone()));
    }

    fn collect_container_event(&self, record: &ContainerRecord) {
        self.push(Event::Container(record.clone()));
    }

    fn collect_user_event(&self, record: &mut UserRecord) {
        hash::stats_user_hash(record);
        self.push(Event::User(record.clone()));
    }

    fn collect_trace_event(&self, records: &[String]) {
        self.push(Event::Trace(TraceRecord { records: records.to_vec() }));
    }

    fn collect_packet_event(&self, report: &PacketReport) {
        self.push(Event::Packet(report.clone()));
    }

    fn collect_counter_event(&self, report: &CounterReport) {
        self.push(Event::Counter(report.clone()));
    }

    fn collect_dns_requests(&self, request: &DnsRequestReport) {
        self.push(Event::Dns(request.clone()));
    }

    fn collect_ping_event(&self, report: &PingReport) {
        self.push(Event::Ping(report.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::Recorder;
    use crate::{
        collector::{EventCollector as _, tests::call_all},
        event::{Event, UserRecord},
    };

    #[test]
    fn a_waiter_is_woken_by_the_event_it_waits_for() {
        let recorder = Recorder::new();
        thread::scope(|scope| {
            scope.spawn(|| call_all(&recorder));
            let seen = |events: &[Event]| events.iter().any(|event| event.kind() == "ping");
            assert!(recorder.wait_until(Duration::from_secs(20), seen));
        });
        assert_eq!(recorder.take().len(), 8);
        assert!(recorder.events().is_empty());
    }

    #[test]
    fn a_wait_ends() {
        assert!(!Recorder::new().wait_until(Duration::ZERO, |events| !events.is_empty()));
        assert!(Recorder::new().wait_until(Duration::ZERO, <[Event]>::is_empty));
    }

    #[test]
    fn the_id_is_filled_in() {
        let mut record = UserRecord { claims: vec!["b=1".into(), "a=2".into()], ..UserRecord::default() };
        Recorder::new().collect_user_event(&mut record);
        assert_eq!(record.id.len(), 64);
        assert_eq!(&*record.claims[0], "a=2");
    }
}
