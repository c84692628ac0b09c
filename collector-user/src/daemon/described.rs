//! Interfaces as a status tells of them.

use std::collections::BTreeMap;

use super::{Daemon, interfaces::Interface, unseen};
use crate::{
    event::InterfaceStatus,
    host::{
        links::{self, Link},
        queues,
    },
};

impl Daemon<'_> {
    /// The interfaces as they are now, compared with what they count themselves.
    pub(super) async fn compared_status(&mut self) -> Vec<InterfaceStatus> {
        // First that, then what the programs do: what comes in between is seen, and not counted.
        let links = self.take_counts().await.unwrap_or_default();
        let mut status = self.interface_status(&links);
        let queues = queues::list(&self.netlink.handle).await;
        if let Ok(queues) = &queues {
            self.watched.queues.look(queues);
        }
        let queues = queues.unwrap_or_default();
        for (index, interface) in self.watched.interfaces.keys().zip(&mut status) {
            interface.queue_drops =
                queues.get(index).and_then(|queue| self.watched.queues.since(*index, queue));
        }
        status
    }

    /// Takes in what the interfaces have counted, which are those that there are; nothing where they cannot be listed.
    pub(super) async fn take_counts(&mut self) -> Option<BTreeMap<u32, Link>> {
        let before = unseen::crossed(&self.ledgers);
        let links = links::list(&self.netlink.handle).await.ok()?;
        self.watched.devices.note(&links);
        for (index, link) in &links {
            if self.watched.uplinks.look(*index, &before, &self.ledgers, link.counted) {
                tracing::warn!(
                    "{}: its counters began anew, as when a card is reset; what crossed it unseen in the minute before \
                     is not known",
                    link.name
                );
            }
        }
        Some(links)
    }

    /// The interfaces; those are compared that are among `links`.
    pub(super) fn interface_status(&self, links: &BTreeMap<u32, Link>) -> Vec<InterfaceStatus> {
        let status = |(index, interface): (&u32, &Interface)| {
            let mechanism = self.attachments.mechanism(*index);
            let xdp = self.xdp.mode(*index);
            let hook = if xdp.is_some() { "xdp+ingress+egress" } else { "ingress+egress" };
            InterfaceStatus {
                name: interface.name.clone(),
                role: interface.decision.kind.to_string(),
                reason: interface.decision.reason.clone(),
                hook: mechanism.map_or("", |_| hook).to_owned(),
                mechanism: mechanism.map(|mechanism| mechanism.to_string()).unwrap_or_default(),
                xdp: xdp.map(|mode| mode.to_string()).unwrap_or_default(),
                // Where the programs were taken off and are not there again, too: all that crosses it is unseen.
                unseen: links.get(index).and_then(|_| self.watched.uplinks.unseen(*index)),
                device_drops: links
                    .get(index)
                    .filter(|_| mechanism.is_some())
                    .and_then(|_| self.watched.devices.since(*index)),
                queue_drops: None,
            }
        };
        self.watched.interfaces.iter().map(status).collect()
    }
}
