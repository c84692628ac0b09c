//! What queueing disciplines say that they dropped, beside what the tracepoint told of it.

use crate::event::{Dropped, InterfaceStatus, QueueSum};

/// What the names of the reasons begin with that are a queueing discipline's: those of all, of CAKE, of fq.
const PREFIXES: [&str; 3] = ["QDISC_", "CAKE_", "FQ_"];

/// Whether the kernel's reason is a queueing discipline's.
#[must_use]
pub fn is_of_a_queue(reason: &str) -> bool {
    PREFIXES.iter().any(|prefix| reason.starts_with(prefix))
}

/// The sum over all interfaces, beside the rows of units; where the kernel tells no such reason, by itself. Of queues that
/// `have_gone` there are rows and no counters: what others did not tell cannot be told from what those did.
#[must_use]
pub fn sum(interfaces: &[InterfaceStatus], rows: &[Dropped], is_told: bool, have_gone: bool) -> QueueSum {
    let queues = interfaces.iter().filter_map(|interface| interface.queue_drops.as_ref());
    let dropped: u64 = queues.map(|queue| queue.dropped).sum();
    let of_queues = rows.iter().filter(|row| !row.puid.is_empty() && is_of_a_queue(&row.kernel_reason));
    let told = is_told.then(|| of_queues.map(|row| row.skbs).sum());
    let untold = told.filter(|_| !have_gone).map(|told: u64| dropped.saturating_sub(told));
    QueueSum { dropped, told, untold }
}

#[cfg(test)]
mod tests {
    use super::sum;
    use crate::event::{Dropped, InterfaceStatus, QueueDrops, QueueSum};

    #[test]
    fn what_the_tracepoint_does_not_tell_is_the_rest() {
        let queue = |dropped| InterfaceStatus {
            queue_drops: Some(QueueDrops { discipline: "tbf".into(), dropped, over_limits: 0 }),
            ..InterfaceStatus::default()
        };
        let row = |puid: &str, reason: &str, skbs| Dropped {
            puid: puid.into(),
            kernel_reason: reason.into(),
            skbs,
            ..Dropped::default()
        };
        let interfaces = [queue(60), InterfaceStatus::default(), queue(40)];
        let rows = [
            row("host", "QDISC_DROP", 50),
            row("web", "FQ_FLOW_LIMIT", 30),
            row("host", "NO_SOCKET", 7),
            row("", "QDISC_DROP", 5),
        ];
        assert_eq!(
            sum(&interfaces, &rows, true, false),
            QueueSum { dropped: 100, told: Some(80), untold: Some(20) }
        );
        // One that has gone had told of 80: nobody knows of what those that are there did not tell.
        assert_eq!(
            sum(&interfaces, &rows, true, true),
            QueueSum { dropped: 100, told: Some(80), untold: None }
        );
        assert_eq!(sum(&interfaces, &[], false, false), QueueSum { dropped: 100, told: None, untold: None });
    }
}
