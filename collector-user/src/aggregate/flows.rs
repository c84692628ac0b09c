//! Flows over their life: what was drained is added, and a record falls due when a flow ends, is cut off, or has lived
//! another interval. A record holds what was counted since the one before, so that sums over records are totals.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
};

use collector_ebpf::{
    abi::{
        flow::{FIRST_BOUNDARY, RX, TX, how},
        network,
        pu::index,
        report::kind,
    },
    wire::tcp,
};

use crate::{
    aggregate::{
        booking::{Credits, HostEnd, Open},
        initiator::{self, Initiator},
        lives::Lives,
    },
    drain::decode::{FlowDelta, FlowId, FlowNews},
    event::{Ended, ResetBy},
};

const TCP: u8 = 6;
const ICMP: [u8; 2] = [1, 58];

/// What is known of who owns the socket at a flow's local end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nothing.
    Unknown,
    /// Nothing, though the programs were asked, or will be.
    Asked,
    /// The user with this id in the initial user namespace.
    Known(u32),
}

impl Owner {
    /// The user's id, if it is known.
    pub const fn uid(self) -> Option<u32> {
        match self {
            Self::Known(uid) => Some(uid),
            Self::Unknown | Self::Asked => None,
        }
    }

    /// What is known once this was told.
    fn or(self, told: Option<u32>) -> Self {
        match (self, told) {
            (Self::Unknown | Self::Asked, Some(uid)) => Self::Known(uid),
            (known, _) => known,
        }
    }
}

/// A flow, and what was counted for it since its last record. Pairs are indexed by `RX` and `TX`; times are
/// `CLOCK_BOOTTIME` in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// Who opened it.
    pub initiator: Initiator,
    /// Index of the processing unit.
    pub pu: u16,
    /// Number of the interface that the last packet crossed.
    pub interface: u16,
    /// Bits of [`how`](mod@collector_ebpf::abi::flow::how).
    pub how: u8,
    /// Index of the unit at its other end on this host; 0 where the programs have not asked whose it is.
    pub host_pu: u16,
    /// Who owns the socket at its local end.
    pub owner: Owner,
    /// Wire packets since the last record.
    pub packets: [u64; 2],
    /// Wire octets since the last record.
    pub bytes: [u64; 2],
    /// Socket buffers since the last record.
    pub skbs: [u64; 2],
    /// The number of the verdict that they passed by, or were rejected by.
    pub verdict: u16,
    /// Wire packets since the last record that a policy rejected and the programs dropped.
    pub rejected: [u64; 2],
    /// Connections begun since the last record.
    pub begun: u64,
    /// TCP flags over its life, combined, by direction.
    pub tcp_flags: [u8; 2],
    /// The first packet: to the nanosecond where the programs reported it, else to the tick.
    pub first: u64,
    /// The last packet.
    pub last: u64,
    /// How it ended.
    pub ended: Ended,
    /// Who reset it.
    pub reset_by: ResetBy,
    /// When its end was seen.
    ended_at: u64,
    /// Its end stands in a record.
    end_told: bool,
    /// That its unit is a guess stands in a record.
    guess_told: bool,
    /// The programs have reported the first packet.
    first_is_exact: bool,
    /// When its next record falls due while it lives.
    due: u64,
    /// What it has counted and no unit has been given.
    open: Open,
}

impl Flow {
    fn new(id: &FlowId, (how, pu, host_pu): (u8, u16, u16), interface: u16, first: u64, report: u64) -> Self {
        Self {
            initiator: initiator::decide(id, how),
            pu,
            interface,
            how,
            host_pu,
            owner: Owner::Unknown,
            packets: [0; 2],
            bytes: [0; 2],
            skbs: [0; 2],
            verdict: 0,
            rejected: [0; 2],
            begun: 0,
            tcp_flags: [0; 2],
            first,
            last: first,
            ended: Ended::Live,
            reset_by: ResetBy::Nobody,
            ended_at: 0,
            end_told: false,
            guess_told: false,
            first_is_exact: false,
            due: first.saturating_add(report),
            open: Open::default(),
        }
    }

    /// Something was counted that no record holds yet.
    fn pending(&self) -> bool {
        self.begun != 0 || self.packets != [0; 2] || self.rejected != [0; 2]
    }

    fn add(&mut self, delta: &FlowDelta, first: u64, last: u64, host_end: &impl Fn(&FlowId, u16) -> HostEnd) {
        for direction in [RX, TX] {
            add(&mut self.packets, &delta.packets, direction);
            add(&mut self.bytes, &delta.bytes, direction);
            add(&mut self.skbs, &delta.skbs, direction);
            add(&mut self.rejected, &delta.rejected, direction);
            if let (Some(into), Some(from)) =
                (self.tcp_flags.get_mut(direction), delta.tcp_flags.get(direction))
            {
                *into |= from;
            }
        }
        self.verdict = delta.verdict;
        self.begun += delta.begun;
        if !self.first_is_exact {
            self.first = self.first.min(first);
        }
        // Each CPU has its own, and they are drained in no order of time.
        if last >= self.last {
            self.last = last;
            self.interface = delta.interface;
        }
        // A CPU may go on guessing, until the end of its epoch, what another one knows.
        if delta.how & how::PROVISIONAL == 0 || self.is_provisional() {
            // So it is with the host's end: a packet that left the host knows it, one that came in may have been translated.
            let differs = (self.how ^ delta.how) & how::HOST_END != 0;
            let kept = if differs && !has_left(delta, host_end(&delta.id, delta.host_pu)) {
                how::HOST_END
            } else {
                0
            };
            self.pu = delta.pu;
            self.how = delta.how & !kept | self.how & kept;
        }
        if delta.host_pu != 0 {
            self.host_pu = delta.host_pu;
        }
        self.open.add(delta);
    }

