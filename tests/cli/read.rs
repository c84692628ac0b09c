#![expect(clippy::indexing_slicing, reason = "a test that looks where nothing is shall fail there")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpStream, UdpSocket},
    process::{Command, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::process::{COLLECTOR, TempFile, Wire, json, output, sh, within};

/// A pcap file with a datagram from 192.0.2.1 to 198.51.100.2, at so many seconds each.
fn pcap(seconds: &[u32]) -> Vec<u8> {
    let mut file = [0xA1B2_C3D4_u32, 0x0004_0002, 0, 0, 65_535, 1].map(u32::to_le_bytes).concat();
    // RFC 791 figure 4, RFC 768.
    let ip = [0x45, 0, 0, 32, 0, 1, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2];
    let datagram = [0x9C, 0x40, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4];
    let frame = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0][..], &ip, &datagram].concat();
    for second in seconds {
        let length = frame.len() as u32;
        file.extend([*second, 5, length, length].map(u32::to_le_bytes).concat());
        file.extend(&frame);
    }
    file
}

/// The same, of connections from these ports to one service.
fn pcap_from(ports: &[u16]) -> Vec<u8> {
    let one = pcap(&[7]);
    let (header, packet) = one.split_at(24);
    let mut file = header.to_vec();
    for port in ports {
        let at = file.len() + 16 + 14 + 20;
        file.extend(packet);
        file[at..at + 2].copy_from_slice(&port.to_be_bytes());
    }
    file
}

/// The records of flows among lines of JSON.
fn flows(lines: &[String]) -> Vec<Value> {
    let events = lines.iter().map(|line| json(line));
    events.filter(|event| event["type"] == "flow").map(|event| event["record"].clone()).collect()
}

fn file(octets: &[u8]) -> TempFile {
    let file = TempFile::absent("pcap");
    fs::write(&file.0, octets).expect("the temporary folder is writable");
    file
}

fn read(args: &[&str]) -> (Option<i32>, Vec<String>, String) {
    let output = output(&[&["read"], args].concat());
    let [out, errors] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("text"));
    (output.status.code(), out.lines().map(str::to_owned).collect(), errors)
}

#[test]
fn frames_have_a_line_each_below_the_names_of_the_columns() {
    let file = file(&pcap(&[7, 8]));
    let (code, lines, errors) = read(&["--frames", file.path()]);
    assert_eq!((code, errors.as_str(), lines.len()), (Some(0), "", 3));
    let cells = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
    let named: BTreeMap<_, _> = cells(&lines[0]).into_iter().zip(cells(&lines[2])).collect();
    for (column, value) in [
        ("file", file.path()),
        ("frame", "2"),
        ("offset", "86"),
        ("time", "1970-01-01T00:00:08.000005000Z"),
        ("src", "192.0.2.1"),
        ("dport", "53"),
        ("unparsed", ""),
    ] {
        assert_eq!(named[column], value, "{column}");
    }
}

