//! What the programs tell of flows that begin and end, on its way from the buffers to what is remembered of flows.

use super::{Daemon, reports::Teller};
use crate::drain::decode::{DecodeError, FlowNews, Record};

impl Daemon<'_> {
    /// Reads the events that are there, and says until when they are in order.
    pub(super) fn read_news(&mut self) -> u64 {
        let mut news = Vec::new();
        let until = self.events.drain(|record| news.push(record));
        self.book_all(news.into_iter());
        until
    }

    /// Books records as they were read, and puts what they tell in order; `true` where one asks for a drain.
    pub(super) fn book_all(&mut self, records: impl Iterator<Item = Result<Record, DecodeError>>) -> bool {
        let mut is_pressed = false;
        for record in records {
            match self.book(record).map(|record| record.news) {
                Some(Some(news)) => self.order.add(news),
                Some(None) => is_pressed = true,
                None => {}
            }
        }
        is_pressed
    }

    /// Books a record. None where it is not to be [learned](Self::learn) from.
    pub(super) fn book(&mut self, record: Result<Record, DecodeError>) -> Option<Record> {
        let [read, undecodable] = &mut self.records;
        *read += 1;
        match record {
            Ok(record) => self.sequences.follow(record.cpu, record.sequence).then_some(record),
            Err(error) => {
                *undecodable += 1;
                tracing::debug!(%error, "a record of an event was not understood");
                None
            }
        }
    }

    /// Learns what is told of a flow.
    pub(super) fn learn(&mut self, news: &FlowNews) {
        self.note_begun(news.pu);
        let Self { flows, scribe, units, moment, collector, options, watched, policies, users, .. } = self;
        let verdicts = &policies.sets.verdicts;
        let teller =
            Teller { scribe, units, moment, collector: *collector, options, watched, verdicts, users };
        flows.learn(news, &teller, |id, flow| teller.tell(id, flow));
    }
}
