//! Who owns the socket at a flow's local end: the user id that the socket's maker had.
//!
//! `bpf_get_socket_uid` would say as the user namespace of the socket's network namespace has it (`from_kuid_munged`), so that
//! root of a container and root of the host were one, and 65534 for a socket that it does not know, which is a user's number as
//! well. So the number is read where the running kernel's type information says: the host's own (`kuid_t`), whoever asks.
//!
//! What was accepted but is not yet taken has the user of who listens; a socket that was taken has that of who took it (the
//! kernel's `sock_graft`). A flow keeps what its first packet showed. A socket of the kernel's own (NFS, for one) is root's.

use aya_ebpf::{Global, helpers::generated::bpf_probe_read_kernel};
use collector_ebpf::abi::flow::{FlowKey4, FlowKey6};

use crate::{
    Skb, cgroup, classify,
    family::Key,
    maps::{ASKED, Asked, USERS},
    read::Packet,
    socket,
};

/// Where `sock.sk_uid` lies, in octets from the socket's beginning; 0 where that is not known.
#[unsafe(no_mangle)]
pub(crate) static SOCK_UID: Global<u32> = Global::new(0);
/// Where a connection that nobody has accepted yet has the socket that listens (`sock_common.skc_listener`).
#[unsafe(no_mangle)]
pub(crate) static SOCK_LISTENER: Global<u32> = Global::new(0);

/// Whether users are asked for.
#[inline(always)]
pub(crate) fn is_asked() -> bool {
    SOCK_UID.load() != 0
}

/// Forgets the user of the run before.
#[inline(always)]
pub(crate) fn begin() {
    tell(0);
}

/// The user of this run's flow is that: what is reported of the flow says so.
#[inline(always)]
pub(crate) fn tell(user: u32) {
    if let Some(asked) = ASKED.get_ptr_mut(0) {
        // SAFETY: this CPU's own entry.
        unsafe { (*asked).user = user };
    }
}

/// The user of the socket at the local end of this run's flow, as in an identity: of that which sends the packet, or which was
/// looked up since the run has [begun](begin) for it. 0 where neither shows it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn user_here(skb: Skb) -> u32 {
    let Some(packet) = Packet::of_run() else { return 0 };
    if !is_asked() || packet.inside != 0 {
        return 0;
    }
    let is_others = if packet.family == FlowKey4::FAMILY {
        is_others::<FlowKey4>(skb, packet)
    } else {
        is_others::<FlowKey6>(skb, packet)
    };
    if is_others {
        0
    } else if packet.sent() {
        of_sender(skb)
    } else {
        // SAFETY: this CPU's own entry.
        ASKED.get_ptr(0).map_or(0, |asked| unsafe { (*asked).user })
    }
}

/// Whether the packet's socket, if it has one, is not that of the flow's local end.
#[inline(always)]
fn is_others<K: Key>(skb: Skb, packet: &Packet) -> bool {
    if packet.is_far() {
        return cgroup::is_kernels_own::<K>(packet);
    }
    packet.is_leaving() && classify::came_in_by(skb) != 0
        || classify::is_tunnel::<K>(packet)
        || cgroup::is_kernels_own::<K>(packet)
}

/// The user of the socket that sends the packet. A global function, so that it is verified once.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn of_sender(skb: Skb) -> u32 {
    let Some(asked) = ASKED.get_ptr_mut(0) else { return 0 };
    // SAFETY: the kernel hands the program a live context, whose socket lives as long as the packet; this CPU's own entry.
    unsafe {
        let socket = (*skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return 0;
        }
        let state = (*socket).state;
        let at = socket::address(asked, socket);
        match state {
            // It has no user of its own, nor has a connection that is over.
            socket::REQUESTED => of(cgroup::read(at, SOCK_LISTENER.load())),
            socket::TIME_WAIT => 0,
            _ => of(at),
        }
    }
}

/// Keeps the user of a looked-up socket, which is a whole one, and whether that is the socket of the flow's local end.
///
/// # Safety
///
/// The socket at this address is held, and `asked` is this CPU's own entry.
#[inline(always)]
pub(crate) unsafe fn keep(asked: *mut Asked, socket: u64, is_local: bool) {
    if !is_asked() {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        (*asked).owner = of(socket);
        if is_local {
            (*asked).user = (*asked).owner;
        }
    }
}

/// The user of the socket at this address, as in an identity; 0 where nothing can be read.
///
/// # Safety
///
/// Any address may be asked for.
#[inline(always)]
unsafe fn of(socket: u64) -> u32 {
    let mut user = 0_u32;
    let from = socket.wrapping_add(SOCK_UID.load().into()) as *const core::ffi::c_void;
    // SAFETY: the helper checks where it reads; the number has as many octets.
    let failed = unsafe { bpf_probe_read_kernel((&raw mut user).cast(), size_of::<u32>() as u32, from) != 0 };
    // The id that is nobody's (`INVALID_UID`) becomes 0.
    if failed || socket == 0 { 0 } else { user.wrapping_add(1) }
}

/// The unit that declares a user.
#[inline(always)]
pub(crate) fn declared(user: u32) -> Option<u32> {
    // SAFETY: only user space writes to this map, each value by one store.
    unsafe { USERS.get(&user.wrapping_sub(1)) }.copied()
}
