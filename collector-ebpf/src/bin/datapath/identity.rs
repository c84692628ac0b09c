//! Who a flow belongs to and how it began: found at a miss, made at its first packet, followed to TCP's end.

use core::ptr;

use aya_ebpf::{bindings::BPF_NOEXIST, programs::TcContext};
use aya_log_ebpf::warn;
pub(crate) use collector_ebpf::flow::INITIATOR_BITS;
use collector_ebpf::{
    abi::{
        control::Control,
        counter::{Budget, ONE_FLOW},
        flow::{FlowKey4, FlowKey6, Identity, how},
        policy::verdict,
        pu::{index, role},
        report::kind,
    },
    flow::connection::{self, fins},
    wire::tcp,
};

use crate::{
    Skb, atomic,
    classify::{self, Attribution},
    count::{ledger, unit},
    family::Key,
    maps::ASKED,
    packet::forget_both,
    quote,
    read::Packet,
    report,
    settings::{FLOWS_BURST, FLOWS_PER_TICK},
    socket, user,
};

/// Who a packet's flow belongs to.
#[derive(Clone, Copy)]
pub(crate) struct Who {
    pub(crate) pu: u16,
    /// Bits of [`how`].
    pub(crate) how: u8,
    /// A new flow beyond its unit's budget.
    pub(crate) refused: bool,
    /// What to tell user space: 0 or one of [`kind`].
    pub(crate) event: u8,
    /// The unit at the other end on this host, as in an identity.
    pub(crate) host_pu: u16,
    /// What the policies say of it, once they were [asked](crate::policy::ask): a [`verdict`].
    pub(crate) verdict: u32,
}

impl Who {
    /// A subprogram returns one register.
    #[inline(always)]
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.pu)
            | u64::from(self.how) << 16
            | u64::from(self.event) << 24
            | u64::from(self.has(verdict::DROP)) << 29
            | u64::from(self.has(verdict::OTHER_END)) << 30
            | u64::from(self.refused) << 31
            | u64::from(self.host_pu) << 32
            | u64::from(self.verdict & verdict::NUMBER) << 48
    }

    #[inline(always)]
    const fn has(self, bit: u32) -> bool {
        self.verdict & bit != 0
    }

    /// A policy rejects the packet, and it is to be dropped.
    #[inline(always)]
    pub(crate) const fn is_dropped(self) -> bool {
        self.has(verdict::DROP)
    }

    /// That is a policy of the unit at the other end.
    #[inline(always)]
    pub(crate) const fn is_by_other(self) -> bool {
        self.has(verdict::OTHER_END)
    }

    /// The number of its verdict.
    #[inline(always)]
    pub(crate) const fn number(self) -> u16 {
        (self.verdict & verdict::NUMBER) as u16
    }

    /// A connection began with this packet.
    #[inline(always)]
    pub(crate) fn began(self) -> bool {
        self.event == kind::START
    }

    /// What [`pack`](Self::pack) made.
    #[inline(always)]
    pub(crate) fn unpack(packed: u64) -> Self {
        Self {
            pu: packed as u16,
            how: (packed >> 16) as u8,
            event: (packed >> 24) as u8 & 0x1F,
            refused: packed >> 31 & 1 != 0,
            host_pu: (packed >> 32) as u16,
            verdict: (packed >> 48) as u32
                | ((packed >> 29 & 1) as u32 * verdict::DROP)
                | ((packed >> 30 & 1) as u32 * verdict::OTHER_END),
        }
    }
}

/// Finds the identity of the flow of this run's packet, or makes it: a [`Who`], packed.
#[inline(always)]
pub(crate) fn identify<K: Key>(skb: Skb) -> u64 {
    if K::FAMILY == FlowKey4::FAMILY { identify_4(skb) } else { identify_6(skb) }
}

/// The same for IPv4. A global function, so that it is verified once, and not behind every way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn identify_4(skb: Skb) -> u64 {
    Packet::of_run().map_or(0, |packet| find::<FlowKey4>(skb, packet))
}

/// The same for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn identify_6(skb: Skb) -> u64 {
    Packet::of_run().map_or(0, |packet| find::<FlowKey6>(skb, packet))
}

