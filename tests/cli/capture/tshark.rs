//! What tshark makes of a file, which says how people see it in Wireshark.

use std::{net::UdpSocket, process::Command};

use super::{sent::exchange, start, tcpdump::LAST};
use crate::process::{TempFile, Wire, sh, within};

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
#[expect(clippy::print_stdout, reason = "how a test of libtest says that it was left out")]
fn tshark_opens_it_and_shows_directions_comments_and_interfaces() {
    if Command::new("tshark").arg("--version").output().is_err() {
        println!("SKIP for the test, what tshark makes of a file: there is none here");
        return;
    }
    let wire = Wire::new();
    let interface = &wire.interface;
    wire.ping(1);
    let file = TempFile::absent("pcapng");
    let running = start(
        &wire,
        &["-w", file.path(), "--iface", interface, "--drops", "--filter", "udp portrange 7001-7004"],
    );
    let far = within(&wire.far, || UdpSocket::bind("10.88.0.2:7002").expect("the address is free"));
    far.send_to(&[0xA5; 100], "10.88.0.1:7003").expect("it is sent");
    exchange(&wire, "10.88.0.1:7001", "10.88.0.2:7004", LAST);
    running.signal("INT");
    let (code, errors) = running.end_without_output();
    assert_eq!(code, Some(0), "{errors}");
    let fields = ["frame.interface_name", "frame.packet_flags_direction", "udp.dstport", "frame.comment"];
    let fields = fields.map(|field| format!("-e {field}")).join(" ");
    let shown = sh(&format!("tshark -n -r {} -T fields {fields} 2>/dev/null", file.path()));
    let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split('\t').collect()).collect();
    let of = |port: &str| {
        let rows = rows.iter().filter(|row| row[2] == port);
        rows.map(|row| (row[0], row[3].split(' ').next().unwrap_or_default())).collect::<Vec<_>>()
    };
    assert_eq!(of("7004"), [(interface.as_str(), "pu=host")], "{shown}");
    // Nobody answers there: as it comes in, nobody knows whose it is.
    let want = [(interface.as_str(), "pu=unknown"), (interface.as_str(), "dropped=NO_SOCKET")];
    assert_eq!(of("7003"), want, "{shown}");
    let direction = |port: &str| rows.iter().find(|row| row[2] == port).map(|row| row[1].ends_with('2'));
    assert_eq!(
        [direction("7003"), direction("7004")],
        [Some(false), Some(true)],
        "1 comes in, 2 goes out: {shown}"
    );
}
