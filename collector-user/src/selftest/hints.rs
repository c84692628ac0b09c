//! What else the collector knows of a row that has a difference.

use crate::event::{EndPoint, FlowRecord, Status};

/// What kept packets from the programs, or the programs from counting; as far as it was seen.
pub(super) fn of(status: &Status, flows: &[FlowRecord]) -> Vec<String> {
    let mut hints = Vec::new();
    let gaps = status.ledger.gaps;
    if gaps != 0 {
        hints.push(format!(
            "{gaps} times the collector was stopped for so long that nothing was counted any more"
        ));
    }
    let (seen, explained) = (status.ledger.seen, status.ledger.explained());
    if seen != explained {
        hints.push(format!(
            "the programs saw {seen} buffers, and the ledger has a row for {explained} of them"
        ));
    }
    // What is explained there is in no flow of the row, or in one of another row.
    let ledger = &status.ledger;
    let elsewhere = [
        ("looped", ledger.looped),
        ("second_pass", ledger.second_pass),
        ("rejected", ledger.rejected),
        ("orphan_fragments", ledger.orphan_fragments),
        ("no_role", ledger.no_role),
        ("units_exhausted", ledger.units_exhausted),
    ];
    let unparsed = ledger.unparsed.iter().map(|(reason, buffers)| (reason.as_str(), *buffers));
    let elsewhere = elsewhere.into_iter().chain(unparsed).filter(|(_, buffers)| *buffers != 0);
    hints.extend(elsewhere.map(|(name, buffers)| format!("{buffers} buffers in the ledger's {name}")));
    // Those of drops say nothing of what was counted.
    hints.extend(flows.iter().filter(|flow| flow.packets + flow.reply_packets != 0).map(told));
    for interface in &status.interfaces {
        let name = &interface.name;
        let unseen = interface.unseen.unwrap_or_default();
        let device = interface.device_drops.unwrap_or_default();
        let numbers = [
            (unseen.received, format!("packets that {name} received and no program saw")),
            (unseen.sent, format!("packets that {name} sent and no program saw")),
            (
                unseen.dropped_behind,
                format!("packets that were seen on their way out by {name}, and not sent"),
            ),
            (device.received, format!("packets that {name} dropped when they came in")),
            (device.missed, format!("packets that {name} had no room for")),
            (device.sent, format!("packets that {name} dropped on their way out")),
        ];
        hints.extend(
            numbers
                .iter()
                .filter(|(number, _)| *number != 0)
                .map(|(number, what)| format!("{number} {what}")),
        );
    }
    for drop in status.drops.iter().filter(|drop| !drop.class.is_benign()) {
        hints.push(format!(
            "{} dropped by the kernel: {} at {}",
            drop.packets, drop.kernel_reason, drop.place
        ));
    }
    hints
}

/// What was counted of a flow, whichever row it is of.
fn told(record: &FlowRecord) -> String {
    let end = |end: Option<&EndPoint>| {
        let ip = end.and_then(|end| end.ip).map_or_else(|| "nobody".to_owned(), |ip| ip.to_string());
        format!("{ip} port {}", end.map_or(0, |end| end.port))
    };
    format!(
        "{} packets of protocol {} are counted from {} to {}, and {} the other way",
        record.packets,
        record.l4_protocol,
        end(record.source.as_ref()),
        end(record.destination.as_ref()),
        record.reply_packets
    )
}

#[cfg(test)]
mod tests {
    use crate::event::{DropClass, Dropped, FlowRecord, InterfaceStatus, Ledger, Status, Unseen};

    #[test]
    fn only_what_is_not_zero_is_said() {
        assert!(super::of(&Status::default(), &[]).is_empty());
        let unseen = Unseen { received: 3, ..Unseen::default() };
        let interface =
            InterfaceStatus { name: "v0".into(), unseen: Some(unseen), ..InterfaceStatus::default() };
        let dropped =
            |class| Dropped { class, packets: 7, kernel_reason: "CPU_BACKLOG".into(), ..Dropped::default() };
        let status = Status {
            interfaces: vec![interface],
            drops: vec![dropped(DropClass::Resource), dropped(DropClass::EndOfLife)],
            ledger: Ledger { gaps: 1, seen: 2, looped: 1, ..Ledger::default() },
            ..Status::default()
        };
        let hints = super::of(&status, &[FlowRecord { packets: 5, ..FlowRecord::default() }]);
        assert_eq!(hints.len(), 6, "{hints:?}");
        assert!(hints.iter().any(|hint| hint.contains("CPU_BACKLOG")));
    }
}
