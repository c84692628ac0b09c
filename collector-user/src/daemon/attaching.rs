//! Where the programs are attached to interfaces, and taken off again; and what a killed collector has left there.

use std::collections::BTreeSet;

use collector_ebpf::abi::control::Anchor;

use super::{Daemon, DaemonError};
use crate::{
    event::LinkType,
    host::links::{self, Link},
    kernel::{
        attach::{AttachError, Left, Mechanism},
        filters,
    },
};

impl Daemon<'_> {
    /// Attaches; a sentence where that is worth less than it could be.
    pub(super) async fn attach(
        &mut self,
        link: &Link,
        ingress: &BTreeSet<u32>,
    ) -> Result<Option<String>, AttachError> {
        let place = filters::free_place(&self.netlink.handle, link.index, ingress).await;
        let Self { attachments, programs, options, .. } = self;
        let result = attachments.attach(programs, link.index, &link.name, options.attach, place);
        if result.as_ref().is_err_and(|error| error.qdisc) {
            filters::remove_qdisc(&self.netlink.handle, link.index).await;
        }
        let mechanism = result?;
        if self.watched.bare.remove(&link.index) {
            tracing::warn!(
                "{}: our programs are there again; packets in between were not counted",
                link.name
            );
        }
        if let Some(capture) = &options.capture {
            let kind = if link.raw_ip { LinkType::RawIp } else { LinkType::Ethernet };
            capture.watch(link.index, &link.name.as_str().into(), kind);
        }
        Ok((mechanism == Mechanism::Clsact && place.behind_others).then(|| {
            format!(
                "the first place on {}: filters of others come before ours there, and what they decide \
                 finally is not seen",
                link.name
            )
        }))
    }

    pub(super) async fn remove_leftovers(&mut self) -> Result<(), DaemonError> {
        let now = Anchor { jiffies: self.moment.jiffies, boot_ns: self.moment.boot_ns };
        for link in links::list(&self.netlink.handle).await?.values() {
            let removed = filters::remove(&self.netlink.handle, link, &now).await;
            if removed != 0 {
                tracing::info!(
                    interface = link.name,
                    removed,
                    "removed filters that a killed collector had left"
                );
            }
        }
        Ok(())
    }

    pub(super) async fn detach(&mut self, index: u32) {
        let present = match (self.attachments.mechanism(index), self.programs.ids()) {
            (Some(Mechanism::Clsact), Some(programs)) => {
                filters::present(&self.netlink.handle, index, programs).await.unwrap_or([true; 2])
            }
            _ => [true; 2],
        };
        self.detach_those(index, present).await;
    }

    /// Takes the programs off an interface, on the hooks where they are `present` still.
    pub(super) async fn detach_those(&mut self, index: u32, present: [bool; 2]) {
        if self.attachments.detach(&mut self.programs, index, present) != Left::Qdisc {
            return;
        }
        // Who took both filters may have put an `ingress` in the place of the qdisc, which is removed by the same name.
        if present == [false; 2] && filters::with_ingress(&self.netlink.handle).await.contains(&index) {
            return;
        }
        filters::remove_qdisc(&self.netlink.handle, index).await;
    }

    pub(super) async fn detach_all(&mut self) {
        self.xdp.detach_all();
        for index in self.attachments.interfaces() {
            self.detach(index).await;
        }
    }
}
