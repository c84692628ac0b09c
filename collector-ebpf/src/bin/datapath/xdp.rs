//! XDP: a frame before there is a socket buffer. What is known to be rejected is [dropped](refuse); of the rest, malformed ones
//! are counted, and whose the destination is goes on with the frame, so that [`classify`] does not look it up once more. What
//! goes on is counted for its flow and unit by TC alone.

use aya_ebpf::{
    bindings::xdp_action,
    helpers::{
        bpf_jiffies64,
        generated::{bpf_xdp_adjust_meta, bpf_xdp_get_buff_len},
    },
};
use collector_ebpf::{
    abi::{
        control::Control,
        counter::Unparsed,
        pu::{Role, role},
        xdp::{Handed, XdpLedger, verdict},
    },
    wire::{
        self, Link,
        ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
        ipv4, ipv6, short,
    },
};

use crate::{
    Frame, Skb, account,
    classify::{self, Whose},
    family::mapped,
    maps::{SCRATCH_SIZE, XDP_KNOWN},
    packet::{Linear, Start, forget_by, opaque},
    read::{Packet, role_of_index},
    refuse,
    settings::{HASH_FACTOR_1, HASH_FACTOR_2, XDP_REMEMBERS, XDP_WORD},
};

/// Addresses that are remembered on each CPU; a power of two.
pub(crate) const KNOWN: usize = 256;

/// An address, and whose it is.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Known {
    address: [u64; 2],
    /// The configuration generation under which it was looked up.
    generation: u32,
    /// [`Whose`], packed; 0 where nothing is remembered.
    whose: u32,
}

/// Looks at one frame. `FRAGS`: it may lie in several buffers.
#[inline(always)]
pub(crate) fn run<const FRAGS: bool>(frame: Frame) -> u32 {
    let Some(control) = account::control() else { return xdp_action::XDP_PASS };
    // SAFETY: the entry is live; its ledger is this CPU's own. The helper has no arguments.
    let word = unsafe {
        if bpf_jiffies64() >= (&raw const (*control).lease).read_volatile() {
            return xdp_action::XDP_PASS;
        }
        account::word(control)
    };
    // SAFETY: as above; the kernel hands the program a live context.
    let (ledger, ifindex) = unsafe { (&raw mut (*control).xdp, (*frame).ingress_ifindex) };
    // SAFETY: as above.
    unsafe { (*ledger).seen += 1 };
    if let Some(role) = role_of_index(ifindex)
        && role.flags & (role::RAW_IP | role::LOOPBACK) == 0
    {
        if is_enforced(control) && refuse::drops::<FRAGS>(frame, role) {
            // SAFETY: as above.
            unsafe { (*ledger).dropped += 1 };
            return xdp_action::XDP_DROP;
        }
        let mut destination = [0; 2];
        match read::<FRAGS>(frame, &mut destination) {
            READ => {
                if is_by_address(role) {
                    let generation = Control::generation(word);
                    let whose = Whose::unpack(whose(destination, generation));
                    hand_on::<FRAGS>(frame, ledger, &handed_on(ifindex, generation, whose));
                }
            }
            refused => malformed(ledger, refused),
        }
    }
    // SAFETY: as above.
    unsafe { (*ledger).passed += 1 };
    xdp_action::XDP_PASS
}

/// Whether anything may have to be dropped for a policy.
#[inline(always)]
fn is_enforced(control: *const Control) -> bool {
    // SAFETY: the entry is live. User space writes it by one aligned store; a volatile read is one load.
    unsafe { (&raw const (*control).enforced).read_volatile() != 0 }
}

/// Whether it is the destination that says whose a packet is which comes in here.
#[inline(always)]
fn is_by_address(role: &Role) -> bool {
    role.flags & (role::UPLINK | role::OWN) == role::UPLINK
}

/// The frame was read. Any other number is one more than the index of the reason why it was not; beyond the reasons lies what
/// is no fault of the frame.
const READ: u32 = 0;
const NOT_HERE: u32 = u32::MAX;

