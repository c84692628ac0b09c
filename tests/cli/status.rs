use serde_json::Value;

use crate::process::{Wire, output, sh};

/// Asks in the near namespace: exit code, standard output, standard error.
fn ask(wire: &Wire, args: &[&str]) -> (Option<i32>, String, String) {
    let output = wire.verb("status", args).output().expect("the collector starts");
    let text = |octets| String::from_utf8(octets).expect("it is text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_was_dropped_is_told_while_it_runs() {
    let wire = Wire::new();
    wire.ping(1);
    let running = wire.start(&["--output", "json"]);
    for count in [3, 7] {
        sh(&format!(
            "ip netns exec {} python3 -c 'import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             for _ in range({count}): s.sendto(bytes(64), (\"10.88.0.1\", 6001))'",
            wire.far
        ));
        let (code, text, errors) = ask(&wire, &["--output", "json"]);
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        let status: Value = serde_json::from_str(&text).expect("it is JSON");
        let rows = status["drops"].as_array().expect("a list").iter();
        let dropped: u64 = rows
            .filter(|row| row["class"] == "no_socket")
            .map(|row| row["packets"].as_u64().expect("a number"))
            .sum();
        assert_eq!(dropped, if count == 3 { 3 } else { 10 }, "{text}");
        let ledger = |name: &str| status["ledger"][name].as_u64().expect("a number");
        assert_eq!(ledger("drops_table_full"), 0);
        let outputs = ["delivered", "queue_full", "sink_failed"].map(|row| &status["ledger"][row]["json"]);
        let outputs = outputs.map(|count| count.as_u64().expect("what became of events is told, too"));
        assert_eq!((outputs[1], outputs[2]), (0, 0), "{text}");
        assert_eq!(ledger("drops_seen"), ledger("drops_counted") + ledger("drops_no_packet"), "{text}");
    }
    let (code, text, errors) = ask(&wire, &[]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(text.starts_with(&format!("attached to {} (", wire.interface)), "{text}");
    assert!(text.contains("\ndropped 10 of host: ") && text.contains("\ndrops: seen "), "{text}");
    assert!(text.contains(": nothing listens on this port") && text.contains("\nledger: seen "), "{text}");
    running.signal("INT");
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn where_there_is_no_collector_that_is_said() {
    let output = output(&["status", "--socket", "/nonexistent/s"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.starts_with("error: no collector answers at /nonexistent/s: start one"), "{errors}");
}
