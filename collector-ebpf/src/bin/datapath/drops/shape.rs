//! What a socket buffer is, read in the kernel's own structures.
//!
//! The verifier checks the [places](crate::places) of fields against the kernel's type information: a field of another size or
//! kind is refused at load. A pointer that leads nowhere reads as 0.

use core::{ffi::c_void, ptr};

use aya_ebpf::{Global, helpers::generated::bpf_probe_read_kernel};
use collector_ebpf::{
    abi::packet::link,
    wire::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};

use crate::{
    packet::forget_by,
    places::{
        DEV_INDEX, DEV_NET, DEV_TYPE, NET_INODE, SHARED_SIZES, SHARED_TYPE, SKB_CB, SKB_DATA, SKB_DATA_LEN,
        SKB_DEV, SKB_END, SKB_HEAD, SKB_IIF, SKB_INNER_TRANSPORT, SKB_LEN, SKB_MAC, SKB_MARK, SKB_NETWORK,
        SKB_PKT_TYPE, SKB_PKT_TYPE_BIT, SKB_PROTOCOL, SKB_SK, SKB_TRANSPORT, SKB_VLAN_PRESENT,
        SKB_VLAN_PRESENT_BIT, SKB_VLAN_PROTO, SKB_VLAN_TCI, SOCK_NET,
    },
    settings::{LOADS_ANYWHERE, SIGNATURE},
    superpacket,
};

/// `ARPHRD_ETHER` and `ARPHRD_LOOPBACK` (`include/uapi/linux/if_arp.h`): frames with an Ethernet header.
const ETHER: u16 = 1;
const LOOPBACK: u16 = 772;
/// `skb->mac_header` where nobody has set it.
const NOT_SET: u16 = 0xFFFF;
/// `PACKET_BROADCAST` and `PACKET_MULTICAST` (`include/uapi/linux/if_packet.h`).
const FOR_MANY: core::ops::RangeInclusive<u8> = 1..=2;
/// Octets of a link layer's header that is believed: Ethernet with up to four tags.
const LINK_HEADERS: core::ops::RangeInclusive<u32> = 14..=30;
/// Where the addresses stand in an IPv4 header (RFC 791 section 3.1).
const ADDRESSES_4: u64 = 12;
/// And in one of IPv6 (RFC 8200 section 3).
const ADDRESSES_6: u64 = 8;

/// A socket buffer that is dropped.
pub(super) struct Dropped {
    /// Where its octets begin: at the link layer's header if that is there, else at the network layer's.
    pub(super) start: u64,
    /// Octets from there on.
    pub(super) length: u32,
    /// Those of them that lie in one piece.
    pub(super) linear: u32,
    pub(super) packets: u32,
    /// Octets before where the kernel has come to in it; `u32::MAX` where it begins behind that.
    pub(super) before: u32,
    /// The interface that it came in by, or else is at.
    pub(super) interface: u32,
    /// The interface that it is at: another one where it came in and is about to leave.
    pub(super) at: u32,
    /// The inode of the network namespace; 0 where nothing tells.
    pub(super) namespace: u32,
    pub(super) mark: u32,
    pub(super) vlan_tci: u16,
    /// Network byte order; 0 without a tag.
    pub(super) vlan_protocol: u16,
    /// One of [`link`].
    pub(super) link: u8,
    pub(super) came_in: bool,
    /// A broadcast or a multicast.
    pub(super) is_for_many: bool,
    /// The Ethertype, host byte order.
    protocol: u16,
    /// The address of the network layer's header.
    network: u64,
}

