//! The packet of a run: what was read of it, and the circumstances.

use core::ptr;

use collector_ebpf::{
    abi::{
        flow::{TX, how},
        pu::{Role, role},
    },
    flow::initiator,
    wire::{transport::Transport, tunnel},
};

use super::unit_sent;
use crate::{
    Skb,
    family::Key,
    maps::SCRATCH,
    packet::{self, Wire},
};

/// A packet that was read. The key lies in as many of the words as its family needs.
///
/// There is one a run, in [`SCRATCH`]: the stack has no room for it, and what the verifier knows of numbers in a map is
/// nothing, so that the many ways through the parser end as one.
#[repr(C)]
pub(crate) struct Packet {
    pub(crate) key: [u64; 5],
    /// The role of the interface that it crosses.
    pub(crate) role: Role,
    pub(crate) now: u64,
    /// The control word: epoch and generation.
    pub(crate) word: u64,
    /// [`Control::policies_from`](collector_ebpf::abi::control::Control::policies_from); 0 where no policy holds for it.
    pub(crate) policies_from: u64,
    /// Where the headers end that segments repeat: as read, no further than [`SCRATCH`] reaches, and a header; or as the kernel says.
    pub(super) headers: u16,
    pub(crate) tcp_flags: u8,
    /// `LOCAL_INITIATED` and the evidence, if the flow begins with this packet.
    pub(crate) initiator: u8,
    /// `RX` or `TX`, as the local side sees it.
    pub(super) direction: u8,
    /// 1 if it was seen at an interface's egress.
    pub(super) egress: u8,
    /// 1 if the kernel's header of a jumbogram is to be taken off.
    pub(super) jumbo: u8,
    pub(crate) family: u8,
    /// 1 if it is a tunnel's, and what is inside is wanted.
    pub(crate) carries: u8,
    /// 1 if it lies inside of a tunnel's.
    pub(crate) inside: u8,
    /// Where the packet's own transport header ends, whatever is inside.
    pub(super) transport_end: u16,
    /// Octets of a tunnel before what it carries, where that is counted by itself.
    pub(super) before: u16,
    /// Octets of the link layer's header that the buffer is without.
    pub(crate) lost: u8,
    /// Not 0 if it is an ICMP error, and [`Scratch::quoted`](crate::maps::Scratch::quoted) is the flow that it quotes: one of
    /// those of [`quote`].
    pub(crate) quotes: u8,
    /// Not 0 if it is not understood: one more than the index of the reason. With a family, its key has the ends.
    pub(crate) fault: u8,
}

