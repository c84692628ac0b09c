//! What the policies say of a flow: looked up at its first packet, and again where one of its units has another set of rules
//! by now. Four look-ups for each end that has rules: the unit's set, the remote address's class in it, the service's, and
//! the verdict on both.
//!
//! Who opened the flow decides which rules it meets. Where that is a guess, the flow is accepted: it may be the answer to
//! what was allowed before anyone looked. Nor do policies hold for what keeps a network alive (neighbour discovery, groups),
//! for pieces that show no ports, for what lies inside of tunnels, and for errors about a flow that was not rejected. Of what is
//! not understood but for its ends, they are asked as if each packet opened a flow, whatever its port.

use core::mem::offset_of;

use aya_ebpf::{btf_maps::lpm_trie::Key as Prefix, helpers::bpf_ktime_get_boot_ns};
use collector_ebpf::{
    abi::{
        flow::{FlowKey4, FlowKey6, Identity, LOOPBACK_BOUNDARY, how, ports},
        policy::{ClassesKey, INCOMING, OUTGOING, PolicyEntry, RemoteKey, ServiceKey, WHOEVER, verdict},
        pu::index,
    },
    wire::tcp,
};

use crate::{
    family::{Key, Rest},
    identity::{self, INITIATOR_BITS, Who},
    maps::{ASKED, Asked, POLICIES, REMOTES, SERVICES, VERDICTS},
    quote,
    read::Packet,
    socket::TCP,
};

/// `IPPROTO_ICMP`, `IPPROTO_IGMP` and `IPPROTO_ICMPV6`.
const ICMP: u8 = 1;
const IGMP: u8 = 2;
const ICMPV6: u8 = 58;
/// `IPPROTO_UDP`.
const UDP: u8 = 17;

/// Keys of the maps, written where the kernel can read them: the stack has no room.
#[repr(C, align(8))]
pub(crate) struct Question {
    /// A prefix's length and its data, as the trie has it.
    remote_bits: u32,
    remote: RemoteKey,
    /// See `remote_bits`.
    service_bits: u32,
    service: ServiceKey,
    _pad: u32,
    classes: ClassesKey,
    /// The sets that the last question was answered under, as in an identity.
    pub(crate) sets: [u32; 2],
}

/// The units of a flow that are asked: its own, and that at its other end on this host, if there is one.
#[derive(Clone, Copy)]
pub(crate) struct Units {
    pub(crate) pu: u16,
    pub(crate) how: u8,
    pub(crate) host_pu: u16,
}

impl Units {
    /// A global function takes numbers.
    #[inline(always)]
    const fn pack(self) -> u64 {
        self.pu as u64 | (self.how as u64) << 16 | (self.host_pu as u64) << 32
    }

    #[inline(always)]
    const fn unpack(packed: u64) -> Self {
        Self { pu: packed as u16, how: (packed >> 16) as u8, host_pu: (packed >> 32) as u16 }
    }

    /// The direction in which its own unit sees the flow. The other end's is the opposite one.
    #[inline(always)]
    const fn direction(self) -> usize {
        if self.how & how::LOCAL_INITIATED != 0 { OUTGOING } else { INCOMING }
    }

    /// The unit at the other end on this host; 0 where that lies elsewhere. Programs that do not ask for control groups know
    /// no more of it than that it is this host.
    #[inline(always)]
    pub(crate) fn other(self, rest: Rest) -> u16 {
        if self.host_pu == 0 && (self.how & how::HOST_END != 0 || rest.boundary == LOOPBACK_BOUNDARY) {
            index::HOST
        } else {
            self.host_pu
        }
    }

    /// Who is asked in the place of a unit: what comes for this host and shows no ports may be for any that it has sockets of.
    #[inline(always)]
    fn asked(unit: u16, direction: usize, rest: Rest) -> u16 {
        if unit == index::HOST && direction == INCOMING && rest.ports == ports::UNREAD {
            WHOEVER
        } else {
            unit
        }
    }

    /// What both have now: [`directions`](PolicyEntry::directions), each in its own direction.
    #[inline(always)]
    fn policies(self, rest: Rest) -> [u64; 2] {
        let (direction, other) = (self.direction(), self.other(rest));
        let of = |unit, direction| of_unit(Self::asked(unit, direction, rest), direction);
        [of(self.pu, direction), if other == 0 { 0 } else { of(other, 1 - direction) }]
    }
}

/// What a unit has in a direction.
#[inline(always)]
fn of_unit(unit: u16, direction: usize) -> u64 {
    POLICIES.get(u32::from(unit)).map_or(0, |policy| {
        let place = (&raw const policy.directions).cast::<u64>();
        // SAFETY: a direction is 0 or 1. User space writes each word by one aligned store; a volatile read is one load.
        unsafe { place.add(direction & 1).read_volatile() }
    })
}

