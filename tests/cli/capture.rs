#![expect(clippy::indexing_slicing, reason = "a test that looks where nothing is shall fail there")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use pcap_parser::{Block, OptionCode, parse_block_le, pcap::parse_pcap_frame};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{Running, TempFile, Wire, sh};

/// What ends the traffic that a test sends: who has seen it has seen all.
const LAST: &[u8] = b"this is the last packet of all";
/// Longer than anything takes that passes.
const PATIENCE: Duration = Duration::from_mins(1);

/// A packet of a capture: 1 for in and 2 for out, and its octets.
type Seen = (u32, Vec<u8>);

/// A file as it was read.
#[derive(Debug, Default)]
struct Capture {
    interfaces: Vec<String>,
    packets: Vec<Seen>,
    lengths: Vec<u32>,
    times: Vec<u64>,
    comments: Vec<String>,
    /// Of each interface: received, lost, delivered.
    statistics: Vec<[u64; 3]>,
}

impl Capture {
    fn of(octets: &[u8]) -> Self {
        let mut capture = Self::default();
        let mut rest = octets;
        while !rest.is_empty() {
            let (next, block) = parse_block_le(rest).expect("whole blocks only");
            rest = next;
            match block {
                Block::SectionHeader(_) => {}
                Block::InterfaceDescription(block) => {
                    let name = block.if_name().map_or("", |name| name.expect("a name is text"));
                    capture.interfaces.push(name.to_owned());
                }
                Block::EnhancedPacket(block) => {
                    let option = |code| block.options.iter().find(|option| option.code == OptionCode(code));
                    let direction = option(2).map_or(0, |flags| flags.as_u32_le().expect("a number"));
                    capture.packets.push((direction, block.data[..block.caplen as usize].to_vec()));
                    capture.lengths.push(block.origlen);
                    capture.times.push(u64::from(block.ts_high) << 32 | u64::from(block.ts_low));
                    let comment = option(1).map(|comment| comment.as_str().expect("text").to_owned());
                    capture.comments.extend(comment);
                }
                Block::InterfaceStatistics(block) => {
                    let counts = [block.isb_ifrecv(), block.isb_ifdrop(), block.isb_usrdeliv()];
                    capture
                        .statistics
                        .push(counts.map(|count| count.expect("it is there").expect("a number")));
                }
                other => panic!("no such block is written: {other:?}"),
            }
        }
        capture
    }

    fn of_file(file: &TempFile) -> Self {
        Self::of(&fs::read(&file.0).expect("it was written"))
    }
}

/// How many packets tcpdump finds in a file, which it has to open without a complaint.
fn tcpdump_reads(file: &TempFile) -> usize {
    sh(&format!("tcpdump -nn -t -r {} 2>/dev/null", file.path()))
        .lines()
        .filter(|l| !l.starts_with('\t'))
        .count()
}

/// tcpdump beside the collector; killed if it is dropped.
struct Tcpdump {
    child: Child,
    out: ChildStdout,
}

impl Tcpdump {
    /// Starts it for packets of one direction, and waits until it listens.
    fn start(wire: &Wire, direction: &str) -> Self {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &wire.near, "tcpdump", "-i", &wire.interface, "-s", "0", "-U", "-w", "-"])
            .args(["-B", "65536", "-Q", direction])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tcpdump starts");
        let mut errors = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            assert_ne!(errors.read_line(&mut line).expect("text"), 0, "tcpdump ended");
        }
        // It has more to say at its end.
        thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        let out = child.stdout.take().expect("it is piped");
        Self { child, out }
    }

    /// All packets, up to the last one.
    fn packets(mut self, direction: u32) -> Vec<Seen> {
        let mut octets = Vec::new();
        let mut portion = vec![0; 1 << 16];
        let is_last = |octets: &[u8]| octets.windows(LAST.len()).any(|window| window == LAST);
        while !is_last(octets.get(octets.len().saturating_sub(2 * portion.len())..).unwrap_or(&octets)) {
            let length = self.out.read(&mut portion).expect("tcpdump writes");
            assert_ne!(length, 0, "tcpdump ended");
            octets.extend_from_slice(&portion[..length]);
        }
        let mut rest = &octets[24..];
        let mut packets = Vec::new();
        while let Ok((next, packet)) = parse_pcap_frame(rest) {
            packets.push((direction, packet.data[..packet.caplen as usize].to_vec()));
            rest = next;
        }
        up_to_last(packets)
    }
}

