//! What a drop means: its class, the word for it in records, and what to do about it. The one table.
//!
//! Keyed by the name that the kernel gives a reason; names are more lasting than numbers. A function's name says more where
//! the reason says little, and stands alone before Linux 5.17, where there is none.

use crate::event::{DropClass, reason};

/// What a drop means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Its class.
    pub class: DropClass,
    /// The word of [`reason`] that stands for it.
    pub word: &'static str,
    /// What it is, and what to do about it, for people.
    pub advice: &'static str,
}

/// Names of reasons, of which `*` at the end stands for any rest, with what they mean; the first that fits.
type Row = (&'static [&'static str], DropClass, &'static str, &'static str);

// What reasons and places have in common.
const A_RULE: &str =
    "a rule of nftables or iptables: `nft list ruleset` shows it, `meta nftrace set 1` names it";
const A_TC_PROGRAM: &str =
    "a traffic control filter or program: `tc filter show dev DEV ingress` (egress), `bpftool net`";
const AN_XDP_PROGRAM: &str = "an XDP program: `bpftool net` names it";
const A_SLOW_READER: &str =
    "the program reads too slowly: make it faster, or net.core.rmem_max and its SO_RCVBUF larger";
const A_FULL_QUEUE: &str = "the queue of an interface is full or shapes: `tc -s qdisc show dev DEV`";
const A_BUSY_CPU: &str =
    "a CPU has too many packets waiting: net.core.netdev_max_backlog, or spread the load (RPS)";
const A_SILENT_HOP: &str = "the next hop does not answer: `ip neigh`, the cable, the address";
const NO_PROTOCOL: &str =
    "nobody here speaks this protocol: is a module or a tunnel missing, or the sender mistaken?";