#[inline(always)]
const fn sets([own, other]: [u64; 2]) -> [u32; 2] {
    [PolicyEntry::set(own), PolicyEntry::set(other)]
}

/// A packed [`Who`] with what the policies say of the flow of this run's packet. Not a part of what finds the flow: nested,
/// they need more stack than there is.
#[inline(always)]
pub(crate) fn ask<K: Key>(who: u64) -> u64 {
    if K::FAMILY == FlowKey4::FAMILY { ask_4(who) } else { ask_6(who) }
}

/// The same for IPv4. A global function, so that it is verified once, and not behind every way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ask_4(who: u64) -> u64 {
    Packet::of_run().map_or(who, |packet| say::<FlowKey4>(packet, who))
}

/// The same for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ask_6(who: u64) -> u64 {
    Packet::of_run().map_or(who, |packet| say::<FlowKey6>(packet, who))
}

#[inline(always)]
fn say<K: Key>(packet: &Packet, who: u64) -> u64 {
    if packet.policies_from == 0 {
        return who;
    }
    let who = Who::unpack(who);
    let identity = identity::known::<K>(packet);
    let verdict = if identity.is_null() {
        of_unknown::<K>(Units { pu: who.pu, how: who.how, host_pu: who.host_pu })
    } else {
        // SAFETY: the entry is memory of the map for the run.
        unsafe { of_known::<K>(packet, identity) }
    };
    // An error about a flow that was not rejected passes.
    let passes = verdict & verdict::REJECT != 0 && quote::is_of_accepted::<K>(packet) != 0;
    Who { verdict: if passes { 0 } else { verdict }, ..who }.pack()
}

/// What the policies say of a packet whose flow was refused, or could not be remembered. Where nobody knows who opened that, it
/// may be the answer to what was allowed: it is rejected only if it would be, whoever has.
#[inline(always)]
fn of_unknown<K: Key>(units: Units) -> u32 {
    let verdict = judge::<K>(units, 0);
    if verdict & verdict::REJECT == 0 || how::initiator_by(units.how) != how::BY_FIRST_PACKET {
        return verdict;
    }
    let as_answer = judge::<K>(Units { how: units.how ^ how::LOCAL_INITIATED, ..units }, 0);
    if as_answer & verdict::REJECT == 0 { verdict::GUESSED } else { verdict }
}

/// What the policies say of a flow that is known, which is asked anew where its units have other sets by now.
///
/// # Safety
///
/// The identity is live.
#[inline(always)]
unsafe fn of_known<K: Key>(packet: &Packet, identity: *mut Identity) -> u32 {
    // SAFETY: the caller's promise. Two CPUs may ask at once, one of them under sets that have just been replaced: whatever it
    // is that they leave of each other's answers, who sees afterwards that its sets are not those that hold now has the next
    // packet ask again.
    unsafe {
        let rest = packet.key::<K>().rest();
        if may_turn(packet, identity, rest) {
            (*identity).how = (*identity).how & !INITIATOR_BITS | packet.initiator;
            (*identity).sets = [0; 2];
        }
        let Identity { pu, how, host_pu, first_ns, .. } = *identity;
        let units = Units { pu, how, host_pu };
        let now = sets(units.policies(rest));
        if now == [0; 2] && !opens_otherwise(packet, how) {
            (*identity).verdict = 0;
            return 0;
        }
        let known = (*identity).verdict;
        if opens_otherwise(packet, how) && known & verdict::DROP == 0 {
            let how = how & !INITIATOR_BITS | packet.initiator;
            let own = judge::<K>(Units { how, ..units }, first_ns);
            if own & verdict::DROP != 0 {
                return own;
            }
        }
        if now == (*identity).sets {
            return known;
        }
        let verdict = judge::<K>(units, first_ns);
        let is_dropped = verdict & verdict::DROP != 0;
        let verdict = verdict | if is_dropped { known & verdict::NOTHING_PASSED } else { 0 };
        let Some(asked) = ASKED.get_ptr_mut(0) else { return 0 };
        (&raw mut (*identity).verdict).write_volatile(verdict);
        (&raw mut (*identity).sets).write_volatile((*asked).question.sets);
        let is_anothers = (&raw const (*identity).verdict).read_volatile() != verdict;
        if is_anothers || sets(units.policies(rest)) != (*asked).question.sets {
            (&raw mut (*identity).sets).write_volatile([0; 2]);
        }
        verdict
    }
}

