//! What the daemon says of itself: events of `tracing`, of any level, on its own thread.

use std::{fmt, sync::mpsc};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Hears sentences, and hands them on.
#[derive(Debug)]
pub(crate) struct Ear {
    heard: mpsc::Sender<String>,
}

impl Ear {
    /// One, and where its sentences come out.
    pub(crate) fn new() -> (Self, mpsc::Receiver<String>) {
        let (heard, said) = mpsc::channel();
        (Self { heard }, said)
    }

    /// Runs `work`, and hears what is said on this thread meanwhile.
    pub(crate) fn hear<T>(self, work: impl FnOnce() -> T) -> T {
        tracing::subscriber::with_default(self, work)
    }
}

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("collector_user")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut sentence = Sentence::default();
        event.record(&mut sentence);
        // A test that does not listen any more has ended.
        let _ = self.heard.send(sentence.text);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// The message of an event.
#[derive(Default)]
struct Sentence {
    text: String,
}

impl Visit for Sentence {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.text = format!("{value:?}");
        }
    }
}
