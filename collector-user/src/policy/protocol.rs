//! Names of protocols, and of ICMP messages, with their numbers.

use super::rule::Ports;

/// Protocols that have a name here (IANA, Assigned Internet Protocol Numbers; names as in `/etc/protocols`).
const PROTOCOLS: [(&str, u8); 19] = [
    ("icmp", ICMP),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", TCP),
    ("egp", 8),
    ("udp", UDP),
    ("dccp", 33),
    ("ipv6", 41),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmp6", ICMP6),
    ("eigrp", 88),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("sctp", SCTP),
    ("udplite", UDPLITE),
];

/// ICMP.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMP for IPv6.
pub const ICMP6: u8 = 58;
/// DCCP.
pub const DCCP: u8 = 33;
/// SCTP.
pub const SCTP: u8 = 132;
/// UDP-Lite.
pub const UDPLITE: u8 = 136;

/// The protocol of a name, or of a number.
pub fn number(given: &str) -> Option<u8> {
    let alias = match given {
        "ipv6-icmp" | "icmpv6" => "icmp6",
        "ipencap" => "ipip",
        other => other,
    };
    let named = PROTOCOLS.into_iter().find(|(name, _)| *name == alias).map(|(_, number)| number);
    named.or_else(|| given.parse().ok())
}

/// The name of a protocol, or its number.
pub fn name(protocol: u8) -> String {
    let named = PROTOCOLS.into_iter().find(|(_, number)| *number == protocol);
    named.map_or_else(|| protocol.to_string(), |(name, _)| name.to_owned())
}

/// Whether flows of a protocol have ports that the programs read.
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | DCCP | SCTP | UDPLITE)
}

/// Whether its messages have a type and a code.
pub const fn has_types(protocol: u8) -> bool {
    matches!(protocol, ICMP | ICMP6)
}

/// Types of ICMP messages that have a name here (IANA, ICMP Type Numbers; names as nft has them).
const ICMP_TYPES: [(&str, u8); 13] = [
    ("echo-reply", 0),
    ("destination-unreachable", 3),
    ("source-quench", 4),
    ("redirect", 5),
    ("echo-request", 8),
    ("router-advertisement", 9),
    ("router-solicitation", 10),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp-request", 13),
    ("timestamp-reply", 14),
    ("address-mask-request", 17),
    ("address-mask-reply", 18),
];

/// The same for IPv6 (IANA, "type" numbers of ICMP for IPv6).
const ICMP6_TYPES: [(&str, u8); 13] = [
    ("destination-unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("mld-listener-query", 130),
    ("mld-listener-report", 131),
    ("mld-listener-done", 132),
    ("nd-router-solicit", 133),
    ("nd-router-advert", 134),
    ("nd-neighbor-solicit", 135),
    ("nd-neighbor-advert", 136),
];

fn types(protocol: u8) -> &'static [(&'static str, u8)] {
    match protocol {
        ICMP => &ICMP_TYPES,
        ICMP6 => &ICMP6_TYPES,
        _ => &[],
    }
}

/// Names of the types of a protocol's messages, for people.
pub fn type_names(protocol: u8) -> String {
    types(protocol).iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// The messages of a type, with all of its codes; or of a type and a code: `echo-request`, `3`, `3/4`.
pub fn messages(protocol: u8, given: &str) -> Option<Ports> {
    let (of_type, code) = match given.split_once('/') {
        Some((of_type, code)) => (of_type, Some(code.parse::<u8>().ok()?)),
        None => (given, None),
    };
    let named = types(protocol).iter().find(|(name, _)| *name == of_type).map(|(_, number)| *number);
    let of_type = named.or_else(|| of_type.parse().ok())?;
    let at = |code: u8| u16::from_be_bytes([of_type, code]);
    Some(match code {
        Some(code) => Ports::one(at(code)),
        None => Ports { first: at(0), last: at(u8::MAX) },
    })
}

/// How such messages are written; types by their number where a name is not enough. None where they are of several types.
pub fn messages_name(protocol: u8, messages: Ports) -> Option<String> {
    let [[of_type, code], [last_type, last_code]] = [messages.first, messages.last].map(u16::to_be_bytes);
    let named = types(protocol).iter().find(|(_, number)| *number == of_type);
    let of_type_name = named.map_or_else(|| of_type.to_string(), |(name, _)| (*name).to_owned());
    match (of_type == last_type, code, last_code) {
        (true, 0, u8::MAX) => Some(of_type_name),
        (true, one, other) if one == other => Some(format!("{of_type_name}/{code}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{ICMP, ICMP6, has_ports, messages, messages_name, name, number};
    use crate::policy::rule::Ports;

    #[test]
    fn every_protocol_has_a_name_that_means_it() {
        for protocol in 0..=u8::MAX {
            assert_eq!(number(&name(protocol)), Some(protocol));
        }
        assert_eq!(
            ["tcp", "icmpv6", "ipv6-icmp", "132", "256", "TCP", "", "-1"].map(number),
            [Some(6), Some(58), Some(58), Some(132), None, None, None, None]
        );
        assert!(has_ports(6) && has_ports(132) && !has_ports(1) && !has_ports(47));
    }

    #[test]
    fn messages_are_types_with_their_codes() {
        assert_eq!(messages(ICMP, "echo-request"), Some(Ports { first: 0x0800, last: 0x08FF }));
        assert_eq!(messages(ICMP6, "echo-request"), Some(Ports { first: 0x8000, last: 0x80FF }));
        assert_eq!(messages(ICMP, "3/4"), Some(Ports::one(0x0304)));
        assert_eq!(messages(ICMP, "destination-unreachable/4"), Some(Ports::one(0x0304)));
        for wrong in ["", "256", "3/", "3/256", "/4", "packet-too-big", "3/4/5", "3-5"] {
            assert_eq!(messages(ICMP, wrong), None, "{wrong}");
        }
        for protocol in [ICMP, ICMP6] {
            for of_type in 0..=u8::MAX {
                for given in [of_type.to_string(), format!("{of_type}/7")] {
                    let range = messages(protocol, &given).unwrap();
                    let written = messages_name(protocol, range).unwrap();
                    assert_eq!(messages(protocol, &written), Some(range), "{written}");
                }
            }
        }
        assert_eq!(messages_name(ICMP, Ports { first: 0, last: 0x01FF }), None);
    }
}