/// What the policies have said of a known flow, where they hold for this packet of it and have nothing else to say by now; 0
/// where they are to be [asked](ask).
///
/// # Safety
///
/// The identity is live.
#[inline(always)]
pub(crate) unsafe fn said_of<K: Key>(packet: &Packet, identity: *const Identity) -> u32 {
    let rest = packet.key::<K>().rest();
    // SAFETY: the caller's promise.
    unsafe {
        let Identity { pu, how, host_pu, .. } = *identity;
        if may_turn(packet, identity, rest) || opens_otherwise(packet, how) {
            return 0;
        }
        let now = sets(Units { pu, how, host_pu }.policies(rest));
        // Who writes them writes the verdict first.
        if now == [0; 2] || (&raw const (*identity).sets).read_volatile() != now {
            return 0;
        }
        (&raw const (*identity).verdict).read_volatile()
    }
}

/// Whether a packet opens a connection, or asks for an echo, that is known as opened by its other end, or by nobody knows whom:
/// what made it known so need not have been a packet that anybody took (a SYN-ACK with a wrong checksum, an answer that nobody
/// asked for). It is judged by itself, and whose the flow is stays as it was: the packet may be as false.
#[inline(always)]
fn opens_otherwise(packet: &Packet, how: u8) -> bool {
    let opens = packet.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN || is_request(packet);
    opens && how & INITIATOR_BITS != packet.initiator
}

/// Whether it is an ICMP echo request: its sender asks.
#[inline(always)]
pub(crate) fn is_request(packet: &Packet) -> bool {
    how::initiator_by(packet.initiator) == how::BY_ECHO
        && packet.sent() == (packet.initiator & how::LOCAL_INITIATED != 0)
}

/// Whether the end that did not open a flow sends, of which nothing was ever let pass: then it opens the flow, or whoever sends
/// what is rejected could have its packets rejected, too. Of TCP only what opens a connection does.
///
/// # Safety
///
/// The identity is live.
#[inline(always)]
unsafe fn may_turn(packet: &Packet, identity: *const Identity, rest: Rest) -> bool {
    // SAFETY: the caller's promise.
    let (known, how) = unsafe { ((*identity).verdict, (*identity).how) };
    known & verdict::NOTHING_PASSED != 0
        && packet.sent() != (how & how::LOCAL_INITIATED != 0)
        && (rest.protocol != TCP || opens_otherwise(packet, how))
}

/// Asks about the packet of this run, whose flow began at this time; 0 for now.
#[inline(always)]
pub(crate) fn judge<K: Key>(units: Units, first_ns: u64) -> u32 {
    if K::FAMILY == FlowKey4::FAMILY {
        judge_4(units.pack(), first_ns)
    } else {
        judge_6(units.pack(), first_ns)
    }
}

/// The same for IPv4. A global function, so that it is verified once, and not behind every way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn judge_4(units: u64, first_ns: u64) -> u32 {
    Packet::of_run().map_or(0, |packet| find::<FlowKey4>(packet, Units::unpack(units), first_ns))
}

/// The same for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn judge_6(units: u64, first_ns: u64) -> u32 {
    Packet::of_run().map_or(0, |packet| find::<FlowKey6>(packet, Units::unpack(units), first_ns))
}

#[inline(always)]
fn find<K: Key>(packet: &Packet, units: Units, first_ns: u64) -> u32 {
    let Some(asked) = ASKED.get_ptr_mut(0) else { return 0 };
    let key = packet.key::<K>();
    let rest = key.rest();
    let policies = units.policies(rest);
    // SAFETY: this CPU's own entry.
    unsafe { (*asked).question.sets = sets(policies) };
    let [own, other] = policies;
    if own as u32 | other as u32 == 0 || is_exempt(rest) {
        return 0;
    }
    if is_guess(packet, units, rest, first_ns) {
        return verdict::GUESSED;
    }
    let service = service(rest, units.how & how::LOCAL_INITIATED != 0);
    // SAFETY: as above.
    let (own, has_own, other) = unsafe {
        let has_own = PolicyEntry::set(own) != 0;
        write(asked, key.remote(), service);
        let own = look_up(asked, own);
        write(asked, key.local(), service);
        (own, has_own, look_up(asked, other) | verdict::OTHER_END)
    };
    if has_own && (own & verdict::REJECT != 0 || other & verdict::REJECT == 0) { own } else { other }
}

