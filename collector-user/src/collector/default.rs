//! Events as log lines.

use tracing::info;

use super::EventCollector;
use crate::event::{
    ContainerRecord, CounterReport, DnsRequestReport, EndPoint, FlowRecord, PacketReport, PingReport,
    UserRecord, hash,
};

/// Writes each event as one structured [`tracing`] event of level INFO, target `collector::event`, with the field
/// `kind` first, then the record's own by their names, an end's behind `source_` and `destination_`; but not a packet's
/// payload, and of flows no URI, user, TCP flags or buffers (an event has 32 fields at most). A trace is an event a line,
/// counters that are all zero are none. Where they go is the subscriber's matter, and so is whether that blocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultCollector;

/// The target of all of them, to be filtered by.
pub const TARGET: &str = "collector::event";

impl DefaultCollector {
    /// The collector; it has no state.
    pub const fn new() -> Self {
        Self
    }
}

impl EventCollector for DefaultCollector {
    fn collect_flow_event(&self, record: &FlowRecord) {
        let (source, destination) = (End::of(record.source.as_ref()), End::of(record.destination.as_ref()));
        info!(
            target: TARGET,
            kind = "flow",
            context_id = &*record.context_id,
            namespace = &*record.namespace,
            source_id = source.id,
            source_ip = source.ip,
            source_port = source.port,
            destination_id = destination.id,
            destination_ip = destination.ip,
            destination_port = destination.port,
            l4_protocol = record.l4_protocol,
            action = record.action.action_string(),
            observed_action = record.observed_action.action_string(),
            drop_reason = &*record.drop_reason,
            policy_id = &*record.policy_id,
            observed_policy_id = &*record.observed_policy_id,
            service_type = i32::from(record.service_type),
            service_id = &*record.service_id,
            tags = %record.tags,
            count = record.count,
            packets = record.packets,
            bytes = record.bytes,
            reply_packets = record.reply_packets,
            reply_bytes = record.reply_bytes,
            first_seen = %record.first_seen,
            last_seen = %record.last_seen,
            rejected_packets = record.rejected_packets,
            dropped_packets = record.dropped_packets,
            kernel_reason = &*record.kernel_reason,
            drop_place = &*record.drop_place,
            interface = &*record.interface,
            vlan = record.vlan,
            tunnel = record.tunnel.text(),
            tunnel_id = record.tunnel_id,
            initiator_by = record.initiator_by.text(),
            attributed_by = record.attributed_by.text(),
            ended = record.ended.text(),
            reset_by = record.reset_by.text(),
        );
    }

    fn collect_container_event(&self, record: &ContainerRecord) {
        info!(
            target: TARGET,
            kind = "container",
            context_id = &*record.context_id,
            event = &*record.event,
            ip_address = ?record.ip_address,
            tags = %record.tags,
        );
    }

    fn collect_user_event(&self, record: &mut UserRecord) {
        hash::stats_user_hash(record);
        info!(
            target: TARGET,
            kind = "user",
            id = &*record.id,
            namespace = &*record.namespace,
            claims = ?record.claims,
        );
    }

    fn collect_trace_event(&self, records: &[String]) {
        for line in records {
            info!(target: TARGET, kind = "trace", line);
        }
    }

    fn collect_packet_event(&self, report: &PacketReport) {
        info!(
            target: TARGET,
            kind = "packet",
            puid = &*report.puid,
            namespace = &*report.namespace,
            event = report.event.text(),
            drop_reason = &*report.drop_reason,
            source_ip = report.source_ip.map(tracing::field::display),
            source_port = report.source_port,
            destination_ip = report.destination_ip.map(tracing::field::display),
            destination_port = report.destination_port,
            protocol = report.protocol,
            tcp_flags = report.tcp_flags,
            ethertype = &*report.ethertype,
            length = report.length,
            packet_id = report.packet_id,
            mark = report.mark,
            encrypt = report.encrypt,
            trireme_packet = report.trireme_packet,
            claims = ?report.claims,
            packets = report.packets,
            interface = &*report.interface,
            kernel_reason = &*report.kernel_reason,
            drop_place = &*report.drop_place,
            drop_class = report.drop_class.text(),
            advice = &*report.advice,
            suppressed = report.suppressed,
            ts = %report.ts,
        );
    }

    fn collect_counter_event(&self, report: &CounterReport) {
        // Names of fields are fixed when this is compiled, and those of counters are not.
        let counted = report.counters.iter().filter(|counter| counter.value > 0);
        let counters: Vec<_> = counted.map(|counter| format!("{} {}", counter.name, counter.value)).collect();
        if !counters.is_empty() {
            info!(
                target: TARGET,
                kind = "counter",
                context_id = &*report.context_id,
                namespace = &*report.namespace,
                counters = counters.join(", "),
            );
        }
    }