#[test]
fn flows_are_the_records_of_a_run_with_the_times_of_the_packets() {
    let file = file(&pcap(&[7, 8]));
    let (code, lines, errors) = read(&["--output", "json", "--local", "198.51.100.0/24", file.path()]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let events: Vec<_> = lines.iter().map(|line| json(line)).collect();
    let flows: Vec<_> = events.iter().filter(|event| event["type"] == "flow").collect();
    assert_eq!(flows.len(), 1, "{lines:?}");
    let flow = &flows[0]["record"];
    assert_eq!(
        (&flow["packets"], &flow["bytes"], &flow["context_id"]),
        (&2.into(), &92.into(), &"host".into())
    );
    assert_eq!(flow["first_seen"], "1970-01-01T00:00:07.000005000Z");
    let last = events.last().expect("a last line");
    let ledger = &last["record"]["ledger"];
    assert_eq!((&last["type"], &ledger["seen"], &ledger["flows"]), (&"status".into(), &2.into(), &2.into()));
    let (code, lines, _) = read(&[file.path()]);
    assert_eq!(code, Some(0));
    assert_eq!(lines.last().map(String::as_str), Some("ledger: seen 2 = flows 2; nothing lost"));
}

#[test]
fn a_configuration_says_whose_addresses_are_and_where_records_go() {
    let capture = file(&pcap_from(&[1000, 1001]));
    let out = TempFile::absent("json");
    let config = TempFile::new(&format!(
        "[[pu]]\nid = \"resolver\"\nnamespace = \"/lab\"\ntags = [\"app=dns\"]\ncidr = [\"198.51.100.0/24\"]\n\
         [[output]]\ntype = \"json\"\nto = \"{}\"\n",
        out.path()
    ));
    let (code, lines, errors) = read(&["--config", config.path(), capture.path()]);
    assert_eq!((code, errors.as_str(), lines.len()), (Some(0), "", 0), "{lines:?}");
    let written = fs::read_to_string(&out.0).expect("it is written");
    let written: Vec<_> = written.lines().map(str::to_owned).collect();
    let flows = flows(&written);
    assert_eq!(flows.len(), 2, "{written:?}");
    for flow in flows {
        assert_eq!((&flow["context_id"], &flow["namespace"]), (&"resolver".into(), &"/lab".into()));
        assert_eq!(flow["packets"], 1);
    }
    let (code, _, errors) = read(&["--config", "/nowhere/at.toml", capture.path()]);
    assert_eq!(code, Some(2), "{errors}");
}

#[test]
fn flows_of_one_service_are_one_record_where_that_is_asked_for() {
    let ports: Vec<u16> = (1000..1050).collect();
    let capture = file(&pcap_from(&ports));
    let asked = |more: &[&str]| {
        let all = ["--output", "json", "--local", "198.51.100.0/24", capture.path()];
        let (code, lines, errors) = read(&[&all[..], more].concat());
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{more:?}");
        let sum = |name: &str| flows(&lines).iter().filter_map(|flow| flow[name].as_u64()).sum::<u64>();
        (flows(&lines).len(), sum("count"), sum("packets"), sum("bytes"))
    };
    let bytes = 50 * 46;
    assert_eq!(asked(&[]), (50, 50, 50, bytes));
    assert_eq!(asked(&["--aggregate", "connection"]), (50, 50, 50, bytes));
    assert_eq!(asked(&["--aggregate", "service"]), (1, 50, 50, bytes));
}

#[test]
fn what_a_tunnel_carries_is_a_flow_where_that_is_asked_for() {
    // GRE (RFC 2784 section 2) with the datagram inside.
    let plain = pcap(&[7]);
    let (header, packet) = plain.split_at(24);
    let (link, inside) = packet[16..].split_at(14);
    let length = (20 + 4 + inside.len()) as u16;
    let [high, low] = length.to_be_bytes();
    let outer = [0x45, 0, high, low, 0, 1, 0x40, 0, 64, 47, 0, 0, 203, 0, 113, 1, 203, 0, 113, 2];
    let frame = [link, &outer, &[0, 0, 8, 0], inside].concat();
    let sizes = [7, 5, frame.len() as u32, frame.len() as u32].map(u32::to_le_bytes).concat();
    let capture = file(&[header, &sizes, &frame].concat());
    let asked = |tunnels: &str| {
        let (code, lines, errors) = read(&["--output", "json", "--tunnels", tunnels, capture.path()]);
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{tunnels}");
        let last = json(lines.last().expect("a status"));
        let ledger = last["record"]["ledger"].clone();
        let protocols: Vec<_> =
            flows(&lines).iter().filter_map(|flow| flow["l4_protocol"].as_u64()).collect();
        (protocols, ["seen", "inner_seen", "inner_flows"].map(|row| ledger[row].as_u64().expect("a number")))
    };
    assert_eq!(asked("outer"), (vec![47], [1, 0, 0]));
    let (mut protocols, rows) = asked("inner");
    protocols.sort_unstable();
    assert_eq!((protocols, rows), (vec![17, 47], [1, 1, 1]));
}

#[test]
fn a_compressed_capture_is_read_as_a_plain_one_and_a_folder_is_none() {
    let plain = pcap(&[7, 8]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(&plain).expect("memory takes all");
    let packed = packed.finish().expect("memory takes all");
    let told = |octets: &[u8]| {
        let file = file(octets);
        let (code, lines, errors) = read(&["--output", "json", file.path()]);
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        flows(&lines)
    };
    assert_eq!(told(&packed), told(&plain));
    // One that is cut off has what it holds, and says where it ends.
    let cut = file(&packed[..packed.len() - 9]);
    let (code, lines, errors) = read(&["--output", "json", cut.path()]);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains(cut.path()) && !flows(&lines).is_empty(), "{errors} {lines:?}");
    let folder = std::env::temp_dir();
    let (code, _, errors) = read(&[folder.to_str().expect("it has a plain name")]);
    assert_eq!(code, Some(1));
    assert!(errors.starts_with("error: ") && errors.contains("directory"), "{errors}");
}

#[test]
fn a_pipe_is_a_file() {
    for args in [&["--frames", "-"][..], &["-"]] {
        let mut child = Command::new(COLLECTOR)
            .arg("read")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the collector starts");
        let mut input = child.stdin.take().expect("it is piped");
        input.write_all(&pcap(&[1])).expect("it is read");
        drop(input);
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&output.stdout).contains("192.0.2.1"));
    }
}

