//! What the kernel drops: the program on its tracepoint, and what that has counted.

use std::{collections::BTreeMap, error::Error};

use collector_ebpf::abi::drop::{DropCounts, DropKey, DropLedger};

use super::{Daemon, DaemonError, Options};
use crate::{
    aggregate::drops::{self, Names, OfUnit, meaning},
    event::{Dropped, Ledger},
    host::symbols::Symbols,
    kernel::{
        drops::{DropMaps, Drops},
        error::KernelError,
        object::{Programs, Settings},
    },
};

/// The settings of the programs: which drops are not reported is a matter of what they mean.
pub(super) fn folding(options: &Options) -> Settings {
    let mut settings = options.settings.clone();
    if let Some(limits) = settings.drops.as_mut().filter(|_| !options.benign_drops) {
        limits.folds = meaning::is_benign;
    }
    settings
}

/// What counts drops, and what its numbers mean.
pub(super) struct Dropping {
    maps: DropMaps,
    names: Names,
    /// Drops of which nothing was told; kept, for they go with the program.
    skipped: u64,
}

impl Dropping {
    /// Hangs the program on its tracepoint. What could not be had is added to `missing`, in words.
    pub(super) fn start(
        loaded: Option<Result<Drops, KernelError>>,
        programs: &mut Programs,
        missing: &mut Vec<String>,
    ) -> Option<Self> {
        let attached = loaded?.and_then(|drops| programs.attach_drops().map(|()| drops));
        let Drops { maps, reasons, has_reasons, symbols } = match attached {
            Ok(drops) => drops,
            Err(error) => {
                missing.push(format!("drops: {}", chain(&error)));
                return None;
            }
        };
        if !has_reasons {
            missing.push("the reasons of drops: Linux gives none before 5.17, only their places".to_owned());
        }
        let symbols = symbols.unwrap_or_else(|error| {
            missing.push(format!(
                "the places of drops by name: /proc/kallsyms shows none ({error}); kernel.kptr_restrict hides them"
            ));
            Symbols::default()
        });
        Some(Self { maps, names: Names::new(reasons, has_reasons, symbols), skipped: 0 })
    }

    /// Takes the program off its tracepoint: nothing is counted any more.
    pub(super) fn stop(&mut self, programs: &mut Programs) {
        self.skipped = programs.skipped_drops();
        programs.detach_drops();
    }

    fn rows(&self) -> Result<BTreeMap<DropKey, DropCounts>, KernelError> {
        self.maps.rows()
    }
}

impl Daemon<'_> {
    /// What was dropped of each unit until now.
    pub(super) fn dropped_by_unit(&self) -> Result<BTreeMap<u16, OfUnit>, DaemonError> {
        let Some(dropping) = &self.dropping else { return Ok(BTreeMap::new()) };
        Ok(drops::by_unit(&dropping.rows()?, &dropping.names))
    }

    /// What was dropped until now, in words.
    pub(super) fn dropped(&self) -> Vec<Dropped> {
        let Some(dropping) = &self.dropping else { return Vec::new() };
        dropping.rows().map_or_else(|_| Vec::new(), |rows| drops::rows(&rows, &dropping.names, &self.units))
    }

    /// Adds what became of drops.
    pub(super) fn book_drops(&mut self, ledger: &mut Ledger) {
        let Some(dropping) = &mut self.dropping else { return };
        // What runs meanwhile is in the numbers that are read later.
        let (kernel, rows) =
            (dropping.maps.ledger().unwrap_or_default(), dropping.rows().unwrap_or_default());
        dropping.skipped = dropping.skipped.max(self.programs.skipped_drops());
        let DropLedger { seen, no_packet, table_full, reported, folded, held_back, output_failed } = kernel;
        ledger.drops_seen = seen;
        ledger.drops_counted = rows.values().map(|counts| counts.skbs).sum();
        ledger.drops_no_packet = no_packet;
        ledger.drops_table_full = table_full;
        ledger.drops_skipped = dropping.skipped;
        ledger.drop_reports = reported;
        ledger.drop_reports_folded = folded;
        ledger.drop_reports_held_back = held_back;
        ledger.drop_reports_failed = output_failed;
    }
}

/// An error and what caused it, in one sentence.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
