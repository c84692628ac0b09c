//! A packet of a flow, and what it carries of another one.

use collector_ebpf::{
    abi::counter::DirectionCounters,
    flow::initiator,
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
    packet::{Packet, packet, wire},
    table::Key,
    waiting::Waiting,
};
use crate::read::{container::Record, link::Begin};

impl Replay<'_> {
    #[inline]
    pub(super) fn count(&mut self, record: &Record<'_>, begin: Begin, packet: &Packet) {
        let Packet { mut key, transport, piece } = *packet;
        let time = record.time.map_or(self.now, |time| self.clock(time));
        self.tie(&mut key, piece, time);
        let wire = wire(record, begin, &transport);
        let opened = initiator(&transport);
        let whose = self.locals.of(&key, record.direction.or(begin.direction), opened);
        let tcp_flags = transport.tcp_flags;
        self.wait(Waiting { key, whose, opened, tcp_flags, wire, time, is_inside: false });
        if self.looks_inside && tunnel::is_tunnel(&transport) {
            self.ledger.inner_seen += 1;
            if self.count_inside(record, begin, (&transport, wire), whose.sent, time).is_none() {
                self.ledger.inner_unparsed += 1;
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

    /// Counts what a tunnel's packet carries, which the same end sent; `None` where that is nothing that is understood.
    fn count_inside(
        &mut self,
        record: &Record<'_>,
        begin: Begin,
        (transport, wire): (&Transport, DirectionCounters),
        sent: bool,
        time: u64,
    ) -> Option<()> {
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
        let (opened, tcp_flags) = (initiator(&transport), transport.tcp_flags);
        let whose = self.locals.inside(&key, sent);
        self.wait(Waiting { key, whose, opened, tcp_flags, wire, time, is_inside: true });
        Some(())
    }
}
