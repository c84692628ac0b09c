use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    sync::mpsc,
    thread,
};

use serde_json::Value;

use crate::{
    process::{TempFile, Wire, json, sh},
    stopped::send_all,
};

/// Tens of thousands of flows, whose records come within a moment: what blocks and what fails under them.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn under_load_what_blocks_and_what_fails_costs_the_others_nothing() {
    let wire = Wire::new();
    let (whole, held) = (TempFile::absent("json"), TempFile::absent("fifo"));
    sh(&format!("mkfifo {}", held.path()));
    let output = |name: &str, to: &str, queue: u32| {
        format!("[[output]]\ntype = \"json\"\nname = \"{name}\"\nto = \"{to}\"\nqueue = {queue}\n")
    };
    let file = TempFile::new(
        &[
            output("whole", whole.path(), 200_000),
            output("held", held.path(), 1000),
            output("full", "/dev/full", 200_000),
        ]
        .concat(),
    );
    let (go_on, goes_on) = mpsc::channel();
    let path = held.0.clone();
    // It opens the pipe, takes what makes the writer begin, and then nothing until the traffic is over.
    let reading = thread::spawn(move || {
        let mut pipe = BufReader::new(File::open(path).expect("the pipe is there"));
        let mut first = String::new();
        pipe.read_line(&mut first).expect("a line comes");
        goes_on.recv().expect("the test says when");
        let mut rest = String::new();
        pipe.read_to_string(&mut rest).expect("it is text");
        first + &rest
    });
    // Each flow is told as it is drained.
    let running =
        wire.start(&["--config", file.path(), "--flow-interval", "100ms", "--counter-interval", "100ms"]);
    send_all(&wire);
    let asked = wire.verb("status", &["--output", "json"]).output().expect("the collector starts");
    let asked = json(String::from_utf8(asked.stdout).expect("it is text").trim_end());
    go_on.send(()).expect("it waits");
    running.signal("INT");
    let (code, _, errors) = running.end();
    assert_eq!(code, Some(1), "the record of one output is not complete: {errors}");
    assert!(errors.contains("error: the full output cannot be written to: No space left"), "{errors}");
    let events = |text: &str| text.lines().map(json).collect::<Vec<Value>>();
    let whole = events(&std::fs::read_to_string(&whole.0).expect("it is there"));
    let held = events(&reading.join().expect("it reads to the end"));
    let ledger = &whole.last().expect("a status")["record"]["ledger"];
    let of = |row: &str, output: &str| ledger[row][output].as_u64().expect("a number");
    // All were handed the same, and of each output every event has its row.
    let handed = of("delivered", "whole");
    assert_eq!((of("queue_full", "whole"), of("sink_failed", "whole")), (0, 0), "{ledger}");
    // The status comes behind what is counted in it.
    assert_eq!(whole.len() as u64, handed + 1, "{ledger}");
    assert_eq!(held.len() as u64, of("delivered", "held") + 1, "{ledger}");
    assert!(of("queue_full", "held") > 0, "it had room for all: {ledger}");
    for output in ["held", "full"] {
        let rows = ["delivered", "queue_full", "sink_failed"].map(|row| of(row, output));
        assert_eq!(rows.iter().sum::<u64>(), handed, "{output}: {ledger}");
    }
    assert_eq!(of("delivered", "full"), 0, "{ledger}");
    // Each has its unit, and most are the host's.
    let by_unit = ledger["queue_full_of"].as_object().expect("an object");
    let all: u64 = by_unit.values().filter_map(Value::as_u64).sum();
    assert_eq!(all, of("queue_full", "held") + of("queue_full", "full"), "{ledger}");
    assert!(of("queue_full_of", "host") > all / 2, "{ledger}");
    // It was told while it happened.
    let told = |row: &str, output: &str| asked["ledger"][row][output].as_u64().expect("a number");
    assert!((1..=of("queue_full", "held")).contains(&told("queue_full", "held")), "{asked}");
    assert!((1..=handed).contains(&told("delivered", "whole")), "{asked}");
    assert!(told("queue_full_of", "host") > 0 && told("sink_failed", "full") > 0, "{asked}");
    // And no packet was counted less for it.
    let unparsed = ledger["unparsed"].as_object().expect("an object").values().filter_map(Value::as_u64);
    let flows = ledger["flows"].as_u64().expect("a number");
    assert_eq!(ledger["seen"], flows + unparsed.sum::<u64>(), "{ledger}");
}