#[test]
fn a_quiet_pipe_is_read_until_a_signal_and_what_came_before_is_told() {
    let mut child = Command::new(COLLECTOR)
        .args(["read", "--output", "json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the collector starts");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(&pcap(&[1, 1000, 2000])).expect("it is read");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    // A record that fell due between two of them.
    let first = lines.next().expect("a line").expect("text");
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let rest: Vec<String> = lines.map(|line| line.expect("text")).collect();
    let output = child.wait_with_output().expect("it ends");
    drop(input);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "error: interrupted: what was read so far is told\n");
    let last = json(rest.last().unwrap_or(&first));
    assert_eq!(
        (&last["type"], &last["record"]["ledger"]["seen"]),
        (&"status".into(), &3.into()),
        "{first} {rest:?}"
    );
}

#[test]
fn when_its_reader_has_gone_nothing_more_is_read() {
    let mut child = Command::new(COLLECTOR)
        .args(["read", "--output", "json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the collector starts");
    let mut input = child.stdin.take().expect("it is piped");
    // Without an end: more is written for as long as it is read.
    let writing = thread::spawn(move || {
        let (mut file, mut second) = (pcap(&[1]), 1);
        while input.write_all(&file).is_ok() {
            second += 100;
            file = pcap(&[second])[24..].to_vec();
        }
    });
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    lines.next().expect("a line").expect("text");
    drop(lines);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    writing.join().expect("it ends with the reading");
}

#[test]
fn what_is_wrong_is_said_with_file_and_octet_and_what_came_before_is_told() {
    let whole = pcap(&[1, 2]);
    let cut = file(&whole[..whole.len() - 3]);
    let other = file(b"#!/bin/sh");
    let damaged = file(&[&whole[..], &[0xFF; 40]].concat());
    let backwards = file(&pcap(&[9, 2]));
    let place = |capture: &TempFile, words: &str| format!("error: {}: {words}", capture.path());
    for (capture, frames, words) in [
        (&cut, 1, "at byte 86: the file ends within a packet: 59 of 62 octets are there"),
        (&other, 0, "at byte 0: no capture: it begins with 23 21 2f 62"),
        (&damaged, 2, "at byte 148: a packet says that it has 4294967295 octets"),
    ] {
        let (code, lines, errors) = read(&["--frames", capture.path()]);
        assert_eq!((code, lines.len()), (Some(1), frames + 1), "{errors}");
        assert!(errors.starts_with(&place(capture, words)), "{errors}");
        let (code, lines, errors) = read(&[capture.path()]);
        assert_eq!(code, Some(1));
        assert!(errors.starts_with(&place(capture, words)), "{errors}");
        let last = lines.last().expect("a ledger");
        assert!(last.starts_with(&format!("ledger: seen {frames} = flows {frames}")), "{last}");
    }
    let (code, lines, errors) = read(&[backwards.path()]);
    assert_eq!(code, Some(1));
    assert!(errors.starts_with(&place(&backwards, "at byte 86: time runs backwards")), "{errors}");
    assert_eq!(lines.last().map(String::as_str), Some("ledger: seen 2 = flows 2; backwards 1; nothing lost"));
    let empty = file(&[&pcap(&[1])[..], &pcap(&[1])[24..32], &[0; 8]].concat());
    for (capture, words) in
        [(&backwards, "at byte 86: time runs backwards"), (&empty, "at byte 86: a frame without an octet")]
    {
        let (code, lines, errors) = read(&["--frames", capture.path()]);
        assert_eq!((code, lines.len()), (Some(1), 3), "{errors}");
        assert!(errors.starts_with(&place(capture, words)), "{errors}");
    }
    // One that fails does not keep the others from being read.
    let good = file(&whole);
    let (code, lines, errors) = read(&["--frames", "/nonexistent.pcap", good.path()]);
    assert_eq!((code, lines.len()), (Some(1), 3));
    assert!(errors.starts_with("error: cannot read /nonexistent.pcap: "), "{errors}");
}

#[test]
fn bad_usage_is_2() {
    let capture = file(&pcap(&[]));
    for (args, words) in [
        (&[][..], "FILE"),
        (&["--frames", "--local", "10.0.0.0/8", "x"], "--local"),
        (&["--local", "10.0.0.1", "x"], "write 10.0.0.1/32 for it alone"),
        (&["-", "-"], "standard input has one end"),
    ] {
        let (code, _, errors) = read(args);
        assert_eq!(code, Some(2), "{args:?}: {errors}");
        assert!(errors.contains(words), "{args:?}: {errors}");
    }
    let (code, lines, _) = read(&["--frames", capture.path()]);
    assert_eq!((code, lines.len()), (Some(0), 1), "a capture without a packet is one");
}

/// What a flow comes to: packets and octets each way, how often it began, TCP's flags, and what is said of its beginning and its
/// end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    counted: [u64; 5],
    tcp_flags: u64,
    said: BTreeSet<String>,
}

