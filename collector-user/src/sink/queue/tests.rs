//! What a sink does when its output is slow, breaks or goes, without a sleep.

use std::{
    io::{self, Write as _},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{Closed, End, Queue, SinkCounts, Writer, start, start_target};
use crate::{
    collector::{EventCollector, memory::Recorder},
    event::{
        ContainerRecord, CounterReport, DnsRequestReport, Event, FlowRecord, Ledger, PacketEvent,
        PacketReport, PingReport, Status, Time, UserRecord,
    },
    sink::{Behind, Format, Room as _, SinkError, json::Json},
};

/// Longer than any test takes that passes.
const GRACE: Duration = Duration::from_secs(30);

static TICKS: AtomicI64 = AtomicI64::new(0);

/// A clock that never says the same twice.
fn clock() -> Time {
    Time::from_unix_nanos(TICKS.fetch_add(1, Relaxed))
}

/// An output that others can see, hold and break.
#[derive(Clone, Default)]
struct Output(Arc<(Mutex<Contents>, Condvar)>);

#[derive(Default)]
struct Contents {
    octets: Vec<u8>,
    is_held: bool,
    is_waiting: bool,
    failure: Option<io::ErrorKind>,
}

impl Output {
    fn change(&self, change: impl FnOnce(&mut Contents)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    fn wait_for(&self, condition: impl Fn(&Contents) -> bool) {
        let contents = self.0.0.lock().unwrap();
        let (_contents, outcome) =
            self.0.1.wait_timeout_while(contents, GRACE, |contents| !condition(contents)).unwrap();
        assert!(!outcome.timed_out(), "waited too long");
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.0.lock().unwrap().octets.clone()).unwrap()
    }

    fn lines(&self) -> Vec<String> {
        self.text().lines().map(str::to_owned).collect()
    }
}

impl io::Write for Output {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let mut contents = self.0.0.lock().unwrap();
        contents.is_waiting = true;
        self.0.1.notify_all();
        contents = self.0.1.wait_while(contents, |contents| contents.is_held).unwrap();
        contents.is_waiting = false;
        if let Some(kind) = contents.failure {
            return Err(kind.into());
        }
        contents.octets.extend_from_slice(octets);
        self.0.1.notify_all();
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One line an event: its kind. Panics on flows of 666 packets, fails on those of 667.
struct Fragile;

impl Format for Fragile {
    fn write(&mut self, _: Time, event: &Event, out: &mut Vec<u8>) -> io::Result<()> {
        writeln!(out, "{}", event.kind())?;
        match event {
            Event::Flow(record) if record.packets == 666 => std::panic::resume_unwind(Box::new("on purpose")),
            Event::Flow(record) if record.packets == 667 => Err(io::ErrorKind::InvalidData.into()),
            _ => Ok(()),
        }
    }
}

fn flow(packets: u64) -> FlowRecord {
    FlowRecord { packets, ..FlowRecord::default() }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(GRACE, future).await.unwrap() })
}

fn close(writer: Writer) -> Result<Closed, SinkError> {
    block_on(writer.close(std::future::pending()))
}

fn end(closed: Closed, status: Status) -> Result<(), SinkError> {
    block_on(closed.finish(status, std::future::pending()))
}

fn finish(writer: Writer) -> Result<SinkCounts, SinkError> {
    let closed = close(writer)?;
    let counts = closed.counts();
    let mut ledger = Ledger::default();
    ledger.delivered.insert("test".to_owned(), counts.delivered);
    ledger.queue_full.insert("test".to_owned(), counts.queue_full);
    end(closed, Status { ledger, ..Status::default() })?;
    Ok(counts)
}

fn counts(delivered: u64, queue_full: u64, failed: u64) -> SinkCounts {
    SinkCounts { delivered, queue_full, failed }
}

#[test]
fn events_are_written_in_order_and_the_status_last() {
    let output = Output::default();
    let (queue, writer) = start("test", 1000, clock, Json, output.clone()).unwrap();
    for packets in 0..500 {
        queue.collect_flow_event(&flow(packets));
    }
    assert_eq!(finish(writer).unwrap(), counts(500, 0, 0));
    let events: Vec<Event> = output.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, flows) = events.split_last().unwrap();
    for (packets, event) in (0..).zip(flows) {
        assert!(matches!(event, Event::Flow(record) if record.packets == packets), "{event:?}");
    }
    let Event::Status(status) = last else { panic!("{last:?}") };
    assert_eq!(status.ledger.delivered["test"], 500);
}

