//! Processing units for people.

use std::fmt::{Display, Write as _};

use crate::{
    event::{DropClass, Time, UnitStatus},
    sink::text::Escaped,
};

/// The columns of the list. The first six grow with what they hold.
const COLUMNS: [&str; 8] = ["ID", "KIND", "MARK", "RX", "TX", "DROPPED", "SINCE", "ENDED"];

/// Columns whose cells stand to the right, as numbers do.
const NUMBERS: std::ops::Range<usize> = 2..6;

/// What is wider than this moves its own line only.
const WIDEST: usize = 40;

/// A line for each unit, below the columns' names.
pub(super) fn table(units: &[UnitStatus]) -> String {
    let heading = COLUMNS.map(str::to_owned);
    let rows: Vec<_> = std::iter::once(heading).chain(units.iter().map(row)).collect();
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(String::len).filter(|width| *width <= WIDEST).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS.len()).map(widest).collect();
    let mut table = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a `String` cannot fail.
            let _ = if NUMBERS.contains(&column) {
                write!(line, "{cell:>width$}  ")
            } else {
                write!(line, "{cell:<width$}  ")
            };
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}

fn row(unit: &UnitStatus) -> [String; COLUMNS.len()] {
    let counted = |name: &str| unit.counters.iter().find(|counter| &*counter.name == name).map(|it| it.value);
    // What a network drops on a good day would make people look for what is not wrong.
    let missed = DropClass::ALL.iter().filter(|class| !class.is_benign());
    let missed: u64 = missed.filter_map(|class| counted(&format!("dropped_{class}"))).sum();
    [
        text(&unit.context_id),
        unit.kind.to_string(),
        or_none(unit.mark),
        or_none(counted("rx_packets")),
        or_none(counted("tx_packets")),
        missed.to_string(),
        second(unit.since),
        or_none(unit.ended.map(second)),
    ]
}

/// A line for each thing that is known of a unit.
pub(super) fn whole(unit: &UnitStatus) -> String {
    let UnitStatus {
        context_id,
        kind,
        namespace,
        tags,
        identity,
        index,
        mark,
        matchers,
        since,
        ended,
        counters,
    } = unit;
    let mut lines = vec![
        ("id", text(context_id)),
        ("kind", kind.to_string()),
        ("namespace", text(namespace)),
        ("tags", texts(tags.as_slice())),
        ("identity", text(identity)),
        ("index", index.to_string()),
        ("mark", or_none(*mark)),
        ("interfaces", texts(&matchers.interfaces)),
        ("cidr", texts(&matchers.cidr)),
        ("port", texts(&matchers.port)),
        ("uid", texts(&matchers.uid)),
        ("cgroup", texts(&matchers.cgroup)),
        ("netns", texts(&matchers.netns)),
        ("ends", texts(&matchers.ends)),
        ("addresses", texts(&matchers.addresses)),
        ("since", since.to_string()),
        ("ended", or_none(*ended)),
    ];
    let counted = counters.iter().filter(|counter| counter.value != 0);
    lines.extend(counted.map(|counter| (&*counter.name, counter.value.to_string())));
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0).min(WIDEST);
    lines.iter().fold(String::new(), |mut all, (name, value)| {
        // Writing to a `String` cannot fail.
        let _ = writeln!(all, "{:<width$}  {value}", Escaped(name).to_string());
        all
    })
}

/// To the second, in UTC.
fn second(time: Time) -> String {
    format!("{:.0}", time.timestamp())
}

fn or_none(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A name that moves nobody's terminal.
fn text(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { Escaped(text).to_string() }
}

fn texts<T: ToString>(all: &[T]) -> String {
    let all: Vec<_> = all.iter().map(|it| text(&it.to_string())).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(" ") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{table, whole};
    use crate::event::{Counters, Time, UnitKind, UnitMatchers, UnitStatus};

    fn web() -> UnitStatus {
        let counter = |name: &str, value| Counters { name: name.into(), value };
        UnitStatus {
            context_id: "web\u{1b}[2J".into(),
            kind: UnitKind::Declared,
            namespace: "/prod".into(),
            tags: Arc::new(["app=web", "tier=front"].into_iter().collect()),
            identity: "web".into(),
            index: 101,
            mark: Some(101),
            matchers: UnitMatchers {
                cidr: vec!["10.1.0.0/16".into(), "fd00::/8".into()],
                port: vec!["tcp/443".into(), "8000-8999".into()],
                uid: vec!["www-data".into()],
                addresses: vec!["10.1.0.1".parse().unwrap()],
                ..UnitMatchers::default()
            },
            since: Time::from_unix_nanos(1_999_999_999),
            ended: None,
            counters: vec![
                counter("rx_packets", 1_234_567_890),
                counter("rx_bytes", 0),
                counter("tx_packets", 3),
                counter("dropped_packets", 9),
                counter("dropped_policy", 1),
                counter("dropped_route", 1),
                counter("dropped_end_of_life", 7),
            ],
        }
    }

    #[test]
    fn columns_are_as_wide_as_what_they_hold_but_for_what_is_too_wide() {
        let wide = UnitStatus { context_id: "w".repeat(50).into(), ..UnitStatus::default() };
        let gone = UnitStatus { context_id: "db".into(), ended: Some(Time::from_unix_nanos(0)), ..web() };
        let text = table(&[web(), gone, wide]);
        let want = [
            r"ID            KIND      MARK          RX  TX  DROPPED  SINCE                 ENDED",
            r"web\u{1b}[2J  declared   101  1234567890   3        2  1970-01-01T00:00:01Z  -",
            r"db            declared   101  1234567890   3        2  1970-01-01T00:00:01Z  1970-01-01T00:00:00Z",
        ];
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        assert_eq!(lines[..3], want);
        assert!(lines[3].starts_with(&format!("{}  fixed  ", "w".repeat(50))), "{}", lines[3]);
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn all_fields_a_line_each_and_the_counters_that_are_not_zero() {
        let text = whole(&web());
        let lines: Vec<_> = text.lines().collect();
        let want = [
            r"id                   web\u{1b}[2J",
            "kind                 declared",
            "namespace            /prod",
            "tags                 app=web tier=front",
            "identity             web",
            "index                101",
            "mark                 101",
            "interfaces           -",
            "cidr                 10.1.0.0/16 fd00::/8",
            "port                 tcp/443 8000-8999",
            "uid                  www-data",
            "cgroup               -",
            "netns                -",
            "ends                 -",
            "addresses            10.1.0.1",
            "since                1970-01-01T00:00:01.999999999Z",
            "ended                -",
            "rx_packets           1234567890",
            "tx_packets           3",
            "dropped_packets      9",
            "dropped_policy       1",
            "dropped_route        1",
            "dropped_end_of_life  7",
        ];
        assert_eq!(lines, want);
    }
}