#[inline(always)]
fn find<K: Key>(skb: Skb, packet: &Packet) -> u64 {
    let mut identity = known::<K>(packet);
    user::begin();
    // Asked in one place: what follows from each place would be verified by itself.
    let mut attribution = quote::unit::<K>(packet);
    if attribution == 0 && (packet.quotes == quote::TELLS_UNIT || asks(packet, identity)) {
        attribution = classify::classify::<K>(skb);
    }
    let attribution = forget_both(skb, attribution);
    let mut is_news = attribution != 0;
    if identity.is_null() {
        let attribution = Attribution::unpack(attribution);
        let (how, begun) = begin::<K>(skb, packet, attribution);
        let (pu, host_pu) = (attribution.pu, attribution.host_pu);
        let mut who = Who { pu, how, refused: false, event: 0, host_pu, verdict: 0 };
        match begun {
            Begun::Refused => who.refused = true,
            Begun::Kept => who.event = kind::START,
            Begun::Lost => {
                identity = known::<K>(packet);
                // What the other CPU has found is as good, unless this packet leaves.
                is_news = packet.is_leaving();
            }
        }
        if identity.is_null() {
            return who.pack();
        }
    }
    // SAFETY: the entry is memory of the map for the run. It may be evicted and given to another flow meanwhile:
    // then that flow's unit or end is wrong until its configuration changes or it ends, which takes an eviction
    // within these few instructions. What several CPUs write at once is either the same or added atomically.
    unsafe {
        if is_news {
            belong(packet, identity, attribution);
        }
        if (*identity).user == 0 || begins_again(packet, identity) {
            (*identity).user = user::user_here(skb);
        }
        user::tell((*identity).user);
        let event = follow_tcp(packet, identity);
        if (*identity).newcomer != 0 {
            settle_down::<K>(packet, identity);
        }
        let Identity { pu, how, host_pu, .. } = *identity;
        Who { pu, how, refused: false, event, host_pu, verdict: 0 }.pack()
    }
}

/// Writes down who the flow belongs to: an [`Attribution`] in one number. 0.
///
/// # Safety
///
/// The identity is live.
#[inline(never)]
unsafe fn belong(packet: &Packet, identity: *mut Identity, attribution: u64) -> u32 {
    let found = Attribution::unpack(attribution);
    // SAFETY: the caller's promise.
    unsafe {
        let is_decided = (*identity).decided != 0 && !begins_again(packet, identity);
        let found = if is_answered_for(packet, found, identity) {
            Attribution::of((*identity).pu, (*identity).how & !how::PROVISIONAL)
        } else {
            found
        };
        (*identity).pu = found.pu;
        // What comes in by a boundary cannot tell of the host's end what has left by it.
        let kept = if packet.is_leaving() || !is_decided { 0 } else { how::HOST_END };
        let before = (*identity).how;
        (*identity).how = found.put_into(before) & !kept | before & kept;
        if kept == 0 || found.host_pu != 0 && before & kept != 0 {
            (*identity).host_pu = found.host_pu;
        }
        (*identity).generation = Control::generation(packet.word);
        if (*identity).newcomer == 0 {
            (*identity).swap = Control::swaps(packet.word);
        }
        (*identity).decided = u8::from(packet.is_leaving() || is_decided);
    }
    0
}

/// Whether a packet leaves of which no socket is known, for a flow that one has taken: the kernel refuses what the socket has
/// no room for, or answers what comes after the end. That is the socket's unit's, too.
#[inline(always)]
fn is_answered_for(packet: &Packet, attribution: Attribution, identity: *const Identity) -> bool {
    // SAFETY: the caller's entry is live.
    let before = unsafe { Attribution::of((*identity).pu, (*identity).how) };
    packet.is_leaving()
        && attribution.is_by(how::BY_ADDRESS)
        && before.is_by(how::BY_SOCKET)
        && before.pu >= index::FIRST
        && !begins_again(packet, identity)
}

/// Whether a packet of a known flow changes nothing of what is known: neither whose it is nor where the connection stands,
/// and it is not what has the flow [live on](settle_down).
#[inline(always)]
pub(crate) fn is_settled(packet: &Packet, identity: *const Identity) -> bool {
    // SAFETY: the caller's entry is live.
    packet.tcp_flags & (tcp::FIN | tcp::RST) == 0
        && !asks(packet, identity)
        && unsafe { (*identity).newcomer == 0 || !settles(packet, &*identity) }
}

