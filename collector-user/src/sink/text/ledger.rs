//! The ledger, in two lines: that of drops, and that of all else.

use std::fmt::Write as _;

use super::escape::Escaped;
use crate::event::{DeviceDrops, Dropped, Ledger, QueueDrops, QueueSum, Status, Unseen};

/// A line for each uplink whose own counters say that the programs have not seen all, what was dropped, and the ledger.
pub(super) fn lines(status: &Status) -> Vec<String> {
    let unseen = status.interfaces.iter().filter_map(|interface| {
        let Unseen { received, sent, dropped_behind } =
            interface.unseen.filter(|unseen| *unseen != Unseen::default())?;
        let name = Escaped(&interface.name);
        let words = [(received, "received"), (sent, "sent"), (dropped_behind, "not sent after all")];
        let words = words.into_iter().filter(|(count, _)| *count > 0);
        let words: Vec<_> = words.map(|(count, word)| format!("{count} {word}")).collect();
        Some(format!("unseen at {name}: {}", words.join(", ")))
    });
    let devices = status.interfaces.iter().filter_map(|interface| {
        let DeviceDrops { received, missed, sent } =
            interface.device_drops.filter(|drops| *drops != DeviceDrops::default())?;
        let name = Escaped(&interface.name);
        let words = [(received, "received"), (missed, "missed"), (sent, "not sent")];
        let words = words.into_iter().filter(|(count, _)| *count > 0);
        let words: Vec<_> = words.map(|(count, word)| format!("{count} {word}")).collect();
        Some(format!("dropped by the counters of {name}: {}", words.join(", ")))
    });
    let queues = status.interfaces.iter().filter_map(|interface| {
        let QueueDrops { discipline, dropped, over_limits } =
            interface.queue_drops.as_ref().filter(|queue| queue.dropped != 0)?;
        let (name, discipline) = (Escaped(&interface.name), Escaped(discipline));
        Some(format!(
            "dropped by the queue of {name} ({discipline}): {dropped}, {over_limits} times over its limits"
        ))
    });
    let queues = queues.chain(queue_line(&status.queues));
    unseen
        .chain(devices)
        .chain(queues)
        .chain(drops(&status.drops))
        .chain(drop_line(&status.ledger))
        .chain([line(&status.ledger)])
        .collect()
}

/// `queues dropped 100 = told 80 + untold 20`.
fn queue_line(sum: &QueueSum) -> Option<String> {
    let QueueSum { dropped, told, untold } = sum;
    let told = told.as_ref()?;
    let Some(untold) = untold else {
        return (dropped + told != 0).then(|| {
            format!("queues dropped {dropped}, told {told} (of those that have gone nobody knows more)")
        });
    };
    (*dropped != 0 && told <= dropped)
        .then(|| format!("queues dropped {dropped} = told {told} + untold {untold} (no program sees those)"))
}

/// Rows of drops that stand by themselves; the rest is summed up.
const DROPS: usize = 10;

/// What was dropped: where, why, and what to do about it. What a network drops on a good day is one line, and so is what was
/// dropped in other network namespaces.
fn drops(drops: &[Dropped]) -> Vec<String> {
    let (elsewhere, own): (Vec<_>, Vec<_>) = drops.iter().partition(|row| row.puid.is_empty());
    let (benign, told): (Vec<_>, Vec<_>) = own.into_iter().partition(|row| row.class.is_benign());
    let line = |row: &&Dropped| {
        let reason = if row.kernel_reason.is_empty() { &row.drop_reason } else { &row.kernel_reason };
        let (puid, reason, place) = (Escaped(&row.puid), Escaped(reason), Escaped(&row.place));
        format!("dropped {} of {puid}: {reason} at {place}: {}", amount(&[row]), Escaped(&row.advice))
    };
    let (first, rest) = told.split_at(told.len().min(DROPS));
    let mut lines: Vec<_> = first.iter().map(line).collect();
    for (rows, what) in [
        (rest, "for other reasons"),
        (&benign, "that nobody misses (duplicates, leftovers, for other hosts)"),
        (&elsewhere, "in other network namespaces"),
    ] {
        if !rows.is_empty() {
            lines.push(format!("dropped {} {what}", amount(rows)));
        }
    }
    lines
}

/// `9`, or `90 (in 9 buffers)` where segments were dropped together: the ledger's sum of drops is one of buffers.
fn amount(rows: &[&Dropped]) -> String {
    let [packets, skbs] =
        rows.iter().fold([0, 0], |[packets, skbs], row| [packets + row.packets, skbs + row.skbs]);
    if packets == skbs { packets.to_string() } else { format!("{packets} (in {skbs} buffers)") }
}

