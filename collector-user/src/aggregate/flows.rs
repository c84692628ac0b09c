//! All flows that are remembered: what was drained is added, and a record falls due when a flow ends, is cut off, or has
//! lived another interval. A record holds what was counted since the one before, so that sums over records are totals.

use std::{
    collections::{BTreeSet, HashMap},
    hint, mem,
};

use collector_ebpf::abi::{flow::FIRST_BOUNDARY, network, report::kind};

use super::{
    booking::{Credits, Owners},
    flow::{Flow, Owner, TCP},
    initiator::Initiator,
    lives::Lives,
    waiting::Waiting,
};
use crate::{
    drain::{
        decode::FlowNews,
        flow::{FlowDelta, FlowId},
        mix::Seed,
    },
    event::{Ended, ResetBy},
};

/// What a table has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Socket buffers drained.
    pub skbs: u64,
    /// The same once more, of those of tunnels in whose inside a flow was counted.
    pub inside: u64,
    /// Records for which the table had no room: emitted at once, without a flow to belong to.
    pub stateless: u64,
}

/// Flows whose users are asked for between two drains, at most: each takes a system call or two.
const ASKED: usize = 4096;

/// All flows that are remembered.
#[derive(Debug)]
pub struct Flows {
    lives: Lives,
    most: usize,
    known: HashMap<FlowId, Flow, Seed>,
    tally: Tally,
    credits: Credits,
    /// Whether anybody asks for users.
    asks: bool,
    /// Of these the programs may know the user.
    to_ask: Vec<FlowId>,
    /// Whose those are.
    waiting: Waiting,
}

impl Flows {
    /// A table of at most `most` flows.
    pub fn new(lives: Lives, most: usize) -> Self {
        Self {
            lives,
            most,
            known: HashMap::default(),
            tally: Tally::default(),
            credits: Credits::default(),
            asks: false,
            to_ask: Vec::new(),
            waiting: Waiting::new(ASKED),
        }
    }

    /// Whether somebody [takes out](Self::take_to_ask) whom to ask for users, and can be answered.
    #[must_use]
    pub fn asking_for_users(self, asks: bool) -> Self {
        Self { asks, ..self }
    }

    /// From `now` on, on the boot clock, so many nanoseconds pass between two records of a flow that lives.
    pub fn report_every(&mut self, nanoseconds: u64, now: u64) {
        self.lives.report = nanoseconds;
        for flow in self.known.values_mut() {
            flow.due = flow.due.min(now.saturating_add(nanoseconds));
        }
    }

    /// What was done so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// What the flows have given to the counters of units.
    pub fn credits(&self) -> &Credits {
        &self.credits
    }

    /// The indexes of units that flows are remembered of.
    pub fn indexes(&self) -> BTreeSet<u16> {
        self.known.values().flat_map(|flow| [flow.pu, flow.host_pu]).collect()
    }

    /// The numbers of verdicts that flows are remembered with.
    pub fn verdicts(&self) -> BTreeSet<u16> {
        self.known.values().map(|flow| flow.verdict).collect()
    }

    /// Whether a flow is remembered.
    pub fn knows(&self, id: &FlowId) -> bool {
        self.known.contains_key(id)
    }

