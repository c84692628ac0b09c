//! Catches `tracing` events of one piece of code, on one thread.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;
use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::Interest,
};

use crate::{collector::default::TARGET, event::Ledger};

/// What a log entry says: names and values in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// The fields.
    pub fields: Vec<(&'static str, Value)>,
}

impl Entry {
    /// The ledger: what is lost is in the entry by its name.
    pub(super) fn of_ledger(ledger: &Ledger) -> Self {
        let mut fields = vec![
            ("kind", Value::from("status")),
            ("seen", ledger.seen.into()),
            ("explained", ledger.explained().into()),
        ];
        let losses = ledger.losses();
        let losses: Vec<_> = losses.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let lost = if losses.is_empty() { "nothing".to_owned() } else { losses.join(", ") };
        fields.push(("lost", lost.into()));
        Self { fields }
    }
}

/// Catches the events of [`DefaultCollector`](crate::collector::default::DefaultCollector).
#[derive(Debug)]
pub(super) struct Capture {
    dispatch: Dispatch,
    caught: Arc<Mutex<Vec<Entry>>>,
}

impl Capture {
    pub(super) fn new() -> Self {
        let caught = Arc::default();
        Self { dispatch: Dispatch::new(Catcher { caught: Arc::clone(&caught) }), caught }
    }

    /// What `act` logs, in order. Another subscriber sees nothing of it.
    pub(super) fn of(&self, act: impl FnOnce()) -> Vec<Entry> {
        // What an `act` that panicked had logged.
        lock(&self.caught).clear();
        tracing::dispatcher::with_default(&self.dispatch, act);
        std::mem::take(&mut *lock(&self.caught))
    }
}

struct Catcher {
    caught: Arc<Mutex<Vec<Entry>>>,
}

fn lock(caught: &Mutex<Vec<Entry>>) -> MutexGuard<'_, Vec<Entry>> {
    // Nothing foreign runs under the lock.
    caught.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Subscriber for Catcher {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target() == TARGET && *metadata.level() <= Level::INFO
    }

    fn event(&self, event: &Event<'_>) {
        let mut entry = Entry::default();
        event.record(&mut entry);
        lock(&self.caught).push(entry);
    }

    // There are no spans: none is enabled.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl Entry {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        // A keyword's name is written raw in Rust.
        let name = field.name();
        self.fields.push((name.strip_prefix("r#").unwrap_or(name), value.into()));
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}