/// Whether it has to be asked whose the flow is: nobody knows it, the configuration has changed, a packet leaves for it
/// for the first time, or another connection has its four numbers.
#[inline(always)]
fn asks(packet: &Packet, identity: *const Identity) -> bool {
    if identity.is_null() || begins_again(packet, identity) {
        return true;
    }
    // SAFETY: the caller's entry is live.
    let (generation, decided) = unsafe { ((*identity).generation, (*identity).decided != 0) };
    let changed = generation != Control::generation(packet.word);
    if packet.is_leaving() {
        return changed || !decided;
    }
    // SAFETY: as above.
    let (how, swap) = unsafe { ((*identity).how, (*identity).swap) };
    // Where no socket waited, one may by now: that is asked once an epoch.
    let again = !decided && how::attributed_by(how) == how::BY_SILENCE && swap != Control::swaps(packet.word);
    // A packet that comes in by an uplink cannot tell what one that left has decided.
    again || changed && (!decided || packet.role.flags & role::UPLINK == 0)
}

/// Whether a connection begins whose four numbers one had that has ended.
#[inline(always)]
fn begins_again(packet: &Packet, identity: *const Identity) -> bool {
    // SAFETY: the caller's entry is live.
    connection::opens(packet.tcp_flags) && unsafe { (*identity).ended != 0 }
}

/// The flow's identity, or null.
#[inline(always)]
pub(crate) fn known<K: Key>(packet: &Packet) -> *mut Identity {
    let key = packet.key();
    // Another CPU may move the flow from the newcomers to those that lived on, and takes it out of the former only when
    // it is among the latter: so these are asked last. But most flows have lived on, except where one begins.
    let lived = if connection::opens(packet.tcp_flags) { None } else { K::lived().get_ptr_mut(key) };
    lived
        .or_else(|| K::newcomers().get_ptr_mut(key))
        .or_else(|| K::lived().get_ptr_mut(key))
        .unwrap_or(ptr::null_mut())
}

/// Moves a newcomer that was answered, or is alive in a later epoch, to where no flood of newcomers evicts it. 0.
///
/// # Safety
///
/// The identity is live.
#[inline(never)]
unsafe fn settle_down<K: Key>(packet: &Packet, identity: *mut Identity) -> u32 {
    // SAFETY: the caller's entry is live.
    let mut settled = unsafe { *identity };
    if settles(packet, &settled) {
        settled.newcomer = 0;
        settled.swap = Control::swaps(packet.word);
        match K::lived().insert(packet.key(), &settled, u64::from(BPF_NOEXIST)) {
            Ok(()) => {
                let _ = K::newcomers().remove(packet.key());
            }
            // Another CPU moves it.
            Err(EEXIST) => {}
            Err(_) => ledger(|ledger| ledger.identity_full += 1),
        }
    }
    0
}

/// Whether the packet shows that its flow is answered, or alive in a later epoch.
#[inline(always)]
fn settles(packet: &Packet, identity: &Identity) -> bool {
    let answered = packet.sent() != (identity.how & how::LOCAL_INITIATED != 0);
    answered || identity.swap != Control::swaps(packet.word)
}

/// Follows SYN, FIN and RST of a known flow, as [`State::follow`](connection::State::follow) does; what to report, or 0.
#[inline(always)]
unsafe fn follow_tcp(packet: &Packet, identity: *mut Identity) -> u8 {
    let flags = packet.tcp_flags;
    // SAFETY: the caller's entry is live.
    unsafe {
        if (*identity).ended != 0 {
            if !begins_again(packet, identity) {
                return 0;
            }
            (*identity).ended = 0;
            (*identity).fins = 0;
            (*identity).first_ns = report::begin();
            (*identity).how = (*identity).how & !INITIATOR_BITS | packet.initiator;
            // Perhaps opened by the other end.
            (*identity).sets = [0; 2];
            return kind::START;
        }
        if flags & tcp::RST != 0 {
            (*identity).ended = 1;
            return connection::reset(packet.sent());
        }
        if flags & tcp::FIN != 0 {
            let (own, other) = fins::sides(packet.sent());
            if (*identity).fins & own == 0 {
                atomic::add(&raw mut (*identity).fins, fins::one(own));
            }
            if (&raw const (*identity).fins).read_volatile() & other != 0 {
                (*identity).ended = 1;
                return kind::END_FIN;
            }
        }
        0
    }
}

