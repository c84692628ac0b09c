//! The columns that lines share: time, processing unit, two ends, protocol.

use std::{borrow::Cow, fmt::Write as _, iter, net::IpAddr};

use super::{escape::Escaped, look::Look};
use crate::event::{EndPoint, Time, reason};

/// `255.255.255.255:65535`
const IPV4_END: usize = 21;
/// `[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535`
const IPV6_END: usize = 47;

/// Octets that most lines have room in.
const LINE: usize = 256;

/// The widths of columns. They grow with what they hold, up to a bound, and never shrink: columns stay steady, and
/// what is beyond the bound moves its own line only.
pub(super) struct Columns {
    unit: Column,
    client: Column,
    server: Column,
}

struct Column {
    width: usize,
    most: usize,
}

impl Column {
    fn fit(&mut self, cell: &str) -> usize {
        self.width = self.width.max(cell.len().min(self.most));
        self.width
    }
}

impl Columns {
    pub(super) const fn new() -> Self {
        Self {
            unit: Column { width: 12, most: 28 },
            client: Column { width: IPV4_END, most: IPV6_END },
            server: Column { width: IPV4_END, most: IPV6_END },
        }
    }

    /// What begins every line: the time of day and the processing unit.
    pub(super) fn start(&mut self, look: &Look, time: Time, unit: &str) -> String {
        let unit = if unit.is_empty() { Cow::Borrowed("-") } else { escaped(unit) };
        let width = self.unit.fit(&unit);
        let mut line = String::with_capacity(LINE);
        look.painted(&mut line, "2", |line| put_time_of_day(line, look, time));
        line.push(' ');
        look.painted(&mut line, "36", |line| put_left(line, &unit, width));
        line.push(' ');
        line
    }

    /// Client, arrow, server, protocol: the client stands to the left, next to the arrow.
    pub(super) fn put_ends(
        &mut self,
        line: &mut String,
        look: &Look,
        [client, server]: [&str; 2],
        protocol: &str,
    ) {
        put_right(line, client, self.client.fit(client));
        for part in [" ", look.forth(), " "] {
            line.push_str(part);
        }
        put_left(line, server, self.server.fit(server));
        line.push(' ');
        put_left(line, protocol, 5);
    }
}

/// A cell at the left of its column.
pub(super) fn put_left(line: &mut String, cell: &str, width: usize) {
    line.push_str(cell);
    put_spaces(line, cell, width);
}

/// A cell at the right of its column.
fn put_right(line: &mut String, cell: &str, width: usize) {
    put_spaces(line, cell, width);
    line.push_str(cell);
}

fn put_spaces(line: &mut String, cell: &str, width: usize) {
    line.extend(iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
}

/// A text without what moves a terminal; nearly none has that.
fn escaped(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'\\') {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(Escaped(text).to_string())
    }
}

/// Writes `23:59:59.999`, in the reader's zone.
fn put_time_of_day(line: &mut String, look: &Look, time: Time) {
    let time = look.zone.to_datetime(time.timestamp()).time();
    let milliseconds = time.subsec_nanosecond() / 1_000_000;
    // Writing to a `String` cannot fail.
    let _ = write!(line, "{:02}:{:02}:{:02}.{milliseconds:03}", time.hour(), time.minute(), time.second());
}

/// An end of a flow: `name@address:port`, without a name that says nothing or stands at the line's start already.
pub(super) fn end(end: Option<&EndPoint>, unit: &str, protocol: u8) -> String {
    let Some(end) = end else { return "-".to_owned() };
    let address = address(end.ip, end.port, protocol);
    match &*end.id {
        "" | reason::DEFAULT_END_POINT => address,
        id if id == unit => address,
        id => format!("{}@{address}", Escaped(id)),
    }
}

/// `address:port`, or the address alone for protocols without ports.
pub(super) fn address(ip: Option<IpAddr>, port: u16, protocol: u8) -> String {
    let mut text = String::with_capacity(IPV6_END);
    // Writing to a `String` cannot fail.
    let _ = match (ip, has_ports(protocol)) {
        (None, _) => write!(text, "-"),
        (Some(ip), false) => write!(text, "{ip}"),
        (Some(IpAddr::V4(ip)), true) => write!(text, "{ip}:{port}"),
        (Some(IpAddr::V6(ip)), true) => write!(text, "[{ip}]:{port}"),
    };
    text
}

const fn has_ports(protocol: u8) -> bool {
    // TCP, UDP, DCCP, SCTP, UDP-Lite.
    matches!(protocol, 6 | 17 | 33 | 132 | 136)
}

/// The names of the protocols that people know by name.
pub(super) fn protocol_name(protocol: u8) -> Cow<'static, str> {
    Cow::Borrowed(match protocol {
        1 => "icmp",
        2 => "igmp",
        4 => "ipip",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        41 => "ipv6",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "icmp6",
        89 => "ospf",
        103 => "pim",
        112 => "vrrp",
        132 => "sctp",
        136 => "udpl",
        other => return Cow::Owned(format!("ip{other}")),
    })
}

#[cfg(test)]
mod tests {
    use super::{Columns, Look, address, end, protocol_name, put_time_of_day};
    use crate::event::{EndPoint, Time};

    fn time_of_day(look: &Look, time: Time) -> String {
        let mut line = String::new();
        put_time_of_day(&mut line, look, time);
        line
    }

    #[test]
    fn time_is_the_readers() {
        let time = Time::from_unix_nanos(1_778_311_773_987_654_321);
        let mut look = Look::plain();
        assert_eq!(time_of_day(&look, time), "07:29:33.987");
        look.zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(time_of_day(&look, time), "09:29:33.987");
    }

    #[test]
    fn ports_stand_behind_brackets_and_only_where_there_are_ports() {
        let (v4, v6) = ("192.0.2.1".parse().ok(), "2001:db8::1".parse().ok());
        assert_eq!(address(v4, 80, 6), "192.0.2.1:80");
        assert_eq!(address(v6, 80, 17), "[2001:db8::1]:80");
        assert_eq!(address(v4, 80, 1), "192.0.2.1");
        assert_eq!(address(v6, 0, 58), "2001:db8::1");
        assert_eq!(address(None, 80, 6), "-");
    }

    #[test]
    fn a_name_stands_before_its_address_unless_it_says_nothing_new() {
        let named = |id: &str| {
            let ip = Some([192, 0, 2, 1].into());
            end(Some(&EndPoint { id: id.into(), ip, port: 80, ..EndPoint::default() }), "web", 6)
        };
        assert_eq!(named("db"), "db@192.0.2.1:80");
        assert_eq!(named("d\nb"), r"d\nb@192.0.2.1:80");
        for id in ["", "default", "web"] {
            assert_eq!(named(id), "192.0.2.1:80");
        }
        assert_eq!(end(None, "web", 6), "-");
    }

    #[test]
    fn columns_grow_to_a_bound_and_stay() {
        let (mut columns, look) = (Columns::new(), Look::plain());
        assert_eq!(columns.start(&look, Time::EPOCH, ""), "00:00:00.000 -            ");
        assert_eq!(columns.start(&look, Time::EPOCH, "a-long-container").len(), 30);
        assert_eq!(columns.start(&look, Time::EPOCH, "web").len(), 30);
        columns.start(&look, Time::EPOCH, &"x".repeat(100));
        assert_eq!(columns.start(&look, Time::EPOCH, "web").len(), 42);
    }

    #[test]
    fn protocols_without_a_name_have_a_number() {
        assert_eq!([6, 58, 200].map(protocol_name), ["tcp", "icmp6", "ip200"]);
    }
}