/// Reads a frame as far as its destination, and holds it to the rules of its protocols.
#[inline(always)]
fn read<const FRAGS: bool>(frame: Frame, destination: &mut [u64; 2]) -> u32 {
    let linear = Linear::of_frame(frame);
    // Nearly every frame lies in one buffer: how long the others are is asked where that one does not hold a packet.
    if let Some(ip) = short::ipv4(&linear, linear.length()) {
        *destination = words(mapped(ip.destination));
        READ
    } else if let Some(ip) = short::ipv6(&linear, linear.length()) {
        *destination = words(ip.destination);
        READ
    } else {
        let length = length::<FRAGS>(frame, &linear);
        let refused = general(frame, length, destination);
        // What it announces may lie in the next buffer. Beyond so many octets `tc_ingress` does not look either.
        let is_cut = linear.length() < length.min(SCRATCH_SIZE);
        if refused == Unparsed::Truncated as u32 + 1 && is_cut { NOT_HERE } else { refused }
    }
}

/// Octets of the whole frame.
#[inline(always)]
pub(crate) fn length<const FRAGS: bool>(frame: Frame, linear: &Linear) -> u32 {
    if FRAGS {
        // SAFETY: the kernel hands the program a live context. Only the program that is for frames in several buffers asks,
        // which a kernel without the helper (Linux 5.18) refuses.
        unsafe { bpf_xdp_get_buff_len(frame) as u32 }
    } else {
        // Of a difference of addresses the verifier knows more than is of use: it would follow far more ways.
        // SAFETY: the kernel hands the program a live context.
        forget_by(unsafe { (*frame).rx_queue_index }, linear.length())
    }
}

/// Reads all that the parser knows.
#[inline(never)]
fn general(frame: Frame, length: u32, destination: &mut [u64; 2]) -> u32 {
    match ethernet::parse(&Start::of(frame), Link::Ethernet) {
        Err(reason) => reason as u32 + 1,
        Ok(layer2) => match layer2.ethertype {
            ETHERTYPE_IPV4 => general4(frame, length, layer2.next, destination),
            ETHERTYPE_IPV6 => general6(frame, length, layer2.next, destination),
            other => ethernet::refuse(other) as u32 + 1,
        },
    }
}

#[inline(never)]
fn general4(frame: Frame, length: u32, next: u32, destination: &mut [u64; 2]) -> u32 {
    match ipv4::parse(&Start::of(frame), next, shape(length)) {
        Ok(ip) => {
            *destination = words(mapped(ip.destination));
            READ
        }
        Err(reason) => reason as u32 + 1,
    }
}

#[inline(never)]
fn general6(frame: Frame, length: u32, next: u32, destination: &mut [u64; 2]) -> u32 {
    match ipv6::parse(&Start::of(frame), next, shape(length)) {
        Ok(ip) => {
            *destination = words(ip.destination);
            READ
        }
        Err(reason) => reason as u32 + 1,
    }
}

/// Whether the frame stands for several packets is not told here. One that no length field could hold does.
#[inline(always)]
fn shape(length: u32) -> wire::Frame {
    wire::Frame { length, gso: length > u32::from(u16::MAX) }
}

#[inline(always)]
fn words(address: [u8; 16]) -> [u64; 2] {
    // SAFETY: both are 16 octets.
    unsafe { core::mem::transmute::<[u8; 16], [u64; 2]>(address) }
}

/// Counts a frame that was refused, where that is its own fault.
#[inline(always)]
fn malformed(ledger: *mut XdpLedger, refused: u32) {
    // 64 bits, of which LLVM knows nothing: the verifier of Linux 5.10 learns no bound from a comparison of 32 bits.
    let index = opaque((refused as usize).wrapping_sub(1));
    if let Some(reason) = Unparsed::ALL.get(index)
        && reason.is_malformed()
    {
        // SAFETY: the ledger is this CPU's own.
        let counts = unsafe { &mut (*ledger).malformed };
        // LLVM knows the bound and would leave the comparison out; the verifier wants to see it.
        if let Some(count) = counts.get_mut(opaque(index)) {
            *count += 1;
        }
    }
}

/// Whose an address is: a packed [`Whose`]. Most frames go to a few addresses, so a CPU remembers what it has looked up.
#[inline(always)]
fn whose(address: [u64; 2], generation: u32) -> u32 {
    let [high, low] = address;
    let sum = high.wrapping_mul(HASH_FACTOR_1.load()).wrapping_add(low.wrapping_mul(HASH_FACTOR_2.load()));
    let index = (sum >> 56) as u32 % KNOWN as u32;
    let known = if XDP_REMEMBERS.load() != 0 { XDP_KNOWN.get_ptr_mut(index) } else { None };
    let Some(known) = known else { return look_up(address) };
    // SAFETY: this CPU's own entry.
    unsafe {
        if (*known).address != address || (*known).generation != generation || (*known).whose == 0 {
            *known = Known { address, generation, whose: look_up(address) };
        }
        (*known).whose
    }
}