/// In socket buffers: `drops: seen 9 = counted 8 + no_packet 1 + table_full 0; of units 7 = reports 3 + folded 2 + filtered 0 + held_back 2 +
/// failed 0`: every term, so that it can be added up.
fn drop_line(ledger: &Ledger) -> Option<String> {
    if ledger.drops_seen == 0 {
        return None;
    }
    let mut line = format!(
        "drops: seen {} = counted {} + no_packet {} + table_full {}; of units {} = reports {} + folded {} + filtered {} + \
         held_back {} + failed {}",
        ledger.drops_seen,
        ledger.drops_counted,
        ledger.drops_no_packet,
        ledger.drops_table_full,
        ledger.drops_of_units,
        ledger.drop_reports,
        ledger.drop_reports_folded,
        ledger.drop_reports_filtered,
        ledger.drop_reports_held_back,
        ledger.drop_reports_failed,
    );
    let (of_units, explained) = (ledger.drops_of_units, ledger.drops_explained());
    if explained != of_units {
        let sign = if of_units > explained { '+' } else { '-' };
        // Writing to a `String` cannot fail.
        let _ = write!(line, " {sign} unexplained {}", of_units.abs_diff(explained));
    }
    Some(line)
}

/// `ledger: seen 10 = flows 8 + unparsed 2 (arp 2); nothing lost`, or what was lost, by name. Of the packets' fates
/// only those are named that happened to one.
fn line(ledger: &Ledger) -> String {
    let mut line = format!("ledger: seen {} = flows {}", ledger.seen, ledger.flows);
    let unparsed: u64 = ledger.unparsed.values().sum();
    for (name, count) in [
        ("unparsed", unparsed),
        ("looped", ledger.looped),
        ("second_pass", ledger.second_pass),
        ("rejected", ledger.rejected),
        ("captured_drops", ledger.captured_drops),
        ("table_full", ledger.table_full),
        ("rate_limited", ledger.rate_limited),
    ] {
        if count > 0 {
            // Writing to a `String` cannot fail.
            let _ = write!(line, " + {name} {count}");
            if name == "unparsed" {
                let _ =
                    write!(line, " ({})", list(ledger.unparsed.iter().map(|(name, count)| (name, *count))));
            }
        }
    }
    let explained = ledger.explained();
    if explained != ledger.seen {
        let sign = if ledger.seen > explained { '+' } else { '-' };
        let _ = write!(line, " {sign} unexplained {}", ledger.seen.abs_diff(explained));
    }
    for (name, count) in [("cut", ledger.cut), ("backwards", ledger.backwards)] {
        if count > 0 {
            let _ = write!(line, "; {name} {count}");
        }
    }
    if ledger.traced > 0 {
        let _ = write!(line, "; traced {} = packets {}", ledger.traced, ledger.packets);
        let others = [
            ("filtered", ledger.filtered),
            ("sampled", ledger.sampled),
            ("output_failed", ledger.output_failed),
            ("packets_lost", ledger.packets_lost),
        ];
        for (name, count) in others.into_iter().filter(|(_, count)| *count > 0) {
            let _ = write!(line, " + {name} {count}");
        }
    }
    if ledger.xdp_seen > 0 {
        let _ = write!(line, "; at XDP {} = passed {}", ledger.xdp_seen, ledger.xdp_passed);
        if ledger.xdp_dropped > 0 {
            let _ = write!(line, " + dropped {}", ledger.xdp_dropped);
        }
        let malformed: u64 = ledger.xdp_malformed.values().sum();
        if malformed > 0 {
            let each = list(ledger.xdp_malformed.iter().map(|(reason, count)| (reason, *count)));
            let _ = write!(line, ", malformed {malformed} ({each})");
        }
    }
    let losses = ledger.losses();
    if losses.is_empty() {
        line.push_str("; nothing lost");
    } else {
        let _ = write!(line, "; lost: {}", list(losses.iter().map(|(name, count)| (name, *count))));
    }
    line
}

