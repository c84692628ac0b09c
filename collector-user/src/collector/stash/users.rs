//! Which users were told of late.

use std::{collections::HashMap, time::Duration};

use crate::event::Text;

/// A user is told once in each window of this length. Windows follow one another from the first flush on, as in the
/// original, so a user who is seen before and after a border between two is told twice.
pub const USER_WINDOW: Duration = Duration::from_mins(10);

/// The users of the window that runs.
pub(super) struct Users {
    most: usize,
    /// By the hash of what is known of the user: the id that was given.
    told: HashMap<Text, Text>,
    began: Option<Duration>,
}

impl Users {
    pub(super) fn new(most: usize) -> Self {
        Self { most, told: HashMap::new(), began: None }
    }

    /// The id of a user who has been told of.
    pub(super) fn id(&self, hash: &Text) -> Option<Text> {
        self.told.get(hash).cloned()
    }

    /// Remembers a user who was just told of, where there is room.
    pub(super) fn remember(&mut self, hash: Text, id: Text) {
        if self.told.len() < self.most {
            self.told.insert(hash, id);
        }
    }

    pub(super) fn flush(&mut self, now: Duration) {
        match self.began {
            Some(began) if now.saturating_sub(began) < USER_WINDOW => return,
            Some(_) => self.told.clear(),
            None => {}
        }
        self.began = Some(now);
    }
}