    /// The programs may know its user by now though they have not said so: its local end has sent something.
    fn may_have_user(&self, delta: &FlowDelta) -> bool {
        self.owner == Owner::Unknown
            && delta.packets.get(TX).is_some_and(|sent| *sent != 0)
            && self.pu != index::FORWARDED
            && !network::is_inside(delta.id.boundary)
    }

    /// What is drained was counted for another unit than what came before: an interface has another role, an address
    /// another owner.
    fn changes_hands(&self, delta: &FlowDelta) -> bool {
        (self.how | delta.how) & how::PROVISIONAL == 0 && self.pu != delta.pu
    }

    /// What is drained met other policies than what came before: the configuration has changed, or its unit is known now.
    fn changes_verdict(&self, delta: &FlowDelta) -> bool {
        self.verdict != delta.verdict
    }

    /// What is drained was exchanged with another unit of this host than what came before.
    fn changes_host_end(&self, delta: &FlowDelta) -> bool {
        self.host_pu != 0 && delta.host_pu != 0 && self.host_pu != delta.host_pu && !self.is_provisional()
    }

    /// Its unit is a guess so far.
    fn is_provisional(&self) -> bool {
        self.how & how::PROVISIONAL != 0
    }

    /// Gives the counters what they are owed.
    fn book(&mut self, id: &FlowId, credits: &mut Credits, host_end: &impl Fn(&FlowId, u16) -> HostEnd) {
        if !self.open.is_empty() {
            let host_end = self.has_host_end().then(|| host_end(id, self.host_pu));
            credits.give(&mut self.open, self.pu, host_end);
        }
    }

    /// A socket of this host is one end of it, beside the unit whose boundary it crosses.
    pub fn has_host_end(&self) -> bool {
        self.how & how::HOST_END != 0
    }

    fn end(&mut self, ended: Ended, reset_by_local: Option<bool>, at: u64) {
        if self.ended != Ended::Live {
            return;
        }
        self.ended = ended;
        self.reset_by = match reset_by_local {
            None => ResetBy::Nobody,
            Some(local) if local == self.initiator.local => ResetBy::Source,
            Some(_) => ResetBy::Destination,
        };
        self.ended_at = at;
    }

    fn clear(&mut self) {
        self.packets = [0; 2];
        self.bytes = [0; 2];
        self.skbs = [0; 2];
        self.rejected = [0; 2];
        self.begun = 0;
    }

    /// The flags tell the end even where the event that told it was lost.
    fn end_by_flags(&mut self, at: u64) {
        let [received, sent] = self.tcp_flags;
        if (received | sent) & tcp::RST != 0 {
            self.end(Ended::Reset, Some(sent & tcp::RST != 0), at);
        } else if received & sent & tcp::FIN != 0 {
            self.end(Ended::Fin, None, at);
        }
    }

    /// A reset that answers the opening packet, and nothing else, refuses the connection.
    fn refine_end(&mut self) {
        let [received, sent] = self.tcp_flags;
        let (opener, answerer) = if self.initiator.local { (sent, received) } else { (received, sent) };
        let refused = opener & !tcp::SYN == 0 && opener & tcp::SYN != 0 && answerer & tcp::SYN == 0;
        if self.ended == Ended::Reset && self.reset_by == ResetBy::Destination && refused {
            self.ended = Ended::Refused;
        }
    }
}

/// Whether packets were counted that left this host by the flow's boundary.
fn has_left(delta: &FlowDelta, host_end: HostEnd) -> bool {
    delta.packets.get(if host_end.is_remote { RX } else { TX }).is_some_and(|packets| *packets != 0)
}

fn add(into: &mut [u64; 2], from: &[u64; 2], direction: usize) {
    if let (Some(into), Some(from)) = (into.get_mut(direction), from.get(direction)) {
        *into += from;
    }
}

/// What a table has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Socket buffers drained.
    pub skbs: u64,
    /// The same once more, of those of tunnels in whose inside a flow was counted.
    pub inside: u64,
    /// Records for which the table had no room: emitted at once, without a flow to belong to.
    pub stateless: u64,
    /// Flows whose user may be known and was not asked for, since too many were to be asked for at once.
    pub unasked: u64,
}

/// Flows whose users are asked for between two drains, at most: each takes a system call or two.
const ASKED: usize = 4096;