fn list<'a>(counts: impl Iterator<Item = (&'a String, u64)>) -> String {
    let counts = counts.filter(|(_, count)| *count > 0);
    counts.map(|(name, count)| format!("{} {count}", Escaped(name))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{line, lines};
    use crate::event::{DropClass, Dropped, InterfaceStatus, Ledger, QueueDrops, QueueSum, Status, Unseen};

    #[test]
    fn drops_say_where_why_and_what_to_do() {
        let row = |puid: &str, class, packets| Dropped {
            puid: puid.into(),
            kernel_reason: "NETFILTER_DROP".into(),
            place: "nft_do_chain+0x1".into(),
            advice: "a rule".into(),
            class,
            packets,
            skbs: packets,
            ..Dropped::default()
        };
        let mut drops = vec![
            row("web", DropClass::Policy, 9),
            Dropped { skbs: 2, ..row("web", DropClass::EndOfLife, 4) },
            row("", DropClass::Policy, 3),
        ];
        drops.extend((0..12).map(|_| row("db", DropClass::Policy, 1)));
        let lines = lines(&Status { drops, ..Status::default() });
        assert_eq!(lines[0], "dropped 9 of web: NETFILTER_DROP at nft_do_chain+0x1: a rule");
        assert_eq!(
            lines[10..13],
            [
                "dropped 3 for other reasons",
                "dropped 4 (in 2 buffers) that nobody misses (duplicates, leftovers, for other hosts)",
                "dropped 3 in other network namespaces",
            ]
        );
    }

    #[test]
    fn every_report_of_a_drop_is_in_the_sum() {
        let ledger = Ledger {
            drops_seen: 520,
            drops_counted: 512,
            drops_no_packet: 8,
            drops_of_units: 500,
            drop_reports: 210,
            drop_reports_folded: 6,
            drop_reports_held_back: 284,
            ..Ledger::default()
        };
        let said = lines(&Status { ledger: ledger.clone(), ..Status::default() });
        let want = "drops: seen 520 = counted 512 + no_packet 8 + table_full 0; of units 500 = reports 210 + folded 6 + \
                    filtered 0 + held_back 284 + failed 0";
        assert_eq!(said, [want, "ledger: seen 0 = flows 0; nothing lost"]);
        let said = lines(&Status { ledger: Ledger { drops_of_units: 501, ..ledger }, ..Status::default() });
        assert!(said[0].ends_with("held_back 284 + failed 0 + unexplained 1"), "{said:?}");
    }

    #[test]
    fn queues_say_what_nobody_was_told_of() {
        let queue = |name: &str, dropped| InterfaceStatus {
            name: name.into(),
            queue_drops: Some(QueueDrops { discipline: "tbf".into(), dropped, over_limits: 9 }),
            ..InterfaceStatus::default()
        };
        let queues = QueueSum { dropped: 60, told: Some(50), untold: Some(10) };
        let status = Status { interfaces: vec![queue("a", 0), queue("b", 60)], queues, ..Status::default() };
        let want = [
            "dropped by the queue of b (tbf): 60, 9 times over its limits",
            "queues dropped 60 = told 50 + untold 10 (no program sees those)",
            "ledger: seen 0 = flows 0; nothing lost",
        ];
        assert_eq!(lines(&status), want);
    }

    #[test]
    fn of_queues_that_have_gone_no_difference_is_made_up() {
        let queues = QueueSum { dropped: 60, told: Some(90), untold: None };
        let said = lines(&Status { queues, ..Status::default() });
        assert_eq!(said[0], "queues dropped 60, told 90 (of those that have gone nobody knows more)");
    }

    #[test]
    fn what_was_not_seen_stands_before_the_ledger() {
        let interface =
            |name: &str, unseen| InterfaceStatus { name: name.into(), unseen, ..InterfaceStatus::default() };
        let some = Unseen { sent: 300, dropped_behind: 2, ..Unseen::default() };
        let interfaces =
            vec![interface("a", None), interface("b", Some(Unseen::default())), interface("c", Some(some))];
        let lines = lines(&Status { interfaces, ..Status::default() });
        let want = ["unseen at c: 300 sent, 2 not sent after all", "ledger: seen 0 = flows 0; nothing lost"];
        assert_eq!(lines, want);
    }

    #[test]
    fn nothing_was_lost() {
        assert_eq!(line(&Ledger::default()), "ledger: seen 0 = flows 0; nothing lost");
        let ledger = Ledger {
            seen: 45,
            flows: 40,
            looped: 1,
            unparsed: [("arp".to_owned(), 3), ("llc".to_owned(), 1), ("truncated".to_owned(), 0)].into(),
            ..Ledger::default()
        };
        let want = "ledger: seen 45 = flows 40 + unparsed 4 (arp 3, llc 1) + looped 1; nothing lost";
        assert_eq!(line(&ledger), want);
    }

    #[test]
    fn what_xdp_saw_is_no_part_of_the_sum() {
        let mut ledger = Ledger { seen: 5, flows: 5, xdp_seen: 4, xdp_passed: 4, ..Ledger::default() };
        assert_eq!(line(&ledger), "ledger: seen 5 = flows 5; at XDP 4 = passed 4; nothing lost");
        ledger.xdp_malformed = [("ip_length".to_owned(), 2)].into();
        (ledger.xdp_passed, ledger.xdp_dropped) = (1, 3);
        let want = "ledger: seen 5 = flows 5; at XDP 4 = passed 1 + dropped 3, malformed 2 (ip_length 2); nothing lost";
        assert_eq!(line(&ledger), want);
    }

    #[test]
    fn what_was_lost_is_named() {
        let ledger = Ledger {
            seen: 10,
            flows: 5,
            table_full: 2,
            rate_limited: 3,
            queue_full: [("text".to_owned(), 7)].into(),
            ..Ledger::default()
        };
        assert_eq!(
            line(&ledger),
            "ledger: seen 10 = flows 5 + table_full 2 + rate_limited 3; \
             lost: table_full 2, rate_limited 3, queue_full.text 7"
        );
    }

    #[test]
    fn what_does_not_balance_says_so() {
        let ledger = Ledger { seen: 10, flows: 7, ..Ledger::default() };
        assert_eq!(line(&ledger), "ledger: seen 10 = flows 7 + unexplained 3; nothing lost");
        let ledger = Ledger { seen: 7, flows: 10, ..Ledger::default() };
        assert_eq!(line(&ledger), "ledger: seen 7 = flows 10 - unexplained 3; nothing lost");
    }
}