/// Whether no policy holds for such a flow.
#[inline(always)]
fn is_exempt(rest: Rest) -> bool {
    // Type and code, as they lie on the wire.
    let [kind, _] = rest.local_port.to_ne_bytes();
    match (rest.ports, rest.protocol) {
        (ports::FRAGMENT, _) | (_, IGMP) => true,
        // Listeners, neighbours and routers (RFC 4890 sections 4.4.1 and 4.3.3; RFC 2710, RFC 9777, RFC 4861).
        (ports::ICMP, ICMPV6) => matches!(kind, 130..=137 | 143),
        // Addresses by DHCP: the answer comes from another address than was asked (RFC 2131 section 4.1, RFC 9915 section 7.2).
        (ports::TRANSPORT, UDP) => {
            matches!((u16::from_be(rest.local_port), u16::from_be(rest.remote_port)), (68, 67) | (546, 547))
        }
        _ => false,
    }
}

/// Whether nobody knows who opened the flow. A TCP connection that was met midway, of which no socket here says that it
/// listens; and what sent its first packet before it was looked for that for long enough.
#[inline(always)]
fn is_guess(packet: &Packet, units: Units, rest: Rest, first_ns: u64) -> bool {
    if how::initiator_by(units.how) != how::BY_FIRST_PACKET {
        return false;
    }
    if rest.ports == ports::UNREAD {
        // Nor will anybody: what whole packets may have opened, none of these has to go on with.
        return false;
    }
    if rest.protocol == TCP {
        return true;
    }
    // SAFETY: no arguments, no memory.
    let first_ns = if first_ns == 0 { unsafe { bpf_ktime_get_boot_ns() } } else { first_ns };
    first_ns < packet.policies_from
}

/// What the end that did not open the flow offers: protocol, and port or what stands in its place, as the octets of a key.
#[inline(always)]
fn service(rest: Rest, by_local: bool) -> [u8; 4] {
    /// Echo requests (RFC 792, RFC 4443 section 4.1).
    const ECHO: u8 = 8;
    const ECHO_6: u8 = 128;
    let [one, two] = match rest.ports {
        ports::UNREAD => return ServiceKey::unread(rest.protocol),
        ports::ECHO => [if rest.protocol == ICMP { ECHO } else { ECHO_6 }, 0],
        _ if by_local => rest.remote_port.to_ne_bytes(),
        _ => rest.local_port.to_ne_bytes(),
    };
    [rest.protocol, 0, one, two]
}

/// Writes what is asked about, for any set.
///
/// # Safety
///
/// The entry is this CPU's own.
#[inline(always)]
unsafe fn write(asked: *mut Asked, address: [u8; 16], service: [u8; 4]) {
    // SAFETY: the caller's promise. In words, which both are aligned to here: LLVM would store octets one by one.
    unsafe {
        let question = &raw mut (*asked).question;
        (*question).remote_bits = 8 * size_of::<RemoteKey>() as u32;
        let words = core::mem::transmute::<[u8; 16], [u64; 2]>(address);
        question.cast::<u64>().add(ADDRESS / size_of::<u64>()).cast::<[u64; 2]>().write(words);
        (*question).service_bits = 8 * size_of::<ServiceKey>() as u32;
        question.cast::<u32>().add(PROTOCOL / size_of::<u32>()).write(u32::from_ne_bytes(service));
    }
}

/// Where the address lies, and where protocol and port do.
const ADDRESS: usize = offset_of!(Question, remote) + offset_of!(RemoteKey, address);
const PROTOCOL: usize = offset_of!(Question, service) + offset_of!(ServiceKey, protocol);

const _: () = {
    assert!(ADDRESS.is_multiple_of(size_of::<u64>()) && PROTOCOL.is_multiple_of(size_of::<u32>()));
    // As a trie's key lies: packed.
    assert!(offset_of!(Question, remote) == size_of::<u32>());
    assert!(offset_of!(Question, service) == offset_of!(Question, service_bits) + size_of::<u32>());
};

/// The verdict of what a unit has, on what was [written](write); 0 where it has no rules.
///
/// # Safety
///
/// The entry is this CPU's own, and was written.
#[inline(never)]
unsafe fn look_up(asked: *mut Asked, policy: u64) -> u32 {
    let set = PolicyEntry::set(policy);
    if set == 0 {
        return 0;
    }
    // SAFETY: the caller's promise. Entries of a set are written before the set is any unit's, and removed when no program
    // that has seen it runs any more.
    unsafe {
        let question = &raw mut (*asked).question;
        (*question).remote.set = set;
        (*question).service.set = set;
        let remote = &*(&raw const (*question).remote_bits).cast::<Prefix<RemoteKey>>();
        let service = &*(&raw const (*question).service_bits).cast::<Prefix<ServiceKey>>();
        let remote = REMOTES.get(remote).copied().unwrap_or(0);
        let service = SERVICES.get(service).copied().unwrap_or(0);
        (*question).classes = ClassesKey { set, remote: remote as u16, service: service as u16 };
        VERDICTS.get(&(*question).classes).copied().unwrap_or(PolicyEntry::otherwise(policy))
    }
}
