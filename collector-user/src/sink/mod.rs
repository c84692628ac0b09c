//! Where events go: each sink a format, behind a bounded queue and a thread of its own.
//!
//! [`queue`] holds the machinery, and says what is counted when; [`json`] and [`text`] are formats. A sink that is slow,
//! fails or panics loses its own events, counted, and never holds up the one who hands them over.

mod bounded;
mod error;
pub mod json;
pub mod queue;
pub mod text;
mod writer;

use std::io;

pub use error::SinkError;

use crate::event::{Event, Time};

/// How events are written. Runs on the sink's thread, one event at a time.
pub trait Format: Send {
    /// Writes an event that was emitted at `time`: whole lines, or nothing.
    ///
    /// Appends to `out`, which may hold earlier events. What an event left there before an error or a panic is taken
    /// back, and the event counts as failed.
    ///
    /// # Errors
    ///
    /// Where the event cannot be put into this format.
    fn write(&mut self, time: Time, event: &Event, out: &mut Vec<u8>) -> io::Result<()>;
}
