#![expect(clippy::indexing_slicing, reason = "a test that looks where nothing is shall fail there")]

/// What the kernel drops.
mod drops;
/// What a capture leaves as it is.
mod observes;
/// Where the packets go.
mod output;
/// What goes over the wire meanwhile.
pub(crate) mod sent;
/// tcpdump on the same wire.
mod tcpdump;
/// What tshark makes of a file.
mod tshark;
/// What stands in a file.
mod written;

use std::{
    process::{Command, Stdio},
    thread,
};

use sent::{exchange, send_tagged, transfer};
use tcpdump::{LAST, Seen, Tcpdump, up_to_last};
use written::{Capture, tcpdump_reads};

use crate::process::{Running, TempFile, Wire, sh};

fn start(wire: &Wire, args: &[&str]) -> Running {
    Wire::begin(wire.verb("capture", args))
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_captured_is_what_tcpdump_sees() {
    let wire = Wire::new();
    let interface = &wire.interface;
    wire.ping(1);
    let file = TempFile::absent("pcapng");
    let running = start(&wire, &["-w", file.path(), "--iface", interface]);
    let dumps = [("in", 1), ("out", 2)].map(|(name, direction)| (Tcpdump::start(&wire, name), direction));
    for length in [0, 1, 18, 100, 1472] {
        exchange(&wire, "10.88.0.1:7001", "10.88.0.2:7002", &vec![0xA5; length]);
    }
    // The kernel takes the tag of what comes in out of the frame, and leaves that of what a socket sends within.
    send_tagged(&wire.far, "far");
    send_tagged(&wire.near, interface);
    transfer(&wire);
    exchange(&wire, "10.88.0.1:7001", "10.88.0.2:7002", LAST);
    let mut want: Vec<Seen> =
        dumps.into_iter().flat_map(|(dump, direction)| dump.packets(direction)).collect();
    running.signal("INT");
    let (code, errors) = running.end_without_output();
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("lost: nothing"), "{errors}");

    let capture = Capture::of_file(&file);
    assert_eq!(tcpdump_reads(&file), capture.packets.len());
    assert!(capture.times.is_sorted(), "in the order of their times");
    let of = |wanted| {
        let packets = capture.packets.iter().filter(|(direction, _)| *direction == wanted);
        up_to_last(packets.cloned().collect())
    };
    let mut got: Vec<Seen> = [1, 2].into_iter().flat_map(of).collect();
    want.sort_unstable();
    got.sort_unstable();
    let only = |these: &[Seen], those: &[Seen]| {
        let only = these.iter().filter(|packet| !those.contains(packet));
        only.map(|(direction, octets)| format!("{direction} {octets:02x?}")).collect::<Vec<_>>()
    };
    assert!(
        got == want,
        "only tcpdump has {:?}; only the collector has {:?}",
        only(&want, &got),
        only(&got, &want)
    );
    let is_tagged = |(_, octets): &&Seen| octets[12..16] == [0x81, 0, 0, 7];
    let tagged: Vec<u32> = got.iter().filter(is_tagged).map(|(direction, _)| *direction).collect();
    assert_eq!(tagged, [1, 1, 1, 2, 2, 2], "VLAN tags stand where they were");
    assert!(got.iter().any(|(direction, octets)| *direction == 2 && octets.len() > 9000), "super-packets");
    assert!(
        capture.comments.iter().any(|comment| comment.contains(" packets=")),
        "which say how many they are"
    );
    // What is tagged is for nobody here, and what goes to nobody here is sent past all sockets.
    let is_whose = |comment: &String| ["pu=host", "pu=forwarded"].iter().any(|pu| comment.starts_with(pu));
    assert!(capture.comments.iter().all(is_whose), "{:?}", capture.comments);
    assert_eq!(capture.interfaces, [interface.as_str()]);
    let packets = capture.packets.len() as u64;
    assert_eq!(capture.statistics, [[packets, 0, packets]]);
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
#[expect(clippy::print_stdout, reason = "how a test of libtest says that it was left out")]
fn packets_of_several_cpus_stand_in_order_however_long_the_collector_was_held_up() {
    if thread::available_parallelism().is_ok_and(|cpus| cpus.get() < 2) {
        println!("SKIP for the test, packets of several CPUs: this machine has one");
        return;
    }
    for (transport, drops) in [("perf", false), ("perf", true), ("ring", true)] {
        let wire = Wire::new();
        wire.ping(1);
        if drops {
            sh(&format!(
                "ip netns exec {} nft 'table inet t {{ chain i {{ type filter hook input priority 0; \
                 ip protocol icmp drop; }}; }}'",
                wire.near
            ));
        }
        let file = TempFile::absent("pcapng");
        let mut arguments = vec!["-w", file.path(), "--iface", &wire.interface, "--transport", transport];
        arguments.extend(drops.then_some("--drops"));
        let running = start(&wire, &arguments);
        running.stop();
        // Each on a CPU of its own, which sees its packets at both ends of the wire. What one CPU's buffer has of all this
        // time is read before what the other's has.
        let pings = ["0", "1"].map(|cpu| {
            let ping = ["taskset", "-c", cpu, "ping", "-q", "-c", "4", "-i", "0.2", "-W", "0.1", "10.88.0.1"];
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &wire.far]).args(ping).stdout(Stdio::null());
            command.spawn().expect("ping starts")
        });
        for mut ping in pings {
            // It fails where nothing is answered.
            ping.wait().expect("it was started here");
        }
        running.signal("CONT");
        running.signal("INT");
        let (code, errors) = running.end_without_output();
        assert_eq!(code, Some(0), "{errors}");
        let capture = Capture::of_file(&file);
        assert!(capture.packets.len() >= 16, "both of each: {}", capture.packets.len());
        assert!(capture.times.is_sorted(), "{transport}, drops {drops}: {:?}; {errors}", capture.times);
        assert!(errors.contains("lost: nothing") && !errors.contains("behind a later one"), "{errors}");
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_count_ends_it_and_a_snap_length_cuts() {
    let wire = Wire::new();
    wire.ping(1);
    let file = TempFile::absent("pcapng");
    let running =
        start(&wire, &["-w", file.path(), "--iface", &wire.interface, "--count", "7", "--snaplen", "20"]);
    wire.ping(20);
    let (code, errors) = running.end_without_output();
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("captured 7 packets, "), "{errors}");
    let capture = Capture::of_file(&file);
    assert_eq!(tcpdump_reads(&file), 7);
    assert!(capture.packets.iter().all(|(_, octets)| octets.len() == 20));
    assert_eq!(capture.lengths, [98; 7]);
    let [[received, lost, delivered]] = capture.statistics[..] else { panic!("{capture:?}") };
    assert!(received >= delivered && (lost, delivered) == (0, 7), "{capture:?}");
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_filter_is_tcpdumps() {
    let wire = Wire::new();
    wire.ping(1);
    let file = TempFile::absent("pcapng");
    let args = ["-w", file.path(), "--iface", &wire.interface, "--filter", "udp port 7001 and less 60"];
    let running = start(&wire, &args);
    wire.ping(5);
    exchange(&wire, "10.88.0.1:7001", "10.88.0.2:7002", b"wanted");
    exchange(&wire, "10.88.0.1:7001", "10.88.0.2:7002", &[0; 100]);
    exchange(&wire, "10.88.0.1:7003", "10.88.0.2:7002", b"not wanted");
    running.signal("INT");
    let (code, errors) = running.end_without_output();
    assert_eq!(code, Some(0), "{errors}");
    let capture = Capture::of_file(&file);
    assert_eq!(tcpdump_reads(&file), 2);
    assert_eq!(capture.packets.iter().map(|(direction, _)| *direction).collect::<Vec<_>>(), [2, 1]);
    assert!(capture.packets.iter().all(|(_, octets)| octets.windows(6).any(|window| window == b"wanted")));
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn its_time_ends_it_and_no_packets_are_a_file_too() {
    let wire = Wire::new();
    let file = TempFile::absent("pcapng");
    let args = ["-w", file.path(), "--iface", &wire.interface, "--duration", "10ms", "--pu", "unknown"];
    let (code, errors) = start(&wire, &args).end_without_output();
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("captured 0 packets, ") && errors.contains("lost: nothing"), "{errors}");
    assert_eq!(tcpdump_reads(&file), 0);
    assert_eq!(Capture::of_file(&file).interfaces, [wire.interface.as_str()]);
}