impl Packet {
    /// The packet of this run. Nobody holds what an earlier call returned any more.
    #[inline(always)]
    pub(crate) fn of_run() -> Option<&'static mut Self> {
        let scratch = SCRATCH.get_ptr_mut(0)?;
        // SAFETY: the entry is live for the run, and this CPU's own while softirqs are off; any bits are a packet.
        Some(unsafe { &mut (*scratch).packet })
    }

    /// Begins it, of which only the circumstances are known.
    #[inline(always)]
    pub(crate) fn begin<const EGRESS: bool>(&mut self, role: &Role, word: u64, now: u64, policies_from: u64) {
        // One by one: LLVM would make the whole on the stack first. The key is written when it is read.
        self.role = *role;
        self.now = now;
        self.word = word;
        self.policies_from = policies_from;
        self.headers = 0;
        self.tcp_flags = 0;
        self.initiator = 0;
        self.direction = 0;
        self.egress = u8::from(EGRESS);
        self.jumbo = 0;
        self.family = 0;
        self.quotes = 0;
        self.carries = 0;
        self.inside = 0;
        self.transport_end = 0;
        self.before = 0;
        self.lost = 0;
        self.fault = 0;
    }

    /// Where the transport header ends.
    #[inline(always)]
    pub(crate) fn headers(&self) -> u32 {
        u32::from(self.headers)
    }

    /// Seen at an interface's egress.
    #[inline(always)]
    pub(crate) fn is_leaving(&self) -> bool {
        self.egress != 0
    }

    /// The key, as the family that it was read for.
    #[inline(always)]
    pub(crate) fn key<K: Key>(&self) -> &K {
        // SAFETY: both keys are words without padding, and the greater fills the array.
        unsafe { &*ptr::from_ref(&self.key).cast::<K>() }
    }

    /// The word of the key that both families have last: ports, boundary, protocol.
    #[inline(always)]
    pub(crate) fn rest<K: Key>(&self) -> u64 {
        let [_, rest_4, _, _, rest_6] = self.key;
        if K::FAMILY == 4 { rest_4 } else { rest_6 }
    }

    /// Changes that word.
    #[inline(always)]
    pub(crate) fn set_rest<K: Key>(&mut self, rest: u64) {
        let [_, rest_4, _, _, rest_6] = &mut self.key;
        *(if K::FAMILY == 4 { rest_4 } else { rest_6 }) = rest;
    }

    /// `RX` or `TX`. Masked, for the verifier does not know what was written to memory.
    #[inline(always)]
    pub(crate) fn direction(&self) -> usize {
        usize::from(self.direction & 1)
    }

    /// The local side sent the packet.
    #[inline(always)]
    pub(crate) fn sent(&self) -> bool {
        self.direction() == TX
    }

    /// The local end lies beyond the interface: this host is the other one.
    #[inline(always)]
    pub(crate) fn is_far(&self) -> bool {
        self.role.flags & role::FAR != 0
    }

    /// What it stands for on the wire.
    #[inline(always)]
    pub(crate) fn wire(&self, skb: Skb) -> Wire {
        let wire = packet::wire(skb, self.headers(), self.jumbo != 0);
        if self.before == 0 {
            // Each segment has one of its own.
            Wire { bytes: wire.bytes + u64::from(self.lost) * u64::from(wire.packets), ..wire }
        } else {
            packet::without(skb, wire, u32::from(self.before))
        }
    }

    /// Where the transport header ends of the packet itself; the [`headers`](Self::headers) that segments repeat may reach
    /// further.
    #[inline(always)]
    pub(crate) fn transport_end(&self) -> u32 {
        u32::from(self.transport_end)
    }

    /// It becomes what a tunnel carries behind `before` octets.
    #[inline(always)]
    pub(crate) fn enter(&mut self, before: u32) {
        self.inside = 1;
        self.before = before as u16;
        self.quotes = 0;
        self.policies_from = 0;
    }

    /// Exchanges the ends of what is inside of a tunnel's packet where the local one did not send that.
    #[inline(always)]
    pub(crate) fn orient_inside<K: Key>(&mut self) {
        // Nothing in it is a tunnel once more that anybody asks about.
        self.carries = 0;
        if !self.sent() {
            // SAFETY: both keys are words without padding, and the greater fills the array.
            unsafe { (*ptr::from_mut(&mut self.key).cast::<K>()).turn() };
            self.initiator ^= how::LOCAL_INITIATED;
        }
    }

    /// Says whether the kernel's header of a jumbogram is to be taken off.
    #[inline(always)]
    pub(crate) fn set_jumbo(&mut self, jumbo: bool) {
        self.jumbo = u8::from(jumbo);
    }

    /// What was read, as if the local end had sent it.
    #[inline(always)]
    pub(crate) fn set<K: Key>(&mut self, key: K, transport: &Transport, jumbo: bool) {
        // SAFETY: both keys are words without padding, and the greater fills the array.
        unsafe { ptr::from_mut(&mut self.key).cast::<K>().write(key) };
        self.headers = transport.headers as u16;
        self.transport_end = transport.headers as u16;
        self.carries = u8::from(self.role.flags & role::INNER != 0 && tunnel::is_tunnel(transport));
        self.tcp_flags = transport.tcp_flags;
        self.initiator = initiator(transport);
        self.family = K::FAMILY;
        self.jumbo = u8::from(jumbo);
    }

    /// Exchanges the ends where the local one did not send the packet. On loopback both are local, and the
    /// lesser stands for it, so that both directions meet in one flow.
    #[inline(always)]
    pub(crate) fn orient<K: Key, const EGRESS: bool>(&mut self) {
        // SAFETY: as above.
        let key = unsafe { &mut *ptr::from_mut(&mut self.key).cast::<K>() };
        let sent = if self.role.flags & role::LOOPBACK != 0 {
            // An echo to oneself has the same ends both ways: its request is what was sent.
            if key.is_symmetric() { self.initiator & how::LOCAL_INITIATED != 0 } else { key.is_in_order() }
        } else {
            unit_sent::<EGRESS>(&self.role)
        };
        self.direction = u8::from(sent);
        if !sent {
            key.turn();
            self.initiator ^= how::LOCAL_INITIATED;
        }
    }
}
