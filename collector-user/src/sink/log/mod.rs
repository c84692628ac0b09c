//! Events as log entries, for the logs that a host has already: standard error, the systemd journal, syslog.
//!
//! What an entry says is [`DefaultCollector`]'s matter: it is handed the event, and the structured `tracing` events that
//! it makes of it are caught here, on the sink's own thread, instead of going to the subscriber of the process. So a log
//! that blocks holds up nobody, and one that refuses an entry is a loss that is counted, which it is not behind a
//! subscriber: those have nobody to tell.

mod capture;
mod datagram;
mod journal;
mod line;
mod syslog;

use std::io;

use capture::Capture;
pub use capture::Entry;
pub use datagram::Datagrams;
pub use journal::Journal;
pub use line::{JsonLines, TextLines};
pub use syslog::Syslog;

use super::{Format, Target};
use crate::{
    collector::{default::DefaultCollector, hand_over},
    event::{Event, Time},
};

/// How an entry is written.
pub trait Encode: Send {
    /// Appends an entry of this time to `out`.
    fn encode(&self, time: Time, entry: &Entry, out: &mut Vec<u8>);
}

/// Events as entries of a log: a format for streams, the lines of which have the form `E`.
///
/// A trace is an entry a line, and a counter record with nothing but zeros none. The status is an entry whose fields are the ledger's.
#[derive(Debug)]
pub struct Log<E> {
    capture: Capture,
    encode: E,
}

impl<E: Encode> Log<E> {
    /// Entries of this form.
    pub fn new(encode: E) -> Self {
        Self { capture: Capture::new(), encode }
    }

    fn entries(&self, event: &Event) -> Vec<Entry> {
        match event {
            Event::Status(status) => vec![Entry::of_ledger(&status.ledger)],
            event => self.capture.of(|| hand_over(event, &DefaultCollector::new())),
        }
    }
}

impl<E: Encode> Format for Log<E> {
    fn write(&mut self, time: Time, event: &Event, out: &mut Vec<u8>) -> io::Result<()> {
        for entry in self.entries(event) {
            self.encode.encode(time, &entry, out);
        }
        Ok(())
    }
}

/// Events as entries of a log that is a socket of datagrams: an entry each.
///
/// An entry that the log refuses is lost with its event, and the log is tried again with the next: a log daemon that is
/// started anew comes back.
#[derive(Debug)]
pub struct Socket<E> {
    log: Log<E>,
    datagrams: Datagrams,
}

impl<E: Encode> Socket<E> {
    /// Entries of this form to this socket.
    pub fn new(encode: E, datagrams: Datagrams) -> Self {
        Self { log: Log::new(encode), datagrams }
    }
}

impl<E: Encode> Target for Socket<E> {
    fn put(&mut self, time: Time, event: &Event) -> io::Result<()> {
        let mut datagram = Vec::new();
        for entry in self.log.entries(event) {
            datagram.clear();
            self.log.encode.encode(time, &entry, &mut datagram);
            self.datagrams.send(&datagram)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
