use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::process::{Running, TempFile, Wire, json, sh};

/// The unit that has the near end's address, and whatever else is said.
fn web(rest: &str) -> String {
    format!("[[pu]]\nid = \"web\"\ncidr = [\"10.88.0.1/32\"]\n{rest}")
}

/// Puts another file in the place of one, as an editor does.
pub(crate) fn replace(file: &TempFile, text: &str) {
    let new = TempFile::new(text);
    fs::rename(&new.0, &file.0).expect("both are in one folder");
}

pub(crate) fn start(wire: &Wire, file: &TempFile, args: &[&str]) -> Running {
    let args = [&["--config", file.path(), "--output", "json"], args].concat();
    wire.start(&args)
}

/// All that each unit has counted of one counter, in all reports.
fn counted(events: &[Value], name: &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    for record in events.iter().filter(|event| event["type"] == "counter").map(|event| &event["record"]) {
        let counters = record["counters"].as_array().expect("a list");
        let values = counters.iter().filter(|counter| counter["name"] == name);
        let value: u64 = values.map(|counter| counter["value"].as_u64().expect("a number")).sum();
        *sums.entry(text(&record["context_id"])).or_default() += value;
    }
    sums
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_configuration_is_taken_over_whole_or_not_at_all_and_no_counter_jumps() {
    const COUNT: u64 = 400;
    const MORE: u64 = 30;
    let wire = Wire::new();
    wire.ping(1);
    // Nobody asks for neighbours anew in the midst of it.
    sh(&format!(
        "ip -n {} neigh change 10.88.0.2 dev {} nud permanent; ip -n {} neigh change 10.88.0.1 dev far nud permanent",
        wire.near, wire.interface, wire.far
    ));
    let file = TempFile::new(&web(""));
    let mut running = start(&wire, &file, &["--flow-interval", "1h", "--counter-interval", "1h"]);
    let mut ping = Command::new("ip")
        .args(["netns", "exec", &wire.far, "ping", "-q", "-c", &COUNT.to_string(), "-i", "0.02", "10.88.0.1"])
        .stdout(Stdio::null())
        .spawn()
        .expect("ping starts");

    // Its first look was before this, and not in the midst of what follows.
    running.signal("HUP");
    running.wait_to_say("the configuration says what it said before");
    // Another file in its place.
    let idle = "[[pu]]\nid = \"idle\"\ncidr = [\"10.99.0.0/16\"]\n";
    replace(&file, &[&web("tags = [\"app=web\"]\n"), idle].concat());
    running.wait_to_say("the configuration was taken over: pu idle is new; pu web: tags");
    // Written in place by somebody who has not closed it: nothing is noticed until somebody asks for it.
    let mut open = File::create(&file.0).expect("it may be written");
    open.write_all(idle.as_bytes()).expect("it is written");
    running.signal("HUP");
    running.wait_to_say("the configuration was taken over: pu web is gone");
    // A flow that is new, while the one that lives goes on: both are the host's now.
    wire.ping(u32::try_from(MORE).expect("few"));
    running.signal("HUP");
    running.wait_to_say("the configuration says what it said before");
    // What is wrong changes nothing, and says why.
    for (text, want) in [
        ("[[pu]]\nid = \"web\"\ncidr = [\"10.8", "stays as it was: "),
        ("", "there is nothing in it"),
        ("# nothing\n", "there is nothing in it"),
        ("log-format = \"json\"\nsnaplen = 9", "log-format; snaplen cannot be another"),
        ("[[trace]]\npu = \"nosuch\"", "there is no processing unit \"nosuch\""),
        (
            "queue = 9\n[[pu]]\nid = \"web\"\nnetns = [\"x\"]\n[[pu]]\nid = \"idle\"\ncidr = [\"10.99.0.0/16\"]",
            "queue cannot be another",
        ),
        (
            "[[pu]]\nid = \"x\"\nport = [9]\n",
            "has `port`, which the programs do not look for: start the collector anew",
        ),
    ] {
        replace(&file, text);
        running.wait_to_say(want);
    }
    // The open file has no name any more.
    drop(open);
    fs::remove_file(&file.0).expect("it is there");
    running.wait_to_say("the configuration cannot be read");
    replace(&file, &web(""));
    running.wait_to_say("the configuration was taken over: pu web is new; pu idle is gone");
    assert!(ping.wait().expect("it was started here").success(), "all are answered");
    running.signal("INT");
    let (code, lines, errors) = running.end();
    assert_eq!(code, Some(0), "{errors}");

    let events: Vec<_> = lines.iter().map(|line| json(line)).collect();
    let steps: Vec<_> = events
        .iter()
        .filter(|event| event["type"] == "container")
        .map(|event| {
            format!("{} {}", event["record"]["context_id"], event["record"]["event"]).replace('"', "")
        })
        .collect();
    let want = [
        "web create",
        "web start",
        "web update",
        "idle create",
        "idle start",
        "web stop",
        "web delete",
        "idle stop",
        "idle delete",
        "web create",
        "web start",
        "web stop",
        "web delete",
    ];
    assert_eq!(steps, want);
    for name in ["rx_packets", "tx_packets"] {
        let sums = counted(&events, name);
        assert_eq!(sums.values().sum::<u64>(), COUNT + MORE, "each once, whosever it was: {sums:?}");
        assert!(sums["web"] > 0 && sums["host"] > MORE, "{sums:?}");
        assert_eq!(sums.get("idle").copied().unwrap_or_default(), 0, "{sums:?}");
    }
    let flows = events.iter().filter(|event| event["type"] == "flow").map(|event| &event["record"]);
    let mut sums = [0, 0];
    for record in flows.filter(|record| record["l4_protocol"] == 1) {
        for (sum, name) in sums.iter_mut().zip(["packets", "reply_packets"]) {
            *sum += record[name].as_u64().expect("a number");
        }
    }
    assert_eq!(sums, [COUNT + MORE; 2]);
    let ledger = &events.last().expect("a status")["record"]["ledger"];
    assert_eq!(
        (ledger["reloads"].as_u64(), ledger["reloads_refused"].as_u64()),
        (Some(3), Some(8)),
        "{ledger}"
    );
}

/// Connections to a port of the near end, which refuses each: a segment and its answer, that has come when this returns.
fn knock(wire: &Wire, port: u16, count: u64) {
    sh(&format!(
        "ip netns exec {} bash -c 'for n in $(seq {count}); do ! : 2>/dev/null >/dev/tcp/10.88.0.1/{port} || exit 1; done'",
        wire.far
    ));
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_unit_comes_and_goes_by_every_matcher_and_a_file_that_is_refused_changes_none() {
    let wire = Wire::new();
    wire.ping(1);
    // What the programs look for is what is declared at the start.
    let none = "counter-interval = \"1h\"\n[[pu]]\nid = \"other\"\nport = [5999]\nuid = [1700000001]\n";
    let file = TempFile::new(none);
    let mut running = start(&wire, &file, &["--discover", "on"]);
    knock(&wire, 5001, 3);
    let unit = |matchers: &str| format!("{none}[[pu]]\nid = \"web\"\n{matchers}");
    let all = "port = [5001]\nuid = [1700000000]\ncgroup = [\"/no/such\"]\nnetns = [\"nosuch\"]\n";
    replace(&file, &unit(all));
    running.wait_to_say("taken over: pu web is new");
    knock(&wire, 5001, 5);
    // Half of it would do.
    replace(&file, &unit("port = [5002]\n[[trace]]\npu = \"nosuch\"\n"));
    running.wait_to_say("there is no processing unit \"nosuch\"");
    knock(&wire, 5001, 7);
    replace(&file, &["ignore = [\"nosuch-*.scope\"]\n", &unit("port = [5002]\n")].concat());
    running.wait_to_say("taken over: ignore; pu web: cgroup, netns, port, uid");
    knock(&wire, 5001, 11);
    knock(&wire, 5002, 13);
    replace(&file, none);
    running.wait_to_say("taken over: ignore; pu web is gone");
    knock(&wire, 5002, 17);
    running.signal("INT");
    let (code, lines, errors) = running.end();
    assert_eq!(code, Some(0), "{errors}");
    let events: Vec<_> = lines.iter().map(|line| json(line)).collect();
    let flows = events.iter().filter(|event| event["type"] == "flow").map(|event| &event["record"]);
    let mut sums: BTreeMap<(String, u64), u64> = BTreeMap::new();
    for record in flows.filter(|record| record["l4_protocol"] == 6) {
        let unit = record["context_id"].as_str().expect("text").to_owned();
        let port = record["destination"]["port"].as_u64().expect("a number");
        *sums.entry((unit, port)).or_default() += record["packets"].as_u64().expect("a number");
    }
    let of = |unit: &str, port| sums.get(&(unit.to_owned(), port)).copied();
    assert_eq!((of("web", 5001), of("web", 5002)), (Some(5 + 7), Some(13)), "{sums:?}");
    assert_eq!(sums.values().sum::<u64>(), 3 + 5 + 7 + 11 + 13 + 17, "{sums:?}");
    let told = events.iter().filter(|event| event["type"] == "container");
    let of_web = told.filter(|event| event["record"]["context_id"] == "web");
    let steps: Vec<_> = of_web.map(|event| event["record"]["event"].as_str().expect("text")).collect();
    assert_eq!(steps, ["create", "start", "update", "stop", "delete"]);
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_traced_and_how_often_it_is_told_change_while_it_runs() {
    let wire = Wire::new();
    wire.ping(1);
    let file = TempFile::new("flow-interval = \"1h\"\n");
    let mut running = start(&wire, &file, &[]);
    wire.ping(3);
    replace(&file, "flow-interval = \"1h\"\n[[trace]]\npu = \"host\"\ndirection = \"in\"\n");
    running.wait_to_say("taken over: trace");
    wire.ping(5);
    replace(&file, "flow-interval = \"1h\"\n");
    running.wait_to_say("taken over: trace");
    wire.ping(3);
    // From here on each drain tells.
    replace(&file, "flow-interval = \"200ms\"\n");
    running.wait_to_say("taken over: flow-interval");
    let mut out = std::io::BufRead::lines(std::io::BufReader::new(running.out.take().expect("it is piped")));
    wire.ping(1);
    let mut traced = 0;
    loop {
        let event = json(&out.next().expect("it ended").expect("text"));
        let is_icmp = event["record"]["protocol"] == 1;
        if event["type"] == "packet" && is_icmp {
            assert_eq!(event["record"]["event"], "Received", "{event}");
            traced += 1;
        }
        // While it runs: nobody has told it to stop.
        if event["type"] == "flow" && event["record"]["l4_protocol"] == 1 {
            break;
        }
    }
    assert_eq!(traced, 5);
    running.signal("INT");
    let rest: Vec<_> = out.map(|line| json(&line.expect("text"))).collect();
    assert!(rest.iter().all(|event| event["type"] != "packet" || event["record"]["protocol"] != 1));
    let (code, errors) = running.end_without_output();
    assert_eq!(code, Some(0), "{errors}");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn an_interface_is_a_units_from_when_it_is_declared_until_it_is_no_more() {
    let wire = Wire::new();
    wire.ping(1);
    let file = TempFile::new("counter-interval = \"1h\"\n");
    let mut running = start(&wire, &file, &[]);
    let db = format!(
        "counter-interval = \"1h\"\n[[pu]]\nid = \"db\"\nside = \"host\"\ninterface = [\"{}\"]\n",
        wire.interface
    );
    replace(&file, &db);
    running.wait_to_say("taken over: pu db is new");
    wire.ping(20);
    replace(&file, "counter-interval = \"1h\"\n");
    running.wait_to_say("taken over: pu db is gone");
    wire.ping(7);
    running.signal("INT");
    let (code, lines, errors) = running.end();
    assert_eq!(code, Some(0), "{errors}");
    let events: Vec<_> = lines.iter().map(|line| json(line)).collect();
    let flows = events.iter().filter(|event| event["type"] == "flow").map(|event| &event["record"]);
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for record in flows.filter(|record| record["l4_protocol"] == 1) {
        let unit = record["context_id"].as_str().expect("text").to_owned();
        *sums.entry(unit).or_default() += record["packets"].as_u64().expect("a number");
    }
    assert_eq!(sums, [("db".to_owned(), 20), ("host".to_owned(), 7)].into());
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_pipe_is_read_once() {
    let wire = Wire::new();
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", wire.near)).args(["bash", "-c"]).arg(format!(
        "exec {} run --discover off --output json --config <(echo 'counter-interval = \"1h\"')",
        crate::process::COLLECTOR
    ));
    let mut running = Wire::begin(command);
    running.signal("HUP");
    running.wait_to_say("this is no file, so it cannot be read once more");
    running.signal("INT");
    let (code, _, errors) = running.end();
    assert_eq!(code, Some(0), "{errors}");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_hangup_ends_a_run_without_a_file() {
    let wire = Wire::new();
    let running = wire.start(&["--output", "json"]);
    running.signal("HUP");
    let (code, lines, errors) = running.end();
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(json(lines.last().expect("a line"))["type"], "status");
}