/// What became of a flow that nobody knew.
enum Begun {
    /// Its unit's budget of new flows is spent.
    Refused,
    /// This CPU has made its identity.
    Kept,
    /// Another CPU has.
    Lost,
}

/// A flow that nobody knew. Two CPUs may meet it at once: only one makes its identity.
#[inline(always)]
fn begin<K: Key>(skb: Skb, packet: &Packet, attribution: Attribution) -> (u8, Begun) {
    // No socket of this host is asked for what is inside of a tunnel.
    let initiator = if packet.inside != 0 { packet.initiator } else { socket::initiator::<K>(skb, packet) };
    let how = attribution.put_into(initiator);
    if !can_afford(attribution.pu, packet) {
        return (how, Begun::Refused);
    }
    let Some(asked) = ASKED.get_ptr_mut(0) else { return (how, Begun::Lost) };
    // SAFETY: this CPU's own entry while softirqs are off; any bits are an identity. Field by field: LLVM would make the
    // whole on the stack first.
    let identity = unsafe { &mut (*asked).identity };
    identity.first_ns = report::begin();
    let (own, _) = fins::sides(packet.sent());
    identity.fins = if packet.tcp_flags & tcp::FIN != 0 { fins::one(own) } else { 0 };
    identity.generation = Control::generation(packet.word);
    identity.swap = Control::swaps(packet.word);
    identity.pu = attribution.pu;
    identity.how = how;
    // A flow that is met at its reset begins and ends with it; that it began is what is reported.
    identity.ended = u8::from(packet.tcp_flags & tcp::RST != 0);
    identity.newcomer = 1;
    identity.decided = u8::from(packet.is_leaving());
    identity.host_pu = attribution.host_pu;
    identity.sets = [0; 2];
    identity.verdict = if packet.policies_from == 0 { 0 } else { verdict::NOTHING_PASSED };
    identity.user = user::user_here(skb);
    user::tell(identity.user);
    match K::newcomers().insert(packet.key(), &*identity, u64::from(BPF_NOEXIST)) {
        Ok(()) => {}
        Err(EEXIST) => return (how, Begun::Lost),
        // A full LRU hash makes room; should it fail all the same, that is a fault. The packet is counted, and
        // that the flow began is not said, since its next miss would say it again.
        Err(error) => {
            say_unremembered(skb, i64::from(error));
            ledger(|ledger| ledger.identity_full += 1);
            return (how, Begun::Lost);
        }
    }
    spend(attribution.pu);
    (how, Begun::Kept)
}

/// A global function, verified once by itself: what a log line unfolds to was half of all that there was to verify.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn say_unremembered(skb: Skb, error: i64) -> u32 {
    // SAFETY: the kernel hands the program a live context.
    let interface = unsafe { (*skb).ifindex };
    warn!(
        &TcContext::new(skb),
        "a new flow on interface {} cannot be remembered: error {}", interface, error
    );
    0
}

/// `EEXIST` (`include/uapi/asm-generic/errno-base.h`), as helpers return it.
const EEXIST: i32 = -17;

/// Refills the unit's budget of new flows on this CPU; whether there is one left.
#[inline(always)]
fn can_afford(pu: u16, packet: &Packet) -> bool {
    let Some(unit) = unit(pu) else { return true };
    // SAFETY: this CPU's own entry.
    unsafe {
        let budget = Budget { left: (*unit).budget, refilled: (*unit).refilled };
        let budget = budget.refill(packet.now, FLOWS_PER_TICK.load(), FLOWS_BURST.load());
        (*unit).budget = budget.left;
        (*unit).refilled = budget.refilled;
        if budget.left >= ONE_FLOW {
            return true;
        }
        if packet.inside == 0 {
            (*unit).rate_limited += 1;
            ledger(|ledger| ledger.rate_limited += 1);
        }
    }
    false
}

/// Takes one new flow from the unit's budget on this CPU.
#[inline(always)]
fn spend(pu: u16) {
    let Some(unit) = unit(pu) else { return };
    // SAFETY: this CPU's own entry.
    unsafe {
        (*unit).budget = (*unit).budget.saturating_sub(ONE_FLOW);
        (*unit).flows += 1;
    }
}