#[test]
fn an_event_shows_at_once_when_no_other_waits() {
    let output = Output::default();
    let (queue, _writer) = start("test", 10, clock, Fragile, output.clone()).unwrap();
    queue.collect_counter_event(&CounterReport::default());
    output.wait_for(|contents| contents.octets == b"counter\n");
}

#[test]
fn time_is_taken_when_the_event_is_handed_over() {
    let output = Output::default();
    output.change(|contents| contents.is_held = true);
    let (queue, writer) = start("test", 10, clock, Json, output.clone()).unwrap();
    queue.collect_flow_event(&flow(0));
    queue.collect_flow_event(&flow(1));
    let after = clock().to_string();
    output.change(|contents| contents.is_held = false);
    finish(writer).unwrap();
    for line in output.lines().iter().take(2) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["time"].as_str().unwrap() < after.as_str(), "{line} after {after}");
    }
}

#[test]
fn a_held_output_holds_nobody_and_what_finds_no_room_is_counted_exactly() {
    let output = Output::default();
    output.change(|contents| contents.is_held = true);
    let (queue, writer) = start("test", 10, clock, Fragile, output.clone()).unwrap();
    queue.collect_flow_event(&flow(0));
    output.wait_for(|contents| contents.is_waiting);
    // The thread holds one event. This returns although the output takes nothing.
    for packets in 0..25 {
        queue.collect_flow_event(&flow(packets));
    }
    assert_eq!(queue.counts(), counts(0, 15, 0));
    output.change(|contents| contents.is_held = false);
    assert_eq!(finish(writer).unwrap(), counts(11, 15, 0));
    assert_eq!(output.text(), "flow\n".repeat(11) + "status\n");
}

#[test]
fn a_format_that_panics_or_fails_loses_its_event_only() {
    let output = Output::default();
    let (queue, writer) = start("test", 100, clock, Fragile, output.clone()).unwrap();
    for packets in [1, 666, 2, 667, 666, 3] {
        queue.collect_flow_event(&flow(packets));
    }
    assert_eq!(finish(writer).unwrap(), counts(3, 0, 3));
    assert_eq!(output.text(), "flow\nflow\nflow\nstatus\n");
}

/// Breaks the output while events wait, and checks that each is counted.
fn break_output(kind: io::ErrorKind) -> (Queue, Writer) {
    let output = Output::default();
    output.change(|contents| (contents.is_held, contents.failure) = (true, Some(kind)));
    let (queue, writer) = start("test", 10, clock, Fragile, output.clone()).unwrap();
    queue.collect_flow_event(&flow(0));
    output.wait_for(|contents| contents.is_waiting);
    for packets in 0..12 {
        queue.collect_flow_event(&flow(packets));
    }
    output.change(|contents| contents.is_held = false);
    let end = block_on(writer.ended());
    assert_eq!(matches!(end, End::NoReader), kind == io::ErrorKind::BrokenPipe, "{end:?}");
    queue.collect_flow_event(&flow(0));
    assert_eq!(queue.counts(), counts(0, 2, 12));
    (queue, writer)
}

#[test]
fn a_reader_that_goes_ends_the_sink_without_an_error() {
    let (_, writer) = break_output(io::ErrorKind::BrokenPipe);
    let closed = close(writer).unwrap();
    assert!(!closed.is_open());
    assert_eq!(closed.counts(), counts(0, 2, 12));
    end(closed, Status::default()).unwrap();
}

#[test]
fn any_other_failure_is_kept_as_an_error() {
    let (_, writer) = break_output(io::ErrorKind::StorageFull);
    let error = close(writer).err().unwrap();
    assert_eq!(error.to_string(), "the test output cannot be written to");
    assert!(matches!(error, SinkError::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull));
}

