//! Programs that somebody has taken off an interface are hung there again.

use super::Daemon;
use crate::kernel::{
    attach::{self, Mechanism},
    filters,
};

impl Daemon<'_> {
    /// Hangs the programs anew where somebody took them away: a clsact qdisc is for whoever comes to remove. What crossed
    /// the interface meanwhile is not counted.
    pub(super) async fn restore(&mut self, interfaces: impl IntoIterator<Item = u32>) {
        let mut bare = Vec::new();
        for index in interfaces {
            let Some(mechanism) = self.attachments.mechanism(index) else { continue };
            let (Some(interface), Some(programs)) =
                (self.watched.interfaces.get(&index), self.programs.ids())
            else {
                continue;
            };
            let present = match mechanism {
                Mechanism::Clsact => filters::present(&self.netlink.handle, index, programs).await,
                Mechanism::Tcx => attach::tcx_present(&interface.name, programs),
            };
            if let Some(present) = present.filter(|present| *present != [true; 2]) {
                // A link is ours alone, wherever it is.
                self.detach_those(index, if mechanism == Mechanism::Tcx { [true; 2] } else { present }).await;
                bare.push(index);
            }
        }
        if bare.is_empty() {
            return;
        }
        self.look_again().await;
        for index in bare {
            // It may have gone as a whole.
            let Some(interface) = self.watched.interfaces.get(&index) else { continue };
            let name = &interface.name;
            self.taken_off += 1;
            if self.attachments.mechanism(index).is_some() {
                tracing::warn!(
                    "{name}: somebody had taken our programs away, and they are there again; packets in between were not \
                     counted"
                );
            } else {
                tracing::error!("{name}: somebody has taken our programs away; nothing is counted there");
                self.watched.bare.insert(index);
            }
        }
    }

    /// The same for every interface, since who told of it may not have been heard; and what could not be attached is tried
    /// again. That is not for changes of filters to do: an attempt that fails makes some itself.
    pub(super) async fn restore_all(&mut self) {
        self.restore(self.attachments.interfaces()).await;
        // Where the program at XDP hangs is seen by looking only.
        if !self.watched.refused.is_empty() || !self.xdp.is_empty() {
            self.watched.refused.clear();
            self.look_again().await;
        }
    }
}
