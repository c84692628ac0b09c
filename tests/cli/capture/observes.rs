//! A capture only watches, whatever its configuration says.

use super::{start, written::Capture};
use crate::process::{TempFile, Wire, sh};

/// All that a collector could do to packets.
const ALL: &str = "discover = \"off\"\nenforce = true\nxdp = \"generic\"\nmark-mask = 0xFFFC0000\n\
                   [[pu]]\nid = \"web\"\ncidr = [\"10.88.0.1/32\"]\n\
                   [[policy]]\nid = \"none\"\npu = [\"*\"]\ndirection = \"both\"\naction = \"reject\"\n";

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_passes_without_a_capture_passes_with_one() {
    let wire = Wire::new();
    let interface = &wire.interface;
    wire.ping(1);
    // What a mark would be seen by.
    sh(&format!(
        "ip netns exec {} nft 'table inet t {{ chain i {{ type filter hook input priority 0; \
         meta mark != 0 counter; }}; }}'",
        wire.near
    ));
    let (config, file) = (TempFile::new(ALL), TempFile::absent("pcapng"));
    let running = start(&wire, &["-w", file.path(), "--config", config.path(), "--iface", interface]);
    let shown = sh(&format!("ip -n {} -d link show dev {interface}", wire.near));
    assert!(!shown.contains("xdp"), "{shown}");
    wire.ping(5);
    let rules = sh(&format!("ip netns exec {} nft list ruleset", wire.near));
    assert!(rules.contains("counter packets 0 "), "{rules}");
    running.signal("INT");
    let (code, errors) = running.end_without_output();
    assert_eq!(code, Some(0), "{errors}");
    let capture = Capture::of_file(&file);
    assert!(capture.packets.len() >= 10, "{errors}");
    assert!(
        capture.comments.iter().filter(|comment| *comment == "pu=web").count() >= 10,
        "{:?}",
        capture.comments
    );
}
