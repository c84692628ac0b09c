//! What real sockets receive, and what is counted when they do not.

use std::{
    fs, io,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use jiff::tz::TimeZone;

use super::{Datagrams, Encode, Entry, Journal, JsonLines, Log, Socket, Syslog, TextLines, line};
use crate::{
    collector::EventCollector as _,
    error::with_causes,
    event::{
        ContainerRecord, CounterReport, Counters, EndPoint, Event, FlowRecord, Ledger, Status, Time,
        TraceRecord,
    },
    sink::{
        Format as _,
        queue::{self, Queue, SinkCounts, Writer},
    },
};

/// Longer than any test takes that passes.
const GRACE: Duration = Duration::from_secs(30);

/// 2026-05-09T07:29:33 UTC and 42 ns.
fn clock() -> Time {
    Time::from_unix_nanos(1_778_311_773_000_000_042)
}

fn flow(packets: u64) -> Event {
    let source =
        EndPoint { id: "web".into(), ip: Some([10, 0, 0, 1].into()), port: 80, ..EndPoint::default() };
    Event::Flow(FlowRecord {
        context_id: "web".into(),
        source: Some(source),
        packets,
        ..FlowRecord::default()
    })
}

/// The socket of a log daemon, in a folder of its own.
struct Daemon {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Daemon {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("collector-log-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        let socket = Self::bind(&path);
        Self { path, socket }
    }

    fn bind(path: &Path) -> UnixDatagram {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(GRACE)).unwrap();
        socket
    }

    /// Another socket of the same path, as after a new start.
    fn restart(&mut self) {
        fs::remove_file(&self.path).unwrap();
        self.socket = Self::bind(&self.path);
    }

    fn receive(&self) -> Vec<u8> {
        let mut datagram = vec![0; 64 * 1024];
        let length = self.socket.recv(&mut datagram).unwrap();
        datagram.truncate(length);
        datagram
    }

    fn sink(&self, encode: impl Encode + 'static) -> (Queue, Writer) {
        let target = Socket::new(encode, Datagrams::connect(&self.path).unwrap());
        queue::start_target("log", 1000, clock, target).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn close(writer: Writer) -> SinkCounts {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let closed = runtime.block_on(async { writer.close(tokio::time::sleep(GRACE)).await });
    closed.unwrap().counts()
}

#[test]
fn syslog_receives_what_the_c_library_would_send() {
    let daemon = Daemon::new();
    let (queue, writer) = daemon.sink(Syslog::new(TimeZone::UTC));
    queue.push(|| flow(7));
    let text = String::from_utf8(daemon.receive()).unwrap();
    let want = format!("<30>May  9 07:29:33 collector[{}]: kind=flow context_id=web ", std::process::id());
    assert!(text.starts_with(&want), "{text}");
    assert!(text.contains(" source_ip=10.0.0.1 source_port=80 ") && text.contains(" packets=7 "), "{text}");
    assert!(!text.contains('\n'), "{text}");
    assert_eq!(close(writer), SinkCounts { delivered: 1, ..SinkCounts::default() });
}

/// The fields of a datagram of the journal's protocol, read by its letter.
fn fields(mut datagram: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    while let Some(end) = datagram.iter().position(|octet| *octet == b'\n') {
        let name = String::from_utf8(datagram[..end].to_vec()).unwrap();
        assert!(!name.contains('='), "the short form is not used");
        let rest = &datagram[end + 1..];
        let (length, rest) = rest.split_at(8);
        let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
        let (value, rest) = rest.split_at(length);
        assert_eq!(rest[0], b'\n');
        fields.push((name, String::from_utf8(value.to_vec()).unwrap()));
        datagram = &rest[1..];
    }
    assert!(datagram.is_empty());
    fields
}

#[test]
fn the_journal_receives_a_field_for_each_of_the_events() {
    let daemon = Daemon::new();
    let (queue, writer) = daemon.sink(Journal);
    queue.push(|| flow(7));
    queue.collect_trace_event(&["one\nMESSAGE=forged".to_owned(), "two".to_owned()]);
    let flow = fields(&daemon.receive());
    let value = |name: &str| flow.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    for (name, want) in [
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "collector"),
        ("TARGET", "collector::event"),
        ("F_TIME", "2026-05-09T07:29:33.000000042Z"),
        ("F_KIND", "flow"),
        ("F_CONTEXT_ID", "web"),
        ("F_SOURCE_PORT", "80"),
        ("F_PACKETS", "7"),
    ] {
        assert_eq!(value(name), Some(want), "{name} of {flow:?}");
    }
    assert!(value("MESSAGE").unwrap().starts_with("kind=flow context_id=web "), "{flow:?}");
    let is_valid =
        |name: &str| name.bytes().all(|octet| octet.is_ascii_uppercase() || b"_0123456789".contains(&octet));
    assert!(flow.iter().all(|(name, _)| is_valid(name)), "{flow:?}");
    // A record of two lines is two entries, and no line makes a field.
    let one = fields(&daemon.receive());
    assert_eq!(one.iter().filter(|(name, _)| name == "MESSAGE").count(), 1, "{one:?}");
    assert!(one.contains(&("F_LINE".to_owned(), "one\nMESSAGE=forged".to_owned())), "{one:?}");
    assert!(fields(&daemon.receive()).contains(&("F_LINE".to_owned(), "two".to_owned())));
    assert_eq!(close(writer), SinkCounts { delivered: 2, ..SinkCounts::default() });
}

#[test]
fn a_socket_that_takes_nothing_holds_nobody_and_its_losses_are_counted() {
    let daemon = Daemon::new();
    let other = UnixDatagram::unbound().unwrap();
    other.connect(&daemon.path).unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send(b"entry").is_ok() {}
    let target = Socket::new(Syslog::new(TimeZone::UTC), Datagrams::connect(&daemon.path).unwrap());
    let (queue, writer) = queue::start_target("log", 10, clock, target).unwrap();
    // More than the queue holds, and the batch that its thread has taken; this returns all the same.
    for packets in 0..1000 {
        queue.push(|| flow(packets));
    }
    assert!(queue.counts().queue_full > 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let error = runtime.block_on(writer.close(std::future::ready(()))).err().unwrap();
    assert!(error.to_string().starts_with("the log output takes nothing, or too slowly: "), "{error}");
    let SinkCounts { delivered, queue_full, failed } = queue.counts();
    assert_eq!((delivered, queue_full + failed), (0, 1000));
    assert!(failed >= 10);
}

#[test]
fn a_daemon_that_is_gone_costs_its_events_and_one_that_is_back_gets_them_again() {
    let mut daemon = Daemon::new();
    let mut datagrams = Datagrams::connect(&daemon.path).unwrap();
    datagrams.send(b"1").unwrap();
    daemon.restart();
    datagrams.send(b"2").unwrap();
    assert_eq!(daemon.receive(), b"2");
    fs::remove_file(&daemon.path).unwrap();
    daemon.socket = UnixDatagram::unbound().unwrap();
    for _ in 0..2 {
        assert_eq!(datagrams.send(b"3").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
    daemon.socket = Daemon::bind(&daemon.path);
    datagrams.send(b"4").unwrap();
    assert_eq!(daemon.receive(), b"4");
    // Too large for any socket: an error of this one, which leaves the next alone.
    assert!(datagrams.send(&vec![0; 64 << 20]).is_err());
    datagrams.send(b"5").unwrap();
    assert_eq!(daemon.receive(), b"5");
}

#[test]
fn what_a_daemon_refuses_is_counted_and_does_not_end_the_sink() {
    let mut daemon = Daemon::new();
    let (queue, writer) = daemon.sink(Syslog::new(TimeZone::UTC));
    queue.push(|| flow(1));
    daemon.receive();
    fs::remove_file(&daemon.path).unwrap();
    daemon.socket = UnixDatagram::unbound().unwrap();
    queue.push(|| flow(2));
    assert_eq!(close(writer), SinkCounts { delivered: 1, failed: 1, queue_full: 0 });
}

#[test]
fn the_last_line_that_nobody_takes_says_where_why_and_what_to_do() {
    for (is_there, want) in [(true, "Connection refused"), (false, "No such file")] {
        let mut daemon = Daemon::new();
        let (_queue, writer) = daemon.sink(Syslog::new(TimeZone::UTC));
        daemon.socket = UnixDatagram::unbound().unwrap();
        if !is_there {
            fs::remove_file(&daemon.path).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let finished = runtime.block_on(async {
            let closed = writer.close(tokio::time::sleep(GRACE)).await.unwrap();
            closed.finish(Status::default(), tokio::time::sleep(GRACE)).await
        });
        let said = with_causes(&finished.unwrap_err());
        let path = daemon.path.display();
        let start = format!(
            "the log output did not take the final status: no log daemon listens on {path}: \
             expected one that runs, or another `to`: {want}"
        );
        assert!(said.starts_with(&start), "{said}");
    }
}

fn lines(encode: impl Encode, event: &Event) -> String {
    let mut out = Vec::new();
    Log::new(encode).write(clock(), event, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn text_lines_are_whole_and_safe() {
    let counter = |name: &str, value| Counters { name: name.into(), value };
    let counters = vec![counter("rx_packets", 3), counter("rx_bytes", 0), counter("tx_packets", 4)];
    let report = CounterReport { context_id: "web".into(), counters, ..CounterReport::default() };
    assert_eq!(
        lines(TextLines, &Event::Counter(report)),
        "2026-05-09T07:29:33.000000042Z  INFO collector::event: kind=counter context_id=web namespace=\"\" \
         counters=\"rx_packets 3, tx_packets 4\"\n"
    );
    let trace = Event::Trace(TraceRecord { records: vec!["a=b \"c\"\n\u{1b}[31m\u{e9}".to_owned()] });
    let text = lines(TextLines, &trace);
    assert!(text.ends_with(": kind=trace line=\"a=b \\\"c\\\"\\n\\u{1b}[31m\\u{e9}\"\n"), "{text}");
}

#[test]
fn json_lines_are_objects() {
    let container = ContainerRecord { event: "create".into(), ..ContainerRecord::default() };
    let text = lines(JsonLines, &Event::Container(container));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&value["level"], &value["target"]), (&"INFO".into(), &"collector::event".into()));
    assert_eq!((&value["kind"], &value["event"]), (&"container".into(), &"create".into()));
    assert_eq!(value["timestamp"], "2026-05-09T07:29:33.000000042Z");
    let flow = lines(JsonLines, &flow(7));
    let flow: serde_json::Value = serde_json::from_str(&flow).unwrap();
    assert_eq!(flow["packets"], 7);
}

#[test]
fn the_status_is_an_entry() {
    let mut ledger = Ledger { seen: 5, flows: 4, table_full: 1, ..Ledger::default() };
    ledger.queue_full.insert("json".to_owned(), 3);
    let status = Event::Status(Box::new(Status { ledger, ..Status::default() }));
    let text = lines(TextLines, &status);
    let want = ": kind=status seen=5 explained=5 lost=\"table_full 1, queue_full.json 3\"\n";
    assert!(text.ends_with(want), "{text}");
    assert!(lines(TextLines, &Event::Status(Box::default())).ends_with("lost=nothing\n"));
}

#[test]
fn keywords_have_their_plain_name() {
    let text = lines(TextLines, &Event::Ping(crate::event::PingReport::default()));
    assert!(text.contains(" type="), "{text}");
    assert_eq!(line::text(&Entry::default()), "");
}
