//! A socket buffer as bytes, and what it stands for on the wire.

use aya_ebpf::{
    bindings::bpf_hdr_start_off::{BPF_HDR_START_MAC, BPF_HDR_START_NET},
    helpers::{bpf_skb_load_bytes, bpf_skb_load_bytes_relative},
};
use collector_ebpf::wire::bytes::{Bytes, Window};

use crate::{
    Frame, Skb,
    maps::{SCRATCH, SCRATCH_SIZE, Scratch},
};

/// The linear part of a socket buffer, read in place: where the headers of nearly every packet lie.
#[derive(Clone, Copy)]
pub(crate) struct Linear {
    start: usize,
    end: usize,
}

impl Linear {
    /// The bytes from the link layer's header on.
    #[inline(always)]
    pub(crate) fn of(skb: Skb) -> Self {
        // SAFETY: the kernel hands the program a live context.
        unsafe { Self { start: (*skb).data as usize, end: (*skb).data_end as usize } }
    }
}

impl Linear {
    /// The first buffer of a frame at XDP.
    #[inline(always)]
    pub(crate) fn of_frame(frame: Frame) -> Self {
        // SAFETY: the kernel hands the program a live context.
        unsafe { Self { start: (*frame).data as usize, end: (*frame).data_end as usize } }
    }

    /// Octets in it.
    #[inline(always)]
    pub(crate) fn length(&self) -> u32 {
        self.end.wrapping_sub(self.start) as u32
    }
}

impl Bytes for Linear {
    #[inline(always)]
    fn window<const N: usize>(&self, at: u32) -> Option<Window<'_, N>> {
        let from = opaque(self.start + at as usize);
        if from + N > self.end {
            return None;
        }
        // SAFETY: `from .. from + N` was compared with the packet's end in the form that the verifier
        // follows.
        Some(unsafe { Window::new(from as *const u8) })
    }
}

/// The start of a frame at XDP, read in place at offsets that the verifier does not know.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    frame: Frame,
    linear: Linear,
}

impl Start {
    /// The octets of the first buffer, as many as [`Copied`] would have.
    #[inline(always)]
    pub(crate) fn of(frame: Frame) -> Self {
        Self { frame, linear: Linear::of_frame(frame) }
    }
}

impl Bytes for Start {
    #[inline(always)]
    fn forget(&self, at: u32) -> u32 {
        // SAFETY: the kernel hands the program a live context.
        forget_by(unsafe { (*self.frame).rx_queue_index }, at)
    }

    #[inline(always)]
    fn window<const N: usize>(&self, at: u32) -> Option<Window<'_, N>> {
        let at = opaque(at as usize);
        // What is added to a packet's address must have a bound.
        if at > SCRATCH_SIZE as usize - N {
            return None;
        }
        self.linear.window(at as u32)
    }
}

/// The start of a packet, copied to where it can be read in one piece.
pub(crate) struct Copied {
    scratch: *mut Scratch,
    length: u32,
}

impl Copied {
    /// Copies as much of the packet as fits; `None` where the kernel cannot.
    #[inline(always)]
    pub(crate) fn of(skb: Skb) -> Option<Self> {
        let copied = Self::again(skb)?;
        // SAFETY: the destination has SCRATCH_SIZE octets, and the length is at most that.
        let error = unsafe { bpf_skb_load_bytes(skb.cast(), 0, copied.scratch.cast(), copied.length) };
        (error == 0).then_some(copied)
    }

    /// What this run has copied before.
    #[inline(always)]
    pub(crate) fn again(skb: Skb) -> Option<Self> {
        let scratch = SCRATCH.get_ptr_mut(0)?;
        // SAFETY: the kernel hands the program a live context.
        let length = unsafe { (*skb).len }.min(SCRATCH_SIZE);
        // A mask and an addition, not comparisons: before Linux 6.8 the verifier learns from `!= 0` nothing about
        // the least value, and the copy may not be of 0 octets. A length of 0, which no buffer has, becomes one that
        // the kernel cannot copy.
        let length = opaque(length.wrapping_sub(1) as usize) as u32 % SCRATCH_SIZE + 1;
        Some(Self { scratch, length })
    }
}

impl Copied {
    /// Keeps for later what piece of a datagram the packet is.
    #[inline(always)]
    pub(crate) fn keep_piece(&self, packed: u64) {
        // SAFETY: the entry is live for the run, and this CPU's own.
        unsafe { (*self.scratch).piece = packed };
    }
}

