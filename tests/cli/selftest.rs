//! `collector selftest`: known traffic, sent and counted on this kernel.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::process::COLLECTOR;

/// The processes that a process with this in its environment has left behind, whatever namespace they are in: a namespace
/// without a name is there as long as a process is in it. Others make and leave theirs meanwhile.
fn left_behind(mark: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("there are processes");
    let is_ours = |path: &std::path::Path| {
        std::fs::read(path.join("environ")).is_ok_and(|environment| {
            environment.split(|octet| *octet == 0).any(|pair| pair == mark.as_bytes())
        })
    };
    processes
        .flatten()
        .filter(|entry| is_ours(&entry.path()))
        .map(|entry| entry.path().display().to_string())
        .collect()
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn every_row_that_this_kernel_allows_is_exact() {
    let mark = format!("SELFTEST_OF={}", std::process::id());
    let (name, value) = mark.split_once('=').expect("a name and a value");
    let output = Command::new(COLLECTOR)
        .args(["selftest", "--output", "json"])
        .env(name, value)
        .output()
        .expect("the collector runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let rows: Vec<Value> = serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .expect("a JSON object a row");
    let number = |row: &Value, name: &str| row[name].as_u64().expect("a number");
    let mut ran = 0;
    for row in &rows {
        if row.get("sent").is_some() {
            ran += 1;
            assert!(number(row, "sent") > 0, "{row}");
            assert_eq!(number(row, "counted"), number(row, "sent"), "{row}");
            assert_eq!(number(row, "lost"), 0, "{row}");
        } else {
            assert!(row["not_possible"].as_str().is_some_and(|what| !what.is_empty()), "{row}");
        }
    }
    assert!(ran >= 12, "{ran} of {} rows: {rows:#?}", rows.len());
    let left = left_behind(&mark);
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn interrupted_it_leaves_nothing_behind_and_no_row_in_part() {
    // What a shell starts in the background ignores it, and so does all that this starts.
    // SAFETY: no handler is lost but one that ignores.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let mark = format!("SELFTEST_OF={}.{}", std::process::id(), signal.as_raw());
        let (name, value) = mark.split_once('=').expect("a name and a value");
        let mut child = Command::new(COLLECTOR)
            .args(["selftest", "--output", "json"])
            .env(name, value)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the collector runs");
        let mut rows = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        // In the midst of others.
        let first = rows.next().expect("a row").expect("text");
        kill_process(Pid::from_child(&child), signal).expect("it runs");
        let rest: Vec<String> = rows.map(|row| row.expect("text")).collect();
        let status = child.wait().expect("it ends");
        assert!(!status.success(), "{signal:?}: {status}");
        for row in rest.iter().chain([&first]) {
            let row: Value = serde_json::from_str(row).expect("a JSON object a row");
            assert!(row.get("sent").or(row.get("not_possible")).is_some(), "{row}");
        }
        let left = left_behind(&mark);
        assert!(left.is_empty(), "{signal:?} left behind: {left:?}");
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn it_ends_when_its_reader_has_gone() {
    let mut child = Command::new(COLLECTOR)
        .args(["selftest", "--output", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the collector runs");
    let mut rows = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    rows.next().expect("a row").expect("text");
    drop(rows);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*said), (Some(0), ""));
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_missing_privilege_is_named_and_no_row_is_told() {
    for (held, named) in [("-all", "CAP_SYS_ADMIN"), ("-all,+sys_admin", "CAP_NET_ADMIN")] {
        let output = Command::new("setpriv")
            .args([&format!("--bounding-set={held}"), &format!("--inh-caps={held}"), COLLECTOR, "selftest"])
            .output()
            .expect("setpriv runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(said.contains(named) && said.lines().count() == 1, "{said}");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
}
