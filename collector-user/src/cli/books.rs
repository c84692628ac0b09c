//! What becomes of the events behind the daemon, for the ledger: of a run's last status, and of each that is asked for.

use std::collections::BTreeMap;

use crate::{
    collector::{fanout::Panics, stash},
    event::{Ledger, Text},
    sink::queue::Queue,
};

/// The books of all outputs, and of what lies before them. They may be read from any thread, and while events come: then what
/// waits is in none of the numbers.
#[derive(Clone, Default)]
pub(super) struct Books {
    /// By the output's name.
    queues: Vec<(String, Queue)>,
    panics: Panics,
    stash: Option<stash::Books>,
}

impl Books {
    /// Of outputs.
    pub(super) const fn new(queues: Vec<(String, Queue)>, panics: Panics) -> Self {
        Self { queues, panics, stash: None }
    }

    /// The outputs stand behind a stash.
    pub(super) fn behind(self, stash: stash::Books) -> Self {
        Self { stash: Some(stash), ..self }
    }

    /// Says in the ledger what became of the events. Once: whose they were is added to what stands there.
    pub(super) fn enter(&self, ledger: &mut Ledger) {
        if let Some(stash) = &self.stash {
            enter_stash(stash, ledger);
        }
        let panics = self.panics.counts();
        for (name, queue) in &self.queues {
            let counts = queue.counts();
            let panics = panics.get(name).copied().unwrap_or_default();
            ledger.delivered.insert(name.clone(), counts.delivered);
            ledger.queue_full.insert(name.clone(), counts.queue_full);
            add_whose(queue.queue_full_of(), ledger);
            ledger.sink_failed.insert(name.clone(), counts.failed + panics);
        }
    }
}

/// The same of a stash alone.
pub(super) fn enter_stash(stash: &stash::Books, ledger: &mut Ledger) {
    ledger.queue_full.insert(stash::NAME.to_owned(), stash.counts().queue_full);
    add_whose(stash.queue_full_of(), ledger);
}

fn add_whose(queue_full_of: BTreeMap<Text, u64>, ledger: &mut Ledger) {
    for (unit, count) in queue_full_of {
        *ledger.queue_full_of.entry(unit.to_string()).or_default() += count;
    }
}