/// Packets of one direction up to the last that the test sends: what a kernel sends by itself may come later, on a slow machine.
fn up_to_last(mut packets: Vec<Seen>) -> Vec<Seen> {
    let is_last = |(_, octets): &Seen| octets.windows(LAST.len()).any(|window| window == LAST);
    let last = packets.iter().position(is_last).expect("the last packet is there");
    packets.truncate(last + 1);
    packets
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs in a namespace, on a thread of its own.
fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let place = fs::File::open(format!("/run/netns/{namespace}")).expect("the namespace is there");
    thread::scope(|scope| {
        let entered = || {
            move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may");
            work()
        };
        scope.spawn(entered).join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))
    })
}

/// A datagram to and fro: the other side has received it when this returns.
fn exchange(wire: &Wire, near: &str, far: &str, octets: &[u8]) {
    let [near, far] = [(&wire.near, near), (&wire.far, far)].map(|(namespace, address)| {
        let socket = within(namespace, || UdpSocket::bind(address).expect("the address is free"));
        socket.set_read_timeout(Some(PATIENCE)).expect("a time is a time");
        socket
    });
    for (from, to) in [(&near, &far), (&far, &near)] {
        from.send_to(octets, to.local_addr().expect("it is bound")).expect("it is sent");
        let mut received = vec![0; octets.len() + 1];
        assert_eq!(to.recv(&mut received).expect("it arrives"), octets.len());
    }
}

/// Three datagrams in VLAN 7 from a device, to nobody. A host needs no VLAN devices for that.
fn send_tagged(namespace: &str, device: &str) {
    let script = "import socket, sys\n\
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n\
        s.bind((sys.argv[1], 0))\n\
        own = s.getsockname()[4]\n\
        for last in range(3):\n  \
            s.send(bytes([2, 0, 0, 0, 0, 9]) + own + bytes.fromhex('81000007080045000020000000004011000\
        00a5800010a580002') + bytes.fromhex('1b591b59000c0000') + bytes([1, 2, 3, last]))\n";
    let status = Command::new("ip")
        .args(["netns", "exec", namespace, "python3", "-c", script, device])
        .status()
        .expect("ip runs");
    assert!(status.success(), "tagged frames cannot be sent");
}

/// A frame of LLDP, with nothing in it.
fn send_lldp(namespace: &str, device: &str) {
    let script = "import socket, sys\n\
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n\
        s.bind((sys.argv[1], 0))\n\
        s.send(bytes.fromhex('0180c200000e') + s.getsockname()[4] + bytes.fromhex('88cc') + bytes(46))\n";
    let status = Command::new("ip")
        .args(["netns", "exec", namespace, "python3", "-c", script, device])
        .status()
        .expect("ip runs");
    assert!(status.success(), "the frame cannot be sent");
}

/// A megabyte by TCP from the near host to the far one, in super-packets where there are any, and a word back.
fn transfer(wire: &Wire) {
    let listener = within(&wire.far, || TcpListener::bind("10.88.0.2:0").expect("the address is free"));
    let to = listener.local_addr().expect("it is bound");
    let mut near = within(&wire.near, || TcpStream::connect(to).expect("somebody listens"));
    let (mut far, _) = listener.accept().expect("somebody connects");
    let sent = thread::spawn(move || {
        near.write_all(&vec![0x5A; 1 << 20]).expect("it is sent");
        near.shutdown(std::net::Shutdown::Write).expect("it is open");
        let mut word = Vec::new();
        near.read_to_end(&mut word).expect("it is answered");
        word
    });
    let mut received = Vec::new();
    far.read_to_end(&mut received).expect("it arrives");
    assert_eq!(received.len(), 1 << 20);
    far.write_all(b"thanks").expect("it is sent");
    drop(far);
    assert_eq!(sent.join().expect("the thread ends"), b"thanks");
}

