//! A frame as a line: what the parser saw, in columns with tabs between them.

use std::{
    fmt::{self, Display, Write as _},
    path::Path,
};

use collector_ebpf::abi::counter::Unparsed;

use super::{
    container::{Direction, Record, links},
    link,
    seen::{Fragment, Inner, Ip, Layer4, Seen},
};
use crate::event::Time;

/// The columns: their names, and what stands in them. What is not there, or is not known, is empty; lists have commas.
pub const COLUMNS: [(&str, &str); 47] = [
    ("file", "the capture, as it was named"),
    ("frame", "the frame's number in it, from 1 on"),
    ("offset", "where its record begins, in octets of the file, or of what that decompresses to"),
    ("time", "when it was captured, in UTC"),
    ("link", "the link type, without LINKTYPE_"),
    ("cap_len", "octets that were captured"),
    ("frame_len", "octets that it had"),
    ("direction", "in or out, as its capture says"),
    ("packets", "wire packets that it stands for, where a capture of ours says more than one"),
    ("vlan", "ids of VLAN tags, the outermost first"),
    ("mpls", "MPLS labels, the outermost first"),
    ("ip_ver", "4 or 6: of the first IP header, as all that follows"),
    ("src", "its source address"),
    ("dst", "its destination address"),
    ("ip_proto", "the protocol, or next header, that it names"),
    ("ext", "extension headers behind it, in their order; of IPv4 the authentication headers"),
    ("l4_proto", "the protocol behind these"),
    ("ip_len", "its length field: in IPv6 without its own 40 octets"),
    ("jumbo", "the length in a jumbo option"),
    ("frag_off", "octets of the datagram before this fragment"),
    ("mf", "1 where more fragments follow"),
    ("id", "the datagram's identification"),
    ("l3_off", "where the IP header begins, in octets of the frame"),
    ("l4_off", "where begins what follows it"),
    ("sport", "source port"),
    ("dport", "destination port"),
    ("tcp_flags", "twelve bits, hexadecimal"),
    ("icmp_type", "type of the ICMP message"),
    ("icmp_code", "its code"),
    ("tunnel", "the tunnel that it is a packet of: vxlan, geneve, gre, ipip or sit"),
    ("tunnel_id", "which of its networks"),
    ("in_vlan", "ids of VLAN tags inside"),
    ("in_ver", "4 or 6: of the IP header inside, as all that follows"),
    ("in_src", "its source address"),
    ("in_dst", "its destination address"),
    ("in_l4_proto", "the protocol behind its extension headers"),
    ("in_frag_off", "octets of the datagram before this fragment"),
    ("in_sport", "source port"),
    ("in_dport", "destination port"),
    ("in_unparsed", "why what is inside is not understood, or not to its end"),
    ("q_src", "source address of the packet that an ICMP error quotes"),
    ("q_dst", "its destination address"),
    ("q_l4_proto", "its protocol"),
    ("q_sport", "its source port"),
    ("q_dport", "its destination port"),
    ("cut", "1 where fewer octets were captured than there were"),
    ("unparsed", "why the frame is not understood, or not to its end"),
];

/// Appends the line of the columns' names.
pub fn heading(out: &mut String) {
    for (nth, (name, _)) in COLUMNS.iter().enumerate() {
        out.push_str(if nth == 0 { "" } else { "\t" });
        out.push_str(name);
    }
    out.push('\n');
}

/// Appends the line of a frame.
pub fn line(out: &mut String, file: &Path, number: u64, record: &Record<'_>, seen: &Seen) {
    let mut line = Line { out, is_first: true };
    line.all([&Quiet(file) as &dyn Display, &number, &record.offset]);
    line.some(record.time.map(Time::from_unix_nanos));
    line.all([&links::name(record.link) as &dyn Display, &record.octets.len(), &record.length]);
    line.add(match record.direction {
        Direction::Unknown => "",
        Direction::Inbound => "in",
        Direction::Outbound => "out",
    });
    line.some((record.marks.packets > 1).then_some(record.marks.packets));
    line.list(&seen.vlans);
    line.list(&seen.labels);
    outer(&mut line, seen.ip.as_ref());
    let layer4 = seen.layer4.as_ref();
    ports(&mut line, layer4.and_then(|it| it.ports));
    line.some(layer4.and_then(|it| it.tcp_flags).map(|flags| format!("{flags:#05x}")));
    let icmp = layer4.and_then(|it| it.icmp);
    line.some(icmp.map(|(kind, _)| kind));
    line.some(icmp.map(|(_, code)| code));
    inner(&mut line, seen.inner.as_ref());
    let quoted = seen.quoted.as_ref();
    line.some(quoted.map(|it| it.source));
    line.some(quoted.map(|it| it.destination));
    line.some(quoted.map(|it| it.protocol));
    ports(&mut line, quoted.and_then(|it| it.ports));
    line.some((record.octets.len() < record.length as usize).then_some(1));
    let reason =
        if link::is_read(record.link) { seen.unparsed.map(Unparsed::name) } else { Some("link_type") };
    line.some(reason);
    out.push('\n');
}

