//! A collector with the capabilities that README asks for and no other, as a user of its own with the usual limits.

use std::process::Command;

use crate::process::{COLLECTOR, Wire, json, sh};

const CAPABILITIES: [&str; 5] = ["bpf", "perfmon", "net_admin", "syslog", "net_broadcast"];
/// Nobody else's: what a user's processes may lock together is counted.
const USER: &str = "61873";

/// The collector, by a descriptor: its binary may lie where this user may not go.
fn collector(wire: &Wire, args: &[&str]) -> Command {
    let held = CAPABILITIES.map(|name| format!("+{name}")).join(",");
    let mut command = Command::new("sh");
    command.args(["-c", r#"binary=$1; shift; exec 3<"$binary" "$@""#, "sh", COLLECTOR]);
    command.args(["nsenter", &format!("--net=/run/netns/{}", wire.near), "prlimit", "--memlock=65536:65536"]);
    command.args(["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups"]);
    command.args([&format!("--inh-caps=-all,{held}"), &format!("--ambient-caps=-all,{held}")]);
    command.args(["/proc/self/fd/3", "run"]).args(args);
    command
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn packets_and_drops_are_told_without_the_right_to_lock_memory() {
    let wire = Wire::new();
    wire.ping(1);
    let traced = ["--output", "json", "--discover", "off", "--iface", &wire.interface, "--trace", "*"];
    let running = Wire::begin(collector(&wire, &traced));
    sh(&format!(
        "ip netns exec {} python3 -c 'import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         for _ in range(20): s.sendto(bytes(64), (\"10.88.0.1\", 6001))'",
        wire.far
    ));
    running.signal("INT");
    let (code, lines, errors) = running.end();
    assert_eq!(code, Some(0), "{errors}");
    let events: Vec<_> = lines.iter().map(|line| json(line)).collect();
    let told = |event: &str| {
        let reports = events.iter().filter(|it| it["type"] == "packet" && it["record"]["event"] == event);
        reports.filter(|it| it["record"]["destination_port"] == 6001).count()
    };
    assert_eq!((told("Received"), told("Dropped")), (20, 20), "{errors}");
}