/// By unit, ends, protocol and VLAN. What hosts say to groups of hosts and to their neighbours is left out: they say it when
/// they like.
fn sums(lines: &[String]) -> BTreeMap<String, Sum> {
    let mut sums = BTreeMap::<String, Sum>::new();
    for event in lines.iter().map(|line| json(line)).filter(|event| event["type"] == "flow") {
        let flow = &event["record"];
        let ends = [&flow["source"], &flow["destination"]];
        if ends
            .iter()
            .any(|end| end["ip"].as_str().is_some_and(|ip| ip.starts_with('f') && !ip.starts_with("fd")))
        {
            continue;
        }
        // Where no socket waits, a run knows nobody whose it is; a capture does not say which sockets there were.
        let unit = flow["context_id"].as_str().map(|id| if id == "unknown" { "host" } else { id });
        let [source, destination] = ends.map(|end| format!("{}:{}", end["ip"], end["port"]));
        let name = format!("{unit:?} {source} {destination} {} {}", flow["l4_protocol"], flow["vlan"]);
        let sum = sums.entry(name).or_default();
        let fields = ["packets", "bytes", "reply_packets", "reply_bytes", "count"];
        for (into, field) in sum.counted.iter_mut().zip(fields) {
            *into += flow[field].as_u64().expect("a number");
        }
        sum.tcp_flags |= flow["tcp_flags"].as_u64().expect("a number");
        sum.said.insert(format!("opened by {}", flow["initiator_by"]));
        // A record that is cut off or falls due says less than the last one of its flow.
        if let Some(end) = flow["ended"].as_str().filter(|end| ["fin", "rst"].contains(end)) {
            sum.said.insert(format!("ended by {end}"));
        }
    }
    sums
}