    /// Has what is remembered of flows at hand, that of all of them at once: a flow is longer than a line of a cache, and where
    /// there are many its lines lie in none.
    pub fn fetch<'a>(&self, ids: impl Iterator<Item = &'a FlowId>) {
        let flows = ids.filter_map(|id| self.known.get(id));
        let touched = flows.fold(0, |all, flow| {
            let [packets, _] = flow.packets;
            let [rejected, _] = flow.rejected;
            all ^ packets ^ rejected ^ flow.last ^ u64::from(flow.pu)
        });
        hint::black_box(touched);
    }

    /// Who opened a flow, if it is remembered: read as if its sender were the local end.
    pub fn opened(&self, id: &FlowId) -> Option<Initiator> {
        let turned = FlowId {
            local: id.remote,
            remote: id.local,
            local_port: id.remote_port,
            remote_port: id.local_port,
            ..*id
        };
        let opened = |id| self.known.get(id).map(|flow| flow.initiator);
        opened(id).or_else(|| opened(&turned).map(|it| Initiator { local: !it.local, ..it }))
    }

    /// The number of the verdict on a flow, if it is remembered: read as if its sender were either end.
    pub fn verdict(&self, id: &FlowId) -> Option<u16> {
        let turned = FlowId {
            local: id.remote,
            remote: id.local,
            local_port: id.remote_port,
            remote_port: id.local_port,
            ..*id
        };
        self.known.get(id).or_else(|| self.known.get(&turned)).map(|flow| flow.verdict)
    }

    /// Takes out the flows whose user the programs may know by now, though no report has said it: the local end has answered,
    /// or the report was lost. Each is asked for once.
    pub fn take_to_ask(&mut self) -> Vec<FlowId> {
        self.waiting.emptied();
        mem::take(&mut self.to_ask)
    }

    /// Flows whose user may be known and was not asked for, since too many were to be asked for at once, or
    /// too many of their unit.
    pub fn unasked(&self) -> u64 {
        self.waiting.lost()
    }

    /// Those of the unit with this index.
    pub fn unasked_of(&self, index: u16) -> u64 {
        self.waiting.lost_of(index)
    }

    /// The user at a flow's local end is that.
    pub fn set_user(&mut self, id: &FlowId, user: u32) {
        if let Some(flow) = self.known.get_mut(id) {
            flow.owner = Owner::Known(user);
        }
    }

    /// Flows remembered now.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Adds what was drained; `first` and `last` are its packets' times. `emit` gets a record that cannot wait: that of a
    /// connection which a new one replaces, that of a flow which has another unit from now on, and that of a flow for which
    /// there is no room.
    pub fn add(
        &mut self,
        delta: &FlowDelta,
        first: u64,
        last: u64,
        owners: &impl Owners,
        mut emit: impl FnMut(&FlowId, &Flow),
    ) {
        let skbs = delta.skbs.iter().sum::<u64>();
        if network::is_inside(delta.id.boundary) {
            self.tally.inside += skbs;
        } else {
            self.tally.skbs += skbs;
        }
        self.credits.book(delta);
        let report = self.lives.report;
        let new =
            || Flow::new(&delta.id, (delta.how, delta.pu, delta.host_pu), delta.interface, first, report);
        if self.known.len() >= self.most && !self.known.contains_key(&delta.id) {
            self.tally.stateless += 1;
            let mut flow = new();
            flow.add(delta, first, last, owners);
            flow.book(&delta.id, &mut self.credits, owners);
            emit(&delta.id, &flow);
            return;
        }
        let flow = self.known.entry(delta.id).or_insert_with(new);
        if flow.end_told && delta.begun != 0 {
            // Another connection, whose beginning was not heard of; what is left of the one before is told first.
            flow.book(&delta.id, &mut self.credits, owners);
            if flow.pending() {
                emit(&delta.id, flow);
            }
            *flow = new();
        }
        let is_anothers = flow.changes_hands(delta) && !owners.are_one(flow.pu, delta.pu);
        if (is_anothers || flow.changes_verdict(delta)) && flow.pending() {
            // The counters have given it to the unit of before.
            flow.book(&delta.id, &mut self.credits, owners);
            // Its end, if it had one, is told once, with what comes now.
            let end = (
                mem::replace(&mut flow.ended, Ended::Live),
                mem::replace(&mut flow.reset_by, ResetBy::Nobody),
            );
            emit(&delta.id, flow);
            (flow.ended, flow.reset_by) = end;
            flow.clear();
        }
        if flow.changes_host_end(delta) {
            flow.book(&delta.id, &mut self.credits, owners);
        }
        flow.add(delta, first, last, owners);
        if self.asks && flow.may_have_user(delta) {
            flow.owner = Owner::Asked;
            if self.waiting.admit(delta.pu) {
                self.to_ask.push(delta.id);
            } else {
                self.waiting.lose(delta.pu, 1);
            }
        }
        // Where the beginning was heard of, so will be the end; and the flags of a delta that began a connection may be
        // those of the one before it.
        if delta.id.protocol == TCP && (delta.begun == 0 || !flow.first_is_exact) {
            flow.end_by_flags(last);
        }
    }

    /// Learns at once that a flow began or ended; what it counted comes with the next drain.
    pub fn learn(&mut self, news: &FlowNews, owners: &impl Owners, mut emit: impl FnMut(&FlowId, &Flow)) {
        if news.kind == kind::START {
            let report = self.lives.report;
            let new = || Flow {
                first_is_exact: true,
                owner: Owner::Unknown.or(news.user),
                ..Flow::new(&news.id, (news.how, news.pu, news.host_pu), news.interface, news.boot_ns, report)
            };
            if let Some(flow) = self.known.get_mut(&news.id) {
                if flow.ended != Ended::Live && news.boot_ns >= flow.ended_at {
                    // The same ends once more: what is left of the connection before is told before it is forgotten.
                    flow.book(&news.id, &mut self.credits, owners);
                    if flow.pending() || !flow.end_told {
                        flow.refine_end();
                        emit(&news.id, flow);
                    }
                    *flow = new();
                } else {
                    flow.owner = flow.owner.or(news.user);
                    // The counts came before the report: they know the first packet to the tick only.
                    if !flow.first_is_exact {
                        flow.first = news.boot_ns;
                        flow.first_is_exact = true;
                    }
                }
            } else if self.known.len() < self.most {
                self.known.insert(news.id, new());
            }
            return;
        }
        let Some(flow) = self.known.get_mut(&news.id) else { return };
        flow.owner = flow.owner.or(news.user);
        match news.kind {
            kind::END_FIN => flow.end(Ended::Fin, None, news.boot_ns),
            kind::END_RESET_LOCAL => flow.end(Ended::Reset, Some(true), news.boot_ns),
            kind::END_RESET_REMOTE => flow.end(Ended::Reset, Some(false), news.boot_ns),
            _ => {}
        }
    }

    /// Emits what has fallen due, at most [`Lives::at_once`] records, and returns the flows that are over; what has to
    /// wait falls due at the next call. All that was counted before `drained` has been
    /// added; `now` is not before it.
    pub fn settle(
        &mut self,
        now: u64,
        drained: u64,
        owners: &impl Owners,
        mut emit: impl FnMut(&FlowId, &Flow),
    ) -> Vec<FlowId> {
        let lives = self.lives;
        let credits = &mut self.credits;
        let mut over = Vec::new();
        let mut room = lives.at_once;
        self.known.retain(|id, flow| {
            // A decided unit is given what it is owed at once. The host's end is known no sooner than the answer. What is
            // guessed for longer is said to be the guess's, in a record, and from then on booked with its records alone: who
            // is found to own it later owns what comes from there on.
            let at_uplink = id.boundary < FIRST_BOUNDARY;
            let is_old = now.saturating_sub(flow.first) >= lives.undecided;
            if !flow.is_provisional() && (at_uplink || is_old) {
                flow.book(id, credits, owners);
            }
            let guess_is_news = flow.is_provisional() && is_old && !flow.guess_told;
            if room == 0 {
                return true;
            }
            let ended = flow.ended != Ended::Live && flow.ended_at <= drained;
            let idle = now.saturating_sub(flow.last);
            let timed_out = !ended && flow.ended == Ended::Live && idle >= flow.may_be_silent(id, &lives);
            if timed_out {
                flow.end(if flow.is_unanswered(id) { Ended::Unanswered } else { Ended::Timeout }, None, now);
            }
            let end_is_news = (ended || timed_out && id.protocol == TCP) && !flow.end_told;
            if end_is_news || flow.pending() && (guess_is_news || ended || timed_out || now >= flow.due) {
                if ended {
                    flow.refine_end();
                }
                // The record says whose it is; the counters say the same.
                flow.book(id, credits, owners);
                emit(id, flow);
                room -= 1;
                flow.end_told |= ended || timed_out;
                flow.guess_told |= flow.is_provisional();
                flow.clear();
                flow.due = now.saturating_add(lives.report);
            }
            let forgotten = timed_out || ended && idle >= lives.ended;
            if forgotten {
                over.push(*id);
            }
            !forgotten
        });
        over
    }

    /// Lets go of those flows of such units that these have by sockets. What was counted is theirs, and emitted; whose the flows
    /// are from here on is open, as when they began.
    pub fn let_go(
        &mut self,
        is_such: impl Fn(u16) -> bool,
        owners: &impl Owners,
        mut emit: impl FnMut(&FlowId, &Flow),
    ) {
        for (id, flow) in self.known.iter_mut().filter(|(_, flow)| flow.is_by_socket() && is_such(flow.pu)) {
            flow.book(id, &mut self.credits, owners);
            if flow.pending() {
                emit(id, flow);
                flow.clear();
            }
            flow.open_again();
        }
    }

    /// Emits all that no record holds yet: the collector stops.
    pub fn cut_off(&mut self, owners: &impl Owners, mut emit: impl FnMut(&FlowId, &Flow)) {
        for (id, flow) in &mut self.known {
            flow.book(id, &mut self.credits, owners);
            if flow.pending() || flow.ended != Ended::Live && !flow.end_told {
                flow.refine_end();
                emit(id, flow);
                flow.end_told = flow.ended != Ended::Live;
                flow.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests;
