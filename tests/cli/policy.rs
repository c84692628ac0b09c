use std::{
    net::{TcpListener, TcpStream},
    process::Command,
};

use serde_json::Value;

use crate::{
    killed::{expire, lease},
    process::{TempFile, Wire, json, within},
    reload::{replace, start},
};

/// Unit `web` at the near end, which answers everything but pings.
const NO_PING: &str = r#"
[[pu]]
id = "web"
cidr = ["10.88.0.1/32"]

[[policy]]
id = "no-ping"
pu = ["web"]
direction = "in"
protocol = "icmp"
icmp-type = ["echo-request"]
action = "reject"

[[policy]]
id = "rest"
pu = ["web"]
direction = "in"
action = "accept"
"#;

/// Who works on this host from the far end, as sshd says it.
const SESSION: &str = "10.88.0.2 50000 10.88.0.1 22";

fn enforced(rest: &str) -> String {
    format!("enforce = true\n{rest}")
}

/// Whether any of three pings is answered.
fn is_answered(wire: &Wire) -> bool {
    let ping = ["netns", "exec", &wire.far, "ping", "-q", "-c", "3", "-i", "0.01", "-W", "0.2", "10.88.0.1"];
    Command::new("ip").args(ping).output().expect("ping starts").status.success()
}

/// What records of pings with this policy say: all packets of requests, those that were rejected, and those of replies.
fn pings(events: &[Value], action: &str, policy: &str) -> [u64; 3] {
    let mut sums = [0; 3];
    let flows = events.iter().filter(|event| event["type"] == "flow").map(|event| &event["record"]);
    let is_meant =
        |it: &&Value| it["l4_protocol"] == 1 && it["action"] == action && it["policy_id"] == policy;
    for record in flows.filter(is_meant) {
        for (sum, name) in sums.iter_mut().zip(["packets", "rejected_packets", "reply_packets"]) {
            *sum += record[name].as_u64().expect("a number");
        }
        let want = if record["rejected_packets"] == 0 { "" } else { "policy" };
        assert_eq!(record["drop_reason"], want, "{record}");
    }
    sums
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_policy_says_at_first_and_drops_once_it_is_enforced() {
    let wire = Wire::new();
    wire.ping(1);
    let file = TempFile::new(NO_PING);
    let mut running = start(&wire, &file, &[]);
    assert!(is_answered(&wire), "only said to be rejected");
    replace(&file, &enforced(NO_PING));
    running.wait_to_say("the configuration was taken over: enforce");
    assert!(!is_answered(&wire), "rejected");
    for (text, want) in [
        (enforced(&format!("{NO_PING}network = [\"nosuch\"]\n")), "nosuch"),
        (enforced(NO_PING.split_at(NO_PING.len() - 9).0), "stays as it was: "),
    ] {
        replace(&file, &text);
        running.wait_to_say(want);
        assert!(!is_answered(&wire), "as it was");
    }
    let open = NO_PING.replace("\"reject\"", "\"accept\"");
    replace(&file, &enforced(&open));
    running.wait_to_say("the configuration was taken over: policy");
    assert!(is_answered(&wire), "accepted");
    running.signal("INT");
    let (code, lines, errors) = running.end();
    assert_eq!(code, Some(0), "{errors}");
    let events: Vec<_> = lines.iter().map(|line| json(line)).collect();
    assert_eq!(pings(&events, "reject", "no-ping"), [12, 9, 3]);
    assert_eq!(pings(&events, "accept", "no-ping"), [3, 0, 3]);
    let reports = events.iter().filter(|event| event["type"] == "packet").map(|event| &event["record"]);
    let rejected = reports.filter(|it| it["event"] == "Dropped" && it["drop_reason"] == "policy");
    assert_eq!(rejected.count(), 9);
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_killed_collector_leaves_nothing_blocked() {
    let wire = Wire::new();
    wire.ping(1);
    let file = TempFile::new(&enforced(NO_PING));
    for (mechanism, xdp) in [("clsact", "off"), ("auto", "off"), ("auto", "generic"), ("auto", "native")] {
        let running = start(&wire, &file, &["--attach", mechanism, "--xdp", xdp]);
        assert!(!is_answered(&wire), "rejected");
        assert_eq!(wire.shown().contains("prog/xdp"), xdp != "off", "{}", wire.shown());
        running.signal("KILL");
        assert_eq!(running.end().0, None, "killed");
        assert!(!wire.shown().contains("prog/xdp"), "its link is gone with it: {}", wire.shown());
        let left = wire.filters();
        if left.contains("tc_ingress") {
            // Not waited for, written.
            lease(&left, u64::MAX);
            assert!(!is_answered(&wire), "as long as the lease runs");
            expire(&left);
        }
        wire.ping(3);
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn policies_that_would_cut_off_who_works_here_are_refused() {
    let wire = Wire::new();
    let file = TempFile::new(&enforced(NO_PING.split("[[policy]]\nid = \"rest\"").next().expect("a part")));
    let refused = |args: &[&str]| {
        let mut command = wire.collector(&[&["--config", file.path(), "--output", "json"], args].concat());
        command.env("SSH_CONNECTION", SESSION);
        command
    };
    let output = refused(&[]).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("10.88.0.2") && said.contains("--enforce-anyway"), "{said}");
    let running = Wire::begin(refused(&["--enforce-anyway"]));
    assert!(!is_answered(&wire), "it was asked for");
    running.signal("INT");
    let (code, _, errors) = running.end();
    assert_eq!(code, Some(0), "{errors}");
}

/// With policies that stay as they are: it is the units that are others.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn units_that_would_cut_off_who_works_here_are_refused() {
    let wire = Wire::new();
    let server = within(&wire.near, || TcpListener::bind("10.88.0.1:22").expect("the port is free"));
    let _client = within(&wire.far, || TcpStream::connect("10.88.0.1:22").expect("it is taken"));
    let _session = server.accept().expect("it has come");
    // What the programs look for is what is declared at the start.
    let others = enforced(
        r#"
[[pu]]
id = "other"
uid = [1700000001]
port = [5999]

[[policy]]
id = "nobody"
pu = ["fenced"]
direction = "in"
action = "reject"
"#,
    );
    let file = TempFile::new(&others);
    let mut running = start(&wire, &file, &[]);
    let fenced = |by: &str| format!("{others}\n[[pu]]\nid = \"fenced\"\n{by}\n");
    let interface = format!("interface = [\"{}\"]", wire.interface);
    for by in ["uid = [0]", "port = [22]", "cidr = [\"10.88.0.1/32\"]", &interface] {
        replace(&file, &fenced(by));
        running.wait_to_say("10.88.0.2:");
        // The next is heard of by words of its own.
        replace(&file, &fenced("cgroup = [\"/no/such\"]\nnonsense = 1"));
        running.wait_to_say("nonsense");
    }
    // The port is another unit's, which comes before whose the socket is.
    replace(&file, &fenced("uid = [0]\n[[pu]]\nid = \"ssh\"\nport = [22]"));
    running.wait_to_say("taken over: pu fenced is new");
    replace(&file, &fenced(&format!("side = \"behind\"\n{interface}")));
    running.wait_to_say("taken over: pu fenced: ");
    running.signal("INT");
    let (code, _, errors) = running.end();
    assert_eq!(code, Some(0), "{errors}");
}
