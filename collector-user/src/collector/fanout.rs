//! One stream of events to many collectors.

use std::{
    collections::BTreeMap,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::EventCollector;
use crate::event::{
    ContainerRecord, CounterReport, DnsRequestReport, FlowRecord, PacketReport, PingReport, UserRecord,
};

/// Hands each event to any number of collectors, in the order in which they were added.
///
/// One that panics loses that event only, which is counted by its name; the others get it all the same. One that blocks
/// would block all, so each of them stands behind a queue of its own.
#[derive(Default)]
pub struct Fanout {
    branches: Vec<Branch>,
}

struct Branch {
    name: String,
    collector: Box<dyn EventCollector>,
    panics: Arc<AtomicU64>,
}

/// How many events each collector of a [`Fanout`] lost by a panic, as it stands whenever it is asked.
#[derive(Clone, Debug, Default)]
pub struct Panics {
    branches: Vec<(String, Arc<AtomicU64>)>,
}

impl Panics {
    /// By the collectors' names; those that never panicked are there with 0.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (name, panics) in &self.branches {
            *counts.entry(name.clone()).or_default() += panics.load(Relaxed);
        }
        counts
    }
}

impl Fanout {
    /// To nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a collector. Two of one name share a count.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, collector: impl EventCollector + 'static) -> Self {
        self.branches.push(Branch {
            name: name.into(),
            collector: Box::new(collector),
            panics: Arc::default(),
        });
        self
    }

    /// How many events those that were added lost by a panic. It may be asked while events come, and when the fan-out has gone.
    pub fn panics(&self) -> Panics {
        let branches = self.branches.iter().map(|branch| (branch.name.clone(), branch.panics.clone()));
        Panics { branches: branches.collect() }
    }

    fn each(&self, mut call: impl FnMut(&dyn EventCollector)) {
        for branch in &self.branches {
            // What a collector breaks in itself by a panic is its own; what is shared is lent immutably.
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| call(&*branch.collector)));
            if outcome.is_err() {
                branch.panics.fetch_add(1, Relaxed);
            }
        }
    }
}

impl EventCollector for Fanout {
    fn collect_flow_event(&self, record: &FlowRecord) {
        self.each(|collector| collector.collect_flow_event(record));
    }

    fn collect_container_event(&self, record: &ContainerRecord) {
        self.each(|collector| collector.collect_container_event(record));
    }

    fn collect_user_event(&self, record: &mut UserRecord) {
        self.each(|collector| {
            // On a copy: one that panics half-way must not leave its half to the next.
            let mut copy = record.clone();
            collector.collect_user_event(&mut copy);
            *record = copy;
        });
    }

    fn collect_trace_event(&self, records: &[String]) {
        self.each(|collector| collector.collect_trace_event(records));
    }

    fn collect_packet_event(&self, report: &PacketReport) {
        self.each(|collector| collector.collect_packet_event(report));
    }

    fn collect_counter_event(&self, report: &CounterReport) {
        self.each(|collector| collector.collect_counter_event(report));
    }

    fn collect_dns_requests(&self, request: &DnsRequestReport) {
        self.each(|collector| collector.collect_dns_requests(request));
    }

    fn collect_ping_event(&self, report: &PingReport) {
        self.each(|collector| collector.collect_ping_event(report));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Fanout;
    use crate::{
        collector::{
            EventCollector,
            memory::Recorder,
            tests::{KINDS, call_all},
        },
        event::{
            ContainerRecord, CounterReport, DnsRequestReport, Event, FlowRecord, PacketReport, PingReport,
            UserRecord,
        },
    };

    /// Panics at every call. `resume_unwind` keeps the panic hook, and so the test's output, quiet.
    struct Panicking;

    fn panic_quietly() -> ! {
        std::panic::resume_unwind(Box::new("on purpose"))
    }

    impl EventCollector for Panicking {
        fn collect_flow_event(&self, _: &FlowRecord) {
            panic_quietly()
        }

        fn collect_container_event(&self, _: &ContainerRecord) {
            panic_quietly()
        }

        fn collect_user_event(&self, record: &mut UserRecord) {
            record.id = "half".into();
            panic_quietly()
        }

        fn collect_trace_event(&self, _: &[String]) {
            panic_quietly()
        }

        fn collect_packet_event(&self, _: &PacketReport) {
            panic_quietly()
        }

        fn collect_counter_event(&self, _: &CounterReport) {
            panic_quietly()
        }

        fn collect_dns_requests(&self, _: &DnsRequestReport) {
            panic_quietly()
        }

        fn collect_ping_event(&self, _: &PingReport) {
            panic_quietly()
        }
    }

    #[test]
    fn a_panic_is_counted_and_the_others_get_the_event() {
        let (before, after) = (Arc::new(Recorder::new()), Arc::new(Recorder::new()));
        let fanout = Fanout::new()
            .with("before", Arc::clone(&before))
            .with("bad", Panicking)
            .with("after", Arc::clone(&after));
        call_all(&fanout);
        for recorder in [&before, &after] {
            assert_eq!(recorder.events().iter().map(Event::kind).collect::<Vec<_>>(), KINDS);
        }
        let want = [("after", 0), ("bad", 8), ("before", 0)].map(|(name, count)| (name.to_owned(), count));
        assert_eq!(fanout.panics().counts(), want.into());
    }

    #[test]
    fn the_id_survives_whoever_panics() {
        let fanout = Fanout::new().with("bad", Panicking).with("good", Recorder::new());
        let mut record = UserRecord::default();
        fanout.collect_user_event(&mut record);
        assert_eq!(record.id.len(), 64);
        let fanout = Fanout::new().with("bad", Panicking);
        let mut record = UserRecord::default();
        fanout.collect_user_event(&mut record);
        assert_eq!(&*record.id, "");
    }

    #[test]
    fn nobody_is_no_trouble() {
        call_all(&Fanout::new());
    }
}
