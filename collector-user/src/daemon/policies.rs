//! Policies: which sets of rules the programs have, and which of them each unit has, as units come and go and policies are
//! loaded anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::Arc,
    time::Duration,
};

use collector_ebpf::abi::policy::UnitPolicy;
use tokio::sync::{mpsc, oneshot};

use super::{Daemon, DaemonError};
use crate::{
    error::{root_cause, with_causes},
    kernel::{control::Controller, error::KernelError, policies::Entries},
    policy::{
        explosion::Explosion,
        rule::{Policy, Subject},
        sets::{Change, Set, Sets},
    },
    pu::registry::Registry,
};

/// Policies that may wait for the daemon's task.
const WAITING: usize = 4;

/// For so long a verdict keeps its number after the last that was heard of it.
const MEMORY_NS: u64 = 120_000_000_000;

/// The policies of the start.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// All, in the order of the file.
    pub all: Vec<Policy>,
    /// Drop what they reject. Else that is only said.
    pub enforce: bool,
    /// For how long after its beginning the daemon does not believe that the first packet which it sees of a flow is the
    /// first one that there was: a flow other than TCP that is met so is accepted whatever the policies say.
    pub guess_time: Duration,
}

impl Default for Wanted {
    fn default() -> Self {
        // As long as flows may be silent that are not TCP's before they are forgotten.
        Self { all: Vec::new(), enforce: false, guess_time: Duration::from_mins(1) }
    }
}

/// Why policies were not loaded: those from before hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// There are too many.
    #[error(transparent)]
    Explosion(#[from] Explosion),
    /// The daemon has ended.
    #[error("the collector has ended: no policies hold any more")]
    Ended,
    /// The kernel refuses something.
    #[error("the kernel does not take the policies: {cause}")]
    Refused {
        /// What it said.
        cause: String,
    },
}

/// Gives a running daemon other policies.
#[derive(Clone, Debug)]
pub struct PolicyLoader {
    asked: mpsc::Sender<Asked>,
}

impl PolicyLoader {
    /// Has these hold, in the place of all from before, and what they reject dropped if that `is_enforced`. When this
    /// returns, flows that live meet them at their next packet.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; then those from before hold.
    pub async fn load(&self, policies: Vec<Policy>, is_enforced: bool) -> Result<(), LoadError> {
        let (answer, answered) = oneshot::channel();
        let asked = Asked { policies, is_enforced, answer };
        self.asked.send(asked).await.map_err(|_unsent| LoadError::Ended)?;
        answered.await.map_err(|_unanswered| LoadError::Ended)?
    }
}

impl Default for PolicyLoader {
    /// Of no daemon: whatever is asked of it has ended.
    fn default() -> Self {
        channel().0
    }
}

/// Policies that are to hold, and who waits for that.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) policies: Vec<Policy>,
    pub(super) is_enforced: bool,
    answer: oneshot::Sender<Result<(), LoadError>>,
}

impl Asked {
    pub(super) fn answer(self, done: Result<(), DaemonError>) {
        let done = done.map_err(|error| match error {
            DaemonError::Policies(error) => error.into(),
            other => LoadError::Refused { cause: root_cause(&other) },
        });
        // Who asked may have stopped waiting.
        let _ = self.answer.send(done);
    }
}

/// Policies, as they come to the daemon.
pub(super) struct Loads {
    asked: mpsc::Receiver<Asked>,
}

impl Loads {
    /// The next ones; waits for ever where there can be none.
    pub(super) async fn next(&mut self) -> Asked {
        match self.asked.recv().await {
            Some(asked) => asked,
            None => pending().await,
        }
    }
}

pub(super) fn channel() -> (PolicyLoader, Loads) {
    let (sender, asked) = mpsc::channel(WAITING);
    (PolicyLoader { asked: sender }, Loads { asked })
}

/// What holds, and what the programs have of it.
#[derive(Default)]
pub(super) struct Policies {
    pub(super) sets: Sets,
    /// There are any.
    are_any: bool,
    /// Which units the sets are made for.
    known: BTreeMap<u16, Subject>,
    /// What the programs have for each index that is not all zero.
    given: BTreeMap<u16, UnitPolicy>,
    /// Sets that nobody has any more, and that a program may still look at.
    retired: Vec<Arc<Set>>,
    /// Units of which it was said that they have no policies for want of room.
    without: BTreeSet<u16>,
    /// From when on the first packet of a flow is believed to be its first, on the boot clock in nanoseconds.
    known_from: u64,
}

impl Policies {
    /// The programs look at packets from here on, and for so long they guess.
    pub(super) fn begin(&mut self, known_from: u64) {
        self.known_from = known_from;
    }

