//! How far the reading is, for who waits at a terminal.

use std::{
    cell::Cell,
    io::{self, IsTerminal as _},
    rc::Rc,
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::clock;

/// What takes no longer has no bar.
const PATIENCE_NS: u64 = 1_000_000_000;
/// Between two looks at the clock.
const FRAMES: u32 = 1 << 12;

/// A bar on standard error, from the second second on. Not where standard output goes to a terminal as well, which shows what was
/// found.
pub(super) struct Progress {
    /// Octets that were read.
    pub(super) done: Rc<Cell<u64>>,
    size: Option<u64>,
    frames: u32,
    began: u64,
    is_wanted: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Nothing was read of that many octets.
    pub(super) fn new(size: Option<u64>) -> Self {
        let is_wanted = io::stderr().is_terminal() && !io::stdout().is_terminal();
        Self { done: Rc::default(), size, frames: 0, began: clock::boot(), is_wanted, bar: None }
    }

    /// Another frame was read; whether it is time to look at other things, too.
    #[inline]
    pub(super) fn step(&mut self) -> bool {
        self.frames += 1;
        let is_time = self.frames == FRAMES;
        if is_time {
            self.frames = 0;
            self.look();
        }
        is_time
    }

    #[cold]
    fn look(&mut self) {
        if !self.is_wanted || self.bar.is_none() && clock::boot().saturating_sub(self.began) < PATIENCE_NS {
            return;
        }
        let size = self.size;
        let bar = self.bar.get_or_insert_with(|| {
            let (bar, form) = match size {
                Some(size) => (ProgressBar::new(size), "{bar:40} {percent}% of {total_bytes}, {eta} left"),
                None => (ProgressBar::no_length(), "{spinner} {bytes}"),
            };
            match ProgressStyle::with_template(form) {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        bar.set_position(self.done.get());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
