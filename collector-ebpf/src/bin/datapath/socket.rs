//! Sockets of this host: whether one waits for a packet, and whether one listens where a connection was met midway.

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
};
use collector_ebpf::abi::flow::{FlowKey4, FlowKey6, how, ports};

use crate::{
    Skb, cgroup,
    family::{Key, Rest},
    maps::{ASKED, Asked},
    read::Packet,
    settings::BY_ENDS,
    user,
};

/// Addresses and ports as the kernel asks for them (`struct bpf_sock_tuple`): source address, destination address,
/// source port, destination port, in network byte order; for IPv4 the first 12 octets of it.
pub(crate) type Tuple = [u32; 9];

/// What was asked about the host's end of a flow.
#[derive(Clone, Copy)]
pub(crate) enum Socket {
    /// A socket of this host's.
    Found,
    /// None.
    None,
    /// The protocol is none that the kernel can be asked about.
    NotAsked,
}

pub(crate) const TCP: u8 = 6;
const UDP: u8 = 17;
/// `BPF_F_CURRENT_NETNS`: the namespace of the interface.
const OF_THE_INTERFACE: u64 = -1_i32 as u64;
/// `BPF_TCP_LISTEN`.
const LISTEN: u32 = 10;

/// `BPF_TCP_NEW_SYN_RECV`: a connection that nobody has accepted yet.
pub(crate) const REQUESTED: u32 = 12;
/// `BPF_TCP_TIME_WAIT`: what is left of one that was closed.
pub(crate) const TIME_WAIT: u32 = 6;

/// Whether a socket of this host waits for what is sent to the host's end of the flow. Its control group is
/// [kept](cgroup::of_receiver). Linux 5.2 (`bpf_skc_lookup_tcp`).
#[inline(always)]
pub(crate) fn of_host<K: Key>(skb: Skb, packet: &Packet) -> Socket {
    ask::<K>(skb, packet.key::<K>().rest(), if packet.is_far() { REMOTE } else { 0 })
}

/// The same of the socket that takes what is sent on loopback, at whichever end.
#[inline(always)]
pub(crate) fn on_loopback<K: Key>(skb: Skb, packet: &Packet) -> Socket {
    let rest = packet.key::<K>().rest();
    let end = if packet.sent() { REMOTE } else { 0 };
    ask::<K>(skb, rest, end)
}

/// How the flow's initiator is known when it begins with this packet: better, where that is only who sent it, if a
/// socket of this host listens at the host's end of a TCP connection.
#[inline(always)]
pub(crate) fn initiator<K: Key>(skb: Skb, packet: &Packet) -> u8 {
    let rest = packet.key::<K>().rest();
    if rest.protocol != TCP
        || rest.ports != ports::TRANSPORT
        || how::initiator_by(packet.initiator) != how::BY_FIRST_PACKET
        || look::<K>(skb, LISTENER | if packet.is_far() { REMOTE } else { 0 }) != LISTEN
    {
        return packet.initiator;
    }
    // The host serves: the other side has opened the connection.
    let by_local = if packet.is_far() { how::LOCAL_INITIATED } else { 0 };
    by_local | how::BY_LISTENER << how::INITIATOR_SHIFT
}

/// Asks for a socket at one end: 0 for the local one, or [`REMOTE`].
#[inline(always)]
fn ask<K: Key>(skb: Skb, rest: Rest, end: u32) -> Socket {
    if rest.ports != ports::TRANSPORT || rest.protocol != TCP && rest.protocol != UDP {
        return Socket::NotAsked;
    }
    match look::<K>(skb, KEEP | end | if rest.protocol == UDP { UDP_SOCKET } else { TCP_SOCKET }) {
        0 => return Socket::None,
        // Whoever listens will have the connection.
        REQUESTED if BY_ENDS.load() != 0 || user::is_asked() => {
            look::<K>(skb, KEEP | end | LISTENER);
        }
        _ => {}
    }
    Socket::Found
}

/// Asks for TCP sockets of the flow.
const TCP_SOCKET: u32 = 0;
/// Asks for UDP sockets that would take what is sent to the host's end.
const UDP_SOCKET: u32 = 1;
/// Asks for TCP sockets with the other end left open, which only one that listens has.
const LISTENER: u32 = 2;
/// Beside one of these: at the flow's remote end, not at the local one.
const REMOTE: u32 = 4;
/// Beside one of these: keep the socket's control group, and its user.
const KEEP: u32 = 8;

/// Asks about the packet of this run: 0 where there is no socket, else its state (TCP), or 1. `which` is made of the above.
#[inline(always)]
fn look<K: Key>(skb: Skb, which: u32) -> u32 {
    if K::FAMILY == FlowKey4::FAMILY { look_4(skb, which) } else { look_6(skb, which) }
}

/// The same for IPv4. A global function, so that it is verified once, and not behind every way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn look_4(skb: Skb, which: u32) -> u32 {
    Packet::of_run().map_or(0, |packet| find::<FlowKey4>(skb, packet, which))
}

/// The same for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn look_6(skb: Skb, which: u32) -> u32 {
    Packet::of_run().map_or(0, |packet| find::<FlowKey6>(skb, packet, which))
}

#[inline(always)]
fn find<K: Key>(skb: Skb, packet: &Packet, which: u32) -> u32 {
    let Some(asked) = ASKED.get_ptr_mut(0) else { return 0 };
    let (which, of_remote, keeps) = (which & !(REMOTE | KEEP), which & REMOTE != 0, which & KEEP != 0);
    // SAFETY: this CPU's own entry; the tuple has room for both families.
    let size = unsafe {
        (*asked).cgroup = 0;
        (*asked).owner = 0;
        packet.key::<K>().write_tuple(&raw mut (*asked).tuple, of_remote, which == LISTENER)
    };
    // SAFETY: the context is live, the tuple initialised and of that size. What is found is read while it is held, and
    // released.
    unsafe {
        let tuple = (&raw mut (*asked).tuple).cast();
        let (found, state): (*mut bpf_sock, u32) = if which == UDP_SOCKET {
            (bpf_sk_lookup_udp(skb.cast(), tuple, size, OF_THE_INTERFACE, 0), 1)
        } else {
            let found = bpf_skc_lookup_tcp(skb.cast(), tuple, size, OF_THE_INTERFACE, 0);
            (found, if found.is_null() { 0 } else { (*found).state })
        };
        if found.is_null() {
            return 0;
        }
        if keeps && state != REQUESTED && state != TIME_WAIT {
            let socket = address(asked, found);
            cgroup::keep(asked, socket);
            user::keep(asked, socket, !of_remote);
        }
        bpf_sk_release(found.cast());
        state
    }
}

/// A socket's address, which is a number once it comes back from a map: of no use but to read what lies there while the socket
/// is held.
///
/// # Safety
///
/// `asked` is this CPU's own entry.
#[inline(always)]
pub(crate) unsafe fn address(asked: *mut Asked, socket: *mut bpf_sock) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let at = &raw mut (*asked).socket;
        at.cast::<*mut bpf_sock>().write_volatile(socket);
        at.read_volatile()
    }
}
