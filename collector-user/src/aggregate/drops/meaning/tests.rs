//! What drops mean, by reason and by place.

use super::{BY_PLACE, NOTHING_SAID, REASONS, is_benign_at, of};
use crate::event::DropClass;

#[test]
fn a_reason_decides_and_a_place_where_there_is_none() {
    assert_eq!(of("NO_SOCKET", "nf_hook_slow").class, DropClass::NoSocket);
    assert_eq!(of("NOT_SPECIFIED", "nf_hook_slow").class, DropClass::Policy);
    assert_eq!(of("NOT_SPECIFIED", "tcp_v4_rcv").class, DropClass::EndOfLife);
    assert_eq!(of("", "tcp_v4_rcv").class, DropClass::NoSocket);
    assert_eq!(of("NO_SOCKET", "ping_rcv").class, DropClass::EndOfLife);
    assert_eq!(of("", "__udp4_lib_rcv").class, DropClass::NoSocket);
    assert_eq!(of("", "pfifo_enqueue").class, DropClass::Resource);
    assert_eq!(of("", "__netif_receive_skb_core").class, DropClass::Malformed);
    assert_eq!(of("NOT_SPECIFIED", "ip_rcv_finish_core.constprop.0").class, DropClass::Route);
    assert_eq!(of("NOT_SPECIFIED", "ip_rcv_core.isra.0").class, DropClass::Malformed);
    assert_eq!(of("NOT_SPECIFIED", "ipv6_rthdr_rcv").class, DropClass::Malformed);
    assert_eq!(of("NOT_SPECIFIED", "dst_discard_out").class, DropClass::Route);
    assert_eq!(of("NOT_SPECIFIED", "stp_pdu_rcv").class, DropClass::NotForUs);
    assert_eq!(of("TCP_OLD_DATA", "").class, DropClass::EndOfLife);
    assert_eq!(of("TCP_FLAGS", "").word, "state");
    assert_eq!(of("reason 0x20001", "anything"), NOTHING_SAID);
}

#[test]
fn only_such_reasons_are_judged_by_the_place() {
    for (reason, function, is_benign) in [
        ("NOT_SPECIFIED", "tcp_v4_rcv", true),
        ("NOT_SPECIFIED", "nf_hook_slow", false),
        ("NO_SOCKET", "ping_rcv", true),
        ("NO_SOCKET", "icmp_rcv", true),
        ("NO_SOCKET", "icmpv6_rcv.cold", true),
        ("NO_SOCKET", "tcp_v4_rcv", false),
        ("", "tcp_v4_rcv", false),
        ("", "unix_release_sock", true),
        ("NOT_SPECIFIED", "udp_destruct_common", true),
        ("NOT_SPECIFIED", "ip_rcv_finish_core", false),
        ("", "anything", false),
    ] {
        assert!(BY_PLACE.contains(&reason));
        assert_eq!(is_benign_at(reason, function), is_benign, "{reason} {function}");
    }
    for (names, class, ..) in REASONS.iter().filter(|(_, class, ..)| class.is_benign()) {
        assert!(names.iter().all(|name| !BY_PLACE.contains(name)), "{class:?}");
    }
}
