//! The vocabulary: what the collector says of the datapath, one record a kind of event.
//!
//! Names and meanings are those of trireme-lib's `collector` package, in snake case; what it lacks and this collector
//! knows stands in extra fields. All keys are always present in JSON: absent text is `""`, absent numbers are 0, absent
//! objects `null`. Records are data: nothing here reads a clock or speaks to the kernel.
//!
//! The parts: [`reason`] (the string constants), [`Time`], [`ActionType`] and [`ServiceType`], [`EndPoint`],
//! [`TagStore`], the words of [`FlowRecord`]'s extra fields ([`InitiatorBy`], [`AttributedBy`], [`Ended`],
//! [`ResetBy`], [`Tunnel`]), then the eight records, and [`Status`], which ends a stream of them. No events are
//! [`Captured`], what a packet report is made of, and [`UnitStatus`], what a collector says when it is asked.

mod action;
mod address;
mod captured;
mod container;
mod counter;
mod dns;
mod dropped;
mod endpoint;
pub mod ethertype;
mod flow;
pub mod hash;
mod hex;
mod how;
mod ledger;
mod packet;
mod ping;
pub mod reason;
mod service;
mod status;
mod tags;
mod time;
mod trace;
mod unit;
mod user;
mod vocabulary;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use action::ActionType;
pub use captured::{Captured, LinkType};
pub use container::ContainerRecord;
pub use counter::{CounterReport, Counters};
pub use dns::DnsRequestReport;
pub use dropped::{DropClass, Dropped};
pub use endpoint::{EndPoint, EndPointType};
pub use flow::FlowRecord;
pub use how::{AttributedBy, Ended, InitiatorBy, ResetBy, Tunnel};
pub use ledger::Ledger;
pub use packet::{PacketEvent, PacketReport};
pub use ping::{PingReport, PingType, Stage};
pub use service::ServiceType;
pub use status::{DeviceDrops, InterfaceStatus, QueueDrops, QueueSum, Status, Unseen};
pub use tags::{ExtendedMap, TagStore};
pub use time::Time;
pub use trace::TraceRecord;
pub use unit::{UnitKind, UnitMatchers, UnitStatus};
pub use user::UserRecord;

/// A text that many records share: a PU's id, a namespace, the name of an interface. Copying it costs no allocation.
pub type Text = Arc<str>;

/// Any event, with its record: `{"type":"flow","record":{...}}` in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "record", rename_all = "lowercase")]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all events are flows: a box would be an allocation for each, and spare the rare ones some octets"
)]
pub enum Event {
    /// A flow: its end, its interruption, or what it did since its last record.
    Flow(FlowRecord),
    /// A step in a processing unit's life.
    Container(ContainerRecord),
    /// A user who was seen.
    User(UserRecord),
    /// Lines of a packet trace.
    Trace(TraceRecord),
    /// One packet.
    Packet(PacketReport),
    /// The counters of a processing unit.
    Counter(CounterReport),
    /// A DNS lookup.
    Dns(DnsRequestReport),
    /// A ping between processing units.
    Ping(PingReport),
    /// What the collector is attached to and what became of every packet and record: the last of a stream.
    Status(Box<Status>),
}

impl Event {
    /// The kind as JSON's `type` names it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Flow(_) => "flow",
            Self::Container(_) => "container",
            Self::User(_) => "user",
            Self::Trace(_) => "trace",
            Self::Packet(_) => "packet",
            Self::Counter(_) => "counter",
            Self::Dns(_) => "dns",
            Self::Ping(_) => "ping",
            Self::Status(_) => "status",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn one_of_each() -> Vec<Event> {
        vec![
            Event::Flow(FlowRecord::default()),
            Event::Container(ContainerRecord::default()),
            Event::User(UserRecord::default()),
            Event::Trace(TraceRecord::default()),
            Event::Packet(PacketReport::default()),
            Event::Counter(CounterReport::default()),
            Event::Dns(DnsRequestReport::default()),
            Event::Ping(PingReport::default()),
            Event::Status(Box::default()),
        ]
    }

    #[test]
    fn every_kind_round_trips_under_its_type() {
        for event in one_of_each() {
            let text = serde_json::to_string(&event).unwrap();
            assert!(text.starts_with(&format!(r#"{{"type":"{}","record":{{"#, event.kind())), "{text}");
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
        }
    }

    #[test]
    fn every_key_of_the_seed_is_there_in_an_empty_record() {
        let keys: [&[&str]; 8] = [
            &[
                "context_id",
                "namespace",
                "source",
                "destination",
                "tags",
                "drop_reason",
                "policy_id",
                "observed_policy_id",
                "service_type",
                "service_id",
                "count",
                "action",
                "observed_action",
                "l4_protocol",
            ],
            &["context_id", "ip_address", "tags", "event"],
            &["id", "namespace", "claims"],
            &["records"],
            &[
                "tcp_flags",
                "claims",
                "destination_ip",
                "destination_port",
                "drop_reason",
                "encrypt",
                "event",
                "length",
                "mark",
                "namespace",
                "packet_id",
                "protocol",
                "puid",
                "source_ip",
                "source_port",
                "trireme_packet",
                "payload",
            ],
            &["namespace", "context_id", "counters"],
            &["namespace", "source", "name_lookup", "error", "count", "ts"],
            &[
                "source_id",
                "source_namespace",
                "destination_id",
                "destination_namespace",
                "flow_tuple",
                "latency",
                "agent_version",
                "protocol",
                "service_type",
                "payload_size",
                "request",
                "type",
                "stage",
                "session_id",
            ],
        ];
        for (event, keys) in one_of_each().iter().zip(keys) {
            let value = serde_json::to_value(event).unwrap();
            let record = value["record"].as_object().unwrap();
            for key in keys {
                assert!(record.contains_key(*key), "{} lacks {key}", event.kind());
            }
            let nulls: Vec<_> =
                record.iter().filter(|(_, value)| value.is_null()).map(|(key, _)| key.as_str()).collect();
            assert!(nulls.iter().all(|key| ["source", "destination"].contains(key)), "{nulls:?}");
        }
    }

    #[test]
    fn lists_are_arrays_even_when_empty() {
        let value = serde_json::to_value(FlowRecord::default()).unwrap();
        assert_eq!(value["tags"], Value::Array(vec![]));
        let value = serde_json::to_value(PacketReport::default()).unwrap();
        assert_eq!(value["claims"], Value::Array(vec![]));
    }
}
