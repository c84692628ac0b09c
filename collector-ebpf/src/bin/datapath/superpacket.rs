//! Where the headers end that each segment of a super-packet repeats, as the kernel itself will cut it.
//!
//! What a packet's octets say is not enough. A sender of datagrams whose segments begin like a tunnel's packets has no tunnel;
//! a tunnel may go by any port; and there are headers that are not read. The kernel knows of each super-packet what kind of
//! segments it is made of, and where the header before their payload begins (`include/linux/skbuff.h`). Programs are not shown
//! that, and read it where it lies.

use core::{ffi::c_void, ops::RangeInclusive};

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use network_types::ip::IpProto;

use crate::{
    Skb,
    packet::GSO_BY_FRAGS,
    places::{SHARED_TYPE, SKB_DATA, SKB_END, SKB_HEAD, SKB_INNER_TRANSPORT, SKB_TRANSPORT},
    settings::KNOWS_SUPER_PACKETS,
};

/// `SKB_GSO_TCPV4` and `SKB_GSO_TCPV6`.
const TCP: u32 = 1 | 1 << 4;
/// `SKB_GSO_UDP_L4`.
const UDP: u32 = 1 << 17;
/// `SKB_GSO_SCTP`.
const SCTP: u32 = 1 << 14;
/// `SKB_GSO_ESP`.
const ESP: u32 = 1 << 15;
/// `SKB_GSO_GRE`, `SKB_GSO_GRE_CSUM`, `SKB_GSO_IPXIP4`, `SKB_GSO_IPXIP6`, `SKB_GSO_UDP_TUNNEL` and `SKB_GSO_UDP_TUNNEL_CSUM`:
/// the segments are inside of a tunnel's packets.
const TUNNEL: u32 = 0b11_1111 << 6;
/// Octets before a transport header that are believed: a sender may say something else than it sends, and where nobody has
/// said anything there are 65,535. Before it there is an IP header at least: before Linux 5.11 the header of what came with two
/// VLAN tags is said to be where the inner one of them is ("net: `skb_vlan_untag()`: don't reset transport offset if set by GRO
/// layer").
const BELIEVED: RangeInclusive<u64> = 20..=1024;

/// Whether the transport header that was read is the last that each of a super-packet's segments repeats: TCP's is, and that of
/// datagrams that the kernel cuts as such. Of any other there may be a tunnel's packet behind it.
#[inline(always)]
pub(crate) fn is_last(skb: Skb, protocol: u8) -> bool {
    protocol == IpProto::Tcp as u8 || protocol == IpProto::Udp as u8 && cuts_datagrams(skb) != 0
}

/// 1 where the kernel will cut it into datagrams that are in no tunnel. A global function, as below; for who sends much by QUIC
/// it is asked of each buffer, and so reads no more than it must.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn cuts_datagrams(skb: Skb) -> u32 {
    if KNOWS_SUPER_PACKETS.load() == 0 {
        return 0;
    }
    let (_, kind) = head_and_kind(skb as u64);
    u32::from(kind & (UDP | TUNNEL | ESP) == UDP)
}

/// Where the buffer's memory begins, and what segments the kernel will make of it.
#[inline(always)]
fn head_and_kind(buffer: u64) -> (u64, u32) {
    let head: u64 = read(buffer + u64::from(SKB_HEAD.load()));
    let end: u32 = read(buffer + u64::from(SKB_END.load()));
    (head, read(head + u64::from(end) + u64::from(SHARED_TYPE.load())))
}

/// Octets from the buffer's beginning to where the headers of its segments end; 0 where the kernel does not say. A global
/// function, so that it is verified once.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn segment_headers(skb: Skb) -> u32 {
    if KNOWS_SUPER_PACKETS.load() == 0 {
        return 0;
    }
    let buffer = skb as u64;
    let (head, kind) = head_and_kind(buffer);
    let place = if is_inside(kind) { SKB_INNER_TRANSPORT.load() } else { SKB_TRANSPORT.load() };
    let transport: u16 = read(buffer + u64::from(place));
    let transport = head + u64::from(transport);
    let data: u64 = read(buffer + u64::from(SKB_DATA.load()));
    headers(kind, transport.wrapping_sub(data), read::<u8>(transport + DATA_OFFSET).into())
}

/// Of how many packets a super-packet is made that its sender has not counted: `kind` and `size` as the kernel says them, `before`
/// its transport header so many octets, of which the thirteenth is `data_offset`. A global function, so that it is verified
/// once.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn segments(kind: u32, size: u32, before: u32, data_offset: u32, length: u32) -> u32 {
    let headers = headers(kind, u64::from(before), data_offset);
    if size == GSO_BY_FRAGS { 1 } else { length.saturating_sub(headers).div_ceil(size.max(1)) }
}

/// Whether what is cut by this kind is inside of a tunnel's packets.
#[inline(always)]
pub(crate) const fn is_inside(kind: u32) -> bool {
    kind & TUNNEL != 0
}

/// Where the length of TCP's header stands in it, in the upper half of an octet, in units of four (RFC 9293 section 3.1).
pub(crate) const DATA_OFFSET: u64 = 12;

/// Octets up to the end of a transport header that has so many before it; 0 where that cannot be.
#[inline(always)]
fn headers(kind: u32, before: u64, data_offset: u32) -> u32 {
    // Of what a card is to encrypt the kernel speaks as of two headers at once.
    if !BELIEVED.contains(&before) || kind & ESP != 0 {
        return 0;
    }
    let own = if kind & TCP != 0 {
        data_offset >> 4 << 2
    } else if kind & UDP != 0 {
        8
    } else if kind & SCTP != 0 {
        // The common header (RFC 9260 section 3.1): each segment has chunks of its own.
        12
    } else {
        return 0;
    };
    before as u32 + own
}

/// A number in the kernel's memory; 0 where that cannot be read.
#[inline(always)]
fn read<T: Copy + Default>(from: u64) -> T {
    let mut number = T::default();
    // SAFETY: as much as there is room for; an address that cannot be read is an error, and leaves 0.
    unsafe { bpf_probe_read_kernel((&raw mut number).cast(), size_of::<T>() as u32, from as *const c_void) };
    number
}