impl Dropped {
    /// Reads what there is to know of it; `None` if it is nothing that a network carries.
    #[inline(always)]
    pub(super) fn of(skb: *const u8) -> Option<Self> {
        // SAFETY: the kernel's buffer, whose fields lie there.
        unsafe {
            let device: *const u8 = field(skb, &SKB_DEV);
            let protocol = u16::from_be(field(skb, &SKB_PROTOCOL));
            if device.is_null() && protocol == 0 {
                return None;
            }
            let (index, kind, mut namespace) = if device.is_null() {
                (0, ETHER, 0)
            } else {
                let net: *const u8 = field(device, &DEV_NET);
                (field::<u32>(device, &DEV_INDEX), field::<u16>(device, &DEV_TYPE), inode(net))
            };
            if namespace == 0 {
                let sock: *const u8 = field(skb, &SKB_SK);
                if !sock.is_null() {
                    namespace = inode(field(sock, &SOCK_NET));
                }
            }
            let came_in_by: u32 = field(skb, &SKB_IIF);
            let head: u64 = field(skb, &SKB_HEAD);
            let data: u64 = field(skb, &SKB_DATA);
            let length: u32 = field(skb, &SKB_LEN);
            let in_fragments: u32 = field(skb, &SKB_DATA_LEN);
            let (mac, network): (u16, u16) = (field(skb, &SKB_MAC), field(skb, &SKB_NETWORK));
            let header = u32::from(network).wrapping_sub(u32::from(mac));
            let is_framed =
                mac != NOT_SET && LINK_HEADERS.contains(&header) && (kind == ETHER || kind == LOOPBACK);
            let start = head + u64::from(if is_framed { mac } else { network });
            // What the stack has taken off in front is still there, and what it has put there is not the packet's. Nobody
            // moves by more than an offset can say.
            let is_before = data < start;
            let moved = (if is_before { start - data } else { data - start }).min(0xFFFF) as u32;
            let (before, ahead) = if is_before { (0, moved) } else { (moved, 0) };
            let end: u32 = field(skb, &SKB_END);
            let shared = head + u64::from(end) + u64::from(SHARED_SIZES.load());
            let mut sizes = [0_u16; 2];
            load(shared, &mut sizes);
            let length = (length + before).saturating_sub(ahead);
            let [size, mut segments] = sizes.map(u32::from);
            if segments == 0 && size != 0 {
                let at = if is_framed { mac } else { network };
                // What the verifier knows of it is nothing, whichever way it came about.
                segments = forget_by(length, uncounted(skb, at.into(), length, size));
            }
            Some(Self {
                start,
                length,
                linear: length.saturating_sub(in_fragments),
                before: if is_before { u32::MAX } else { before },
                packets: segments.max(1),
                interface: if came_in_by == 0 { index } else { came_in_by },
                at: index,
                namespace,
                mark: field(skb, &SKB_MARK),
                vlan_tci: field(skb, &SKB_VLAN_TCI),
                vlan_protocol: tag(skb),
                link: if is_framed { link::ETHERNET } else { link::RAW_IP },
                came_in: came_in_by != 0,
                is_for_many: FOR_MANY.contains(&(kind_of(skb))),
                protocol,
                network: head + u64::from(network),
            })
        }
    }

    /// The addresses of its IP header.
    #[inline(always)]
    pub(super) fn ends(&self) -> Ends {
        match self.protocol {
            ETHERTYPE_IPV4 => {
                let (known, [source, destination]) = self.read::<2>(ADDRESSES_4);
                Ends { known, source: mapped(source), destination: mapped(destination) }
            }
            ETHERTYPE_IPV6 => {
                let (known, [one, two, three, four, to_one, to_two, to_three, to_four]) =
                    self.read::<8>(ADDRESSES_6);
                Ends {
                    known,
                    source: octets([one, two, three, four]),
                    destination: octets([to_one, to_two, to_three, to_four]),
                }
            }
            _ => Ends { known: false, source: [0; 16], destination: [0; 16] },
        }
    }

    /// Words of the IP header, no more than are needed, for each costs; and whether they could be read.
    #[inline(always)]
    fn read<const WORDS: usize>(&self, at: u64) -> (bool, [u32; WORDS]) {
        let mut words = [0_u32; WORDS];
        // What lies behind the packet's end is somebody else's.
        if self.network + at + 4 * WORDS as u64 > self.start + u64::from(self.length) {
            return (false, words);
        }
        // SAFETY: within the packet, as the kernel says.
        let loaded = unsafe { load(self.network + at, &mut words) };
        (loaded, words)
    }
}

/// Of how many packets a super-packet is made that its sender has not counted, whose octets begin `at` so many behind its
/// memory's beginning, and are `length`; `size` as the kernel says it. A function of its own, whose stack is free again.
#[inline(never)]
fn uncounted(skb: *const u8, at: u32, length: u32, size: u32) -> u32 {
    let (mut kind, mut data_offset) = ([0_u32], [0_u8]);
    // SAFETY: the kernel's buffer, whose fields lie there.
    unsafe {
        let head: u64 = field(skb, &SKB_HEAD);
        let end: u32 = field(skb, &SKB_END);
        load(head + u64::from(end) + u64::from(SHARED_TYPE.load()), &mut kind);
        let [kind] = kind;
        let transport: u16 = if superpacket::is_inside(kind) {
            field(skb, &SKB_INNER_TRANSPORT)
        } else {
            field(skb, &SKB_TRANSPORT)
        };
        load(head + u64::from(transport) + superpacket::DATA_OFFSET, &mut data_offset);
        let [data_offset] = data_offset;
        let before = u32::from(transport).wrapping_sub(at);
        superpacket::segments(kind, size, before, data_offset.into(), length)
    }
}

