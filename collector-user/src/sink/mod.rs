//! Where events go: each sink a target, behind a bounded queue and a thread of its own.
//!
//! [`queue`] holds the machinery, and says what is counted when. Targets are lines in a stream, in one of the formats
//! [`json`] and [`text`]; the log of others ([`log`](mod@log): standard error, the systemd journal, syslog); and any
//! collector ([`Behind`]). A sink that is slow, fails or panics loses its own events, counted, and never holds up the one
//! who hands them over.
//!
//! Packets as they were seen are no events: they go to a file of a form of its own, [`pcapng`], by [`capture`](mod@capture).

mod behind;
pub(crate) mod bounded;
pub mod capture;
mod error;
pub mod json;
mod lines;
pub mod log;
mod merge;
pub mod pcapng;
pub mod queue;
pub mod text;
pub(crate) mod waiting;
mod writer;

use std::io;

pub use behind::Behind;
pub use error::SinkError;

use crate::event::{Event, Time};

/// How events are written to a stream. Runs on the sink's thread, one event at a time.
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

/// A queue that loses what finds no room, and can be told to wait for it: for when nothing is drained any more, and the
/// last of it is more than a queue holds.
pub trait Room: Send {
    /// From now on what finds the queue full waits for room. An output that takes nothing for two seconds is waited for no
    /// longer, so that it costs the others no more than that; one that is slow is, until [`hurry`](Self::hurry).
    fn wait_for_room(&self);

    /// The same, for however long an output takes nothing.
    fn wait_for_good(&self);

    /// What finds the queue full is lost at once again, what waits now among it. From any thread.
    fn hurry(&self);
}

/// What a sink's thread hands events to, one at a time. It may block.
pub trait Target: Send {
    /// Takes an event that was emitted at `time`. It may be gathered with others until [`settle`](Self::settle).
    ///
    /// # Errors
    ///
    /// Where this event is lost, and others may not be. It counts as failed, as does one at which this panics; the next
    /// event comes all the same.
    fn put(&mut self, time: Time, event: &Event) -> io::Result<()>;

    /// Whether enough is gathered that it should be settled before more comes.
    fn is_full(&self) -> bool {
        false
    }

    /// Brings out whatever was gathered: the events taken until now count as delivered. Called whenever no event waits.
    ///
    /// # Errors
    ///
    /// Where the output has come to its end: this target is asked for nothing more.
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe) means that its reader had enough.
    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }
}
