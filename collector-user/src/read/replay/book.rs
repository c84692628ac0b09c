//! A packet in its flow, and what it carries in another one.

use collector_ebpf::{
    abi::{
        counter::DirectionCounters,
        flow::{RX, TX, how},
        report::kind,
    },
    flow::{connection, initiator},
    wire::{
        bytes::Bytes as _,
        ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Layer2},
        fragment::Piece,
        transport::Transport,
        tunnel,
    },
};

use super::{
    Replay,
    locals::Whose,
    packet::{Packet, packet, wire},
    table::{Amount, Entry, Key},
};
use crate::{
    drain::decode::FlowNews,
    read::{container::Record, link::Begin},
};

impl Replay<'_> {
    pub(super) fn count(&mut self, record: &Record<'_>, begin: Begin, packet: &Packet) {
        let Packet { mut key, transport, piece } = *packet;
        let time = record.time.map_or(self.now, |time| self.clock(time));
        self.tie(&mut key, piece, time);
        let wire = wire(record, begin, &transport);
        let opened = initiator(&transport);
        let whose = self.locals.of(&key, record.direction.or(begin.direction), opened);
        if !self.book(key, &transport, wire, whose, time) {
            self.ledger.table_full += 1;
            self.count_flowless(whose.pu, if whose.sent { TX } else { RX }, wire);
        }
        if self.looks_inside && tunnel::is_tunnel(&transport) {
            self.ledger.inner_seen += 1;
            match self.count_inside(record, begin, (&transport, wire), whose.sent, time) {
                Some(true) => {}
                Some(false) => self.ledger.inner_lost += 1,
                None => self.ledger.inner_unparsed += 1,
            }
        }
    }

    fn tie(&mut self, key: &mut Key, piece: Option<Piece>, time: u64) {
        if let Some(piece) = piece
            && !self.fragments.tie(key, piece, time)
        {
            self.ledger.orphan_fragments += 1;
        }
    }

    /// Counts what a tunnel's packet carries, which the same end sent; whether there was room, or nothing that is understood.
    fn count_inside(
        &mut self,
        record: &Record<'_>,
        begin: Begin,
        (transport, wire): (&Transport, DirectionCounters),
        sent: bool,
        time: u64,
    ) -> Option<bool> {
        let bytes = &record.octets;
        let [_, _, high, low] = transport.ports;
        let port = u16::from_be_bytes([high, low]);
        let inside = tunnel::inside(bytes, transport.protocol, port, transport.headers)?;
        let boundary = self.networks.number(inside.kind, inside.id)?;
        self.scribe.networks.entry(boundary).or_insert((inside.kind, inside.id));
        let [version_length] = bytes.array(inside.packet)?;
        let ethertype = if version_length >> 4 == 4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        let layer2 = Layer2 { ethertype, vlan: boundary, next: inside.packet };
        let Packet { mut key, transport, piece } = packet(record, layer2).ok()?;
        self.tie(&mut key, piece, time);
        let before = u64::from(begin.on_wire(inside.frame)) * wire.packets;
        let wire = DirectionCounters { bytes: wire.bytes.saturating_sub(before), ..wire };
        let whose = self.locals.inside(&key, sent);
        Some(self.book(key, &transport, wire, whose, time))
    }

    /// Counts a packet in its flow, whose key is as if its sender were the local end; whether there was room.
    fn book(
        &mut self,
        mut key: Key,
        transport: &Transport,
        wire: DirectionCounters,
        whose: Whose,
        time: u64,
    ) -> bool {
        let Whose { pu, how: by, sent } = whose;
        let mut opened = initiator(transport);
        if !sent {
            key.turn();
            opened ^= how::LOCAL_INITIATED;
        }
        let (bits, tcp_flags) = (by | opened, transport.tcp_flags);
        let met = || Entry::met(pu, bits, tcp_flags, sent, time);
        let Some((entry, is_new)) = self.table.entry(key, met) else { return false };
        let told = if is_new { 0 } else { entry.state.follow(tcp_flags, sent) };
        let begins = is_new || told == kind::START;
        // What was counted before a connection began again is the one's before.
        let before = (told == kind::START).then(|| entry.take(key)).flatten();
        if begins {
            entry.how = bits;
            entry.begun += u64::from(connection::begins(tcp_flags));
        }
        let how = entry.how;
        let DirectionCounters { packets, bytes, .. } = wire;
        entry.add(&Amount { direction: if sent { TX } else { RX }, packets, bytes, tcp_flags, time });
        if let Some(delta) = before {
            self.add(&delta);
        }
        if begins || told != 0 {
            let kind = if begins { kind::START } else { told };
            let id = key.id();
            self.learn(&FlowNews { id, boot_ns: time, pu, interface: 0, kind, how, host_pu: 0, user: None });
        }
        true
    }
}
