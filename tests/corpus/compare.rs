//! Where the parser and the dissector differ about a frame.

use std::net::IpAddr;

use collector_ebpf::abi::counter::Unparsed;
use collector_user::read::seen::{Inner, Ip, Layer4, Seen};

use crate::truth::Row;

/// A column in which they differ, and both values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) field: &'static str,
    pub(crate) ours: String,
    pub(crate) theirs: String,
}

/// What a frame's comparison comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All that both say is the same.
    Agrees,
    /// It is refused with a reason, and the dissector sees why: no IP, a fault, or more than the design follows.
    Unparsed(Unparsed),
    /// They differ.
    Differs(Vec<Difference>),
}

/// Layers before an IP header that the design has read; frames with others there are refused.
const KNOWN: [&str; 15] = [
    "eth",
    "ethertype",
    "vlan",
    "ieee8021ad",
    "llc",
    "mpls",
    "ppp",
    "pppoes",
    "sll",
    "raw",
    "null",
    "ip",
    "ipv6",
    "data",
    "ethertrailer",
];

/// HIP and shim6, which the dissector walks as it walks extension headers. Here they are what is carried: nothing follows
/// them (RFC 7401 section 5.1), or what they are about is elsewhere (RFC 5533 section 5.1).
const NOT_WALKED: [&str; 2] = ["139", "140"];

/// Tunnels that are looked into, as the table names them.
const TUNNELS: [&str; 6] = ["gre", "gre,eth", "udp,vxlan,eth", "udp,geneve,eth", "udp,geneve", "ip"];

/// Compares what the parser has seen of a frame with what the dissector says.
pub(crate) fn compare(seen: &Seen, row: Row<'_>) -> Outcome {
    let mut found = Differences::default();
    let is_faulty = row.is_faulty();
    let is_strange = !row.before_ip().all(|layer| KNOWN.contains(&layer));
    found.list("vlan", &seen.vlans, row, is_strange);
    found.list("mpls", &seen.labels, row, is_strange);
    if let Some(ip) = &seen.ip {
        outer(&mut found, ip, seen.layer4.as_ref(), row, is_faulty);
        if let Some(reason) = seen.unparsed.filter(|reason| !is_faulty && !is_by_design(*reason)) {
            found.add("unparsed", reason.name(), "read");
        }
        inner(&mut found, seen.inner.as_ref(), row);
        quoted(&mut found, seen, row);
    } else {
        let reason = seen.unparsed.unwrap_or(Unparsed::Truncated);
        if !row.get("ip_ver").is_empty() && !is_faulty && !is_strange && !is_by_design(reason) {
            found.add("unparsed", reason.name(), format!("IPv{}", row.get("ip_ver")));
        }
    }
    match (found.0, seen.unparsed) {
        (differences, _) if !differences.is_empty() => Outcome::Differs(differences),
        (_, Some(reason)) => Outcome::Unparsed(reason),
        _ => Outcome::Agrees,
    }
}

/// Whether the design says that a frame is refused which is without fault: what nests deeper than is followed.
fn is_by_design(reason: Unparsed) -> bool {
    matches!(reason, Unparsed::VlanDepth | Unparsed::MplsDepth | Unparsed::ExtensionDepth)
}

#[derive(Default)]
struct Differences(Vec<Difference>);

impl Differences {
    fn add(&mut self, field: &'static str, ours: impl Into<String>, theirs: impl Into<String>) {
        self.0.push(Difference { field, ours: ours.into(), theirs: theirs.into() });
    }

    /// One value. Of a frame in which the dissector finds fault, what it does not say may be said.
    fn value<T: ToString>(&mut self, field: &'static str, ours: Option<T>, row: Row<'_>, is_faulty: bool) {
        let (ours, theirs) = (ours.map(|it| it.to_string()).unwrap_or_default(), row.get(field));
        let is_silent = is_faulty && (theirs.is_empty() || ours.is_empty());
        if ours != theirs && !is_silent {
            self.add(field, ours, theirs);
        }
    }

    fn list(&mut self, field: &'static str, ours: &[impl ToString], row: Row<'_>, is_strange: bool) {
        let ours = ours.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let theirs = row.get(field);
        // Behind what is refused nothing is said.
        let is_silent = (row.is_faulty() || is_strange) && (ours.is_empty() || theirs.is_empty())
            || is_strange && theirs.starts_with(&ours);
        if ours != theirs && !is_silent {
            self.add(field, ours, row.get(field));
        }
    }

    fn address(&mut self, field: &'static str, ours: IpAddr, row: Row<'_>, is_faulty: bool) {
        let theirs = row.get(field);
        if theirs.parse() != Ok(ours) && !(is_faulty && theirs.is_empty()) {
            self.add(field, ours.to_string(), theirs);
        }
    }
}

