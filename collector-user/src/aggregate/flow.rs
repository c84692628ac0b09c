//! One flow over its life: whose it is, what was counted for it since its last record, and how it ends.

use collector_ebpf::{
    abi::{
        flow::{RX, TX, how},
        network,
        pu::index,
    },
    wire::tcp,
};

use super::{
    booking::{Credits, HostEnd, Open, Owners},
    initiator::{self, Initiator},
    lives::Lives,
};
use crate::{
    drain::flow::{FlowDelta, FlowId},
    event::{Ended, ResetBy},
};

/// The IP protocol number of TCP.
pub(super) const TCP: u8 = 6;
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
    pub(super) fn or(self, told: Option<u32>) -> Self {
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
    pub(super) ended_at: u64,
    /// Its end stands in a record.
    pub(super) end_told: bool,
    /// That its unit is a guess stands in a record.
    pub(super) guess_told: bool,
    /// The programs have reported the first packet.
    pub(super) first_is_exact: bool,
    /// When its next record falls due while it lives.
    pub(super) due: u64,
    /// What it has counted and no unit has been given.
    pub(super) open: Open,
}

impl Flow {
    pub(super) fn new(
        id: &FlowId,
        (how, pu, host_pu): (u8, u16, u16),
        interface: u16,
        first: u64,
        report: u64,
    ) -> Self {
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
    pub(super) fn pending(&self) -> bool {
        self.begun != 0 || self.packets != [0; 2] || self.rejected != [0; 2]
    }

    pub(super) fn add(&mut self, delta: &FlowDelta, first: u64, last: u64, owners: &impl Owners) {
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
            let kept = if differs && !has_left(delta, owners.host_end(&delta.id, delta.host_pu)) {
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
    pub(super) fn may_have_user(&self, delta: &FlowDelta) -> bool {
        self.owner == Owner::Unknown
            && delta.packets.get(TX).is_some_and(|sent| *sent != 0)
            && self.pu != index::FORWARDED
            && !network::is_inside(delta.id.boundary)
    }

    /// What is drained was counted for another unit than what came before: an interface has another role, an address
    /// another owner.
    pub(super) fn changes_hands(&self, delta: &FlowDelta) -> bool {
        (self.how | delta.how) & how::PROVISIONAL == 0 && self.pu != delta.pu
    }

    /// What is drained met other policies than what came before: the configuration has changed, or its unit is known now.
    pub(super) fn changes_verdict(&self, delta: &FlowDelta) -> bool {
        self.verdict != delta.verdict
    }

    /// What is drained was exchanged with another unit of this host than what came before.
    pub(super) fn changes_host_end(&self, delta: &FlowDelta) -> bool {
        self.host_pu != 0 && delta.host_pu != 0 && self.host_pu != delta.host_pu && !self.is_provisional()
    }

    /// Its unit is a guess so far.
    pub(super) fn is_provisional(&self) -> bool {
        self.how & how::PROVISIONAL != 0
    }

    /// Its unit has the socket at its local end; or had: nothing says by what a flow is a unit's whose identity was to be asked
    /// for anew, until it is.
    pub(super) const fn is_by_socket(&self) -> bool {
        matches!(how::attributed_by(self.how), how::BY_SOCKET | how::BY_NONE)
    }

    /// Whose it is may be told otherwise by the next packet, whichever that is.
    pub(super) const fn open_again(&mut self) {
        self.how |= how::PROVISIONAL;
    }

    /// Gives the counters what they are owed.
    pub(super) fn book(&mut self, id: &FlowId, credits: &mut Credits, owners: &impl Owners) {
        if !self.open.is_empty() {
            let host_end = self.has_host_end().then(|| owners.host_end(id, self.host_pu));
            credits.give(&mut self.open, self.pu, host_end);
        }
    }

    /// A socket of this host is one end of it, beside the unit whose boundary it crosses.
    pub fn has_host_end(&self) -> bool {
        self.how & how::HOST_END != 0
    }

    pub(super) fn end(&mut self, ended: Ended, reset_by_local: Option<bool>, at: u64) {
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

    pub(super) fn clear(&mut self) {
        self.packets = [0; 2];
        self.bytes = [0; 2];
        self.skbs = [0; 2];
        self.rejected = [0; 2];
        self.begun = 0;
    }

    /// The flags tell the end even where the event that told it was lost.
    pub(super) fn end_by_flags(&mut self, at: u64) {
        let [received, sent] = self.tcp_flags;
        if (received | sent) & tcp::RST != 0 {
            self.end(Ended::Reset, Some(sent & tcp::RST != 0), at);
        } else if received & sent & tcp::FIN != 0 {
            self.end(Ended::Fin, None, at);
        }
    }

    /// A reset that answers the opening packet, and nothing else, refuses the connection.
    pub(super) fn refine_end(&mut self) {
        let [received, sent] = self.tcp_flags;
        let (opener, answerer) = if self.initiator.local { (sent, received) } else { (received, sent) };
        let refused = opener & !tcp::SYN == 0 && opener & tcp::SYN != 0 && answerer & tcp::SYN == 0;
        if self.ended == Ended::Reset && self.reset_by == ResetBy::Destination && refused {
            self.ended = Ended::Refused;
        }
    }

    /// A TCP connection that was opened and never answered.
    pub(super) fn is_unanswered(&self, id: &FlowId) -> bool {
        let [received, sent] = self.tcp_flags;
        let answer = if self.initiator.local { received } else { sent };
        id.protocol == TCP && answer == 0
    }

    /// How long it may be silent.
    pub(super) fn may_be_silent(&self, id: &FlowId, lives: &Lives) -> u64 {
        if ICMP.contains(&id.protocol) {
            lives.icmp
        } else if id.protocol == TCP && !self.is_unanswered(id) {
            lives.tcp
        } else {
            lives.other
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
