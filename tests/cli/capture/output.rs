//! Where the packets go: a pipe, a reader that leaves, disks that get full, and files that are kept.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use super::{
    start,
    written::{Capture, tcpdump_reads},
};
use crate::process::{TempFile, Wire, sh};

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn tcpdump_reads_along_by_a_pipe() {
    let wire = Wire::new();
    wire.ping(1);
    let mut running = start(&wire, &["-w", "-", "--iface", &wire.interface]);
    let out = running.out.take().expect("it is piped");
    let mut reader = Command::new("tcpdump")
        .args(["-nn", "-l", "-r", "-", "icmp"])
        .stdin(Stdio::from(out))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("tcpdump starts");
    wire.ping(2);
    let mut lines = BufReader::new(reader.stdout.take().expect("it is piped")).lines();
    // While it runs: nobody has told it to stop.
    for want in ["echo request", "echo reply", "echo request", "echo reply"] {
        let line = lines.next().expect("there are more").expect("text");
        assert!(line.contains(want), "{line}");
    }
    running.signal("TERM");
    let (code, errors) = running.end_without_output();
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("to standard output; lost: nothing"), "{errors}");
    assert!(reader.wait().expect("it was started here").success(), "tcpdump has a complaint");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_reader_that_goes_is_an_error() {
    let wire = Wire::new();
    let mut running = start(&wire, &["-w", "-", "--iface", &wire.interface]);
    drop(running.out.take());
    wire.ping(3);
    let (code, errors) = running.end_without_output();
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("error: the capture output cannot be written to: Broken pipe"), "{errors}");
    assert!(errors.contains("captured 0 packets, ") && errors.contains("sink_failed.capture "), "{errors}");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_disk_that_gets_full_keeps_whole_packets() {
    let wire = Wire::new();
    wire.ping(1);
    let file = TempFile::absent("pcapng");
    // A disk of 16 pages that nobody else sees, and that goes with the process.
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", wire.near)).args(["unshare", "-m", "sh", "-c"]).arg(format!(
        "mount -t tmpfs -o size=64k none /mnt && {} capture -w /mnt/f --iface {}; code=$?; cp /mnt/f {}; exit $code",
        crate::process::COLLECTOR,
        wire.interface,
        file.path()
    ));
    let running = Wire::begin(command);
    sh(&format!("ip netns exec {} ping -q -c 100 -i 0.001 -s 1400 -W 5 10.88.0.1", wire.far));
    let (code, errors) = running.end_without_output();
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("error: the capture output cannot be written to: No space left"), "{errors}");
    let capture = Capture::of_file(&file);
    let packets = capture.packets.len();
    assert!(packets > 20, "{packets}");
    assert_eq!(tcpdump_reads(&file), packets);
    assert!(errors.contains(&format!("captured {packets} packets, ")), "{errors}");
}

#[test]
fn a_disk_that_is_full_is_told_before_anything_is_attached() {
    let output = crate::process::output(&["capture", "-w", "/dev/full"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: the capture output cannot be written to: No space left"), "{said}");
}

#[test]
fn what_cannot_be_captured_leaves_the_file_as_it_is() {
    let file = TempFile::new("of somebody else");
    for (args, want) in [
        (["--iface", "nosuch0"], "there is no interface nosuch0"),
        (["--pu", "nosuch"], "there is no processing unit \"nosuch\""),
    ] {
        let [option, value] = args;
        let output = crate::process::output(&["capture", "-w", file.path(), option, value]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(want), "{said}");
        assert_eq!(fs::read_to_string(&file.0).expect("it is there"), "of somebody else");
    }
    let output = crate::process::output(&["capture", "-w", "/nonexistent/f"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: cannot write to /nonexistent/f: the folder must be there"), "{said}");
}