/// Loads numbers from the kernel's memory; `false` where they cannot be read and that is told, else they are 0 then.
///
/// A helper's call costs as much as all else that a drop's structures are looked at for.
///
/// # Safety
///
/// None but that of the kernel: what is not there is not read.
#[inline(always)]
unsafe fn load<T: Copy, const COUNT: usize>(from: u64, into: &mut [T; COUNT]) -> bool {
    if LOADS_ANYWHERE.load() != 0 {
        for (at, one) in into.iter_mut().enumerate() {
            // SAFETY: the caller's promise. Volatile: one load of its own size, as the verifier wants it.
            *one = unsafe { ptr::read_volatile((from as *const T).add(at)) };
        }
        return true;
    }
    let octets = size_of::<[T; COUNT]>() as u32;
    // SAFETY: as much as there is room for; an address that cannot be read is an error.
    unsafe { bpf_probe_read_kernel(into.as_mut_ptr().cast(), octets, from as *const c_void) == 0 }
}

/// The addresses of an IP header, IPv4 as `::ffff:a.b.c.d`.
///
/// No `Option`: of one that is `None` LLVM keeps registers that nothing was written to, which the verifier refuses.
pub(super) struct Ends {
    /// They could be read.
    pub(super) known: bool,
    pub(super) source: [u8; 16],
    pub(super) destination: [u8; 16],
}

/// An IPv4 address as one of IPv6 (RFC 4291 section 2.5.5.2).
#[inline(always)]
fn mapped(address: u32) -> [u8; 16] {
    octets([0, 0, u32::from_be(0xFFFF), address])
}

#[inline(always)]
fn octets(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: as long, and any bits are both.
    unsafe { core::mem::transmute(words) }
}

/// Whether a socket buffer's octets begin there, or its link layer's header does.
#[inline(always)]
pub(super) fn begins_at(skb: *const u8, start: u64) -> bool {
    // SAFETY: the kernel's buffer, whose fields lie there.
    unsafe {
        let (head, data): (u64, u64) = (field(skb, &SKB_HEAD), field(skb, &SKB_DATA));
        data == start || head + u64::from(field::<u16>(skb, &SKB_MAC)) == start
    }
}

/// Where in what [`signed`] says the number of the verdict stands.
pub(super) const POLICY_AT: u32 = 32;

/// Of a buffer that a program at TC of this load has dropped for a policy: its unit, which end of it is that unit's (from bit
/// 16 on), and the number of the verdict (from [`POLICY_AT`] on); else 0.
#[inline(always)]
pub(super) fn signed(skb: *const u8) -> u64 {
    let signature = SIGNATURE.load();
    if SKB_CB.load() == 0 || signature == 0 {
        return 0;
    }
    for at in 0..size_of::<u64>() {
        if octet(skb, at) != (signature >> (8 * at)) as u8 {
            return 0;
        }
    }
    let number = |at| u64::from(octet(skb, at)) | u64::from(octet(skb, at + 1)) << 8;
    let (policy, pu, end) = (number(8), number(10), u64::from(octet(skb, 12)));
    pu | end << 16 | policy << POLICY_AT
}

/// One of the control block: the kernel declares octets, and the verifier takes no loads of several.
#[inline(always)]
fn octet(skb: *const u8, at: usize) -> u8 {
    // SAFETY: the caller's buffer, whose control block lies there. Volatile: one load of its own size.
    unsafe { ptr::read_volatile(skb.add(SKB_CB.load() as usize + at)) }
}

/// The protocol of the tag beside the buffer, network byte order; 0 without one.
#[inline(always)]
unsafe fn tag(skb: *const u8) -> u16 {
    // SAFETY: the caller's buffer.
    unsafe {
        let bit = SKB_VLAN_PRESENT_BIT.load();
        if bit != 0 && u32::from(field::<u8>(skb, &SKB_VLAN_PRESENT)) & bit == 0 {
            return 0;
        }
        field(skb, &SKB_VLAN_PROTO)
    }
}

/// Whom the packet is for.
#[inline(always)]
unsafe fn kind_of(skb: *const u8) -> u8 {
    /// `pkt_type` has three bits.
    const MASK: u8 = 7;
    // SAFETY: the caller's buffer.
    unsafe { field::<u8>(skb, &SKB_PKT_TYPE) >> (SKB_PKT_TYPE_BIT.load() & 7) & MASK }
}

/// The inode of a network namespace; 0 of none.
#[inline(always)]
unsafe fn inode(net: *const u8) -> u32 {
    if net.is_null() {
        return 0;
    }
    // SAFETY: the caller's namespace.
    unsafe { field(net, &NET_INODE) }
}

/// A field of a structure of the kernel's.
#[inline(always)]
unsafe fn field<T>(base: *const u8, place: &Global<u32>) -> T {
    // SAFETY: the caller's structure has such a field there. Volatile: one load of its own size, as the verifier wants it.
    unsafe { ptr::read_volatile(base.add(place.load() as usize).cast()) }
}
