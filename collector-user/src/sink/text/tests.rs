//! Whole lines, as they are read.

use std::sync::Arc;

use jiff::tz::TimeZone;

use super::{Look, Text};
use crate::{
    event::{
        ActionType, ContainerRecord, CounterReport, Counters, DnsRequestReport, EndPoint, Ended, Event,
        FlowRecord, PacketEvent, PacketReport, PingReport, ResetBy, Stage, Time, TraceRecord, UserRecord,
    },
    sink::Format as _,
};

fn write(text: &mut Text, event: &Event) -> String {
    let mut out = Vec::new();
    text.write(Time::from_unix_nanos(1_778_311_773_987_654_321), event, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn plain(events: &[Event]) -> String {
    let mut text = Text::new(Look::plain());
    events.iter().map(|event| write(&mut text, event)).collect()
}

fn end(id: &str, ip: &str, port: u16) -> EndPoint {
    EndPoint { id: id.into(), ip: ip.parse().ok(), port, ..EndPoint::default() }
}

fn flow() -> FlowRecord {
    FlowRecord {
        context_id: "web".into(),
        source: Some(end("web", "10.1.0.2", 41000)),
        destination: Some(end("default", "93.184.216.34", 443)),
        action: ActionType::ACCEPT,
        l4_protocol: 6,
        packets: 12,
        bytes: 1900,
        reply_packets: 1_234_567,
        reply_bytes: 1 << 31,
        ended: Ended::Fin,
        ..FlowRecord::default()
    }
}

#[test]
fn flows() {
    let rejected = FlowRecord {
        context_id: "host".into(),
        source: Some(end("peer", "fd77::1", 41000)),
        destination: Some(end("host", "fd77::2", 22)),
        action: ActionType::REJECT,
        drop_reason: "policy".into(),
        ended: Ended::Reset,
        reset_by: ResetBy::Destination,
        reply_packets: 0,
        reply_bytes: 0,
        vlan: 100,
        ..flow()
    };
    let ping = FlowRecord {
        context_id: "unknown".into(),
        source: Some(end("", "10.1.0.2", 0)),
        destination: Some(end("", "10.1.0.3", 0)),
        l4_protocol: 1,
        ended: Ended::Live,
        ..flow()
    };
    let by_alice = FlowRecord {
        source: Some(EndPoint { user: "al\nice".into(), ..end("web", "10.1.0.2", 41000) }),
        ..flow()
    };
    let not_enforced =
        FlowRecord { action: ActionType::REJECT, policy_id: "web-in".into(), ended: Ended::Live, ..flow() };
    let events = [flow(), rejected, ping, by_alice, not_enforced].map(Event::Flow);
    let want = "\
07:29:33.987 web                 10.1.0.2:41000 -> 93.184.216.34:443     tcp   ->    12 pkt    1900 B <- 1.23M pkt  2.00 GiB  accept      fin
07:29:33.987 host          peer@[fd77::1]:41000 -> [fd77::2]:22          tcp   ->    12 pkt    1900 B <-     0 pkt       0 B  drop:policy reset by server vlan 100
07:29:33.987 unknown                   10.1.0.2 -> 10.1.0.3              icmp  ->    12 pkt    1900 B <- 1.23M pkt  2.00 GiB  accept      open
07:29:33.987 web                 10.1.0.2:41000 -> 93.184.216.34:443     tcp   ->    12 pkt    1900 B <- 1.23M pkt  2.00 GiB  accept      fin user al\\nice
07:29:33.987 web                 10.1.0.2:41000 -> 93.184.216.34:443     tcp   ->    12 pkt    1900 B <- 1.23M pkt  2.00 GiB  passed      open would be rejected by web-in
";
    assert_eq!(plain(&events), want);
}

#[test]
fn arrows_and_colours_where_they_can_be_shown() {
    let mut text = Text::new(Look { colour: true, ascii: false, zone: TimeZone::UTC });
    let want = "\x1b[2m07:29:33.987\x1b[0m \x1b[36mweb         \x1b[0m        10.1.0.2:41000 → 93.184.216.34:443     tcp   \
                →    12 pkt    1900 B ← 1.23M pkt  2.00 GiB  \x1b[32maccept     \x1b[0m fin\n";
    assert_eq!(write(&mut text, &Event::Flow(flow())), want);
}

#[test]
fn all_is_ascii_and_on_its_line_whatever_the_network_says() {
    let evil = "\x1b]0;x\x07\u{202e}\né";
    let mut record = flow();
    record.context_id = evil.into();
    record.drop_reason = evil.into();
    record.destination = Some(end(evil, "10.0.0.1", 1));
    let counters = vec![Counters { name: evil.into(), value: 1 }];
    let events = [
        Event::Flow(record),
        Event::Container(ContainerRecord {
            event: evil.into(),
            ip_address: [(evil.to_owned(), evil.to_owned())].into(),
            tags: Arc::new([evil].into_iter().collect()),
            ..ContainerRecord::default()
        }),
        Event::User(UserRecord { id: evil.into(), claims: vec![evil.into()], ..UserRecord::default() }),
        Event::Trace(TraceRecord { records: vec![evil.to_owned()] }),
        Event::Packet(PacketReport { drop_reason: evil.into(), ..PacketReport::default() }),
        Event::Counter(CounterReport { counters, ..CounterReport::default() }),
        Event::Dns(DnsRequestReport {
            name_lookup: evil.into(),
            error: evil.into(),
            ..DnsRequestReport::default()
        }),
        Event::Ping(PingReport {
            destination_id: evil.into(),
            latency: evil.into(),
            ..PingReport::default()
        }),
    ];
    for event in &events {
        let text = plain(std::slice::from_ref(event));
        let line = text.strip_suffix('\n').unwrap();
        assert!(line.bytes().all(|octet| (b' '..=b'~').contains(&octet)), "{line:?}");
        assert!(line.contains(r"\u{1b}]0;x\u{7}\u{202e}\n\u{e9}"), "{line:?}");
    }
}

#[test]
fn counters_show_what_counted() {
    let report = |context_id: &str, values: [u64; 3]| {
        let names = ["rx_packets", "rx_bytes", "tx_packets"].into_iter();
        let counters = names.zip(values).map(|(name, value)| Counters { name: name.into(), value }).collect();
        Event::Counter(CounterReport { context_id: context_id.into(), counters, ..CounterReport::default() })
    };
    let want = "\
07:29:33.987 web          counters  rx_packets 10.0k  rx_bytes 9.77 KiB
07:29:33.987 datapath     counters  tx_packets 1
";
    let events = [report("web", [10_000, 10_000, 0]), report("idle", [0, 0, 0]), report("", [0, 0, 1])];
    assert_eq!(plain(&events), want);
}

#[test]
fn a_user_is_known_by_name_and_what_has_no_address_shows_none() {
    let user = |claims: &[&str]| UserRecord {
        id: "5e".into(),
        namespace: "/prod".into(),
        claims: claims.iter().map(|claim| (*claim).into()).collect(),
    };
    let started = |address: &str| ContainerRecord {
        context_id: "web".into(),
        ip_address: [("bridge".to_owned(), address.to_owned())].into(),
        event: "start".into(),
        ..ContainerRecord::default()
    };
    let events = [
        Event::User(user(&["uid=1000", "user=al\nice", "unit=web"])),
        Event::Container(started("0.0.0.0/0")),
        Event::Container(started("10.1.0.2")),
    ];
    let want = "\
07:29:33.987 /prod        user al\\nice uid=1000 unit=web id 5e
07:29:33.987 web          container start
07:29:33.987 web          container start bridge=10.1.0.2
";
    assert_eq!(plain(&events), want);
}

#[test]
fn the_other_records() {
    let events = [
        Event::Container(ContainerRecord {
            context_id: "web".into(),
            ip_address: [("bridge".to_owned(), "10.1.0.2".to_owned())].into(),
            tags: Arc::new(["app=web"].into_iter().collect()),
            event: "start".into(),
        }),
        Event::User(UserRecord {
            id: "5e".into(),
            namespace: "/prod".into(),
            claims: vec!["CN=alice".into()],
        }),
        Event::Trace(TraceRecord { records: vec!["one".to_owned(), "two".to_owned()] }),
        Event::Packet(PacketReport {
            puid: "web".into(),
            source_ip: "10.1.0.2".parse().ok(),
            source_port: 1,
            destination_ip: "10.1.0.3".parse().ok(),
            destination_port: 53,
            protocol: 17,
            length: 84,
            event: PacketEvent::Dropped,
            drop_reason: "NO_SOCKET".into(),
            ..PacketReport::default()
        }),
        Event::Packet(PacketReport {
            puid: "web".into(),
            ethertype: "lldp".into(),
            length: 60,
            event: PacketEvent::Dropped,
            drop_reason: "UNHANDLED_PROTO".into(),
            ..PacketReport::default()
        }),
        Event::Dns(DnsRequestReport {
            source: Some(end("web", "10.1.0.2", 0)),
            name_lookup: "example.com.".into(),
            count: 3,
            error: "NXDOMAIN".into(),
            ..DnsRequestReport::default()
        }),
        Event::Ping(PingReport {
            source_id: "web".into(),
            destination_id: "db".into(),
            stage: Stage::Reply,
            latency: "1.2ms".into(),
            request: 1,
            ..PingReport::default()
        }),
        Event::Status(Box::default()),
    ];
    let want = "\
07:29:33.987 web          container start bridge=10.1.0.2 app=web
07:29:33.987 /prod        user 5e CN=alice
07:29:33.987 trace        one
07:29:33.987 trace        two
07:29:33.987 web                     10.1.0.2:1 -> 10.1.0.3:53           udp   packet dropped          84 B NO_SOCKET
07:29:33.987 web                              - -> -                     lldp  packet dropped          60 B UNHANDLED_PROTO
07:29:33.987 web          dns example.com. x3 NXDOMAIN
07:29:33.987 web          ping reply -> db request 1 after 1.2ms
ledger: seen 0 = flows 0; nothing lost
";
    assert_eq!(plain(&events), want);
}

#[test]
fn of_lives_those_of_services_are_left_out() {
    let record = |id: &str, tags: &[&str]| {
        Event::Container(ContainerRecord {
            context_id: id.into(),
            tags: Arc::new(tags.iter().copied().collect()),
            event: "start".into(),
            ..ContainerRecord::default()
        })
    };
    let out = plain(&[
        record("cron.service", &["unit=cron.service", "slice=system.slice"]),
        record("aa", &["runtime=podman", "unit=web.service"]),
    ]);
    assert_eq!(out.lines().count(), 1, "{out}");
    assert!(out.contains("aa           container start runtime=podman"), "{out}");
}

#[test]
fn advice_is_given_once() {
    let packet = Event::Packet(PacketReport {
        event: PacketEvent::Dropped,
        puid: "web".into(),
        drop_reason: "connection".into(),
        kernel_reason: "NO_SOCKET".into(),
        drop_place: "__udp4_lib_rcv+0x4bc".into(),
        advice: "nothing listens".into(),
        ..PacketReport::default()
    });
    let out = plain(&[packet.clone(), packet]);
    let lines: Vec<_> = out.lines().collect();
    assert!(lines[0].ends_with("NO_SOCKET at __udp4_lib_rcv+0x4bc: nothing listens"), "{out}");
    assert!(lines[1].ends_with("NO_SOCKET at __udp4_lib_rcv+0x4bc"), "{out}");
}
