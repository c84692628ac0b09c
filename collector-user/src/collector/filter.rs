//! Some kinds of event only.

use std::fmt;

use super::EventCollector;
use crate::event::{
    ContainerRecord, CounterReport, DnsRequestReport, FlowRecord, PacketReport, PingReport, UserRecord, hash,
};

/// A kind of event, one for each method of [`EventCollector`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the event of that name")]
pub enum Kind {
    Flow,
    Container,
    User,
    Trace,
    Packet,
    Counter,
    Dns,
    Ping,
}

impl Kind {
    /// All of them, in the order of the trait's methods.
    pub const ALL: [Self; 8] = [
        Self::Flow,
        Self::Container,
        Self::User,
        Self::Trace,
        Self::Packet,
        Self::Counter,
        Self::Dns,
        Self::Ping,
    ];

    /// The name, as in JSON's `type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Container => "container",
            Self::User => "user",
            Self::Trace => "trace",
            Self::Packet => "packet",
            Self::Counter => "counter",
            Self::Dns => "dns",
            Self::Ping => "ping",
        }
    }

    /// The kind of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of kinds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kinds(u8);

impl Kinds {
    /// Every kind.
    pub const ALL: Self = Self(u8::MAX);

    /// Whether the set has this kind.
    pub const fn has(self, kind: Kind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Those in the set, in the order of [`Kind::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }
}

impl FromIterator<Kind> for Kinds {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |bits, kind| bits | kind.bit()))
    }
}

impl fmt::Debug for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Kind::name)).finish()
    }
}

/// Hands on events of some kinds, and drops the others: they are no losses, for nobody asked for them.
///
/// The id of a user is filled in all the same, as the trait demands.
#[derive(Clone, Debug)]
pub struct Filter<C> {
    kinds: Kinds,
    collector: C,
}

impl<C: EventCollector> Filter<C> {
    /// Only `kinds` reach `collector`.
    pub const fn new(kinds: Kinds, collector: C) -> Self {
        Self { kinds, collector }
    }

    fn if_wanted(&self, kind: Kind, call: impl FnOnce(&C)) {
        if self.kinds.has(kind) {
            call(&self.collector);
        }
    }
}

impl<C: EventCollector> EventCollector for Filter<C> {
    fn collect_flow_event(&self, record: &FlowRecord) {
        self.if_wanted(Kind::Flow, |collector| collector.collect_flow_event(record));
    }

    fn collect_container_event(&self, record: &ContainerRecord) {
        self.if_wanted(Kind::Container, |collector| collector.collect_container_event(record));
    }

    fn collect_user_event(&self, record: &mut UserRecord) {
        if self.kinds.has(Kind::User) {
            self.collector.collect_user_event(record);
        } else {
            hash::stats_user_hash(record);
        }
    }

    fn collect_trace_event(&self, records: &[String]) {
        self.if_wanted(Kind::Trace, |collector| collector.collect_trace_event(records));
    }

    fn collect_packet_event(&self, report: &PacketReport) {
        self.if_wanted(Kind::Packet, |collector| collector.collect_packet_event(report));
    }

    fn collect_counter_event(&self, report: &CounterReport) {
        self.if_wanted(Kind::Counter, |collector| collector.collect_counter_event(report));
    }

    fn collect_dns_requests(&self, request: &DnsRequestReport) {
        self.if_wanted(Kind::Dns, |collector| collector.collect_dns_requests(request));
    }

    fn collect_ping_event(&self, report: &PingReport) {
        self.if_wanted(Kind::Ping, |collector| collector.collect_ping_event(report));
    }
}

#[cfg(test)]
mod tests {
    use super::{Filter, Kind, Kinds};
    use crate::{
        collector::{
            EventCollector as _,
            memory::Recorder,
            tests::{KINDS, call_all},
        },
        event::{Event, UserRecord},
    };

    fn kinds_of(recorder: &Recorder) -> Vec<&'static str> {
        recorder.events().iter().map(Event::kind).collect()
    }

    #[test]
    fn each_kind_alone_and_all_together() {
        assert_eq!(Kind::ALL.map(Kind::name), KINDS);
        for kind in Kind::ALL {
            let recorder = Recorder::new();
            call_all(&Filter::new([kind].into_iter().collect(), &recorder));
            assert_eq!(kinds_of(&recorder), [kind.name()]);
            assert_eq!(Kind::of_name(kind.name()), Some(kind));
        }
        let recorder = Recorder::new();
        call_all(&Filter::new(Kinds::ALL, &recorder));
        assert_eq!(kinds_of(&recorder), KINDS);
        assert_eq!(Kind::of_name("status"), None);
        assert_eq!(Kinds::ALL, Kind::ALL.into_iter().collect());
    }

    #[test]
    fn a_user_has_an_id_whoever_wants_it() {
        let mut record = UserRecord::default();
        Filter::new([Kind::Flow].into_iter().collect(), Recorder::new()).collect_user_event(&mut record);
        assert_eq!(record.id.len(), 64);
    }
}
