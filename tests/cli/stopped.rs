#![expect(clippy::indexing_slicing, reason = "a test that looks where nothing is shall fail there")]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::UdpSocket,
    process::{Command, Stdio},
    sync::mpsc::{self, TryRecvError},
    thread,
    time::Duration,
};

use rustix::{
    pipe::fcntl_getpipe_size,
    process::{Pid, Signal, kill_process},
};

use crate::process::{Wire, json, within};

/// More than the ring has room for: each begins a flow.
const FLOWS: u16 = 50_000;
const FIRST_PORT: u16 = 10_000;
const TO: &str = "10.88.0.1:9";

/// A socket in a namespace.
fn socket(namespace: &str, at: &str) -> UdpSocket {
    within(namespace, || UdpSocket::bind(at).expect("the address is free"))
}

/// Sends a datagram from each port, and takes it at the other end: each has crossed the wire.
pub(crate) fn send_all(wire: &Wire) {
    let receiver = socket(&wire.near, TO);
    receiver.set_read_timeout(Some(Duration::from_secs(30))).expect("a time is a time");
    within(&wire.far, || {
        for port in FIRST_PORT..FIRST_PORT + FLOWS {
            let sender = UdpSocket::bind(("10.88.0.2", port)).expect("the port is free");
            sender.send_to(b"new", TO).expect("it is sent");
            receiver.recv(&mut [0; 8]).expect("it arrives");
        }
    });
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_reader_that_is_stopped_and_goes_on_has_lost_what_the_ledger_names_and_nothing_else() {
    let wire = Wire::new();
    wire.ping(1);
    let running = wire.start(&["--output", "json", "--flow-interval", "1h"]);
    running.stop();
    send_all(&wire);
    running.signal("CONT");
    running.signal("INT");
    let (code, lines, errors) = running.end();
    assert_eq!(code, Some(0), "{errors}");

    let events: Vec<_> = lines.iter().map(|line| json(line)).collect();
    let mut flows: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for record in events.iter().filter(|event| event["type"] == "flow").map(|event| &event["record"]) {
        let port = |end: &str| record[end]["port"].as_u64().expect("a port");
        // The sender's. A registry says of one of them that it serves: that stands as the destination.
        let (one, other) = (port("source"), port("destination"));
        if let Some((port, _)) = [(one, other), (other, one)].into_iter().find(|(_, to)| *to == 9) {
            let (packets, begun) = flows.entry(port).or_default();
            for amount in ["packets", "reply_packets"] {
                *packets += record[amount].as_u64().expect("a number");
            }
            *begun += record["count"].as_u64().expect("a number");
        }
    }
    assert_eq!(
        flows.len(),
        usize::from(FLOWS),
        "every flow is told, though the ring had no room for the news of it"
    );
    assert!(flows.values().all(|sums| *sums == (1, 1)), "each once: {flows:?}");

    let ledger = &events.last().expect("a status")["record"]["ledger"];
    let number = |name: &str| ledger[name].as_u64().expect("a number");
    let unparsed: u64 = ledger["unparsed"]
        .as_object()
        .expect("an object")
        .values()
        .filter_map(serde_json::Value::as_u64)
        .sum();
    assert_eq!(number("seen"), number("flows") + unparsed, "{ledger}");
    assert!(number("flows") >= u64::from(FLOWS), "{ledger}");
    assert!(number("reserve_failed") > 0, "the ring was full: {ledger}");
    assert!(number("drained") + number("reserve_failed") >= u64::from(FLOWS), "{ledger}");
    assert_eq!((number("lost"), number("undecodable"), number("gaps")), (0, 0, 0), "{ledger}");
    // Nothing comes twice, and what was passed over is what found no room, but for that which nothing came after.
    assert_eq!(number("repeated"), 0, "{ledger}");
    assert!(number("skipped") <= number("reserve_failed"), "{ledger}");
    let whose = ledger["reserve_failed_of"].as_object().expect("an object").values();
    let whose: u64 = whose.filter_map(serde_json::Value::as_u64).sum();
    assert!((1..=number("reserve_failed")).contains(&whose), "{ledger}");
}

/// Packets that are sent before the reader is stopped, and once it has gone on.
const FEW: u32 = 1000;
/// Packets that are sent while it stands still: more than the buffers have room for, and in less time than the programs count on
/// without their reader (10 s), on a slow machine too.
const MANY: u32 = 100_000;

/// The number that a reported datagram carries, behind headers without options.
fn carried(report: &serde_json::Value) -> u32 {
    let octets = report["payload"].as_str().and_then(|payload| payload.get(2 * 28..2 * 32));
    u32::from_str_radix(octets.expect("four octets are there"), 16).expect("they are hexadecimal")
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn of_a_reader_of_perf_buffers_that_is_stopped_amid_traced_packets_each_is_told_once_or_in_a_named_loss() {
    stop_amid_traced_packets("perf");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn of_a_reader_of_rings_that_is_stopped_amid_traced_packets_each_is_told_once_or_in_a_named_loss() {
    stop_amid_traced_packets("ring");
}

/// Stops a reader by this transport while datagrams come that are traced, and lets it go on: each is told once, or in a named loss.
fn stop_amid_traced_packets(transport: &str) {
    let wire = Wire::new();
    let of_trace = ["--trace", "host:in", "--filter", "udp port 9", "--drops", "off"];
    let others = ["--output", "json", "--flow-interval", "1h", "--transport", transport];
    let mut running = wire.start(&[&of_trace[..], &others].concat());
    let out = BufReader::new(running.out.take().expect("it is piped"));
    let (line, lines) = mpsc::channel();
    // On a thread of its own, which reads as fast as it is written: what waits for an output at the end does so in vain
    // after a while.
    let reading = thread::spawn(move || {
        for text in out.lines() {
            line.send(text.expect("the output is text")).expect("somebody listens");
        }
    });
    let mut told = Vec::new();
    let mut next = || {
        let event = json(&lines.recv().ok()?);
        if event["type"] == "packet" {
            told.push(carried(&event["record"]));
        }
        Some(event)
    };
    let [receiver, sender] = [(&wire.near, TO), (&wire.far, "10.88.0.2:9")].map(|(of, at)| socket(of, at));
    receiver.set_read_timeout(Some(Duration::from_secs(30))).expect("a time is a time");
    let (say, hear) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    let sent = thread::scope(|scope| {
        let sending = scope.spawn(move || {
            let mut number = 0_u32;
            let mut send = |count: u32| {
                for _ in 0..count {
                    sender.send_to(&number.to_be_bytes(), TO).expect("it is sent");
                    receiver.recv(&mut [0; 8]).expect("it arrives");
                    number += 1;
                }
                number
            };
            for count in [FEW, MANY] {
                say.send(send(count)).expect("somebody listens");
                // Without a pause: what is done to the reader is done in the midst of it.
                while goes_on.try_recv() == Err(TryRecvError::Empty) {
                    send(1);
                }
            }
            send(FEW)
        });
        hear.recv().expect("it sends");
        running.stop();
        go_on.send(()).expect("it sends");
        let missed = hear.recv().expect("it sends");
        running.signal("CONT");
        let is_newer =
            |event: &serde_json::Value| event["type"] == "packet" && carried(&event["record"]) > missed;
        while !is_newer(&next().expect("it tells on")) {}
        go_on.send(()).expect("it sends");
        sending.join().expect("all is sent")
    });
    running.signal("INT");
    reading.join().expect("it reads to the end");
    let mut last = serde_json::Value::Null;
    while let Some(event) = next() {
        last = event;
    }
    let (code, errors) = running.end_without_output();
    assert_eq!(code, Some(0), "{errors}");

    let ledger = &last["record"]["ledger"];
    let number = |name: &str| ledger[name].as_u64().expect("a number");
    let of_sinks = |name: &str| {
        let counts = ledger[name].as_object().expect("an object").values();
        counts.filter_map(serde_json::Value::as_u64).sum::<u64>()
    };
    let without_room = number("output_failed") + number("packets_lost");
    assert_eq!(number("traced") - number("filtered"), u64::from(sent), "{transport}: {ledger}");
    assert_eq!(number("packets") + without_room, u64::from(sent), "{transport}: {ledger}");
    let by_sinks = of_sinks("queue_full") + of_sinks("sink_failed");
    assert_eq!(told.len() as u64 + by_sinks, number("packets"), "{transport}: {ledger}");
    assert!(number("output_failed") > 0, "{transport}: there was room for all: {ledger}");
    assert_eq!((number("undecodable"), number("gaps"), number("sampled")), (0, 0, 0), "{ledger}");
    let count = told.len();
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), count, "{transport}: one is told twice");
    assert!(told.last().is_some_and(|last| *last < sent), "{transport}: none is made up");
    // What came before it was stopped had room.
    assert!(told.iter().copied().take(FEW as usize).eq(0..FEW), "{transport}: {:?}", told.first());
    assert_eq!(number("flows") + of_sinks("unparsed"), number("seen"), "{transport}: {ledger}");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_standard_error_that_nobody_reads_holds_up_neither_the_outputs_nor_the_end() {
    let wire = Wire::new();
    let (unread, mut errors) = std::io::pipe().expect("a pipe");
    let room = fcntl_getpipe_size(&errors).expect("its size");
    errors.write_all(&vec![b'.'; room]).expect("it has room for that, and for nothing more");
    let mut command = wire.collector(&["--output", "json", "--flow-interval", "50ms"]);
    command.env("RUST_LOG", "debug").stdout(Stdio::piped()).stderr(errors);
    let mut child = command.spawn().expect("the collector starts");
    // It keeps an end of the pipe.
    drop(command);
    let ping = format!("--net=/run/netns/{}", wire.far);
    let ping = Command::new("nsenter")
        .args([&ping, "ping", "-q", "-i", "0.01", "10.88.0.1"])
        .stdout(Stdio::null())
        .spawn();
    let mut ping = ping.expect("ping starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let is_flow = |line: &String| json(line)["type"] == "flow";
    let flow = lines.by_ref().map(|line| line.expect("the output is text")).find(is_flow);
    ping.kill().and_then(|()| ping.wait()).expect("it was started here");
    assert!(flow.is_some(), "it ended");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    let last = lines.last().expect("there is a last line").expect("the output is text");
    assert_eq!(json(&last)["type"], "status");
    assert_eq!(child.wait().expect("it was started here").code(), Some(0));
    drop(unread);
}
