//! What can go wrong with a sink.

use std::{io, sync::Arc};

/// A sink's failure, of which it does not recover.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The system gave no thread.
    #[error("the thread of the {sink} output cannot be started")]
    Spawn {
        /// The sink.
        sink: String,
        /// What the system said.
        source: io::Error,
    },
    /// The output refused a write, otherwise than by having no reader any more.
    #[error("the {sink} output cannot be written to")]
    Write {
        /// The sink.
        sink: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The output did not take all in the time that it had.
    #[error("the {sink} output takes nothing, or too slowly: {unwritten} events were given up")]
    Stuck {
        /// The sink.
        sink: String,
        /// Events that were accepted and neither written nor counted as failed until then.
        unwritten: u64,
    },
    /// The target did not take the last line.
    #[error("the {sink} output did not take the final status")]
    Status {
        /// The sink.
        sink: String,
        /// What the target said.
        source: io::Error,
    },
    /// The sink's thread ended before its time.
    #[error("the thread of the {sink} output is gone")]
    Gone {
        /// The sink.
        sink: String,
    },
}
