//! The columns that lines share: time, processing unit, two ends, protocol.

use std::{
    borrow::Cow,
    fmt::Write as _,
    iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

use super::{
    escape::Escaped,
    look::Look,
    number::{put_hex, put_number},
};
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
    clock: Clock,
}

/// The time of day in the reader's zone, whose rules are asked once a second.
struct Clock {
    /// Since 1970.
    second: i64,
    text: String,
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
            clock: Clock { second: 0, text: String::new() },
        }
    }

    /// What begins every line: the time of day and the processing unit.
    pub(super) fn start(&mut self, look: &Look, time: Time, unit: &str) -> String {
        let mut line = String::with_capacity(LINE);
        self.put_start(&mut line, look, time, unit);
        line
    }

    /// The same, in a line that is there.
    pub(super) fn put_start(&mut self, line: &mut String, look: &Look, time: Time, unit: &str) {
        let unit = if unit.is_empty() { Cow::Borrowed("-") } else { escaped(unit) };
        let width = self.unit.fit(&unit);
        look.painted(line, "2", |line| self.clock.put(line, look, time));
        line.push(' ');
        look.painted(line, "36", |line| put_left(line, &unit, width));
        line.push(' ');
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
    put_blanks(line, width.saturating_sub(cell.chars().count()));
}

/// That many spaces.
pub(super) fn put_blanks(line: &mut String, count: usize) {
    const BLANKS: &str = "                                                ";
    match BLANKS.get(..count) {
        Some(blanks) => line.push_str(blanks),
        None => line.extend(iter::repeat_n(' ', count)),
    }
}

/// A text without what moves a terminal; nearly none has that.
fn escaped(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'\\') {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(Escaped(text).to_string())
    }
}

impl Clock {
    /// Writes `23:59:59.999`.
    fn put(&mut self, line: &mut String, look: &Look, time: Time) {
        let time = time.timestamp();
        let fraction = time.subsec_nanosecond();
        // Before 1970 both are negative, and the second is the one that begins before.
        let second = time.as_second() - i64::from(fraction < 0);
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text.clear();
            let time = look.zone.to_datetime(time).time();
            // Writing to a `String` cannot fail.
            let _ = write!(self.text, "{:02}:{:02}:{:02}.", time.hour(), time.minute(), time.second());
        }
        line.push_str(&self.text);
        let milliseconds = fraction.rem_euclid(1_000_000_000).unsigned_abs() / 1_000_000;
        for divisor in [100, 10, 1] {
            line.push(char::from(b'0' + (milliseconds / divisor % 10) as u8));
        }
    }
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
    let Some(ip) = ip else {
        text.push('-');
        return text;
    };
    match ip {
        IpAddr::V4(ip) => put_ipv4(&mut text, ip),
        IpAddr::V6(ip) if has_ports(protocol) => {
            text.push('[');
            put_ipv6(&mut text, ip);
            text.push(']');
        }
        IpAddr::V6(ip) => put_ipv6(&mut text, ip),
    }
    if has_ports(protocol) {
        text.push(':');
        put_number(&mut text, port.into());
    }
    text
}

/// As the standard library writes it, without its machinery: there are two in each line.
fn put_ipv4(text: &mut String, address: Ipv4Addr) {
    for (nth, octet) in address.octets().into_iter().enumerate() {
        if nth != 0 {
            text.push('.');
        }
        put_number(text, octet.into());
    }
}

/// As the standard library writes it: RFC 5952 section 4, and section 5 for an address in which an IPv4 one is.
fn put_ipv6(text: &mut String, address: Ipv6Addr) {
    if let Some(inside) = address.to_ipv4_mapped() {
        text.push_str("::ffff:");
        return put_ipv4(text, inside);
    }
    let groups = address.segments();
    let zeros = longest_zeros(&groups);
    let mut is_first = true;
    for (nth, group) in groups.into_iter().enumerate() {
        if zeros.contains(&nth) {
            if nth == zeros.start {
                text.push_str("::");
            }
            is_first = true;
            continue;
        }
        if !std::mem::take(&mut is_first) {
            text.push(':');
        }
        put_hex(text, group);
    }
}

/// The first of the longest runs of groups that are zero; a single one is none.
fn longest_zeros(groups: &[u16; 8]) -> Range<usize> {
    let (mut longest, mut run) = (0..0, 0..0);
    for (nth, group) in groups.iter().enumerate() {
        run = if *group == 0 { run.start..nth + 1 } else { nth + 1..nth + 1 };
        if run.len() > longest.len().max(1) {
            longest = run.clone();
        }
    }
    longest
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
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::{prop_assert_eq, proptest};

    use super::{Clock, Columns, Look, address, end, protocol_name};
    use crate::event::{EndPoint, Time};

    fn time_of_day(look: &Look, time: Time) -> String {
        let (mut line, mut clock) = (String::new(), Clock { second: 0, text: String::new() });
        clock.put(&mut line, look, time);
        line
    }

    proptest! {
        #[test]
        fn addresses_are_as_the_standard_library_writes_them(octets: [u8; 16], zeros: u8, mapped: bool) {
            let [a, b, c, d, ..] = octets;
            let four = Ipv4Addr::new(a, b, c, d);
            let groups: [u16; 8] = std::array::from_fn(|nth| {
                let [high, low] = [octets[nth * 2], octets[nth * 2 + 1]];
                if zeros >> nth & 1 == 0 { 0 } else { u16::from_be_bytes([high, low]) }
            });
            let six = if mapped { four.to_ipv6_mapped() } else { Ipv6Addr::from(groups) };
            for ip in [IpAddr::V4(four), IpAddr::V6(six)] {
                prop_assert_eq!(address(Some(ip), 0, 1), ip.to_string());
            }
        }

        #[test]
        fn a_second_that_is_remembered_is_that_of_the_time(first: i64, next: i64) {
            let look = Look { zone: jiff::tz::TimeZone::fixed(jiff::tz::offset(-3)), ..Look::plain() };
            let mut clock = Clock { second: 0, text: String::new() };
            for nanos in [first, first.saturating_add(next % 1_000_000_000), next] {
                let time = Time::from_unix_nanos(nanos);
                let mut line = String::new();
                clock.put(&mut line, &look, time);
                let want = look.zone.to_datetime(time.timestamp()).strftime("%H:%M:%S.%3f").to_string();
                prop_assert_eq!(line, want);
            }
        }
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
