//! Filter expressions of every kind that pcap-filter(7) knows, and the programs that libpcap has compiled them to.
//!
//! The programs are those of `data/filters.txt`: guests have no libpcap. A test writes that file (`BLESS=1`) and holds the
//! programs to the library wherever it is.

use std::fmt::Write as _;

use anyhow::Context as _;
use collector_ebpf::abi::filter::Instruction;
use collector_user::host::pcap::{Compiled, Filter, FilterError, Link};

use crate::{
    Result,
    frames::{
        ARP, C_TAG, ENDS_4, ENDS_6, Ends, GRE, ICMP, ICMPV6, IPV4, MPLS, ONE_4, PPPOE, S_TAG, SCTP, SYN, TCP,
        TWO_4, UDP, arp, ethernet, fragment_6, icmp, ipv4, mpls, pppoe, sctp, snap, tcp, udp,
    },
};

/// An expression that reads beyond the window where a tagged frame has a datagram to port 5001.
pub const BEYOND_BEHIND_TAG: &str = "vlan 29 and udp port 5001 and ether[300] == 0";

/// A long expression.
pub const LONG: &str = "(tcp or udp) and (port 80 or port 443 or port 8080 or port 8443 or port 22 or port 53) and (net 10.0.0.0/8 or net 172.16.0.0/12 or net 192.168.0.0/16 or net 192.0.2.0/24 or ip6)";

/// The expressions.
pub const EXPRESSIONS: [&str; 65] = [
    "ip",
    "ip6",
    "arp",
    "rarp",
    "tcp",
    "udp",
    "icmp",
    "icmp6",
    "sctp",
    "igmp",
    "ah or esp",
    "port 443",
    "tcp port 443",
    "udp port 53",
    "src port 40000",
    "dst port 443",
    "portrange 1000-50000",
    "not tcp portrange 40000-40010",
    "tcp src port 40000 and dst port 443",
    "sctp port 443",
    "host 192.0.2.1",
    "src host 192.0.2.1 and dst host 198.51.100.2",
    "host 2001:db8::1",
    "net 10.0.0.0/8",
    "src net 192.0.2.0/24 or dst net 10.0.0.0/24",
    "ip6 net 2001:db8::/32",
    "ip6 host ::1",
    "tcp[13] & 2 != 0",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 and not src and dst net 10.0.0.0/8",
    "icmp[icmptype] == icmp-echo",
    "icmp[0] == 3 and icmp[1] == 1",
    "icmp6[0] == 128",
    "ip6[6] == 44",
    "ip[6:2] & 0x1fff != 0",
    "ip[0] & 0xf > 5",
    "ip[2:2] > 60",
    "ip proto 47",
    "ip6 proto 58",
    "less 80",
    "greater 100",
    "len > 60 and len <= 1500",
    "ether host 02:00:00:00:00:01",
    "ether src 02:00:00:00:00:01 and ether proto 0x0800",
    "ether broadcast or ether multicast",
    "ether[12:2] == 0x8847",
    "vlan",
    "vlan 29",
    "vlan 29 and tcp",
    "vlan 100 and vlan 29 and ip",
    "mpls",
    "mpls 100 and ip",
    "pppoes and ip",
    "llc",
    "ip multicast or ip6 multicast",
    "udp[8] == 0",
    "tcp and (len % 3 == 1 or len / 7 == 10)",
    "ip[ip[0] & 0xf] ^ ip[1] < ip[2] << 1",
    "ip[8] * 2 + ip[9] - 3 > 100 | ip[1] >> 2",
    "ether[len - 1] == 0",
    "tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420",
    "ether[300] == 0",
    "ether[254:4] != 0",
    "ip[ip[3]] > 7",
    LONG,
    BEYOND_BEHIND_TAG,
];

/// Whether an expression reads beyond the window, whatever the frame.
pub fn is_beyond(expression: &str) -> bool {
    ["ether[300]", "ether[254:4]"].iter().any(|it| expression.contains(it))
}

