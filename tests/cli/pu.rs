use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
    },
};

use serde_json::Value;

use crate::process::{TempFile, Wire, json, output};

/// Two units by their addresses, one of which nobody has.
const UNITS: &str = "[[pu]]\nid = \"web\"\nnamespace = \"/prod\"\ntags = [\"app=web\"]\ncidr = [\"10.88.0.1/32\"]\n\
                     [[pu]]\nid = \"idle\"\ninterface = [\"late0\"]\ncidr = [\"10.9.0.0/16\", \"fd00:9::/32\"]\n";

/// Asks in the near namespace: exit code, standard output, standard error.
fn ask(wire: &Wire, args: &[&str]) -> (Option<i32>, String, String) {
    let output = wire.verb("pu", args).output().expect("the collector starts");
    let text = |octets| String::from_utf8(octets).expect("it is text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// What is known of a unit.
fn show(wire: &Wire, id: &str) -> Value {
    let (code, text, errors) = ask(wire, &["show", id, "--output", "json"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    serde_json::from_str(&text).expect("it is JSON")
}

fn counter(counters: &Value, name: &str) -> u64 {
    let mut all = counters.as_array().expect("a list").iter();
    let counter = all.find(|counter| counter["name"] == name).expect("it is there");
    counter["value"].as_u64().expect("a number")
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn units_are_told_with_what_was_counted_up_to_the_answer() {
    let wire = Wire::new();
    let file = TempFile::new(UNITS);
    let running = wire.start(&[
        "--output",
        "json",
        "--counter-interval",
        "100ms",
        "--discover",
        "off",
        "--config",
        file.path(),
    ]);
    let path = wire.socket();
    let found = fs::metadata(&path).expect("the socket is there once it counts");
    assert!(found.file_type().is_socket());
    assert_eq!((found.permissions().mode() & 0o777, found.uid()), (0o600, 0));
    let folder = fs::metadata("/run/collector").expect("it has its folder");
    assert_eq!((folder.permissions().mode() & 0o777, folder.uid()), (0o755, 0));

    wire.ping(5);
    let (code, text, _) = ask(&wire, &["list", "--output", "json"]);
    let units: Value = serde_json::from_str(&text).expect("it is JSON");
    let ids: Vec<_> =
        units.as_array().expect("an array").iter().map(|unit| unit["context_id"].clone()).collect();
    assert_eq!(
        (code, ids),
        (Some(0), ["host", "forwarded", "unknown", "overlay", "web", "idle"].map(Value::from).to_vec())
    );
    let web = &units[4];
    assert_eq!((counter(&web["counters"], "rx_packets"), counter(&web["counters"], "tx_bytes")), (5, 490));
    for (key, want) in [
        ("kind", "declared".into()),
        ("namespace", "/prod".into()),
        ("tags", serde_json::json!(["app=web"])),
        ("identity", "web".into()),
        ("index", 101.into()),
        ("mark", 101.into()),
        ("ended", Value::Null),
    ] {
        assert_eq!(web[key], want, "{key}");
    }
    assert_eq!(
        (&units[0]["kind"], &units[0]["mark"], &units[0]["since"]),
        (&"fixed".into(), &Value::Null, &web["since"])
    );
    assert_eq!(
        units[5]["matchers"],
        serde_json::json!({
            "interfaces": ["late0"], "cidr": ["10.9.0.0/16", "fd00:9::/32"], "port": [], "uid": [], "cgroup": [], "netns": [], "ends": [], "addresses": []
        })
    );
    assert!(units[5]["counters"].as_array().expect("a list").iter().all(|counter| counter["value"] == 0));

    // Whatever was reported meanwhile is in no total twice.
    for pings in 1..=3 {
        wire.ping(1);
        assert_eq!(counter(&show(&wire, "we")["counters"], "rx_packets"), 5 + pings);
    }
    let (_, text, _) = ask(&wire, &["show", "web"]);
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    for line in
        [["id", "web"], ["mark", "101"], ["cidr", "10.88.0.1/32"], ["rx_packets", "8"], ["tx_bytes", "784"]]
    {
        assert!(lines.contains(&line.to_vec()), "{line:?} in {text}");
    }
    assert!(!text.contains("local_"), "it is zero: {text}");
    let (_, text, _) = ask(&wire, &["list"]);
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "KIND", "MARK", "RX", "TX", "DROPPED", "SINCE", "ENDED"]);
    assert_eq!(lines[5][..6], ["web", "declared", "101", "8", "8", "0"]);
    let (code, text, errors) = ask(&wire, &["show", "nobody"]);
    assert_eq!((code, text.as_str()), (Some(1), ""));
    assert!(errors.starts_with("error: there is no processing unit \"nobody\""), "{errors}");

    running.signal("INT");
    let (code, lines, errors) = running.end();
    assert_eq!(
        (code, errors.as_str()),
        (Some(0), "missing: late0 of idle, which is watched once it comes\n")
    );
    let reported: u64 = lines
        .iter()
        .map(|line| json(line)["record"].take())
        .filter(|record| record["context_id"] == "web" && record["counters"].is_array())
        .map(|record| counter(&record["counters"], "rx_packets"))
        .sum();
    assert_eq!(reported, 8, "what was asked for is reported all the same, once");
    assert!(!path.exists(), "it goes with the collector");
    let (code, text, errors) = ask(&wire, &["list"]);
    assert_eq!((code, text.as_str()), (Some(1), ""));
    assert!(
        errors.starts_with(&format!("error: no collector answers at {}: start one in this", path.display())),
        "{errors}"
    );
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_second_collector_leaves_the_first_its_socket() {
    let wire = Wire::new();
    let file = TempFile::new(UNITS);
    let first = wire.start(&["--output", "json", "--discover", "off", "--config", file.path()]);
    let mut second = wire.start(&["--output", "json", "--discover", "off"]);
    let taken = format!("another collector answers at {}", wire.socket().display());
    second.wait_to_say(&format!("missing: answers to `collector pu` and `collector status`: {taken}"));
    let place = TempFile::absent("sock");
    let third = wire.start(&["--output", "json", "--discover", "off", "--socket", place.path()]);
    assert_eq!(show(&wire, "web")["index"], 101, "the first has declared it");
    let (code, text, _) = ask(&wire, &["list", "--socket", place.path()]);
    assert_eq!((code, text.contains("host "), text.contains("web")), (Some(0), true, false), "{text}");
    let mode = fs::metadata(place.path()).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for running in [second, third] {
        running.signal("INT");
        assert_eq!(running.end().0, Some(0));
    }
    assert!(!place.0.exists());
    assert_eq!(show(&wire, "web")["index"], 101, "and has its socket still");
    first.signal("INT");
    assert_eq!(first.end().0, Some(0));
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_a_killed_collector_has_left_is_replaced() {
    let wire = Wire::new();
    let file = TempFile::new(UNITS);
    let killed = wire.start(&["--output", "json", "--discover", "off"]);
    killed.signal("KILL");
    killed.end();
    let path = wire.socket();
    let left = fs::metadata(&path).expect("it is left").ino();
    let (code, _, errors) = ask(&wire, &["list"]);
    assert!(code == Some(1) && errors.contains("no collector answers at"), "{errors}");
    let running = wire.start(&["--output", "json", "--discover", "off", "--config", file.path()]);
    assert_ne!(fs::metadata(&path).expect("there is one").ino(), left);
    assert_eq!(show(&wire, "web")["index"], 101);
    running.signal("INT");
    assert_eq!(running.end().0, Some(0));
    assert!(!path.exists());
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn who_says_nothing_or_nonsense_holds_up_neither_others_nor_the_end() {
    let wire = Wire::new();
    let file = TempFile::new(UNITS);
    let running = wire.start(&["--output", "json", "--discover", "off", "--config", file.path()]);
    let path = wire.socket();
    let connect = || UnixStream::connect(&path).expect("it is open");
    let mut silent = connect();
    let long = "{".repeat(100_000);
    for nonsense in [&b"\n"[..], b"GET / HTTP/1.1\r\n\r\n", b"\xff\xfe\x00\n", long.as_bytes()] {
        let mut visitor = connect();
        // It may be closed before the end.
        let _ = visitor.write_all(nonsense);
        let mut answer = String::new();
        BufReader::new(visitor).read_line(&mut answer).expect("it is text");
        let answer = json(&answer);
        assert!(
            answer["version"] == 1 && answer["error"].as_str().is_some_and(|it| it.contains("request")),
            "{answer}"
        );
    }
    // Asks, and reads nothing.
    let mut greedy = connect();
    greedy.write_all(b"{\"version\":1,\"ask\":\"units\"}\n").expect("it is heard");
    wire.ping(2);
    assert_eq!(counter(&show(&wire, "web")["counters"], "rx_packets"), 2);
    running.signal("INT");
    let (code, _, errors) = running.end();
    assert_eq!(
        (code, errors.trim_end()),
        (Some(0), "missing: late0 of idle, which is watched once it comes")
    );
    assert_eq!(silent.read(&mut [0]).expect("it ends"), 0);
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn where_no_socket_is_wanted_there_is_none_and_nothing_is_missing() {
    let wire = Wire::new();
    let running = wire.start(&["--output", "json", "--discover", "off", "--socket", "none"]);
    assert!(!wire.socket().exists());
    let (code, _, errors) = ask(&wire, &["list"]);
    assert!(code == Some(1) && errors.contains("no collector answers at"), "{errors}");
    running.signal("INT");
    let (code, _, errors) = running.end();
    assert_eq!((code, errors.trim_end()), (Some(0), "nothing is missing"));
}

#[test]
fn where_there_is_no_collector_that_is_said() {
    let output = output(&["pu", "list", "--socket", "/nonexistent/s"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.starts_with("error: no collector answers at /nonexistent/s: start one"), "{errors}");
    assert!(errors.contains("or name the socket of another with --socket"), "{errors}");
}