fn start(wire: &Wire, args: &[&str]) -> Running {
    Wire::begin(wire.verb("capture", args))
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_the_kernel_drops_is_captured_again_with_its_reason_if_asked_for() {
    let wire = Wire::new();
    let interface = &wire.interface;
    wire.ping(1);
    sh(&format!(
        "ip netns exec {} nft 'table inet t {{ chain i {{ type filter hook input priority 0; udp dport 7003 drop; }}; }}'",
        wire.near
    ));
    for (drops, times) in [(false, 1), (true, 2)] {
        let file = TempFile::absent("pcapng");
        let mut arguments = vec!["-w", file.path(), "--iface", interface, "--filter", "udp port 7003"];
        if drops {
            arguments.push("--drops");
        }
        let running = start(&wire, &arguments);
        let far = within(&wire.far, || UdpSocket::bind("10.88.0.2:7002").expect("the address is free"));
        for _ in 0..3 {
            far.send_to(&[0xA5; 1400], "10.88.0.1:7003").expect("it is sent");
        }
        // Nothing else gets through the filter; it comes behind what is dropped.
        exchange(&wire, "10.88.0.1:7001", "10.88.0.2:7004", LAST);
        running.signal("INT");
        let (code, errors) = running.end_without_output();
        assert_eq!(code, Some(0), "{errors}");
        assert!(errors.contains("lost: nothing"), "{errors}");
        let capture = Capture::of_file(&file);
        assert_eq!(tcpdump_reads(&file), 3 * times);
        assert!(capture.packets.iter().all(|(_, octets)| octets[42..] == [0xA5; 1400]), "all of each");
        let dropped: Vec<_> =
            capture.comments.iter().filter(|comment| comment.starts_with("dropped=")).collect();
        assert_eq!(dropped.len(), 3 * (times - 1));
        for comment in dropped {
            assert!(comment.contains(" at=") && comment.ends_with(" pu=host"), "{comment}");
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn drops_of_interfaces_that_were_not_named_are_left_out() {
    let wire = Wire::new();
    wire.ping(1);
    let file = TempFile::absent("pcapng");
    let running = start(&wire, &["-w", file.path(), "--iface", &wire.interface, "--drops"]);
    let (near, far) = (
        within(&wire.near, || UdpSocket::bind("0.0.0.0:7002").expect("the address is free")),
        within(&wire.far, || UdpSocket::bind("10.88.0.2:7002").expect("the address is free")),
    );
    for _ in 0..3 {
        // What nobody listens for is dropped, on lo, and on the wire. That it was may be told to the sender.
        let _ = near.send_to(&[0xA5; 100], "127.0.0.1:7003");
        far.send_to(&[0xA5; 100], "10.88.0.1:7003").expect("it is sent");
    }
    // No protocol takes it.
    send_lldp(&wire.far, "far");
    exchange(&wire, "10.88.0.1:7001", "10.88.0.2:7004", LAST);
    running.signal("INT");
    let (code, errors) = running.end_without_output();
    assert_eq!(code, Some(0), "{errors}");
    let capture = Capture::of_file(&file);
    assert_eq!(capture.interfaces, [wire.interface.as_str()]);
    let dropped: Vec<_> = capture.comments.iter().filter(|comment| comment.starts_with("dropped=")).collect();
    let (lldp, udp): (Vec<_>, Vec<_>) = dropped.into_iter().partition(|it| it.contains("ethertype="));
    assert_eq!(udp.len(), 3, "{udp:?}");
    assert!(matches!(lldp[..], [one] if one.contains(" ethertype=lldp length=60 ")), "{lldp:?}");
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