const REASONS: &[Row] = &[
    (
        &["NO_SOCKET"],
        DropClass::NoSocket,
        reason::INVALID_CONNECTION,
        "nothing listens on this port: start the service, or look where the sender got the port from",
    ),
    (&["NETFILTER_DROP"], DropClass::Policy, reason::POLICY_DROP, A_RULE),
    (
        &["SOCKET_FILTER", "BPF_CGROUP_EGRESS", "SECURITY_HOOK"],
        DropClass::Policy,
        reason::POLICY_DROP,
        "a filter on the socket, its control group or a security module: `bpftool cgroup tree`, the module's log",
    ),
    (
        &["TC_INGRESS", "TC_EGRESS", "TC_COOKIE_ERROR", "TC_CHAIN_NOTFOUND", "TC_RECLASSIFY_LOOP"],
        DropClass::Policy,
        reason::POLICY_DROP,
        A_TC_PROGRAM,
    ),
    (&["XDP"], DropClass::Policy, reason::POLICY_DROP, AN_XDP_PROGRAM),
    (
        &["XFRM_POLICY", "PSP_*"],
        DropClass::Policy,
        reason::POLICY_DROP,
        "IPsec wants this packet encrypted, or not: `ip xfrm policy`",
    ),
    (
        &["IP_RPFILTER"],
        DropClass::Route,
        reason::PACKET_DROP,
        "its source would not be answered by this interface: a route is missing, or net.ipv4.conf.*.rp_filter is too strict",
    ),
    (
        &["SOCKET_RCVBUFF", "SOCKET_BACKLOG", "PROTO_MEM"],
        DropClass::Resource,
        reason::PACKET_DROP,
        A_SLOW_READER,
    ),
    (
        &["TCP_LISTEN_OVERFLOW"],
        DropClass::Resource,
        reason::PACKET_DROP,
        "the service accepts too slowly: a larger backlog of listen(2), net.core.somaxconn",
    ),
    (&["QDISC_*", "FQ_*", "CAKE_FLOOD", "DUALPI2_*"], DropClass::Resource, reason::PACKET_DROP, A_FULL_QUEUE),
    (&["CPU_BACKLOG"], DropClass::Resource, reason::PACKET_DROP, A_BUSY_CPU),
    (
        &["FULL_RING", "NOMEM", "PFMEMALLOC", "TCP_OFO_QUEUE_PRUNE", "SKB_UCOPY_FAULT"],
        DropClass::Resource,
        reason::PACKET_DROP,
        "no room or no memory for it: look at the memory of the host, and at who reads the device",
    ),
    (&["NEIGH_*", "NO_TX_TARGET"], DropClass::Route, reason::PACKET_DROP, A_SILENT_HOP),
    (
        &["IP_OUTNOROUTES", "IP_INNOROUTES"],
        DropClass::Route,
        reason::PACKET_DROP,
        "no route to its destination: `ip route get ADDRESS`",
    ),
    (
        &["IP_INADDRERRORS", "IP_LOCAL_SOURCE", "IP_INVALID_SOURCE", "IP_LOCALNET", "IP_INVALID_DEST"],
        DropClass::Route,
        reason::INVALID_HEADER,
        "an address that may not be here, or a host that does not forward: net.ipv4.ip_forward, `ip route get`",
    ),
    (
        &["PKT_TOO_BIG", "SKB_GSO_SEG"],
        DropClass::Route,
        reason::PACKET_DROP,
        "larger than the next link takes: compare the MTUs on its way, let ICMP \"too big\" through",
    ),
    (
        &[
            "IP_CSUM",
            "IP_INHDR",
            "HDR_TRUNC",
            "DEV_HDR",
            "PKT_TOO_SMALL",
            "IPV6_BAD_EXTHDR",
            "VXLAN_INVALID_HDR",
        ],
        DropClass::Malformed,
        reason::INVALID_HEADER,
        "its header is broken, or its time to live has run out: look for a loop, a bad cable, a faulty offload",
    ),
    (
        &["TCP_CSUM", "UDP_CSUM", "ICMP_CSUM", "SKB_CSUM"],
        DropClass::Malformed,
        reason::INVALID_PAYLOAD,
        "its checksum is wrong: a faulty offload (`ethtool -K DEV rx off`), a bad cable, a broken sender",
    ),
    (
        &[
            "UNHANDLED_PROTO",
            "IP_NOPROTO",
            "INVALID_PROTO",
            "IPV6DISABLED",
            "VXLAN_VNI_NOT_FOUND",
            "IP_TUNNEL_ECN",
        ],
        DropClass::Malformed,
        reason::INVALID_FORMAT,
        NO_PROTOCOL,
    ),
    (
        &["DUP_FRAG", "FRAG_*"],
        DropClass::Malformed,
        reason::INVALID_PAYLOAD,
        "a datagram in pieces that do not fit or never all came: net.ipv4.ipfrag_time, ipfrag_high_thresh",
    ),
    (
        &["IPV6_NDISC_*", "MAC_INVALID_SOURCE", "CAN*"],
        DropClass::Malformed,
        reason::INVALID_FORMAT,
        "not what its protocol allows: look at who sends it",
    ),
    (
        &["TCP_AUTH_HDR", "TCP_MD5*", "TCP_AO*"],
        DropClass::Policy,
        reason::INVALID_TOKEN,
        "its TCP signature is missing, not wanted or wrong: compare the keys at both ends",
    ),
    (
        &[
            "OTHERHOST",
            "LOCAL_MAC",
            "TAP_FILTER",
            "TAP_TXFILTER",
            "UNICAST_IN_L2_MULTICAST",
            "MAC_IEEE_*",
            "ARP_PVLAN_DISABLE",
        ],
        DropClass::NotForUs,
        reason::PACKET_DROP,
        "for another host: a switch that floods, an interface in promiscuous mode, or a VLAN tag that no VLAN device takes",
    ),
    (
        &["BRIDGE_INGRESS_STP_STATE"],
        DropClass::Policy,
        reason::PACKET_DROP,
        "the spanning tree keeps this port of the bridge closed: `bridge link`",
    ),
    (
        &[
            "TCP_OLD_DATA",
            "TCP_OLD_ACK",
            "TCP_TOO_OLD_ACK",
            "TCP_OFOMERGE",
            "TCP_ZEROWINDOW",
            "TCP_OVERWINDOW",
            "TCP_OLD_SEQUENCE",
            "TCP_OFO_DROP",
            "TCP_RESET",
            "TCP_CLOSE",
            "SOCKET_CLOSE",
            "UNIX_*",
            "QUEUE_PURGE",
            "DEV_READY",
        ],
        DropClass::EndOfLife,
        reason::INVALID_STATE,
        "sent again, too late or for a connection that has ended: nothing to do, unless there are many",
    ),
    (
        &["TCP_*"],
        DropClass::Malformed,
        reason::INVALID_STATE,
        "it does not fit its connection: a middlebox that meddles, a sender that guesses, or a restart at one end",
    ),
    (
        &["RECURSION_LIMIT"],
        DropClass::Resource,
        reason::PACKET_DROP,
        "devices that send to each other in a circle",
    ),
    (
        &["PACKET_SOCK_ERROR", "TUNNEL_TXINFO", "VXLAN_ENTRY_EXISTS"],
        DropClass::Malformed,
        reason::PACKET_DROP,
        "who sent it said something that does not hold: look at its log",
    ),
];

