//! Questions to a running daemon: what it knows of its processing units, and how it stands.

use std::{collections::BTreeMap, future::pending};

use tokio::sync::{mpsc, oneshot};

use super::{Daemon, DaemonError};
use crate::{
    aggregate::counters::Period,
    event::{Status, UnitKind, UnitMatchers, UnitStatus},
    pu::registry::{Kind, Unit, is_named},
};

/// Questions that may wait for the daemon's task.
const WAITING: usize = 16;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InquiryError {
    /// The daemon has ended.
    #[error("the collector has ended: it answers nothing any more")]
    Ended,
}

/// Asks a running daemon what it knows.
#[derive(Clone, Debug)]
pub struct Inquirer {
    asked: mpsc::Sender<Asked>,
}

impl Inquirer {
    /// All processing units, by index, with those that have ended and are not forgotten. What was counted up to now is
    /// drained for it: that takes the daemon as long as each of its drains, so nobody should ask all the time.
    ///
    /// # Errors
    ///
    /// [`InquiryError`].
    pub async fn units(&self) -> Result<Vec<UnitStatus>, InquiryError> {
        self.ask(Asked::Units).await
    }

    /// How the collector stands: its interfaces, what was dropped until now, and the ledger, in which nothing is of what lies
    /// behind the daemon, such as outputs: who asks adds that. It costs the daemon as much as [`units`](Self::units), and
    /// questions to the kernel about all interfaces.
    ///
    /// # Errors
    ///
    /// [`InquiryError`].
    pub async fn status(&self) -> Result<Status, InquiryError> {
        self.ask(Asked::Status).await
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Asked) -> Result<T, InquiryError> {
        let (answer, answered) = oneshot::channel();
        self.asked.send(question(answer)).await.map_err(|_unsent| InquiryError::Ended)?;
        answered.await.map_err(|_unanswered| InquiryError::Ended)
    }
}

impl Default for Inquirer {
    /// Of no daemon: whatever is asked of it has ended.
    fn default() -> Self {
        channel().0
    }
}

/// What is asked, and who waits for the answer.
#[derive(Debug)]
pub(super) enum Asked {
    Units(oneshot::Sender<Vec<UnitStatus>>),
    Status(oneshot::Sender<Status>),
}

impl Asked {
    /// Nobody waits for the answer any more.
    fn is_given_up(&self) -> bool {
        match self {
            Self::Units(answer) => answer.is_closed(),
            Self::Status(answer) => answer.is_closed(),
        }
    }
}

/// The questions, as they come to the daemon.
pub(super) struct Inquiries {
    asked: mpsc::Receiver<Asked>,
}

impl Inquiries {
    /// All that wait, one at least, so that one drain serves them all; waits for ever where nobody can have any.
    pub(super) async fn next(&mut self) -> Vec<Asked> {
        let mut all = Vec::new();
        loop {
            if self.asked.recv_many(&mut all, WAITING).await == 0 {
                return pending().await;
            }
            // Who does not wait any more costs no drain.
            all.retain(|asked| !asked.is_given_up());
            if !all.is_empty() {
                return all;
            }
        }
    }
}

pub(super) fn channel() -> (Inquirer, Inquiries) {
    let (inquirer, asked) = mpsc::channel(WAITING);
    (Inquirer { asked: inquirer }, Inquiries { asked })
}

impl Daemon<'_> {
    /// Answers with what was drained.
    pub(super) async fn answer(&mut self, asked: Vec<Asked>) -> Result<(), DaemonError> {
        let (mut units, mut status) = (None, None);
        for asked in asked {
            // Who asked may have stopped waiting.
            match asked {
                Asked::Units(answer) => {
                    let units = match &mut units {
                        Some(units) => units,
                        none => none.insert(self.unit_status()?),
                    };
                    let _ = answer.send(units.clone());
                }
                Asked::Status(answer) => {
                    let status = match &mut status {
                        Some(status) => status,
                        none => {
                            let interfaces = self.compared_status().await;
                            none.insert(self.status(interfaces))
                        }
                    };
                    let _ = answer.send(status.clone());
                }
            }
        }
        Ok(())
    }

    fn unit_status(&mut self) -> Result<Vec<UnitStatus>, DaemonError> {
        let mut unreported = Period::default();
        for (index, unit, counted) in self.counted()? {
            self.differences.look(index, unit, &counted, &mut unreported);
        }
        let mut cgroups = self.workloads.roots();
        let mut ends: BTreeMap<u16, Vec<String>> = BTreeMap::new();
        for (unit, ifindex) in self.watched.ends.named() {
            if let Some(interface) = self.watched.interfaces.get(&ifindex) {
                ends.entry(unit).or_default().push(interface.name.clone());
            }
        }
        let status = |unit: &Unit| UnitStatus {
            context_id: unit.id.clone(),
            kind: kind(unit.kind),
            namespace: unit.namespace.clone(),
            tags: unit.tags.clone(),
            identity: unit.id.clone(),
            index: unit.index,
            mark: self.mark(unit.index),
            matchers: UnitMatchers {
                interfaces: unit.interfaces.clone(),
                cidr: unit.ranges.iter().map(ToString::to_string).collect(),
                port: unit.ports.iter().map(ToString::to_string).collect(),
                uid: unit.users.iter().map(ToString::to_string).collect(),
                cgroup: {
                    let declared = unit.cgroups.iter().map(ToString::to_string);
                    let mut all: Vec<String> =
                        declared.chain(cgroups.remove(&unit.index).unwrap_or_default()).collect();
                    all.dedup();
                    all
                },
                netns: unit.namespaces.clone(),
                ends: ends.remove(&unit.index).unwrap_or_default(),
                addresses: unit.addresses.clone(),
            },
            since: self.moment.wall_of_boot(if unit.since == 0 { self.began } else { unit.since }),
            ended: unit.ended.map(|ended| self.moment.wall_of_boot(ended)),
            counters: self.differences.total(unit.index, &unreported),
        };
        Ok(self.units.iter().map(status).collect())
    }

    /// What packets of the unit with this index carry.
    fn mark(&self, index: u16) -> Option<u16> {
        (is_named(index) && u32::from(index) <= self.most_mark()).then_some(index)
    }
}

const fn kind(kind: Kind) -> UnitKind {
    match kind {
        Kind::Fixed => UnitKind::Fixed,
        Kind::Declared => UnitKind::Declared,
        Kind::Container => UnitKind::Container,
        Kind::Service => UnitKind::Service,
        Kind::Scope => UnitKind::Scope,
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, Inquirer, InquiryError, UnitStatus, channel};

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    #[test]
    fn all_that_wait_are_answered_together_but_who_has_gone() {
        run(async {
            let (inquirer, mut inquiries) = channel();
            let answer = async {
                let asked = inquiries.next().await;
                assert_eq!(asked.len(), 2);
                for asked in asked {
                    let Asked::Units(answer) = asked else { panic!("units were asked for") };
                    answer.send(vec![UnitStatus::default()]).unwrap();
                }
            };
            // Asks, and waits no longer.
            tokio::select! {
                biased;
                _ = inquirer.units() => panic!("nobody answers"),
                () = std::future::ready(()) => {}
            }
            let (one, other, ()) = tokio::join!(inquirer.units(), inquirer.units(), answer);
            assert_eq!((one.unwrap().len(), other.unwrap().len()), (1, 1));
        });
    }

    #[test]
    fn who_asks_a_daemon_that_has_ended_is_told() {
        assert_eq!(run(Inquirer::default().units()), Err(InquiryError::Ended));
        assert_eq!(run(Inquirer::default().status()), Err(InquiryError::Ended));
    }
}