fn outer(line: &mut Line<'_>, ip: Option<&Ip>) {
    let Some(ip) = ip else {
        const FIELDS: usize = 13;
        return line.nothing(FIELDS);
    };
    line.all([&ip.version as &dyn Display, &ip.source, &ip.destination, &ip.names]);
    line.list(&ip.extensions);
    line.all([&ip.protocol as &dyn Display, &ip.length]);
    line.some(ip.jumbo);
    let fragment = ip.fragment.as_ref();
    line.some(fragment.map(|it| it.offset));
    line.some(fragment.map(|it| u8::from(it.more)));
    line.some(fragment.map(|Fragment { id, .. }| id));
    line.all([&ip.at as &dyn Display, &ip.next]);
}

fn inner(line: &mut Line<'_>, inner: Option<&Inner>) {
    let Some(inner) = inner else {
        const FIELDS: usize = 11;
        return line.nothing(FIELDS);
    };
    line.all([&inner.name() as &dyn Display, &inner.id]);
    line.list(&inner.vlans);
    let ip = inner.ip.as_ref();
    line.some(ip.map(|ip| ip.version));
    line.some(ip.map(|ip| ip.source));
    line.some(ip.map(|ip| ip.destination));
    line.some(ip.map(|ip| ip.protocol));
    line.some(ip.and_then(|ip| ip.fragment.map(|it| it.offset)));
    ports(line, inner.layer4.as_ref().and_then(|Layer4 { ports, .. }| *ports));
    line.some(inner.unparsed.map(Unparsed::name));
}

fn ports(line: &mut Line<'_>, ports: Option<(u16, u16)>) {
    line.some(ports.map(|(source, _)| source));
    line.some(ports.map(|(_, destination)| destination));
}

/// A line that grows.
struct Line<'a> {
    out: &'a mut String,
    is_first: bool,
}

impl Line<'_> {
    fn add(&mut self, value: impl Display) {
        let tab = if std::mem::take(&mut self.is_first) { "" } else { "\t" };
        // A text takes all that is written to it.
        let _ = write!(self.out, "{tab}{value}");
    }

    fn all<const N: usize>(&mut self, values: [&dyn Display; N]) {
        for value in values {
            self.add(value);
        }
    }

    fn some(&mut self, value: Option<impl Display>) {
        match value {
            Some(value) => self.add(value),
            None => self.add(""),
        }
    }

    fn nothing(&mut self, fields: usize) {
        for _ in 0..fields {
            self.add("");
        }
    }

    fn list(&mut self, values: &[impl Display]) {
        self.add("");
        for (nth, value) in values.iter().enumerate() {
            let _ = write!(self.out, "{}{value}", if nth == 0 { "" } else { "," });
        }
    }
}

/// A name that moves nobody's terminal, and no column.
struct Quiet<'a>(&'a Path);

impl Display for Quiet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.to_string_lossy().chars() {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{COLUMNS, heading, line};
    use crate::read::{
        container::{Direction, Marks, Record},
        seen::Seen,
    };

    fn of(link: u16, octets: &[u8]) -> Vec<(&'static str, String)> {
        let record = Record {
            offset: 24,
            interface: 0,
            link,
            time: Some(1_500_000_000),
            octets,
            length: octets.len() as u32,
            direction: Direction::Outbound,
            marks: Marks::NONE,
        };
        let mut text = String::new();
        line(&mut text, Path::new("a\tb"), 7, &record, &Seen::of(&record));
        let values: Vec<_> = text.trim_end_matches('\n').split('\t').map(str::to_owned).collect();
        assert_eq!(values.len(), COLUMNS.len(), "{text}");
        let named = COLUMNS.iter().map(|(name, _)| *name).zip(values);
        named.filter(|(_, value)| !value.is_empty()).collect()
    }

    #[test]
    fn the_heading_names_each_column() {
        let mut text = String::new();
        heading(&mut text);
        assert_eq!(text.trim_end().split('\t').count(), COLUMNS.len());
    }

    #[test]
    fn a_tagged_syn() {
        // RFC 791 figure 4, RFC 9293 figure 1: from TEST-NET-1 to TEST-NET-2.
        let ip = [0x45, 0, 0, 40, 0xAB, 0xCD, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2];
        let tcp = [0x12, 0x34, 1, 0xBB, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0xC2, 0xFF, 0xFF, 0, 0, 0, 0];
        let frame = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x81, 0, 0x60, 7, 8, 0][..], &ip, &tcp].concat();
        let want = [
            ("file", "a\\tb"),
            ("frame", "7"),
            ("offset", "24"),
            ("time", "1970-01-01T00:00:01.500000000Z"),
            ("link", "ETHERNET"),
            ("cap_len", "58"),
            ("frame_len", "58"),
            ("direction", "out"),
            ("vlan", "7"),
            ("ip_ver", "4"),
            ("src", "192.0.2.1"),
            ("dst", "198.51.100.2"),
            ("ip_proto", "6"),
            ("l4_proto", "6"),
            ("ip_len", "40"),
            ("frag_off", "0"),
            ("mf", "0"),
            ("id", "43981"),
            ("l3_off", "18"),
            ("l4_off", "38"),
            ("sport", "4660"),
            ("dport", "443"),
            ("tcp_flags", "0x0c2"),
        ];
        assert_eq!(of(1, &frame), want.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn what_is_no_ip_has_a_reason() {
        let frame = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 6][..], &[0; 28]].concat();
        assert_eq!(of(1, &frame).last(), Some(&("unparsed", "arp".to_owned())));
    }
}
