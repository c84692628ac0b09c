//! A target that writes lines to a stream.

use std::io;

use super::{Format, Target};
use crate::event::{Event, Time};

/// Octets that are gathered before they are written, where events come faster than they are written.
const GATHERED: usize = 64 * 1024;

/// Events in a format, on their way to a stream. The first write that fails is the end: what follows it would follow a
/// line that is cut.
pub(super) struct Lines<F, W> {
    format: F,
    out: W,
    gathered: Vec<u8>,
    /// How much of `gathered` is whole events; what an event left behind it before an error or a panic is dropped.
    whole: usize,
}

impl<F, W> Lines<F, W> {
    pub(super) const fn new(format: F, out: W) -> Self {
        Self { format, out, gathered: Vec::new(), whole: 0 }
    }
}

impl<F: Format, W: io::Write + Send> Target for Lines<F, W> {
    fn put(&mut self, time: Time, event: &Event) -> io::Result<()> {
        self.gathered.truncate(self.whole);
        self.format.write(time, event, &mut self.gathered)?;
        self.whole = self.gathered.len();
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.whole >= GATHERED
    }

    fn settle(&mut self) -> io::Result<()> {
        self.gathered.truncate(self.whole);
        if !self.gathered.is_empty() {
            self.out.write_all(&self.gathered)?;
            self.out.flush()?;
            self.gathered.clear();
            self.whole = 0;
        }
        Ok(())
    }
}