fn outer(found: &mut Differences, ip: &Ip, layer4: Option<&Layer4>, row: Row<'_>, is_faulty: bool) {
    if is_faulty && row.get("ip_ver").is_empty() {
        // Where it saw none at all there is nothing to contradict.
        return;
    }
    found.value("ip_ver", Some(ip.version), row, is_faulty);
    found.address("src", ip.source, row, is_faulty);
    found.address("dst", ip.destination, row, is_faulty);
    found.value("ip_proto", Some(ip.names), row, is_faulty);
    let walked: Vec<_> = row.list("ext").take_while(|it| !NOT_WALKED.contains(it)).collect();
    let is_carrier = walked.len() != row.list("ext").count();
    let walked = walked.join(",");
    let extensions = ip.extensions.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    // A header that is cut off is in the dissector's list.
    if extensions != walked && !(is_faulty && walked.starts_with(&extensions)) {
        found.add("ext", extensions, walked);
    }
    if !is_carrier {
        found.value("l4_proto", Some(ip.protocol), row, is_faulty);
    }
    found.value("ip_len", Some(ip.length), row, is_faulty);
    found.value("jumbo", ip.jumbo, row, is_faulty);
    found.value("id", ip.fragment.map(|it| it.id), row, is_faulty);
    found.value("frag_off", ip.fragment.map(|it| it.offset), row, is_faulty);
    found.value("mf", ip.fragment.map(|it| u8::from(it.more)), row, is_faulty);
    found.value("l3_off", Some(ip.at), row, is_faulty);
    // Where nothing follows, nothing begins; and of a header that is cut, the dissector takes the cut for its end.
    let is_cut = is_faulty && row.get("l4_off") == row.get("cap_len");
    if !row.get("l4_off").is_empty() && !is_carrier && !is_cut {
        found.value("l4_off", Some(ip.next), row, is_faulty);
    }
    let [source, destination] = ports(layer4);
    found.value("sport", source, row, is_faulty);
    found.value("dport", destination, row, is_faulty);
    let flags = layer4.and_then(|it| it.tcp_flags).map(|flags| format!("{flags:#05x}"));
    found.value("tcp_flags", flags, row, is_faulty);
    let icmp = layer4.and_then(|it| it.icmp);
    found.value("icmp_type", icmp.map(|(kind, _)| kind), row, is_faulty);
    found.value("icmp_code", icmp.map(|(_, code)| code), row, is_faulty);
}

fn ports(layer4: Option<&Layer4>) -> [Option<u16>; 2] {
    match layer4.and_then(|it| it.ports) {
        Some((source, destination)) => [Some(source), Some(destination)],
        None => [None; 2],
    }
}

/// Inside of tunnels that are looked into. Of others nothing is said, and whatever is said has to be right.
fn inner(found: &mut Differences, inner: Option<&Inner>, row: Row<'_>) {
    let is_faulty = row.is_faulty() || row.is_faulty_inside();
    let is_looked_into = TUNNELS.contains(&row.get("tunnel")) && !row.get("in_ver").is_empty();
    let Some(inner) = inner else {
        // Of a later fragment there is nothing inside, whatever the dissector puts together.
        let is_whole = matches!(row.get("frag_off"), "" | "0");
        if is_looked_into && !is_faulty && is_whole {
            found.add("tunnel", "", row.get("tunnel"));
        }
        return;
    };
    if !is_looked_into {
        return;
    }
    let Some(ip) = &inner.ip else {
        if !is_faulty {
            found.add("in_ver", inner.unparsed.map_or("", Unparsed::name), row.get("in_ver"));
        }
        return;
    };
    let vlans = inner.vlans.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    found.value("in_vlan", Some(vlans), row, is_faulty);
    found.value("in_ver", Some(ip.version), row, is_faulty);
    found.address("in_src", ip.source, row, is_faulty);
    found.address("in_dst", ip.destination, row, is_faulty);
    found.value("in_l4_proto", Some(ip.protocol), row, is_faulty);
    found.value("in_frag_off", ip.fragment.map(|it| it.offset), row, is_faulty);
    let [source, destination] = ports(inner.layer4.as_ref());
    found.value("in_sport", source, row, is_faulty);
    found.value("in_dport", destination, row, is_faulty);
}

/// What an ICMP error quotes; too little of it to tell a flow is no fault.
fn quoted(found: &mut Differences, seen: &Seen, row: Row<'_>) {
    let Some(ends) = seen.quoted else {
        if !row.get("q_sport").is_empty() && !row.get("markers").contains("quoted.") && !row.is_faulty() {
            found.add("q_ver", "", row.get("q_ver"));
        }
        return;
    };
    let is_faulty = row.get("q_ver").is_empty() || row.is_faulty() || row.get("markers").contains("quoted.");
    found.address("q_src", ends.source, row, is_faulty);
    found.address("q_dst", ends.destination, row, is_faulty);
    found.value("q_l4_proto", Some(ends.protocol), row, is_faulty);
    found.value("q_sport", ends.ports.map(|(source, _)| source), row, is_faulty);
    found.value("q_dport", ends.ports.map(|(_, destination)| destination), row, is_faulty);
}

/// What kind of frame it is, for the table.
pub(crate) fn category(seen: &Seen, row: Option<Row<'_>>) -> String {
    let theirs = |row: Row<'_>| match (row.get("ip_ver"), row.get("l4_proto")) {
        ("", _) => "no IP".to_owned(),
        (version, protocol) => format!("IPv{version} {}", protocol_name(protocol.parse().unwrap_or(255))),
    };
    match (row, &seen.ip) {
        (Some(row), _) if !row.get("tunnel").is_empty() => format!("tunnel {}", row.get("tunnel")),
        (Some(row), _) => theirs(row),
        (None, Some(ip)) => format!("IPv{} {}", ip.version, protocol_name(ip.protocol)),
        (None, None) => "no IP".to_owned(),
    }
}

fn protocol_name(protocol: u8) -> &'static str {
    match protocol {
        1 | 58 => "ICMP",
        2 => "IGMP",
        6 => "TCP",
        17 => "UDP",
        47 => "GRE",
        50 => "ESP",
        132 => "SCTP",
        _ => "others",
    }
}