impl Bytes for Copied {
    #[inline(always)]
    fn forget(&self, at: u32) -> u32 {
        // SAFETY: the entry is live for the run, and this CPU's own.
        unsafe {
            let forgotten = &raw mut (*self.scratch).forgotten;
            forgotten.write_volatile(at);
            forgotten.read_volatile()
        }
    }

    #[inline(always)]
    fn window<const N: usize>(&self, at: u32) -> Option<Window<'_, N>> {
        let at = opaque(at as usize);
        if at > SCRATCH_SIZE as usize - N || at + N > self.length as usize {
            return None;
        }
        // SAFETY: `at + N` is at most SCRATCH_SIZE.
        Some(unsafe { Window::new(self.scratch.cast::<u8>().add(at)) })
    }
}

/// Octets before the IP header of a buffer that came in by a device without a link layer.
///
/// Before Linux 5.14 (the series "net: reset MAC header consistently across L3 virtual devices") ipip,
/// sit and gre leave the mark of the link layer where their carrier's frame begins, and so that is where a buffer begins
/// here. The IP header says how much there is from it to the end, and has to stand where that points to.
#[inline(never)]
pub(crate) fn carrier(skb: Skb) -> u32 {
    let (mut packet, mut at_start) = ([0_u8; 8], [0_u8; 8]);
    // SAFETY: as much as there is room for, for each; the kernel hands the program a live context.
    let (length, failed) = unsafe {
        let size = size_of_val(&packet) as u32;
        let from_ip = BPF_HDR_START_NET;
        let failed = bpf_skb_load_bytes_relative(skb.cast(), 0, packet.as_mut_ptr().cast(), size, from_ip)
            != 0
            || bpf_skb_load_bytes(skb.cast(), 0, at_start.as_mut_ptr().cast(), size) != 0;
        ((*skb).len, failed)
    };
    if failed || u64::from_ne_bytes(packet) == u64::from_ne_bytes(at_start) {
        return 0;
    }
    let [version_length, _, total_0, total_1, payload_0, payload_1, ..] = packet;
    let own = if version_length >> 4 == 4 {
        u32::from(u16::from_be_bytes([total_0, total_1]))
    } else {
        IPV6_HEADER + u32::from(u16::from_be_bytes([payload_0, payload_1]))
    };
    let before = length.wrapping_sub(own);
    // SAFETY: as above.
    let failed = before >= SCRATCH_SIZE
        || unsafe { bpf_skb_load_bytes(skb.cast(), before, at_start.as_mut_ptr().cast(), 8) != 0 };
    if failed || u64::from_ne_bytes(packet) != u64::from_ne_bytes(at_start) { 0 } else { before }
}

const IPV6_HEADER: u32 = 40;

/// Whether the buffer begins behind its link layer's header: 1, or 0.
///
/// Since Linux 6.9 generic XDP copies most buffers (`skb_pp_cow_data`), and the copy does not say how long that header is,
/// by which TC goes back to its beginning. Where it began is known all the same.
#[inline(never)]
pub(crate) fn is_headless(skb: Skb) -> u32 {
    // As much behind the beginning of that header as the buffer's first part is long, there is an octet only if the buffer
    // begins later.
    let mut octet = 0_u8;
    // SAFETY: there is room for the octet; the kernel hands the program a live context.
    let failed = unsafe {
        let length = opaque(opaque((*skb).data_end as usize) - opaque((*skb).data as usize)) as u32;
        bpf_skb_load_bytes_relative(skb.cast(), length, (&raw mut octet).cast(), 1, BPF_HDR_START_MAC) != 0
    };
    u32::from(!failed)
}

/// What a socket buffer stands for on the wire.
#[derive(Clone, Copy)]
pub(crate) struct Wire {
    /// Packets.
    pub(crate) packets: u32,
    /// Octets of layer 2, without FCS.
    pub(crate) bytes: u64,
}

/// The VLAN tag that the kernel keeps beside the frame.
#[inline(always)]
pub(crate) fn metadata_vlan(skb: Skb) -> Option<u16> {
    // SAFETY: the kernel hands the program a live context.
    unsafe { ((*skb).vlan_present != 0).then_some((*skb).vlan_tci as u16) }
}

