//! What the kernel drops, captured again where it is asked for.

use std::net::UdpSocket;

use serde_json::Value;

use super::{
    sent::{exchange, send_lldp},
    start,
    tcpdump::LAST,
    written::{Capture, tcpdump_reads},
};
use crate::process::{TempFile, Wire, json, output, sh, within};

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
        // What is read of it is what a live run would have told.
        let read = output(&["read", "--output", "json", file.path()]);
        let text = String::from_utf8(read.stdout).expect("text");
        let events: Vec<_> = text.lines().map(json).collect();
        let wanted = 3 * (times - 1);
        let reports = events.iter().filter(|event| event["type"] == "packet");
        assert_eq!(
            reports.filter(|event| event["record"]["kernel_reason"] == "NETFILTER_DROP").count(),
            wanted
        );
        let status = &events.last().expect("a last line")["record"];
        let of_row = |row: &Value| {
            assert_eq!(
                (&row["puid"], &row["kernel_reason"]),
                (&"host".into(), &"NETFILTER_DROP".into()),
                "{row}"
            );
            row["packets"].as_u64().expect("a number")
        };
        let rows = status["drops"].as_array().expect("rows");
        assert_eq!(rows.iter().map(of_row).sum::<u64>(), wanted as u64, "{status}");
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
fn of_one_unit_neither_packets_nor_drops_of_others_are_captured() {
    let wire = Wire::new();
    let interface = &wire.interface;
    sh(&format!("ip -n {} addr add 10.88.0.3/24 dev {interface}", wire.near));
    wire.ping(1);
    let config = TempFile::new(
        "discover = \"off\"\n[[pu]]\nid = \"web\"\ncidr = [\"10.88.0.1/32\"]\n\
         [[pu]]\nid = \"db\"\ncidr = [\"10.88.0.3/32\"]\n",
    );
    let file = TempFile::absent("pcapng");
    // Three packets, and each again where it is dropped: what others have counts for nothing.
    let arguments = ["--config", config.path(), "--pu", "web", "--drops", "--filter", "udp", "--count", "6"];
    let running = start(&wire, &[&["-w", file.path(), "--iface", interface], &arguments[..]].concat());
    let far = within(&wire.far, || UdpSocket::bind("10.88.0.2:7002").expect("the address is free"));
    for (to, count) in [("10.88.0.3:7003", 5), ("10.88.0.1:7003", 3)] {
        for _ in 0..count {
            // That nobody listens may be told to the sender.
            while far.send_to(&[0xA5; 100], to).is_err() {}
        }
    }
    let (code, errors) = running.end_without_output();
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("captured 6 packets, "), "{errors}");
    let capture = Capture::of_file(&file);
    assert!(capture.comments.iter().all(|comment| comment.ends_with("pu=web")), "{:?}", capture.comments);
    let dropped = capture.comments.iter().filter(|comment| comment.starts_with("dropped=")).count();
    assert_eq!((capture.packets.len(), dropped), (6, 3), "{:?}", capture.comments);
}
