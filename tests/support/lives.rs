//! What is told of the lives of units.

use collector_user::event::{ContainerRecord, Event};

use crate::{PATIENCE, collector::Running};

/// What was told of a unit's life, in its order.
pub fn life<'a>(events: &'a [Event], id: &str) -> Vec<&'a ContainerRecord> {
    let records = events.iter().filter_map(|event| match event {
        Event::Container(record) => Some(record),
        _ => None,
    });
    records.filter(|record| &*record.context_id == id).collect()
}

/// Its steps alone.
pub fn steps<'a>(events: &'a [Event], id: &str) -> Vec<&'a str> {
    life(events, id).into_iter().map(|record| &*record.event).collect()
}

/// Waits until the last step of a unit's life that was told is this one.
///
/// # Panics
///
/// It does not come.
pub fn wait_for_step(collector: &Running, id: &str, step: &str) {
    wait_for_steps(collector, id, |steps| steps.last() == Some(&step));
}

/// Waits until the steps that were told are as wanted.
///
/// # Panics
///
/// They do not get so.
pub fn wait_for_steps(collector: &Running, id: &str, wanted: impl Fn(&[&str]) -> bool) {
    let told = |events: &[Event]| wanted(&steps(events, id));
    assert!(
        collector.recorder.wait_until(PATIENCE, told),
        "the life of {id} is told up to here: {:?}",
        steps(&collector.recorder.events(), id)
    );
}
