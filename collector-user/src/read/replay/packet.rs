//! A frame as the packet of a flow, and what it stands for on the wire.

use collector_ebpf::{
    abi::counter::{DirectionCounters, Unparsed},
    flow::key::{key4, key6},
    wire::{
        ethernet::{ETHERTYPE_IPV4, Layer2},
        fragment::Piece,
        ipv4, ipv6, short,
        transport::Transport,
        tunnel,
    },
};

use super::table::Key;
use crate::read::{
    container::{Record, links},
    link::{self, Begin},
    seen::frame,
};

/// A packet that was understood.
#[derive(Clone, Copy)]
pub(super) struct Packet {
    pub(super) key: Key,
    pub(super) transport: Transport,
    pub(super) piece: Option<Piece>,
}

/// Reads a frame: the form that makes up nearly all traffic in one look, as the programs do, and any other step by step.
#[inline]
pub(super) fn read(record: &Record<'_>) -> (Begin, Result<Packet, Unparsed>) {
    if record.link == links::ETHERNET
        && let Some(packet) = in_one_look(record)
    {
        return (Begin::WHOLE, Ok(packet));
    }
    let (begin, layer2) = link::layer2(record.octets, record.link);
    (begin, layer2.and_then(|layer2| packet(record, layer2)))
}

#[inline]
fn in_one_look(record: &Record<'_>) -> Option<Packet> {
    const UNTAGGED: u16 = 0;
    let bytes = &record.octets;
    let (key, transport) = if let Some(ip) = short::ipv4(bytes, record.length) {
        (Key::V4(key4(UNTAGGED, &ip)), ip.transport)
    } else {
        let ip = short::ipv6(bytes, record.length)?;
        (Key::V6(key6(UNTAGGED, &ip)), ip.transport)
    };
    Some(Packet { key, transport, piece: None })
}

/// Reads what lies behind layer 2.
pub(super) fn packet(record: &Record<'_>, layer2: Layer2) -> Result<Packet, Unparsed> {
    let frame = frame(record, layer2);
    let bytes = &record.octets;
    if layer2.ethertype == ETHERTYPE_IPV4 {
        let ip = ipv4::parse(bytes, layer2.next, frame)?;
        Ok(Packet { key: Key::V4(key4(layer2.vlan, &ip)), transport: ip.transport, piece: ip.piece })
    } else {
        let ip = ipv6::parse(bytes, layer2.next, frame)?;
        Ok(Packet { key: Key::V6(key6(layer2.vlan, &ip)), transport: ip.transport, piece: ip.piece })
    }
}

/// What a frame stands for on the wire: a super-packet's segments repeat its headers.
#[inline]
pub(super) fn wire(record: &Record<'_>, begin: Begin, transport: &Transport) -> DirectionCounters {
    let packets = u64::from(record.marks.packets);
    let bytes = u64::from(begin.on_wire(record.length));
    if packets == 1 {
        return DirectionCounters { packets, bytes, skbs: 1 };
    }
    let [_, _, high, low] = transport.ports;
    let port = u16::from_be_bytes([high, low]);
    let headers = tunnel::innermost(&record.octets, transport.protocol, port, transport.headers);
    let repeated = u64::from(begin.on_wire(headers)) * (packets - 1);
    DirectionCounters { packets, bytes: bytes + repeated, skbs: 1 }
}
