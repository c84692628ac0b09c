//! tcpdump beside the collector, on the same wire.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
};

use pcap_parser::pcap::parse_pcap_frame;

use crate::process::Wire;

/// What ends the traffic that a test sends: who has seen it has seen all.
pub(super) const LAST: &[u8] = b"this is the last packet of all";

/// A packet of a capture: 1 for in and 2 for out, and its octets.
pub(super) type Seen = (u32, Vec<u8>);

/// tcpdump beside the collector; killed if it is dropped.
pub(super) struct Tcpdump {
    child: Child,
    out: ChildStdout,
}

impl Tcpdump {
    /// Starts it for packets of one direction, and waits until it listens.
    pub(super) fn start(wire: &Wire, direction: &str) -> Self {
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
    pub(super) fn packets(mut self, direction: u32) -> Vec<Seen> {
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

impl Drop for Tcpdump {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Packets of one direction up to the last that the test sends: what a kernel sends by itself may come later, on a slow machine.
pub(super) fn up_to_last(mut packets: Vec<Seen>) -> Vec<Seen> {
    let is_last = |(_, octets): &Seen| octets.windows(LAST.len()).any(|window| window == LAST);
    let last = packets.iter().position(is_last).expect("the last packet is there");
    packets.truncate(last + 1);
    packets
}