#[test]
fn a_reader_that_goes_before_the_last_line_is_no_error() {
    let output = Output::default();
    let (queue, writer) = start("test", 10, clock, Fragile, output.clone()).unwrap();
    queue.collect_flow_event(&flow(0));
    let closed = close(writer).unwrap();
    output.change(|contents| contents.failure = Some(io::ErrorKind::BrokenPipe));
    end(closed, Status::default()).unwrap();
    assert_eq!(output.text(), "flow\n");
}

#[test]
fn an_output_that_takes_nothing_is_given_up() {
    let output = Output::default();
    output.change(|contents| contents.is_held = true);
    let (queue, writer) = start("test", 10, clock, Fragile, output.clone()).unwrap();
    for packets in 0..3 {
        queue.collect_flow_event(&flow(packets));
    }
    let error = block_on(writer.close(std::future::ready(()))).err().unwrap();
    assert!(matches!(error, SinkError::Stuck { unwritten: 3, .. }), "{error}");
    assert_eq!(queue.counts(), counts(0, 0, 3));
    output.change(|contents| contents.is_held = false);
}

#[test]
fn a_writer_that_is_dropped_lets_the_thread_write_what_it_has() {
    let (mut reader, pipe) = io::pipe().unwrap();
    let (queue, writer) = start("test", 10, clock, Fragile, pipe).unwrap();
    queue.collect_flow_event(&flow(0));
    drop(writer);
    // The pipe ends when the thread does.
    let mut text = String::new();
    io::Read::read_to_string(&mut reader, &mut text).unwrap();
    assert_eq!(text, "flow\n");
    queue.collect_flow_event(&flow(0));
    assert_eq!(queue.counts().failed, 1);
}

#[test]
fn a_real_pipe_without_a_reader_ends_the_sink() {
    let (reader, pipe) = io::pipe().unwrap();
    drop(reader);
    let (queue, writer) = start("test", 10, clock, Fragile, pipe).unwrap();
    queue.collect_flow_event(&flow(0));
    assert_eq!(finish(writer).unwrap(), counts(0, 0, 1));
}

#[test]
fn what_a_trace_tells_leaves_room_for_what_else_there_is() {
    let output = Output::default();
    output.change(|contents| contents.is_held = true);
    let (queue, writer) = start("test", 8, clock, Fragile, output.clone()).unwrap();
    // The thread holds one, and takes no more.
    queue.collect_flow_event(&flow(0));
    output.wait_for(|contents| contents.is_waiting);
    let packet = |event| PacketReport { event, ..PacketReport::default() };
    for _ in 0..100 {
        queue.collect_packet_event(&packet(PacketEvent::Received));
    }
    assert_eq!(queue.counts().queue_full, 94);
    queue.collect_packet_event(&packet(PacketEvent::Dropped));
    queue.collect_flow_event(&flow(1));
    assert_eq!(queue.counts().queue_full, 94);
    queue.collect_packet_event(&packet(PacketEvent::Dropped));
    assert_eq!(queue.counts().queue_full, 95);
    output.change(|contents| contents.is_held = false);
    assert_eq!(finish(writer).unwrap(), counts(9, 95, 0));
}

#[test]
fn a_flood_of_one_unit_leaves_room_to_others_and_it_is_said_whose_was_lost() {
    let output = Output::default();
    output.change(|contents| contents.is_held = true);
    let (queue, writer) = start("test", 100, clock, Fragile, output.clone()).unwrap();
    // The thread holds one, and takes no more.
    queue.collect_flow_event(&flow(0));
    output.wait_for(|contents| contents.is_waiting);
    let of = |unit: &str| FlowRecord { context_id: unit.into(), ..flow(0) };
    for _ in 0..1000 {
        queue.collect_flow_event(&of("loud"));
    }
    for _ in 0..10 {
        queue.collect_flow_event(&of("still"));
    }
    queue.push(|| Event::Status(Box::default()));
    // Four fifths, and the one that makes them so.
    assert_eq!(queue.queue_full_of(), [("loud".into(), 1000 - 81)].into());
    output.change(|contents| contents.is_held = false);
    assert_eq!(finish(writer).unwrap(), counts(1 + 81 + 10 + 1, 1000 - 81, 0));
}

