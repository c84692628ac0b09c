//! Outputs whose readers stop and go on, alone in a process, so that its memory is theirs.

use std::{
    future::pending,
    io::{BufRead as _, BufReader},
    net::Ipv4Addr,
    os::unix::net::UnixDatagram,
    panic,
    path::Path,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use anyhow::Context as _;
use collector_tests::{Result, scratch::Scratch};
use collector_user::{
    clock,
    collector::{EventCollector as _, fanout::Fanout, mock::MockEventCollector},
    event::{EndPoint, FlowRecord},
    sink::{
        Format,
        json::Json,
        log::{Datagrams, Journal, JsonLines, Log, Socket},
        queue::{self, Queue, Writer},
        text::{Look, Text},
    },
};
use jiff::tz::TimeZone;

/// A minute of ten thousand a second, as fast as they can be made.
const RECORDS: u32 = 600_000;
/// Records that may wait at an output.
const QUEUE: usize = 10_000;
/// Octets of memory that all of it may take.
const MEMORY: u64 = 64 << 20;

/// An output, and who reads it once the channel says so: the numbers of the records that came.
struct Output {
    name: &'static str,
    writer: Writer,
    reading: JoinHandle<Result<Vec<u32>>>,
}

/// A record, and its number in the address of its source.
fn record(number: u32) -> FlowRecord {
    let end = |ip: Ipv4Addr| Some(EndPoint { ip: Some(ip.into()), ..EndPoint::default() });
    FlowRecord {
        context_id: "web".into(),
        source: end(Ipv4Addr::from_bits(10 << 24 | number)),
        destination: end([192, 0, 2, 1].into()),
        packets: 1,
        bytes: 100,
        count: 1,
        ..FlowRecord::default()
    }
}

/// The number of the record that this is about, if it is about one.
fn number(text: &str) -> Option<u32> {
    let words = text.split(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let mut addresses = words.filter_map(|word| word.parse::<Ipv4Addr>().ok());
    let source = addresses.find(|address| address.octets()[0] == 10)?;
    Some(source.to_bits() & 0xFF_FFFF)
}

/// Lines of a pipe.
fn piped(
    name: &'static str,
    format: impl Format + 'static,
    go_on: mpsc::Receiver<()>,
) -> Result<(Queue, Output)> {
    let (end, out) = std::io::pipe()?;
    let (queue, writer) = queue::start(name, QUEUE, clock::wall, format, out)?;
    let reading = thread::spawn(move || {
        go_on.recv().context("the test says when")?;
        let lines = BufReader::new(end).lines();
        let numbers = lines.map(|line| Ok(number(&line?)));
        numbers.filter_map(Result::transpose).collect()
    });
    Ok((queue, Output { name, writer, reading }))
}

/// A journal, which ends with an empty datagram.
fn journal(path: &Path, go_on: mpsc::Receiver<()>) -> Result<(Queue, Output)> {
    let daemon = UnixDatagram::bind(path)?;
    let (queue, writer) =
        queue::start_target("journal", QUEUE, clock::wall, Socket::new(Journal, Datagrams::connect(path)?))?;
    let reading = thread::spawn(move || {
        go_on.recv().context("the test says when")?;
        let (mut entry, mut numbers) = (vec![0; 1 << 16], Vec::new());
        loop {
            let length = daemon.recv(&mut entry)?;
            if length == 0 {
                return Ok(numbers);
            }
            numbers.extend(entry.get(..length).and_then(|entry| number(&String::from_utf8_lossy(entry))));
        }
    });
    Ok((queue, Output { name: "journal", writer, reading }))
}

/// The most octets of memory that this process has had.
fn memory() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = most.and_then(|most| most.trim().strip_suffix(" kB")).context("the kernel says no VmHWM")?;
    Ok(kib.parse::<u64>()? << 10)
}

#[test]
fn outputs_whose_readers_stop_for_a_minute_lose_what_they_say_and_nothing_twice() -> Result<()> {
    let scratch = Scratch::new()?;
    let socket = scratch.join("journal");
    let text = Text::new(Look::choose(false, |_| None, TimeZone::UTC));
    let mut go_on = Vec::new();
    let mut hold = || {
        let (go, goes_on) = mpsc::channel();
        go_on.push(go);
        goes_on
    };
    let outputs = [
        piped("json", Json, hold())?,
        piped("text", text, hold())?,
        piped("log", Log::new(JsonLines), hold())?,
        journal(&socket, hold())?,
    ];
    let mut others = MockEventCollector::new();
    others.expect_collect_flow_event().times(RECORDS as usize).return_const(());
    let mut fanout = Fanout::new().with("others", others);
    let mut all = Vec::new();
    for (queue, output) in outputs {
        fanout = fanout.with(output.name, queue);
        all.push(output);
    }
    for number in 0..RECORDS {
        fanout.collect_flow_event(&record(number));
    }
    let most = memory()?;
    for go in go_on {
        go.send(()).context("a reader waits")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for Output { name, writer, reading } in all {
        let counts = runtime.block_on(writer.close(pending()))?.counts();
        if name == "journal" {
            UnixDatagram::unbound()?.send_to(&[], &socket)?;
        }
        assert_eq!(counts.delivered + counts.queue_full, u64::from(RECORDS), "{name}: {counts:?}");
        assert!(counts.delivered >= QUEUE as u64 / 2 && counts.failed == 0, "{name}: {counts:?}");
        let came = reading.join().unwrap_or_else(|cause| panic::resume_unwind(cause))?;
        assert_eq!(came.len() as u64, counts.delivered, "{name}");
        let in_order = came.iter().zip(came.iter().skip(1)).all(|(one, next)| one < next);
        assert!(in_order, "{name}: each once, in the order in which they were handed over");
    }
    // Who did not stop has got all: the mock says so as it goes.
    assert_eq!(fanout.panics().counts().values().sum::<u64>(), 0);
    drop(fanout);
    assert!(most < MEMORY, "{most} octets of memory");
    Ok(())
}