/// Ethernet frames of which each of [`EXPRESSIONS`] matches some, but for those that read beyond the window.
pub fn frames() -> Vec<Vec<u8>> {
    let to = |ends: Ends, destination_port| Ends { destination_port, ..ends };
    let packet = ENDS_4.tcp(SYN, 10)[14..].to_vec();
    let datagram = ipv4((ONE_4, TWO_4), &[1; 8], 0x4000, UDP, &udp([0x9C, 0x40, 0x13, 0x89], 300));
    vec![
        ENDS_4.tcp(SYN, 10),
        ENDS_4.frame(TCP, &[tcp(ENDS_4.ports(), 0x18, &[1; 12], 0), b"GET / HTTP/1.1".to_vec()].concat()),
        ENDS_4.back().tcp(0x10, 1000),
        to(ENDS_4, 53).udp(30),
        ENDS_6.tcp(SYN, 10),
        to(ENDS_6, 53).udp(30),
        ENDS_6.frame(44, &[fragment_6(UDP, 48, false), vec![0x55; 40]].concat()),
        ENDS_6.frame(ICMPV6, &icmp(128, 0)),
        ENDS_4.frame(ICMP, &icmp(8, 0)),
        ENDS_4.frame(ICMP, &icmp(3, 1)),
        ENDS_4.frame(SCTP, &sctp(ENDS_4.ports())),
        ENDS_4.frame(GRE, &[&[0, 0, 8, 0], &packet[..]].concat()),
        ENDS_4.frame(50, &[1; 40]),
        ethernet(&[], IPV4, &ipv4((ONE_4, TWO_4), &[], 5, UDP, &[0x55; 40])),
        ethernet(&[(C_TAG, 0x401D)], IPV4, &packet),
        ethernet(&[(C_TAG, 0x401D)], IPV4, &datagram),
        ethernet(&[(S_TAG, 100), (C_TAG, 29)], IPV4, &packet),
        ethernet(&[], MPLS, &mpls(1, &packet)),
        ethernet(&[], PPPOE, &pppoe(0x0021, &packet)),
        ethernet(&[], 66, &snap(IPV4, &packet)),
        ethernet(&[], ARP, &arp()),
    ]
}

/// The programs of an expression, as libpcap compiles it here: for Ethernet, and for raw IP where it has a meaning.
pub fn compile(expression: &str) -> Result<(Vec<Instruction>, Option<Vec<Instruction>>)> {
    let ethernet = Compiled::new(expression, Link::Ethernet)?.instructions();
    match Compiled::new(expression, Link::RawIp) {
        Ok(raw_ip) => Ok((ethernet, Some(raw_ip.instructions()))),
        Err(FilterError::Expression { .. }) => Ok((ethernet, None)),
        Err(error) => Err(error.into()),
    }
}

/// The file's text: three lines an expression, the programs as numbers: `code jt jf k`, one instruction behind the other.
pub fn write() -> Result<String> {
    let mut text = String::new();
    for expression in EXPRESSIONS {
        let (ethernet, raw_ip) = compile(expression)?;
        writeln!(text, "{expression}")?;
        for (link, instructions) in [("ethernet", Some(ethernet)), ("raw-ip", raw_ip)] {
            write!(text, "  {link}")?;
            for Instruction { code, jt, jf, k } in instructions.unwrap_or_default() {
                write!(text, " {code} {jt} {jf} {k},")?;
            }
            writeln!(text)?;
        }
    }
    Ok(text)
}

/// The recorded filters, in the order of [`EXPRESSIONS`].
pub fn recorded() -> Result<Vec<Filter>> {
    let mut lines = include_str!("../data/filters.txt").lines();
    let mut all = Vec::new();
    while let Some(expression) = lines.next() {
        let ethernet = program(lines.next(), "ethernet")?;
        let raw_ip = program(lines.next(), "raw-ip")?;
        let raw_ip = (!raw_ip.is_empty()).then_some(raw_ip.as_slice());
        all.push(Filter::of(expression, &ethernet, raw_ip)?);
    }
    Ok(all)
}

/// A recorded filter.
pub fn of(expression: &str) -> Result<Filter> {
    let found = recorded()?.into_iter().find(|filter| filter.expression() == expression);
    found.with_context(|| format!("{expression} is not recorded"))
}

fn program(text: Option<&str>, link: &str) -> Result<Vec<Instruction>> {
    let text = text.and_then(|text| text.trim_start().strip_prefix(link)).context("no program")?;
    text.split_terminator(',').map(instruction).collect()
}

fn instruction(text: &str) -> Result<Instruction> {
    let mut numbers = text.split_whitespace();
    let mut next = || numbers.next().context("four numbers make an instruction");
    Ok(Instruction {
        code: next()?.parse()?,
        jt: next()?.parse()?,
        jf: next()?.parse()?,
        k: next()?.parse()?,
    })
}
