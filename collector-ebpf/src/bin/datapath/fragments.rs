//! The flow of a fragment. Only the first one of a datagram shows ports; those that follow it are counted in its flow.
//!
//! What the first one said is remembered for as long as a receiver would wait for the rest. A later one that comes
//! before it, or without it, is in a flow without ports of its own, and the ledger counts it: ports are never guessed.

use aya_ebpf::helpers::bpf_jiffies64;
use collector_ebpf::wire::fragment::Piece;

use crate::{
    count::ledger,
    family::Key,
    maps::{FRAGMENTS, SCRATCH, Scratch},
    read::Packet,
    settings::FRAGMENT_TICKS,
};

/// The datagram that a fragment is a piece of, as its sender has it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Datagram {
    source: [u8; 16],
    destination: [u8; 16],
    id: u32,
    /// Fragments of one datagram may cross more than one boundary, each of which has its own flow.
    boundary: u16,
    /// That of [`Piece`].
    protocol: u8,
    family: u8,
}

/// What its first fragment said.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Said {
    /// The word of the key with ports, boundary and protocol.
    rest: u64,
    /// Low 32 bits of the tick.
    at: u32,
    _pad: u32,
}

/// The piece that the packet is, as it stands in [`Scratch::piece`]: 0 for what is none.
#[inline(always)]
pub(crate) fn packed(piece: Option<Piece>) -> u64 {
    const FIRST: u64 = 1 << 32;
    const LATER: u64 = 2 << 32;
    piece.map_or(0, |piece| {
        u64::from(piece.id)
            | if piece.first { FIRST } else { LATER }
            | u64::from(piece.protocol) << PROTOCOL_SHIFT
    })
}

const PROTOCOL_SHIFT: u32 = 40;

/// Remembers what a first fragment says, and gives a later one what was said. 0.
#[inline(never)]
pub(crate) fn tie<K: Key>(packet: &mut Packet) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: the entry is live for the run, and this CPU's own.
    let piece = unsafe { (*scratch).piece };
    if piece == 0 || packet.family != K::FAMILY {
        return 0;
    }
    // SAFETY: as above. Written there because the stack has no room for it.
    let datagram = unsafe {
        name::<K>(scratch, packet, piece);
        &(*scratch).datagram
    };
    // SAFETY: no arguments, no memory.
    let now = unsafe { bpf_jiffies64() } as u32;
    if piece >> 32 & 1 != 0 {
        // Where the table takes no more, the fragments that follow are counted as what they are: alone.
        let _ = FRAGMENTS.insert(datagram, &Said { rest: packet.rest::<K>(), at: now, _pad: 0 }, 0);
        return 0;
    }
    // SAFETY: a value may be written meanwhile; then it is another datagram's that has just begun.
    if let Some(said) = unsafe { FRAGMENTS.get(datagram) }
        && now.wrapping_sub(said.at) < FRAGMENT_TICKS.load()
    {
        packet.set_rest::<K>(said.rest);
        return 0;
    }
    ledger(|ledger| ledger.orphan_fragments += 1);
    0
}

/// Writes the datagram's name.
///
/// # Safety
///
/// The entry is live, and this CPU's own.
#[inline(always)]
unsafe fn name<K: Key>(scratch: *mut Scratch, packet: &Packet, piece: u64) {
    let key = packet.key::<K>();
    let rest = key.rest();
    // SAFETY: the caller's promise.
    unsafe {
        let datagram = &raw mut (*scratch).datagram;
        (*datagram).source = key.local();
        (*datagram).destination = key.remote();
        (*datagram).id = piece as u32;
        (*datagram).boundary = rest.boundary;
        (*datagram).protocol = (piece >> PROTOCOL_SHIFT) as u8;
        (*datagram).family = K::FAMILY;
    }
}
