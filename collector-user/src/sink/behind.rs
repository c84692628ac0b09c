//! Any collector as the target of a sink.

use std::io;

use super::Target;
use crate::{
    collector::{EventCollector, hand_over},
    event::{Event, Time},
};

/// A collector behind a queue: it may block and panic, and harms nobody but itself
/// ([`queue::start_target`](super::queue::start_target)).
///
/// The record of a user has its id already. The status is no event of the trait: it is not handed on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Behind<C>(pub C);

impl<C: EventCollector> Target for Behind<C> {
    fn put(&mut self, _: Time, event: &Event) -> io::Result<()> {
        hand_over(event, &self.0);
        Ok(())
    }
}