    /// Has the sets changed and written; where that cannot be, all is as it was.
    fn change(
        &mut self,
        controller: &mut Controller,
        make: impl FnOnce(&mut Sets) -> Result<Change, Explosion>,
    ) -> Result<(), DaemonError> {
        let before = self.sets.clone();
        let Change { new, units: _, old } = make(&mut self.sets)?;
        for (at, set) in new.iter().enumerate() {
            if let Err(error) = controller.policies().write(&entries(set)) {
                for written in new.iter().take(at) {
                    // What fails here takes room under a number that comes again with the same entries at most.
                    let _ = controller.policies().remove(&entries(written));
                }
                self.sets = before;
                return Err(error.into());
            }
        }
        self.retired.extend(old);
        Ok(())
    }

    /// Has the sets know the units that there are; whether all of them do.
    fn learn(&mut self, units: &Registry, controller: &mut Controller, now: u64) -> bool {
        let there: BTreeMap<u16, Subject> =
            units.iter().map(|unit| (unit.index, Subject::from(unit))).collect();
        let gone: Vec<u16> = self.known.keys().filter(|index| !there.contains_key(index)).copied().collect();
        for index in gone {
            self.known.remove(&index);
            self.without.remove(&index);
            // What only takes away is written nowhere.
            let _ = self.change(controller, |sets| Ok(sets.remove(index, now)));
        }
        let mut all = true;
        for (index, subject) in there {
            if self.known.get(&index) == Some(&subject) {
                continue;
            }
            let put = |sets: &mut Sets| sets.put(subject.clone(), now);
            // Without policies there is nothing to be written, and nothing that could be undone.
            let done = if self.are_any {
                self.change(controller, put)
            } else {
                put(&mut self.sets).map(drop).map_err(Into::into)
            };
            match done {
                Ok(()) => {
                    self.without.remove(&index);
                    self.known.insert(index, subject);
                }
                Err(error) => {
                    all = false;
                    if self.without.insert(index) {
                        tracing::error!(
                            unit = &*subject.id,
                            "the policies about a unit do not hold: {}",
                            with_causes(&error)
                        );
                    }
                }
            }
        }
        all
    }

    /// Gives every index what its unit has, and says whether policies are to be looked at at all.
    fn give(&mut self, units: &Registry, controller: &mut Controller) -> Result<(), KernelError> {
        let mut wanted = BTreeMap::new();
        for index in units.indexes() {
            let policy = units.get(index).map(|unit| self.sets.of(unit.index)).unwrap_or_default();
            if policy != UnitPolicy::default() {
                wanted.insert(index, policy);
            }
        }
        for (index, policy) in &wanted {
            if self.given.get(index) != Some(policy) {
                controller.policies().give(*index, *policy)?;
            }
        }
        for index in self.given.keys().filter(|index| !wanted.contains_key(index)) {
            controller.policies().give(*index, UnitPolicy::default())?;
        }
        if wanted.is_empty() {
            controller.lift_policies();
        } else {
            controller.hold_policies(self.known_from);
        }
        self.given = wanted;
        Ok(())
    }

    /// No program runs any more that has seen what was retired before.
    pub(super) fn forget_retired(&mut self, controller: &mut Controller) {
        for set in std::mem::take(&mut self.retired) {
            match controller.policies().remove(&entries(&set)) {
                Ok(()) => self.sets.removed(set.number),
                // Its room is not counted on again.
                Err(error) => tracing::warn!("a set of policies is not removed: {}", with_causes(&error)),
            }
        }
    }
}

impl Daemon<'_> {
    /// Has policies hold in the place of those from before. Flows that live meet them from here on.
    pub(super) fn load_policies(
        &mut self,
        policies: &[Policy],
        is_enforced: bool,
    ) -> Result<(), DaemonError> {
        let now = crate::clock::boot();
        self.policies.learn(&self.units, &mut self.controller, now);
        self.policies.change(&mut self.controller, |sets| sets.load(policies, is_enforced, now))?;
        self.policies.are_any = !policies.is_empty();
        self.policies.give(&self.units, &mut self.controller)?;
        Ok(())
    }

    /// Has the units that there are now have what the policies say of them.
    pub(super) fn follow_units(&mut self) -> Result<(), DaemonError> {
        if self.policies.are_any {
            let now = crate::clock::boot();
            self.policies.learn(&self.units, &mut self.controller, now);
            self.policies.give(&self.units, &mut self.controller)?;
        }
        Ok(())
    }

    /// Forgets verdicts that no set has, and no flow that is remembered.
    pub(super) fn forget_verdicts(&mut self) {
        let now = crate::clock::boot();
        for number in self.flows.verdicts() {
            self.policies.sets.verdicts.is_heard_of(number, now);
        }
        self.policies.sets.verdicts.forget(now.saturating_sub(MEMORY_NS));
    }
}

/// A set as the programs have it.
fn entries(set: &Set) -> Entries {
    Entries {
        remotes: set.remotes().collect(),
        services: set.services().collect(),
        verdicts: set.verdicts().collect(),
    }
}
