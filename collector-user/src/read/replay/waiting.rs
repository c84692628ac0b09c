//! Packets that wait to be counted, a few at a time: what is known of their flows lies far apart in memory, and who asks for all
//! of it at once waits for it once.

use std::mem;

use collector_ebpf::{
    abi::{
        counter::DirectionCounters,
        flow::{RX, TX, how},
        report::kind,
    },
    flow::connection,
};

use super::{
    Replay,
    locals::Whose,
    table::{Amount, Entry, Key},
};
use crate::drain::decode::FlowNews;

/// Packets that wait at most.
const MOST: usize = 64;

/// A packet that was read.
pub(super) struct Waiting {
    /// That of its flow, as if its sender were the local end.
    pub(super) key: Key,
    /// Whose that is.
    pub(super) whose: Whose,
    /// Who opened it, if it begins with this packet: bits of [`how`], as if its sender were the local end.
    pub(super) opened: u8,
    pub(super) tcp_flags: u8,
    /// What it stands for.
    pub(super) wire: DirectionCounters,
    pub(super) time: u64,
    /// It lies inside of a tunnel's packet, which is counted by itself.
    pub(super) is_inside: bool,
}

/// The same, and where its flow is.
pub(super) struct Sought {
    packet: Waiting,
    hash: u32,
    /// What may be the number of its flow.
    guess: Option<u32>,
}

impl Replay<'_> {
    /// Has a packet wait until there are enough, or somebody wants to know what was counted.
    #[inline]
    pub(super) fn wait(&mut self, mut packet: Waiting) {
        packet.key.turn_unless(packet.whose.sent);
        packet.opened ^= if packet.whose.sent { 0 } else { how::LOCAL_INITIATED };
        let hash = self.table.hash(&packet.key);
        self.waiting.push(Sought { packet, hash, guess: None });
        if self.waiting.len() >= MOST {
            self.count_waiting();
        }
    }

    /// Counts all that wait, in the order in which they were read.
    pub(super) fn count_waiting(&mut self) {
        let mut waiting = mem::take(&mut self.waiting);
        for Sought { hash, guess, .. } in &mut waiting {
            *guess = self.table.guess(*hash);
        }
        self.table.fetch(waiting.iter().filter_map(|sought| sought.guess));
        for sought in waiting.drain(..) {
            if !self.book(&sought) {
                self.lose(&sought.packet);
            }
        }
        self.waiting = waiting;
    }

    /// No flow holds this packet.
    #[cold]
    fn lose(&mut self, packet: &Waiting) {
        if packet.is_inside {
            self.ledger.inner_lost += 1;
            return;
        }
        self.ledger.table_full += 1;
        self.count_flowless(packet.whose.pu, if packet.whose.sent { TX } else { RX }, packet.wire);
    }

    /// Counts a packet in its flow; whether there was room.
    fn book(&mut self, sought: &Sought) -> bool {
        let Sought { packet, hash, guess } = sought;
        let Waiting { key, whose: Whose { pu, how: by, sent }, opened, tcp_flags, time, .. } = *packet;
        let bits = by | opened;
        let known = self.table.find_by(*guess, &key, *hash);
        let met = || Entry::met(key, pu, bits, tcp_flags, sent, time);
        let Some(number) = known.or_else(|| self.table.add(*hash, met())) else { return false };
        let Some(entry) = self.table.entry(number) else { return false };
        let is_new = known.is_none();
        let told = if is_new { 0 } else { entry.follow(tcp_flags, sent) };
        let begins = is_new || told == kind::START;
        // What was counted before a connection began again is the one's before.
        let before = (told == kind::START).then(|| entry.take()).flatten();
        if begins {
            entry.how = bits;
            entry.begun += u8::from(connection::begins(tcp_flags));
        }
        let how = entry.how;
        let DirectionCounters { packets, bytes, .. } = packet.wire;
        entry.add(&Amount { direction: if sent { TX } else { RX }, packets, bytes, tcp_flags, time });
        if let Some((delta, first, last)) = before {
            self.add(&delta, first, last);
        }
        if begins || told != 0 {
            let kind = if begins { kind::START } else { told };
            let id = key.id();
            self.learn(&FlowNews { id, boot_ns: time, pu, interface: 0, kind, how, host_pu: 0, user: None });
        }
        true
    }
}