#[inline(never)]
fn look_up(address: [u64; 2]) -> u32 {
    // SAFETY: both are 16 octets.
    classify::whose(unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(address) }).pack()
}

#[inline(always)]
fn handed_on(ifindex: u32, generation: u32, whose: Whose) -> Handed {
    let Whose { pu, found, .. } = whose;
    Handed { word: XDP_WORD.load(), ifindex, generation, pu, found, verdict: verdict::PASS, _pad: 0 }
}

/// Changes this CPU's ledger of frames.
#[inline(always)]
pub(crate) fn ledger(change: impl FnOnce(&mut XdpLedger)) {
    if let Some(control) = account::control() {
        // SAFETY: this CPU's own entry, and nothing else refers to its ledger meanwhile.
        change(unsafe { &mut (*control).xdp });
    }
}

/// Octets before what is handed on, so that all of it can be read where a buffer has lost an Ethernet header: what can be
/// read then begins as much later. The kernels that lose it have room for that.
const ROOM: usize = 16;
const ETHERNET_HEADER: usize = 14;

/// Puts what is known before the frame.
#[inline(always)]
fn hand_on<const FRAGS: bool>(frame: Frame, ledger: *mut XdpLedger, handed: &Handed) {
    const SIZE: usize = size_of::<Handed>();
    // In the place of what may be there already. A driver without room for metadata refuses.
    // SAFETY: the kernel hands the program a live context.
    let there = unsafe {
        // The verifier takes differences of whole registers only.
        opaque(opaque((*frame).data as usize) - opaque((*frame).data_meta as usize)) as i32
    };
    // SAFETY: as above; the ledger is this CPU's own. What is written was compared with the frame's beginning, in the form
    // that the verifier follows.
    unsafe {
        // Kernels without frames in several buffers lose no header, and have no such room.
        if FRAGS && bpf_xdp_adjust_meta(frame, there - (SIZE + ROOM) as i32) == 0 {
            let (meta, data) = (opaque((*frame).data_meta as usize), (*frame).data as usize);
            if meta + SIZE + ROOM <= data {
                (meta as *mut [u64; 2]).write([0; 2]);
                ((meta + ROOM) as *mut Handed).write(*handed);
                (*ledger).handed += 1;
            }
        } else if bpf_xdp_adjust_meta(frame, there - SIZE as i32) == 0 {
            let (meta, data) = (opaque((*frame).data_meta as usize), (*frame).data as usize);
            if meta + SIZE <= data {
                (meta as *mut Handed).write(*handed);
                (*ledger).handed += 1;
            }
        } else {
            (*ledger).unhanded += 1;
        }
    }
}

/// What the XDP program has found of this packet's destination: a packed [`Whose`], 0 where there is nothing of it.
#[inline(always)]
pub(crate) fn handed(skb: Skb, packet: &Packet) -> u32 {
    let word = XDP_WORD.load();
    if word == 0 {
        return 0;
    }
    // SAFETY: the kernel hands the program a live context.
    let (meta, data) = unsafe { (opaque((*skb).data_meta as usize), (*skb).data as usize) };
    // It ends where the link layer's header begins.
    let behind = if packet.lost != 0 { ETHERNET_HEADER } else { 0 };
    let at = opaque(opaque(data) - meta).wrapping_sub(size_of::<Handed>() + behind);
    // A mask, for what is added to a packet's address must have a bound.
    let at = opaque(at) & 0xFF;
    let meta = opaque(meta + at);
    if meta + size_of::<Handed>() > data {
        return 0;
    }
    // SAFETY: it was compared with the packet's beginning, in the form that the verifier follows; any bits are one.
    let handed = unsafe { &*(meta as *const Handed) };
    if handed.word != word
        || handed.ifindex != packet.role.ifindex
        || handed.generation != Control::generation(packet.word)
    {
        return 0;
    }
    let whose = Whose { pu: handed.pu, found: handed.found, is_known: true };
    ledger(|ledger| ledger.taken += 1);
    whose.pack()
}
