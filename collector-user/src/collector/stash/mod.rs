//! Fewer events: flows that belong together become one, a user is told once, reports are bounded.
//!
//! The original has such a collector between its enforcers and whoever receives their events; here it stands before any
//! other collector. The parts: [`Aggregate`] (what belongs together), and what is remembered of flows and of users.

mod flows;
mod users;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use flows::{Aggregate, LONGEST, QUIET};
pub use users::USER_WINDOW;

use super::{
    EventCollector,
    shares::{Losses, NOBODY, Shares, asker},
};
use crate::event::{
    ContainerRecord, CounterReport, DnsRequestReport, FlowRecord, PacketReport, PingReport, Text, UserRecord,
    hash,
};
use flows::{Flows, Taken};
use users::Users;

/// What the ledger calls a stash that stands before the outputs: the reports that it loses are its `queue_full`.
pub const NAME: &str = "aggregate";

/// How much a stash holds. Where there is no more room, nothing but reports is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Flow records that are held; one more is handed on as it is. Fewer than the queue of an output holds of one unit,
    /// since all may be handed on at once.
    pub flows: usize,
    /// Users that are remembered; one more is handed on each time.
    pub users: usize,
    /// Packet, DNS and ping reports that wait for the next flush; one more is lost, and counted.
    pub reports: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { flows: 50_000, users: 50_000, reports: 1000 }
    }
}

/// What became of the events that a stash was handed.
///
/// At any moment when nothing is under way: `taken` = `handed_on` + `merged` + `repeated` + `queue_full` + `held`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StashCounts {
    /// Events of all kinds that it was handed.
    pub taken: u64,
    /// Events that the collector behind it got.
    pub handed_on: u64,
    /// Flow records that were added to one that was held.
    pub merged: u64,
    /// Users that had been told already.
    pub repeated: u64,
    /// Reports that found the queue full, or in it no room for more of their unit: lost.
    pub queue_full: u64,
    /// Flow records and reports that wait.
    pub held: u64,
    /// Of those handed on: flow records for which there was no room, unmerged. Nothing is lost by that.
    pub no_room: u64,
}

/// A collector before another one, `C`, that hands on fewer events than it takes. Sums over flow records stay totals.
///
/// - **Flows** are merged by [`Aggregate`], which says when they are handed on.
/// - A **user** is handed on at once, and not again within the same [`USER_WINDOW`]; the record's id is always filled in.
/// - **Packet, DNS and ping reports** wait in a bounded queue for the next [`flush`](Self::flush).
/// - **Container, counter and trace events** are handed on at once: they are few, and a counter report that is lost would
///   be missing from a sum. (The original queues the counters, and refuses the two others.)
///
/// Nothing here reads a clock or waits: who owns it calls [`flush`](Self::flush) each second or so, from any task, and
/// [`close`](Self::close) at the end. Its drop closes it too. The collector behind is called without a lock held; if it
/// panics, that event alone is lost.
pub struct Stash<C: EventCollector> {
    inner: C,
    reports: usize,
    state: Arc<Mutex<State>>,
}

/// What became of the events of a [`Stash`], as it stands whenever it is asked, and when the stash has gone.
#[derive(Clone)]
pub struct Books {
    state: Arc<Mutex<State>>,
}

impl Books {
    /// What became of the events so far.
    pub fn counts(&self) -> StashCounts {
        let state = lock(&self.state);
        let held = state.flows.len() + state.due.len() + state.reports.len();
        StashCounts { held: held as u64, ..state.counts }
    }

    /// Whose reports found the queue full, or in it no room for more of the same unit, by unit.
    pub fn queue_full_of(&self) -> BTreeMap<Text, u64> {
        lock(&self.state).lost.rows()
    }
}

struct State {
    now: Duration,
    flows: Flows,
    users: Users,
    /// Flow records that are to be handed on.
    due: VecDeque<FlowRecord>,
    reports: VecDeque<Report>,
    shares: Shares<Report>,
    /// Whose reports were lost.
    lost: Losses,
    counts: StashCounts,
}

enum Report {
    Packet(PacketReport),
    Dns(DnsRequestReport),
    Ping(PingReport),
}

impl Report {
    /// The unit that it is of, by its id; empty where it is none's.
    fn whose(&self) -> &Text {
        match self {
            Self::Packet(report) => &report.puid,
            Self::Dns(request) => asker(request),
            Self::Ping(_) => &NOBODY,
        }
    }
}

impl<C: EventCollector> Stash<C> {
    /// A stash before `inner` that holds nothing yet.
    pub fn new(inner: C, aggregate: Aggregate, limits: Limits) -> Self {
        let state = State {
            now: Duration::ZERO,
            flows: Flows::new(aggregate, limits.flows),
            users: Users::new(limits.users),
            due: VecDeque::new(),
            reports: VecDeque::new(),
            shares: Shares::new(Report::whose),
            lost: Losses::default(),
            counts: StashCounts::default(),
        };
        Self { inner, reports: limits.reports, state: Arc::new(Mutex::new(state)) }
    }