/// All flows that are remembered.
#[derive(Debug)]
pub struct Flows {
    lives: Lives,
    most: usize,
    known: HashMap<FlowId, Flow>,
    tally: Tally,
    credits: Credits,
    /// Of these the programs may know the user.
    to_ask: Vec<FlowId>,
}

impl Flows {
    /// A table of at most `most` flows.
    pub fn new(lives: Lives, most: usize) -> Self {
        Self {
            lives,
            most,
            known: HashMap::new(),
            tally: Tally::default(),
            credits: Credits::default(),
            to_ask: Vec::new(),
        }
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

    /// Takes out the flows whose user the programs may know by now, though no report has said it: the local end has answered,
    /// or the report was lost. Each is asked for once.
    pub fn take_to_ask(&mut self) -> Vec<FlowId> {
        mem::take(&mut self.to_ask)
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
    ///
    /// `host_end` names the unit at the host's end of a flow at the boundary of another one, of which the programs know the
    /// index, or 0.
    pub fn add(
        &mut self,
        delta: &FlowDelta,
        first: u64,
        last: u64,
        host_end: impl Fn(&FlowId, u16) -> HostEnd,
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
            flow.add(delta, first, last, &host_end);
            flow.book(&delta.id, &mut self.credits, &host_end);
            emit(&delta.id, &flow);
            return;
        }
        let flow = self.known.entry(delta.id).or_insert_with(new);
        if flow.end_told && delta.begun != 0 {
            // Another connection, whose beginning was not heard of; what is left of the one before is told first.
            flow.book(&delta.id, &mut self.credits, &host_end);
            if flow.pending() {
                emit(&delta.id, flow);
            }
            *flow = new();
        }
        if (flow.changes_hands(delta) || flow.changes_verdict(delta)) && flow.pending() {
            // The counters have given it to the unit of before.
            flow.book(&delta.id, &mut self.credits, &host_end);
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
            flow.book(&delta.id, &mut self.credits, &host_end);
        }
        flow.add(delta, first, last, &host_end);
        if flow.may_have_user(delta) {
            flow.owner = Owner::Asked;
            if self.to_ask.len() < ASKED {
                self.to_ask.push(delta.id);
            } else {
                self.tally.unasked += 1;
            }
        }
        // Where the beginning was heard of, so will be the end; and the flags of a delta that began a connection may be
        // those of the one before it.
        if delta.id.protocol == TCP && (delta.begun == 0 || !flow.first_is_exact) {
            flow.end_by_flags(last);
        }
    }

    /// Learns at once that a flow began or ended; what it counted comes with the next drain.
    pub fn learn(
        &mut self,
        news: &FlowNews,
        host_end: impl Fn(&FlowId, u16) -> HostEnd,
        mut emit: impl FnMut(&FlowId, &Flow),
    ) {
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
                    flow.book(&news.id, &mut self.credits, &host_end);
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
        host_end: impl Fn(&FlowId, u16) -> HostEnd,
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
                flow.book(id, credits, &host_end);
            }
            let guess_is_news = flow.is_provisional() && is_old && !flow.guess_told;
            if room == 0 {
                return true;
            }
            let ended = flow.ended != Ended::Live && flow.ended_at <= drained;
            let idle = now.saturating_sub(flow.last);
            let timed_out = !ended && flow.ended == Ended::Live && idle >= lives.of(id, flow);
            if timed_out {
                flow.end(if is_unanswered(id, flow) { Ended::Unanswered } else { Ended::Timeout }, None, now);
            }
            let end_is_news = (ended || timed_out && id.protocol == TCP) && !flow.end_told;
            if end_is_news || flow.pending() && (guess_is_news || ended || timed_out || now >= flow.due) {
                if ended {
                    flow.refine_end();
                }
                // The record says whose it is; the counters say the same.
                flow.book(id, credits, &host_end);
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

    /// Emits all that no record holds yet: the collector stops.
    pub fn cut_off(
        &mut self,
        host_end: impl Fn(&FlowId, u16) -> HostEnd,
        mut emit: impl FnMut(&FlowId, &Flow),
    ) {
        for (id, flow) in &mut self.known {
            flow.book(id, &mut self.credits, &host_end);
            if flow.pending() || flow.ended != Ended::Live && !flow.end_told {
                flow.refine_end();
                emit(id, flow);
                flow.end_told = flow.ended != Ended::Live;
                flow.clear();
            }
        }
    }
}

impl Lives {
    /// How long a flow may be silent.
    fn of(&self, id: &FlowId, flow: &Flow) -> u64 {
        if ICMP.contains(&id.protocol) {
            self.icmp
        } else if id.protocol == TCP && !is_unanswered(id, flow) {
            self.tcp
        } else {
            self.other
        }
    }
}

/// A TCP connection that was opened and never answered.
fn is_unanswered(id: &FlowId, flow: &Flow) -> bool {
    let [received, sent] = flow.tcp_flags;
    let answer = if flow.initiator.local { received } else { sent };
    id.protocol == TCP && answer == 0
}

#[cfg(test)]
mod tests;