/// Both hosts with an address of IPv6 as well, and no question about a neighbour is left.
fn with_ipv6(wire: &Wire) {
    let ends = [(&wire.near, wire.interface.as_str(), 1), (&wire.far, "far", 2)];
    let hardware = ends.map(|(namespace, device, _)| {
        let link = sh(&format!("ip -n {namespace} -j link show {device}"));
        json(link.trim())[0]["address"].as_str().expect("it has one").to_owned()
    });
    for ((namespace, device, own), hardware) in ends.into_iter().zip(hardware.iter().rev()) {
        let other = 3 - own;
        sh(&format!(
            "ip netns exec {namespace} sysctl -qw net.ipv6.conf.{device}.disable_ipv6=0
             ip -n {namespace} addr add fd88::{own}/64 dev {device} nodad
             for a in fd88::{other} 10.88.0.{other}; do
                ip -n {namespace} neigh replace $a lladdr {hardware} dev {device} nud permanent; done"
        ));
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_capture_of_live_traffic_has_the_flows_that_the_live_run_had() {
    use crate::capture::sent::{exchange, send_tagged, transfer};
    let wire = Wire::new();
    with_ipv6(&wire);
    let capture = TempFile::absent("pcapng");
    let captured = Wire::begin(wire.verb("capture", &["-w", capture.path(), "--iface", &wire.interface]));
    let live = wire.start(&["--output", "json", "--iface", &wire.interface]);
    wire.ping(20);
    sh(&format!("ip netns exec {} ping -6 -q -c 20 -i 0.01 -W 5 fd88::1", wire.far));
    transfer(&wire);
    for (near, far) in [("10.88.0.1:7001", "10.88.0.2:7002"), ("[fd88::1]:7001", "[fd88::2]:7002")] {
        for length in [0, 1, 100, 1472] {
            exchange(&wire, near, far, &vec![0xA5; length]);
        }
        // In pieces.
        exchange(&wire, near, far, &[0x5A; 4000]);
    }
    for (namespace, to) in [(&wire.far, 1), (&wire.near, 2)] {
        // Nobody listens: an error that quotes the datagram, and a connection that is reset.
        for to in [format!("10.88.0.{to}:9"), format!("[fd88::{to}]:9")] {
            within(namespace, || {
                let socket = UdpSocket::bind(if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" });
                let socket = socket.expect("a port is free");
                socket.connect(&to).expect("there is a way");
                socket.send(b"anybody?").expect("it is sent");
                assert!(socket.recv(&mut [0; 1]).is_err(), "nobody answers");
                assert!(TcpStream::connect(&to).is_err(), "nobody listens");
            });
        }
    }
    send_tagged(&wire.near, &wire.interface);
    exchange(&wire, "10.88.0.1:7003", "10.88.0.2:7004", b"over");
    for running in [&captured, &live] {
        running.signal("INT");
    }
    let (code, live, errors) = live.end();
    assert_eq!(code, Some(0), "{errors}");
    let (code, errors) = captured.end_without_output();
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("lost: nothing"), "{errors}");
    let (code, read, errors) = read(&["--output", "json", capture.path()]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let (live, read) = (sums(&live), sums(&read));
    assert!(live.len() >= 17, "{live:#?}");
    assert_eq!(read, live);
}
