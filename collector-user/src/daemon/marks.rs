//! The numbers of units in the mark of their packets: which have room there, and who else is.

use collector_ebpf::abi::pu::index;

use super::Daemon;
use crate::{error::with_causes, host::rules, pu::mark};

impl Daemon<'_> {
    /// Units whose number does not fit into the mark's bits have none.
    pub(super) fn lacking_marks(&self) -> Option<String> {
        let mask = self.options.settings.mark_mask;
        let most = self.most_mark();
        let last = u32::from(self.units.last_index());
        (mask != 0 && last > most && last >= u32::from(index::FIRST))
            .then(|| format!("marks above {most}: the mark mask {mask:#x} has no room for them"))
    }

    /// The greatest number that the mark's bits have room for; 0 where there are none.
    pub(super) fn most_mark(&self) -> u32 {
        let mask = self.options.settings.mark_mask;
        mask.checked_shr(mask.trailing_zeros()).unwrap_or(0)
    }

    /// Who else uses the mark's bits, in sentences.
    pub(super) async fn contested_marks(&self) -> Vec<String> {
        let mask = self.options.settings.mark_mask;
        let interfaces = self.watched.interfaces.values().map(|interface| interface.name.as_str());
        match rules::list(&self.netlink.handle).await {
            Ok(rules) => mark::used_by_others(mask, interfaces, &rules),
            Err(error) if mask != 0 => {
                vec![format!("whether a rule compares the marks of units: {}", with_causes(&error))]
            }
            Err(_) => Vec::new(),
        }
    }
}