/// Functions that free packets which had done their work.
const DONE: &[Row] = &[(
    &["tcp_v4_rcv*", "tcp_v6_rcv*", "ping_rcv", "icmp_rcv*", "icmpv6_rcv*"],
    DropClass::EndOfLife,
    reason::INVALID_STATE,
    "it had done its work, or its connection has ended: nothing to do, unless there are many",
)];

/// Functions that free answers to echo requests which no socket waits for: Linux 5.18 to 6.1 does so in the function that
/// all of ICMP comes to.
const ANSWERS: [&str; 3] = ["ping_rcv", "icmp_rcv*", "icmpv6_rcv*"];

/// Functions, of which `*` at the end stands for any rest, for drops whose reason says nothing.
const PLACES: &[Row] = &[
    (&["nf_hook_slow*", "nft_*", "ipt_do_table*", "nf_*"], DropClass::Policy, reason::POLICY_DROP, A_RULE),
    (
        &["__udp4_lib_rcv*", "__udp6_lib_rcv*", "tcp_v4_rcv*", "tcp_v6_rcv*", "__udp*_lib_err*"],
        DropClass::NoSocket,
        reason::INVALID_CONNECTION,
        "nothing listens on this port, or the checksum is wrong",
    ),
    (
        &[
            "udp_queue_rcv_one_skb*",
            "udpv6_queue_rcv_one_skb*",
            "sock_queue_rcv_skb*",
            "__sock_queue_rcv_skb*",
        ],
        DropClass::Resource,
        reason::PACKET_DROP,
        A_SLOW_READER,
    ),
    (
        &["ipv6_rthdr_rcv*", "ipv6_destopt_rcv*", "ip6_parse_tlv*", "ipv6_frag_rcv*"],
        DropClass::Malformed,
        reason::INVALID_HEADER,
        "an extension header that is broken, or that this host does not take: net.ipv6.conf.*.accept_source_route",
    ),
    (
        &[
            "__netif_receive_skb_core*",
            "ip_local_deliver_finish*",
            "ip_protocol_deliver_rcu*",
            "ip6_protocol_deliver_rcu*",
        ],
        DropClass::Malformed,
        reason::INVALID_FORMAT,
        NO_PROTOCOL,
    ),
    (
        &["ip_rcv_finish_core*"],
        DropClass::Route,
        reason::PACKET_DROP,
        "no way in for it: a group that nobody here has joined, or an address that may not be here",
    ),
    (
        &["ip_rcv_core*", "ip6_rcv_core*", "ipv6_rcv*", "ip_rcv", "ip_rcv.*"],
        DropClass::Malformed,
        reason::INVALID_HEADER,
        "its header is broken, or there is no way back to its source",
    ),
    (
        &["neigh_*", "__neigh_*", "arp_error_report*", "ndisc_error_report*"],
        DropClass::Route,
        reason::PACKET_DROP,
        A_SILENT_HOP,
    ),
    (
        &[
            "ip_forward*",
            "ip6_forward*",
            "ip_error*",
            "ip6_pkt_drop*",
            "ip_mc_output*",
            "ip_finish_output*",
            "ip_fragment*",
            "dst_discard*",
        ],
        DropClass::Route,
        reason::PACKET_DROP,
        "it cannot go on: its time to live, the route (`ip route get`), or the MTU of the next link",
    ),
    (
        // Of what a queue refuses `kfree_skb_list` has the list; little else drops whole lists.
        &[
            "__dev_queue_xmit*",
            "dev_hard_start_xmit*",
            "kfree_skb_list",
            "*_enqueue",
            "qdisc_*",
            "tbf_*",
            "htb_*",
            "fq_*",
        ],
        DropClass::Resource,
        reason::PACKET_DROP,
        A_FULL_QUEUE,
    ),
    (
        &["sch_handle_ingress*", "sch_handle_egress*", "tcx_*"],
        DropClass::Policy,
        reason::POLICY_DROP,
        A_TC_PROGRAM,
    ),
    (
        &["netif_receive_generic_xdp*", "do_xdp_generic*", "veth_xdp_*"],
        DropClass::Policy,
        reason::POLICY_DROP,
        AN_XDP_PROGRAM,
    ),
    (&["enqueue_to_backlog*"], DropClass::Resource, reason::PACKET_DROP, A_BUSY_CPU),
    (
        &["ip6_mc_input*", "ip_mc_*", "br_*", "stp_pdu_rcv*"],
        DropClass::NotForUs,
        reason::PACKET_DROP,
        "for a group that nobody here has joined",
    ),
    (
        &[
            "icmp_rcv*",
            "icmpv6_rcv*",
            "igmp_rcv*",
            "arp_rcv*",
            "arp_process*",
            "ndisc_*",
            "unix_*",
            "skb_queue_purge*",
            "__skb_queue_purge*",
            "inet_sock_destruct*",
            "udp_destruct_common*",
            "__rtnl_unlock",
            "tcp_rcv_state_process*",
            "tcp_v4_do_rcv*",
            "tcp_v6_do_rcv*",
            "tcp_data_queue*",
            "tcp_validate_incoming*",
        ],
        DropClass::EndOfLife,
        reason::INVALID_STATE,
        "it had done its work, or its connection has ended: nothing to do, unless there are many",
    ),
];