    fn collect_dns_requests(&self, request: &DnsRequestReport) {
        let source = End::of(request.source.as_ref());
        info!(
            target: TARGET,
            kind = "dns",
            namespace = &*request.namespace,
            source_id = source.id,
            source_ip = source.ip,
            name_lookup = &*request.name_lookup,
            error = &*request.error,
            count = request.count,
            ts = %request.ts,
        );
    }

    fn collect_ping_event(&self, report: &PingReport) {
        info!(
            target: TARGET,
            kind = "ping",
            stage = report.stage.text(),
            r#type = report.r#type.text(),
            source_id = &*report.source_id,
            source_namespace = &*report.source_namespace,
            destination_id = &*report.destination_id,
            destination_namespace = &*report.destination_namespace,
            flow_tuple = &*report.flow_tuple,
            latency = &*report.latency,
            agent_version = &*report.agent_version,
            protocol = report.protocol,
            service_type = &*report.service_type,
            payload_size = report.payload_size,
            request = report.request,
            session_id = &*report.session_id,
        );
    }
}

/// The fields of an end that go into a log line; an absent end leaves them out.
struct End<'a> {
    id: Option<&'a str>,
    ip: Option<tracing::field::DisplayValue<std::net::IpAddr>>,
    port: Option<u16>,
}

impl<'a> End<'a> {
    fn of(end: Option<&'a EndPoint>) -> Self {
        Self {
            id: end.map(|end| &*end.id),
            ip: end.and_then(|end| end.ip).map(tracing::field::display),
            port: end.map(|end| end.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::DefaultCollector;
    use crate::{
        collector::{EventCollector as _, tests::call_all},
        event::{ContainerRecord, CounterReport, Counters, EndPoint, FlowRecord, PacketReport, PingReport},
    };

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(act: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .without_time()
            .finish();
        tracing::subscriber::with_default(subscriber, act);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_flow_is_one_line_with_fields() {
        let end =
            EndPoint { id: "web".into(), ip: Some([10, 0, 0, 1].into()), port: 80, ..EndPoint::default() };
        let record = FlowRecord { source: Some(end), packets: 7, ..FlowRecord::default() };
        let text = logged(|| DefaultCollector::new().collect_flow_event(&record));
        assert!(text.starts_with(r#" INFO collector::event: kind="flow""#), "{text}");
        let want = r#"source_id="web" source_ip=10.0.0.1 source_port=80 l4_protocol=0 action="passthrough""#;
        assert!(text.contains(want), "{text}");
        assert!(text.contains(" packets=7 "), "{text}");
    }

    #[test]
    fn fields_have_the_names_of_the_record() {
        let end = || Some(EndPoint { ip: Some([10, 0, 0, 1].into()), ..EndPoint::default() });
        let flow = FlowRecord { source: end(), destination: end(), ..FlowRecord::default() };
        let packet = PacketReport { source_ip: Some([10, 0, 0, 1].into()), ..PacketReport::default() };
        let packet = PacketReport { destination_ip: packet.source_ip, ..packet };
        let (ping, container) = (PingReport::default(), ContainerRecord::default());
        let all = DefaultCollector::new();
        for (line, record, left_out) in [
            (
                logged(|| all.collect_flow_event(&flow)),
                serde_json::to_value(&flow).unwrap(),
                ["tcp_flags", "skbs", "reply_skbs"].as_slice(),
            ),
            (
                logged(|| all.collect_packet_event(&packet)),
                serde_json::to_value(&packet).unwrap(),
                ["payload"].as_slice(),
            ),
            (logged(|| all.collect_ping_event(&ping)), serde_json::to_value(&ping).unwrap(), &[]),
            (
                logged(|| all.collect_container_event(&container)),
                serde_json::to_value(&container).unwrap(),
                &[],
            ),
        ] {
            for key in record.as_object().unwrap().keys().filter(|key| !left_out.contains(&key.as_str())) {
                let ends = ["source", "destination"].contains(&key.as_str());
                let field = if ends { format!(" {key}_ip=") } else { format!(" {key}=") };
                assert!(line.contains(&field), "{field} in {line}");
            }
        }
    }

    #[test]
    fn every_kind_leaves_a_line() {
        let text = logged(|| {
            call_all(&DefaultCollector::new());
            let counters = vec![Counters { name: "rx_packets".into(), value: 3 }];
            let report = CounterReport { counters, ..CounterReport::default() };
            DefaultCollector::new().collect_counter_event(&report);
        });
        for kind in crate::collector::tests::KINDS {
            assert!(text.contains(&format!("kind=\"{kind}\"")), "{kind} in {text}");
        }
    }
}
