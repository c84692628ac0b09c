//! The JSON Schema says what the lines are: what is written fits it, what is not written does not.

use std::{
    collections::BTreeMap,
    future::pending,
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use collector_user::{
    collector::EventCollector as _,
    event::{
        ActionType, AttributedBy, ContainerRecord, CounterReport, Counters, DeviceDrops, DnsRequestReport,
        DropClass, Dropped, EndPoint, EndPointType, Ended, FlowRecord, InitiatorBy, InterfaceStatus, Ledger,
        PacketEvent, PacketReport, PingReport, PingType, QueueDrops, QueueSum, ResetBy, ServiceType, Stage,
        Status, TagStore, Time, TraceRecord, Tunnel, Unseen, UserRecord,
    },
    sink::{
        json::{self, Json},
        queue,
    },
};
use jsonschema::Validator;
use serde_json::{Value, json};

/// One record of each kind.
#[derive(Default)]
struct Records {
    flow: FlowRecord,
    container: ContainerRecord,
    user: UserRecord,
    trace: TraceRecord,
    packet: PacketReport,
    counter: CounterReport,
    dns: DnsRequestReport,
    ping: PingReport,
    status: Status,
}

impl Records {
    /// Every field says something.
    fn filled() -> Self {
        Self {
            flow: flow(),
            container: ContainerRecord {
                context_id: "web".into(),
                ip_address: [("bridge".to_owned(), "10.0.0.2".to_owned())].into(),
                tags: tags(),
                event: "start".into(),
            },
            user: UserRecord { id: "u".into(), namespace: "/n".into(), claims: vec!["a=b".into()] },
            trace: TraceRecord { records: vec!["a\u{1b}\u{0}\u{e9}\n\u{1f600}".to_owned()] },
            packet: packet(),
            counter: CounterReport {
                namespace: "/n".into(),
                context_id: "web".into(),
                counters: vec![Counters { name: "rx_packets".into(), value: u64::MAX }],
            },
            dns: DnsRequestReport {
                namespace: "/n".into(),
                source: Some(end(EndPointType::Claims)),
                name_lookup: "example.org.".into(),
                error: "NXDOMAIN".into(),
                count: u64::MAX,
                ts: Time::from_unix_nanos(i64::MIN),
            },
            ping: ping(),
            status: status(),
        }
    }

    /// The lines that the sink writes of them.
    fn lines(mut self) -> Vec<Value> {
        let out = Out::default();
        let clock = || Time::from_unix_nanos(1_500_000_000);
        let (queue, writer) = queue::start("json", 16, clock, Json, out.clone()).unwrap();
        queue.collect_flow_event(&self.flow);
        queue.collect_container_event(&self.container);
        queue.collect_user_event(&mut self.user);
        queue.collect_trace_event(&self.trace.records);
        queue.collect_packet_event(&self.packet);
        queue.collect_counter_event(&self.counter);
        queue.collect_dns_requests(&self.dns);
        queue.collect_ping_event(&self.ping);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let closed = writer.close(pending()).await.unwrap();
            closed.finish(self.status, pending()).await.unwrap();
        });
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn tags() -> Arc<TagStore> {
    Arc::new(["app=web"].into_iter().collect())
}

fn end(r#type: EndPointType) -> EndPoint {
    EndPoint {
        id: "web".into(),
        ip: Some("2001:db8::1".parse().unwrap()),
        uri: "/x".into(),
        http_method: "GET".into(),
        user_id: "u".into(),
        user: "alice".into(),
        r#type,
        port: u16::MAX,
    }
}

fn flow() -> FlowRecord {
    FlowRecord {
        context_id: "web".into(),
        namespace: "/n".into(),
        source: Some(end(EndPointType::Pu)),
        destination: Some(end(EndPointType::Unknown(9))),
        tags: tags(),
        drop_reason: "policy".into(),
        policy_id: "p".into(),
        observed_policy_id: "o".into(),
        service_type: ServiceType::Unknown(-1),
        service_id: "s".into(),
        count: u64::MAX,
        action: ActionType::ACCEPT | ActionType::ENCRYPT,
        observed_action: ActionType::REJECT,
        l4_protocol: u8::MAX,
        packets: u64::MAX,
        bytes: u64::MAX,
        reply_packets: u64::MAX,
        reply_bytes: u64::MAX,
        skbs: u64::MAX,
        reply_skbs: u64::MAX,
        first_seen: Time::from_unix_nanos(i64::MAX),
        last_seen: Time::from_unix_nanos(1),
        tcp_flags: 0x1FF,
        interface: "eth0".into(),
        vlan: 4094,
        tunnel: Tunnel::Geneve,
        tunnel_id: u32::MAX,
        rejected_packets: u64::MAX,
        dropped_packets: u64::MAX,
        kernel_reason: "NETFILTER_DROP".into(),
        drop_place: "nft_do_chain+0x1".into(),
        initiator_by: InitiatorBy::PortRegistry,
        attributed_by: AttributedBy::Socket,
        ended: Ended::Reset,
        reset_by: ResetBy::Source,
    }
}

fn packet() -> PacketReport {
    PacketReport {
        tcp_flags: 2,
        claims: vec!["a=b".into()],
        destination_ip: Some([192, 0, 2, 1].into()),
        destination_port: 53,
        drop_reason: "NETFILTER_DROP".into(),
        encrypt: true,
        event: PacketEvent::Dropped,
        ethertype: "arp".into(),
        length: u32::MAX,
        mark: u32::MAX,
        namespace: "/n".into(),
        packet_id: 65_535,
        protocol: 17,
        puid: "web".into(),
        source_ip: Some("::".parse().unwrap()),
        source_port: 5353,
        trireme_packet: true,
        packets: u32::MAX,
        interface: "eth0".into(),
        kernel_reason: "NETFILTER_DROP".into(),
        drop_place: "nft_do_chain+0x1".into(),
        drop_class: DropClass::Policy,
        advice: "look".into(),
        suppressed: u64::MAX,
        payload: Bytes::from_static(&[0x45, 0x00, 0xFF]),
        ts: Time::from_unix_nanos(1),
    }
}

fn ping() -> PingReport {
    PingReport {
        source_id: "a".into(),
        source_namespace: "/n".into(),
        destination_id: "b".into(),
        destination_namespace: "/m".into(),
        flow_tuple: "10.0.0.1:10.0.0.2:1:2".into(),
        latency: "1.2ms".into(),
        agent_version: "1.0.0".into(),
        protocol: 6,
        service_type: "L3".into(),
        payload_size: 9,
        request: 1,
        r#type: PingType::CustomIdentity,
        stage: Stage::Reply,
        session_id: "s".into(),
    }
}

fn status() -> Status {
    let by_name = || BTreeMap::from([("json".to_owned(), 1)]);
    let interface = InterfaceStatus {
        device_drops: Some(DeviceDrops { received: u64::MAX, missed: 1, sent: 2 }),
        queue_drops: Some(QueueDrops { discipline: "tbf".into(), dropped: u64::MAX, over_limits: 1 }),
        name: "eth0".into(),
        role: "uplink".into(),
        reason: "on a bus".into(),
        hook: "ingress+egress".into(),
        mechanism: "tcx".into(),
        xdp: "generic".into(),
        unseen: Some(Unseen { received: 1, sent: u64::MAX, dropped_behind: 0 }),
    };
    let ledger = Ledger {
        seen: u64::MAX,
        unparsed: by_name(),
        queue_full: by_name(),
        sink_failed: by_name(),
        delivered: by_name(),
        ..Ledger::default()
    };
    let dropped = Dropped {
        puid: "web".into(),
        namespace: "/prod".into(),
        kernel_reason: "NETFILTER_DROP".into(),
        place: "nft_do_chain+0x1".into(),
        class: DropClass::Policy,
        drop_reason: "policy".into(),
        advice: "look".into(),
        packets: u64::MAX,
        skbs: u64::MAX,
        bytes: u64::MAX,
    };
    let queues = QueueSum { dropped: u64::MAX, told: Some(1), untold: None };
    Status { interfaces: vec![interface], transport: "auto".into(), drops: vec![dropped], queues, ledger }
}

#[derive(Clone, Default)]
struct Out(Arc<Mutex<Vec<u8>>>);

impl io::Write for Out {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The schema, which here also forbids what it does not describe: a key that it lacks would pass otherwise.
fn strict() -> Validator {
    let mut schema = json::schema();
    schema.as_object_mut().unwrap().insert("unevaluatedProperties".to_owned(), false.into());
    let definitions = schema.pointer_mut("/$defs").unwrap().as_object_mut().unwrap();
    for definition in definitions.values_mut().filter_map(Value::as_object_mut) {
        if definition.contains_key("properties") {
            definition.insert("additionalProperties".to_owned(), false.into());
        }
    }
    validator(&schema)
}

fn validator(schema: &Value) -> Validator {
    jsonschema::options().should_validate_formats(true).build(schema).unwrap()
}

#[test]
fn it_is_a_schema_of_its_draft() {
    let schema = json::schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    jsonschema::meta::validate(&schema).unwrap();
}

#[test]
fn what_is_written_fits() {
    let validator = strict();
    for lines in [Records::default().lines(), Records::filled().lines()] {
        let kinds: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
        assert_eq!(
            kinds,
            ["flow", "container", "user", "trace", "packet", "counter", "dns", "ping", "status"]
        );
        for line in &lines {
            validator
                .validate(line)
                .unwrap_or_else(|error| panic!("{error} at {}: {line}", error.instance_path()));
        }
    }
}

#[test]
fn what_lacks_a_key_or_has_another_type_is_refused() {
    let validator = validator(&json::schema());
    for line in Records::filled().lines() {
        for place in ["", "/record"] {
            let keys: Vec<_> = line.pointer(place).unwrap().as_object().unwrap().keys().cloned().collect();
            for key in keys {
                let mut without = line.clone();
                without.pointer_mut(place).unwrap().as_object_mut().unwrap().remove(&key);
                assert!(!validator.is_valid(&without), "without {key}: {without}");
                let mut other = line.clone();
                other.pointer_mut(place).unwrap()[&key] = json!({ "no": ["such"] });
                assert!(!validator.is_valid(&other), "{key}: {other}");
            }
        }
    }
}

#[test]
fn what_says_something_unheard_of_is_refused() {
    let validator = validator(&json::schema());
    let lines = Records::filled().lines();
    for (index, place, value) in [
        (0, "/type", json!("packet")),
        (0, "/type", json!("else")),
        (0, "/time", json!("yesterday")),
        (0, "/time", json!("2026-05-09T07:29:33Z")),
        (0, "/record/action", json!("log")),
        (0, "/record/packets", json!(-1)),
        (0, "/record/vlan", json!(65_536)),
        (0, "/record/ended", json!("well")),
        (0, "/record/source/ip", json!("here")),
        (0, "/record/source/type", json!("unknown")),
        (4, "/record/payload", json!("4")),
        (4, "/record/payload", json!("4F")),
        (7, "/record/stage", json!(0)),
        (8, "/record/ledger/delivered", json!({ "json": "many" })),
    ] {
        let mut line = lines[index].clone();
        *line.pointer_mut(place).unwrap() = value;
        assert!(!validator.is_valid(&line), "{place}: {line}");
    }
}