/// What this collector's own programs at TC and XDP have dropped, whatever the kernel says of it.
pub const BY_OWN_POLICY: Meaning = Meaning {
    class: DropClass::Policy,
    word: reason::POLICY_DROP,
    advice: "a policy of this collector rejects it, and `enforce` is on: the flow's record names the policy",
};

const NOTHING_SAID: Meaning = Meaning {
    class: DropClass::Unknown,
    word: reason::PACKET_DROP,
    advice: "the kernel says no more: look its function up in the kernel's source",
};

/// What a drop means that the kernel gives this reason for (empty: none), in this function (empty: not known).
#[must_use]
pub fn of(reason: &str, function: &str) -> Meaning {
    let found = match reason {
        "" => find(PLACES, function),
        // Kernels that give reasons give one to what is wrong there: what has none had done its work.
        "NOT_SPECIFIED" => find(DONE, function).or_else(|| find(PLACES, function)),
        // A raw socket gets a copy of each answer; that no other socket waits for it is no fault.
        "NO_SOCKET" if ANSWERS.iter().any(|pattern| fits(pattern, function)) => find(DONE, function),
        _ => find(REASONS, reason),
    };
    found.unwrap_or(NOTHING_SAID)
}

/// Whether drops with this reason are what a network does on a good day.
#[must_use]
pub fn is_benign(reason: &str) -> bool {
    find(REASONS, reason).is_some_and(|meaning| meaning.class.is_benign())
}

/// Reasons that say so little that the place decides; the empty one is none.
pub const BY_PLACE: [&str; 3] = ["", "NOT_SPECIFIED", "NO_SOCKET"];

/// Whether drops with this reason, one of [`BY_PLACE`], in this function are what a network does on a good day.
#[must_use]
pub fn is_benign_at(reason: &str, function: &str) -> bool {
    // Most functions of the kernel are in no row.
    let row_is_benign =
        |(names, class, ..): &Row| class.is_benign() && names.iter().any(|pattern| fits(pattern, function));
    DONE.iter().chain(PLACES).any(row_is_benign) && of(reason, function).class.is_benign()
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| rest.ends_with(after)),
    }
}

fn find(table: &[Row], name: &str) -> Option<Meaning> {
    let row_fits = |(names, ..): &&Row| names.iter().any(|pattern| fits(pattern, name));
    let (_, class, word, advice) = table.iter().find(row_fits)?;
    Some(Meaning { class: *class, word, advice })
}

#[cfg(test)]
mod tests;