#[test]
fn one_slow_sink_does_not_hold_up_the_other() {
    let (slow, fast) = (Output::default(), Output::default());
    slow.change(|contents| contents.is_held = true);
    let (slow_queue, slow_writer) = start("slow", 4, clock, Fragile, slow.clone()).unwrap();
    let (fast_queue, fast_writer) = start("fast", 1000, clock, Fragile, fast.clone()).unwrap();
    let fanout =
        crate::collector::fanout::Fanout::new().with("slow", slow_queue.clone()).with("fast", fast_queue);
    for packets in 0..100 {
        fanout.collect_flow_event(&flow(packets));
    }
    assert_eq!(finish(fast_writer).unwrap(), counts(100, 0, 0));
    slow.change(|contents| contents.is_held = false);
    let told = finish(slow_writer).unwrap();
    assert_eq!(told.delivered + told.queue_full, 100);
    assert!(told.queue_full > 0 && told.failed == 0, "{told:?}");
}

#[test]
fn a_user_has_an_id_when_the_call_returns() {
    let (queue, _writer) = start("test", 1, clock, Json, io::sink()).unwrap();
    let mut record = UserRecord::default();
    queue.collect_user_event(&mut record);
    assert_eq!(record.id.len(), 64);
}

#[test]
fn many_producers_balance() {
    let output = Output::default();
    let (queue, writer) = start("test", 50, clock, Fragile, output.clone()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let queue = queue.clone();
            scope.spawn(move || (0..5000).for_each(|packets| queue.collect_flow_event(&flow(packets))));
        }
    });
    let told = finish(writer).unwrap();
    assert_eq!(told.delivered + told.queue_full + told.failed, 10_000);
    assert_eq!(output.lines().len() as u64, told.delivered + 1);
}

#[test]
fn at_the_end_more_than_the_queue_holds_is_handed_over_without_a_loss() {
    let output = Output::default();
    let (queue, writer) = start("test", 10, clock, Fragile, output.clone()).unwrap();
    queue.wait_for_room();
    for packets in 0..600 {
        queue.collect_flow_event(&flow(packets));
    }
    assert_eq!(finish(writer).unwrap(), counts(600, 0, 0));
    assert_eq!(output.lines().len(), 601);
}

#[test]
fn haste_ends_the_wait_for_room_and_what_finds_none_is_counted() {
    let output = Output::default();
    output.change(|contents| contents.is_held = true);
    let (queue, writer) = start("test", 10, clock, Fragile, output.clone()).unwrap();
    queue.collect_flow_event(&flow(0));
    output.wait_for(|contents| contents.is_waiting);
    queue.wait_for_room();
    std::thread::scope(|scope| {
        let events = scope.spawn(|| (0..15).for_each(|packets| queue.collect_flow_event(&flow(packets))));
        // Before the wait or in it: it ends.
        queue.hurry();
        events.join().unwrap();
    });
    assert_eq!(queue.counts(), counts(0, 5, 0));
    output.change(|contents| contents.is_held = false);
    assert_eq!(finish(writer).unwrap(), counts(11, 5, 0));
}

#[test]
fn any_collector_may_stand_behind_a_queue() {
    /// Panics on users.
    struct Picky(Arc<Recorder>);

    impl EventCollector for Picky {
        fn collect_flow_event(&self, record: &FlowRecord) {
            self.0.collect_flow_event(record);
        }
        fn collect_container_event(&self, _: &ContainerRecord) {}
        fn collect_user_event(&self, _: &mut UserRecord) {
            std::panic::resume_unwind(Box::new("on purpose"))
        }
        fn collect_trace_event(&self, _: &[String]) {}
        fn collect_packet_event(&self, _: &PacketReport) {}
        fn collect_counter_event(&self, _: &CounterReport) {}
        fn collect_dns_requests(&self, _: &DnsRequestReport) {}
        fn collect_ping_event(&self, _: &PingReport) {}
    }

    let recorder = Arc::new(Recorder::new());
    let (queue, writer) = start_target("test", 10, clock, Behind(Picky(Arc::clone(&recorder)))).unwrap();
    queue.collect_user_event(&mut UserRecord::default());
    queue.collect_flow_event(&flow(3));
    assert_eq!(finish(writer).unwrap(), counts(1, 0, 1));
    assert_eq!(recorder.events(), [Event::Flow(flow(3))]);
}
