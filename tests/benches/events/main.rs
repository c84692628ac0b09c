//! What needs no kernel: `cargo bench -p collector-tests --bench events -- [--rounds N] [--only PART]`.
//!
//! - `events`: how many events a second the way out takes.
//! - [`policies`]: how long policies take to load.
//!
//! Events on one CPU: who hands events over and the thread that writes them share it, as on a host that has no CPU to spare. Flow
//! records, which are the largest and come in masses; each is filled as the aggregate fills it.
#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::disallowed_types, reason = "what is measured is time")]

mod policies;

use std::{
    fs::File,
    future::pending,
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Instant,
};

use anyhow::ensure;
use collector_tests::{
    Result,
    measure::{Options, median},
    traffic::pin,
};
use collector_user::{
    clock,
    collector::{EventCollector, fanout::Fanout},
    event::{
        ActionType, AttributedBy, ContainerRecord, CounterReport, DnsRequestReport, EndPoint, EndPointType,
        Ended, FlowRecord, InitiatorBy, PacketReport, PingReport, Text, Time, UserRecord,
    },
    sink::{
        Room as _,
        json::Json,
        queue::{self, DEFAULT_CAPACITY},
    },
};

/// Events a round.
const EVENTS: u32 = 1 << 19;
/// Records that differ.
const RECORDS: usize = 1 << 10;

fn main() -> Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    if options.wants("policies") {
        policies::run(options.rounds)?;
    }
    if !options.wants("events") {
        return Ok(());
    }
    // The writer's thread inherits it.
    pin(0)?;
    let records = records();
    let (mut to_null, mut to_json) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        to_null.push(fan_out(&records));
        to_json.push(queue_and_json(&records)?);
    }
    println!("Flow records on one CPU");
    println!("{:<36} {:>12} {:>10}", "way", "a second", "ns each");
    for (name, ns) in [
        ("fan-out to a null collector", median(&mut to_null)),
        ("fan-out, queue, JSON to /dev/null", median(&mut to_json)),
    ] {
        println!("{name:<36} {:>12.0} {ns:>10.0}", 1e9 / ns);
    }
    println!();
    Ok(())
}

/// Nanoseconds of an event that a fan-out hands to a collector which does nothing with it.
fn fan_out(records: &[FlowRecord]) -> f64 {
    // As the daemon has it: behind a pointer, of which the compiler knows no more.
    let fanout: Box<dyn EventCollector> = black_box(Box::new(Fanout::new().with("null", Null)));
    let begun = Instant::now();
    for record in records.iter().cycle().take(EVENTS as usize) {
        fanout.collect_flow_event(black_box(record));
    }
    each(begun)
}

/// Nanoseconds of an event from the fan-out until its line is written. None is lost: who hands them over waits for the
/// queue's room, as a run does at its end.
fn queue_and_json(records: &[FlowRecord]) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let out = File::options().write(true).open("/dev/null")?;
    let (queue, writer) = queue::start("null", DEFAULT_CAPACITY, clock::wall, Json, out)?;
    let fanout = Fanout::new().with("json", queue.clone());
    queue.wait_for_room();
    let begun = Instant::now();
    for record in records.iter().cycle().take(EVENTS as usize) {
        fanout.collect_flow_event(record);
    }
    let closed = runtime.block_on(writer.close(pending()))?;
    let ns = each(begun);
    ensure!(closed.counts().delivered == u64::from(EVENTS), "events were lost: {:?}", closed.counts());
    Ok(ns)
}

fn each(begun: Instant) -> f64 {
    begun.elapsed().as_nanos() as f64 / f64::from(EVENTS)
}

fn records() -> Vec<FlowRecord> {
    let (nothing, default): (Text, Text) = ("".into(), "default".into());
    let (id, namespace, interface): (Text, Text, Text) = ("shop/web-1".into(), "/prod".into(), "eth0".into());
    let tags = Arc::new(["app=web", "@os:host=node-1", "tier=front"].into_iter().collect());
    let end = |id: &Text, r#type, ip, port| EndPoint {
        id: id.clone(),
        ip: Some(ip),
        uri: nothing.clone(),
        http_method: nothing.clone(),
        user_id: nothing.clone(),
        user: nothing.clone(),
        r#type,
        port,
    };
    let record = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let (here, there) = if number.is_multiple_of(4) {
            let of = |last| IpAddr::from(Ipv6Addr::new(0x2001, 0xDB8, 0, number, 0, 0, 0x1234, last));
            (of(1), of(0xABCD))
        } else {
            (Ipv4Addr::new(10, 77, 0, 2).into(), Ipv4Addr::new(198, 51, 100 + high, low).into())
        };
        let octets = u64::from(number) * 1_234_567;
        FlowRecord {
            context_id: id.clone(),
            namespace: namespace.clone(),
            source: Some(end(&default, EndPointType::ExternalIp, there, 32_768 + number)),
            destination: Some(end(&id, EndPointType::Pu, here, 443)),
            tags: Arc::clone(&tags),
            drop_reason: nothing.clone(),
            policy_id: default.clone(),
            observed_policy_id: nothing.clone(),
            service_id: nothing.clone(),
            count: 1,
            action: ActionType::ACCEPT,
            l4_protocol: 6,
            packets: octets / 900,
            bytes: octets,
            reply_packets: octets / 1_800,
            reply_bytes: octets / 20,
            skbs: octets / 9_000,
            reply_skbs: octets / 3_600,
            first_seen: Time::from_unix_nanos(1_778_311_773_000_000_042 + i64::from(number) * 1_000_003),
            last_seen: Time::from_unix_nanos(1_778_311_785_000_000_042 + i64::from(number) * 1_000_003),
            tcp_flags: 0x1B,
            interface: interface.clone(),
            initiator_by: InitiatorBy::Syn,
            attributed_by: AttributedBy::Declared,
            ended: Ended::Fin,
            ..FlowRecord::default()
        }
    };
    (0..RECORDS).map(|number| record(number as u16)).collect()
}

/// Does nothing with anything.
struct Null;

impl EventCollector for Null {
    fn collect_flow_event(&self, record: &FlowRecord) {
        black_box(record);
    }

    fn collect_container_event(&self, record: &ContainerRecord) {
        black_box(record);
    }

    fn collect_user_event(&self, record: &mut UserRecord) {
        black_box(record);
    }

    fn collect_trace_event(&self, records: &[String]) {
        black_box(records);
    }

    fn collect_packet_event(&self, report: &PacketReport) {
        black_box(report);
    }

    fn collect_counter_event(&self, report: &CounterReport) {
        black_box(report);
    }

    fn collect_dns_requests(&self, request: &DnsRequestReport) {
        black_box(request);
    }

    fn collect_ping_event(&self, report: &PingReport) {
        black_box(report);
    }
}
