//! JSON for programs: one object a line.

mod schema;

use std::io;

use serde::{Serialize, Serializer};

use super::Format;
use crate::event::{Event, Time};

pub use schema::schema;

/// Writes `{"type":"flow","time":"...","record":{...}}`, one line an event; `time` is when it was emitted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl Format for Json {
    fn write(&mut self, time: Time, event: &Event, out: &mut Vec<u8>) -> io::Result<()> {
        serde_json::to_writer(&mut *out, &Line { r#type: event.kind(), time, record: Record(event) })?;
        out.push(b'\n');
        Ok(())
    }
}

#[derive(Serialize)]
struct Line<'a> {
    r#type: &'static str,
    time: Time,
    record: Record<'a>,
}

/// An event's record alone: [`Event`] itself adds the type, but not between the two.
struct Record<'a>(&'a Event);

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Event::Flow(record) => record.serialize(serializer),
            Event::Container(record) => record.serialize(serializer),
            Event::User(record) => record.serialize(serializer),
            Event::Trace(record) => record.serialize(serializer),
            Event::Packet(record) => record.serialize(serializer),
            Event::Counter(record) => record.serialize(serializer),
            Event::Dns(record) => record.serialize(serializer),
            Event::Ping(record) => record.serialize(serializer),
            Event::Status(record) => record.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Json;
    use crate::{
        event::{
            ContainerRecord, CounterReport, Counters, DnsRequestReport, Event, FlowRecord, PacketReport,
            PingReport, Time, TraceRecord, UserRecord,
        },
        sink::Format as _,
    };

    fn line(event: &Event) -> String {
        let mut out = Vec::new();
        Json.write(Time::from_unix_nanos(1_500_000_000), event, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_is_type_time_record() {
        let counters = vec![Counters { name: "rx_packets".into(), value: u64::MAX }];
        let report = CounterReport { namespace: "/n".into(), context_id: "web".into(), counters };
        assert_eq!(
            line(&Event::Counter(report)),
            concat!(
                r#"{"type":"counter","time":"1970-01-01T00:00:01.500000000Z","record":{"namespace":"/n","#,
                r#""context_id":"web","counters":[{"name":"rx_packets","value":18446744073709551615}]}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn every_kind_reads_back_as_the_event_it_was() {
        let trace = TraceRecord { records: vec!["a\nb\u{1b}[31m\u{e9}".to_owned()] };
        for event in [
            Event::Flow(FlowRecord::default()),
            Event::Container(ContainerRecord::default()),
            Event::User(UserRecord::default()),
            Event::Trace(trace),
            Event::Packet(PacketReport::default()),
            Event::Counter(CounterReport::default()),
            Event::Dns(DnsRequestReport::default()),
            Event::Ping(PingReport::default()),
            Event::Status(Box::default()),
        ] {
            let line = line(&event);
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert!(!line.contains('\u{1b}'), "{line}");
            assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        }
    }
}