    /// Hands on what has fallen due by `now`: flows, the oldest first, then reports.
    ///
    /// `now` is the time since a moment of the caller's choice, always the same one, and does not go back; until the next
    /// flush it is taken for the time at which events come.
    pub fn flush(&self, now: Duration) {
        let mut state = self.lock();
        state.now = now;
        state.users.flush(now);
        let due = state.flows.flush(now);
        state.due.extend(due);
        drop(state);
        self.hand_on_all();
    }

    /// Hands on all that is held. May be called more than once, and events may still come: they are held again.
    pub fn close(&self) {
        let mut state = self.lock();
        let rest = state.flows.drain();
        state.due.extend(rest);
        drop(state);
        self.hand_on_all();
    }

    /// What became of the events so far.
    pub fn counts(&self) -> StashCounts {
        self.books().counts()
    }

    /// What becomes of the events.
    pub fn books(&self) -> Books {
        Books { state: self.state.clone() }
    }

    /// The collector behind.
    pub const fn inner(&self) -> &C {
        &self.inner
    }

    /// One at a time, so that a collector that panics leaves the others where they are.
    fn hand_on_all(&self) {
        while let Some(record) = self.next(|state| state.due.pop_front()) {
            self.inner.collect_flow_event(&record);
        }
        let next_report = |state: &mut State| {
            let report = state.reports.pop_front()?;
            state.shares.taken(&report);
            state.shares.left(state.reports.len(), self.reports);
            Some(report)
        };
        while let Some(report) = self.next(next_report) {
            match report {
                Report::Packet(report) => self.inner.collect_packet_event(&report),
                Report::Dns(request) => self.inner.collect_dns_requests(&request),
                Report::Ping(report) => self.inner.collect_ping_event(&report),
            }
        }
    }

    fn next<T>(&self, take: impl Fn(&mut State) -> Option<T>) -> Option<T> {
        let mut state = self.lock();
        let next = take(&mut state)?;
        state.counts.handed_on += 1;
        Some(next)
    }

    /// Counts an event that is handed on at once.
    fn pass(&self) {
        let mut state = self.lock();
        state.counts.taken += 1;
        state.counts.handed_on += 1;
    }

    /// Queues a report of a unit, which is made only where there is room for it.
    fn queue(&self, whose: &Text, report: impl FnOnce() -> Report) {
        let mut state = self.lock();
        let State { reports, shares, lost, counts, .. } = &mut *state;
        counts.taken += 1;
        if reports.len() < self.reports && shares.allow(whose, reports, self.reports) {
            let report = report();
            shares.added(&report);
            reports.push_back(report);
        } else {
            counts.queue_full += 1;
            lost.add(whose);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // No foreign code runs under the lock.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<C: EventCollector> Drop for Stash<C> {
    fn drop(&mut self) {
        // A second panic would end the process.
        if !std::thread::panicking() {
            self.close();
        }
    }
}

impl<C: EventCollector> EventCollector for Stash<C> {
    fn collect_flow_event(&self, record: &FlowRecord) {
        let mut state = self.lock();
        let now = state.now;
        let taken = state.flows.take(record, now);
        let counts = &mut state.counts;
        counts.taken += 1;
        let at_once = match taken {
            Taken::Held => return,
            Taken::Merged => {
                counts.merged += 1;
                return;
            }
            Taken::Replaced(before) => before,
            Taken::NoRoom(record) => {
                counts.no_room += 1;
                record
            }
        };
        counts.handed_on += 1;
        drop(state);
        self.inner.collect_flow_event(&at_once);
    }

    fn collect_container_event(&self, record: &ContainerRecord) {
        self.pass();
        self.inner.collect_container_event(record);
    }

    fn collect_user_event(&self, record: &mut UserRecord) {
        hash::stats_user_hash(record);
        let hash = record.id.clone();
        let mut state = self.lock();
        state.counts.taken += 1;
        if let Some(id) = state.users.id(&hash) {
            record.id = id;
            state.counts.repeated += 1;
            return;
        }
        state.counts.handed_on += 1;
        drop(state);
        self.inner.collect_user_event(record);
        // As the collector behind has it: it may name users in another way.
        self.lock().users.remember(hash, record.id.clone());
    }

    fn collect_trace_event(&self, records: &[String]) {
        self.pass();
        self.inner.collect_trace_event(records);
    }

    fn collect_packet_event(&self, report: &PacketReport) {
        self.queue(&report.puid, || Report::Packet(report.clone()));
    }

    fn collect_counter_event(&self, report: &CounterReport) {
        self.pass();
        self.inner.collect_counter_event(report);
    }

    fn collect_dns_requests(&self, request: &DnsRequestReport) {
        self.queue(asker(request), || Report::Dns(request.clone()));
    }

    fn collect_ping_event(&self, report: &PingReport) {
        self.queue(&NOBODY, || Report::Ping(report.clone()));
    }
}

#[cfg(test)]
mod tests;