/// What the buffer stands for, when its headers end at `headers` octets (0: not known).
///
/// A super-packet becomes `gso_segs` packets, each with a copy of the headers; where the sender has not
/// counted its segments (tap, virtio), the size says how many there are. `jumbo`: the kernel's hop-by-hop
/// header of 8 octets is taken off before the wire.
#[inline(always)]
pub(crate) fn wire(skb: Skb, headers: u32, jumbo: bool) -> Wire {
    // SAFETY: the kernel hands the program a live context.
    let (length, gso_size) = unsafe { ((*skb).len, (*skb).gso_size) };
    let tag = if metadata_vlan(skb).is_some() { TAG } else { 0 };
    if gso_size == 0 {
        return Wire { packets: 1, bytes: u64::from(length + tag) };
    }
    // SAFETY: as above.
    let mut segments = unsafe { (*skb).gso_segs };
    if headers == 0 {
        return Wire { packets: segments.max(1), bytes: u64::from(length + tag) };
    }
    let taken_off = if jumbo { JUMBO_HEADER } else { 0 };
    let length = length.saturating_sub(taken_off);
    let headers = headers.saturating_sub(taken_off);
    if segments == 0 && gso_size != GSO_BY_FRAGS {
        segments = length.saturating_sub(headers).div_ceil(gso_size);
    }
    let segments = segments.max(1);
    let repeated = u64::from(headers) * u64::from(segments - 1);
    Wire { packets: segments, bytes: u64::from(length) + repeated + u64::from(tag) * u64::from(segments) }
}

/// The same without the first `before` octets of each packet, and without the tag beside it.
#[inline(always)]
pub(crate) fn without(skb: Skb, wire: Wire, before: u32) -> Wire {
    let tag = if metadata_vlan(skb).is_some() { TAG } else { 0 };
    Wire { bytes: wire.bytes.saturating_sub(u64::from(before + tag) * u64::from(wire.packets)), ..wire }
}

/// An 802.1Q tag.
const TAG: u32 = 4;
/// The hop-by-hop header of a super-packet beyond 65,535 octets (BIG TCP, Linux 5.19).
const JUMBO_HEADER: u32 = 8;
/// SCTP's mark in `gso_size` (include/linux/skbuff.h): not a size.
pub(crate) const GSO_BY_FRAGS: u32 = 0xFFFF;

/// The same number, about which LLVM knows nothing: keeps a bounds check and the access behind it on one
/// register, as the verifier wants it.
#[inline(always)]
#[cfg(target_arch = "bpf")]
pub(crate) fn opaque(mut number: usize) -> usize {
    // One move, not an empty template: two pieces of line information at one instruction make the kernel
    // refuse all. SAFETY: a register is copied to itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) number, options(nomem, nostack, preserves_flags)) };
    number
}

#[inline(always)]
#[cfg(not(target_arch = "bpf"))]
pub(crate) fn opaque(number: usize) -> usize {
    number
}

/// The same number, of which the verifier no longer knows anything.
///
/// The verifier follows each way through a program by itself as long as what it knows of the registers differs, and
/// gives up at a million instructions. Where many ways meet and only the value matters, this makes them one.
#[inline(always)]
pub(crate) fn forget(skb: Skb, number: u32) -> u32 {
    // SAFETY: the kernel hands the program a live context.
    forget_by(unsafe { (*skb).len }, number)
}

/// The same of a number of 64 bits, both halves of it.
#[inline(always)]
pub(crate) fn forget_both(skb: Skb, number: u64) -> u64 {
    u64::from(forget(skb, number as u32)) | u64::from(forget(skb, (number >> 32) as u32)) << 32
}

/// The same by any other number that the verifier does not know.
#[inline(always)]
#[cfg(target_arch = "bpf")]
pub(crate) fn forget_by(unknown: u32, mut number: u32) -> u32 {
    // A number that the verifier does not know, combined with its own copy: zero, which the verifier does not know.
    // SAFETY: registers only.
    unsafe {
        core::arch::asm!(
            "{copy} = {unknown}",
            "{copy} ^= {unknown}",
            "{number} ^= {copy}",
            copy = out(reg) _,
            unknown = in(reg) unknown,
            number = inout(reg) number,
            options(nomem, nostack, preserves_flags),
        );
    }
    number
}

#[inline(always)]
#[cfg(not(target_arch = "bpf"))]
pub(crate) fn forget_by(_unknown: u32, number: u32) -> u32 {
    number
}
