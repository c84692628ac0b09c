//! What the queueing disciplines of interfaces have dropped, by their own counters, as the kernel's routing netlink tells them.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcStats2};
use rtnetlink::Handle;

use super::links::HostError;

/// The discipline that an interface sends by: its root, in whose counters those of what lies below it are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its handle: another one is another discipline.
    pub handle: u32,
    /// What `tc qdisc` calls it.
    pub kind: String,
    /// Buffers that it has dropped. The kernel counts with 32 bits.
    pub dropped: u32,
    /// Times that it had more than it might send at once.
    pub over_limits: u32,
}

/// Those of all interfaces that queue at all, by the interface's index.
///
/// # Errors
///
/// [`HostError::List`].
pub async fn list(handle: &Handle) -> Result<BTreeMap<u32, Queue>, HostError> {
    let mut queues = BTreeMap::new();
    let mut messages = std::pin::pin!(handle.qdisc().get().execute());
    let fail = |source| HostError::List { what: "queueing disciplines", source };
    while let Some(message) = messages.try_next().await.map_err(fail)? {
        if let Ok(index) = u32::try_from(message.header.index)
            && let Some(queue) = root(&message)
        {
            queues.insert(index, queue);
        }
    }
    Ok(queues)
}

/// What an interface has that has no queue.
pub const NONE: &str = "noqueue";

/// What a root that queues at all is called.
pub(super) fn kind(message: &TcMessage) -> Option<&str> {
    let is_root = message.header.parent == TcHandle::ROOT;
    message.attributes.iter().filter(|_| is_root).find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) if kind != NONE => Some(kind.as_str()),
        _ => None,
    })
}

fn root(message: &TcMessage) -> Option<Queue> {
    let kind = kind(message)?.to_owned();
    let stats = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Stats2(stats) => stats.iter().find_map(|stats| match stats {
            TcStats2::Queue(queue) => Some(*queue),
            _ => None,
        }),
        _ => None,
    })?;
    let handle = message.header.handle.into();
    Some(Queue { handle, kind, dropped: stats.drops, over_limits: stats.overlimits })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcStats2, TcStatsQueue};

    use super::{Queue, root};

    #[test]
    fn only_a_root_that_queues_counts() {
        let message = |parent, kind: &str| {
            let mut stats = TcStatsQueue::default();
            (stats.drops, stats.overlimits) = (7, 9);
            let mut message = TcMessage::default();
            (message.header.parent, message.header.handle) = (parent, TcHandle { major: 1, minor: 0 });
            message.attributes =
                vec![TcAttribute::Kind(kind.to_owned()), TcAttribute::Stats2(vec![TcStats2::Queue(stats)])];
            message
        };
        let tbf = Queue { handle: 1 << 16, kind: "tbf".to_owned(), dropped: 7, over_limits: 9 };
        assert_eq!(root(&message(TcHandle::ROOT, "tbf")), Some(tbf));
        assert_eq!(root(&message(TcHandle::ROOT, "noqueue")), None);
        assert_eq!(root(&message(TcHandle { major: 1, minor: 1 }, "bfifo")), None, "it is in the root's");
        assert_eq!(root(&message(TcHandle::CLSACT, "clsact")), None, "it queues nothing");
    }
}
