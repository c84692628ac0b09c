//! What else the collector knows of a row that has a difference.

use crate::event::Status;

/// What kept packets from the programs, or the programs from counting; as far as it was seen.
pub(super) fn of(status: &Status) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use crate::event::{DropClass, Dropped, InterfaceStatus, Ledger, Status, Unseen};

    #[test]
    fn only_what_is_not_zero_is_said() {
        assert!(super::of(&Status::default()).is_empty());
        let unseen = Unseen { received: 3, ..Unseen::default() };
        let interface =
            InterfaceStatus { name: "v0".into(), unseen: Some(unseen), ..InterfaceStatus::default() };
        let dropped =
            |class| Dropped { class, packets: 7, kernel_reason: "CPU_BACKLOG".into(), ..Dropped::default() };
        let status = Status {
            interfaces: vec![interface],
            drops: vec![dropped(DropClass::Resource), dropped(DropClass::EndOfLife)],
            ledger: Ledger { gaps: 1, seen: 2, ..Ledger::default() },
            ..Status::default()
        };
        let hints = super::of(&status);
        assert_eq!(hints.len(), 4, "{hints:?}");
        assert_eq!(hints.len(), 4, "{hints:?}");
        assert!(hints.iter().any(|hint| hint.contains("CPU_BACKLOG")));
    }
}
