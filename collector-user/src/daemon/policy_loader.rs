//! Other policies for a daemon that runs.

use std::future::pending;

use tokio::sync::{mpsc, oneshot};

use super::DaemonError;
use crate::{
    error::with_causes,
    policy::{
        explosion::Explosion,
        lockout::{Enforcement, LockOut},
        rule::Policy,
    },
};

/// Policies that may wait for the daemon's task.
const WAITING: usize = 4;

/// Why policies were not loaded: those from before hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// There are too many.
    #[error(transparent)]
    Explosion(#[from] Explosion),
    /// They would cut off who is logged in.
    #[error(transparent)]
    LockOut(#[from] LockOut),
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
    /// Has these hold, in the place of all from before, and what they reject dropped if that is enforced. When this
    /// returns, flows that live meet them at their next packet.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; then those from before hold.
    pub async fn load(&self, policies: Vec<Policy>, enforcement: Enforcement) -> Result<(), LoadError> {
        let (answer, answered) = oneshot::channel();
        let asked = Asked { policies, enforcement, answer };
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
    pub(super) enforcement: Enforcement,
    answer: oneshot::Sender<Result<(), LoadError>>,
}

impl Asked {
    pub(super) fn answer(self, done: Result<Option<String>, DaemonError>) {
        if let Ok(Some(unknown)) = &done {
            tracing::warn!("{unknown}");
        }
        let done = done.map(drop).map_err(|error| match error {
            DaemonError::Policies(error) => error.into(),
            DaemonError::LockOut(error) => error.into(),
            other => LoadError::Refused { cause: with_causes(&other) },
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
