//! The units at the ends of a flow, where more than one end is a socket of this host: the host's end of a container's or an
//! overlay's flow, beside the boundary's unit, and both ends of what loopback carries. Asked once a flow.

use core::num::{NonZeroU16, NonZeroU32};

use collector_ebpf::abi::{flow::how, pu::index};

use crate::{
    Skb, cgroup,
    classify::{Attribution, came_in_by, declared, of_local_port, of_remote_port, own},
    family::Key,
    read::Packet,
    settings::BY_ENDS,
    socket::{self, Socket},
};

/// An end on this host, and its unit; 0 where control groups are not asked for.
///
/// "None" is a number too: the verifier refuses the copy of a register that nobody has written to, which LLVM makes of the
/// empty half of another `Option`.
#[derive(Clone, Copy)]
pub(crate) struct HostEnd(NonZeroU32);

impl HostEnd {
    const IS_THERE: u32 = 1 << 16;

    #[inline(always)]
    const fn of(pu: u16) -> Option<Self> {
        match NonZeroU32::new(pu as u32 | Self::IS_THERE) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Its unit.
    #[inline(always)]
    pub(crate) const fn pu(self) -> u16 {
        self.0.get() as u16
    }
}

/// The host's end of a flow at the boundary of a unit, if it has one.
#[inline(always)]
pub(crate) fn host_end<K: Key>(skb: Skb, packet: &Packet) -> Option<HostEnd> {
    let key = packet.key::<K>();
    let (address, port) = if packet.is_far() {
        (key.remote(), of_remote_port(key.rest()))
    } else {
        (key.local(), of_local_port(key.rest()))
    };
    if packet.is_leaving() {
        return if came_in_by(skb) != 0 {
            None
        } else if BY_ENDS.load() == 0 {
            HostEnd::of(0)
        } else {
            HostEnd::of(match named(own(address), port) {
                0 => cgroup::of_sender::<K>(skb, packet),
                pu => pu,
            })
        };
    }
    let owner = own(address)?;
    let socket = socket::of_host::<K>(skb, packet);
    if let Socket::None = socket {
        return None;
    }
    HostEnd::of(match (BY_ENDS.load(), named(Some(owner), port)) {
        (0, _) => 0,
        (_, 0) => of_socket(socket),
        (_, pu) => pu,
    })
}

/// Both ends are this host: one sends, and the other is looked for.
#[inline(always)]
pub(crate) fn on_loopback<K: Key>(skb: Skb, packet: &Packet) -> Attribution {
    let key = packet.key::<K>();
    let local = of_local_port(key.rest()).or_else(|| declared(key.local()));
    let by_matcher = match local {
        Some(pu) => Attribution::by(pu.get(), how::BY_CIDR),
        None => Attribution::by(packet.role.pu, how::BY_ADDRESS),
    };
    if BY_ENDS.load() == 0 {
        return by_matcher;
    }
    let sender = cgroup::of_sender::<K>(skb, packet);
    let receiver = receiver::<K>(skb, packet);
    if packet.sent() {
        return at_local(by_matcher, sender).beside(receiver);
    }
    let remote = match named(declared(key.remote()), of_remote_port(key.rest())) {
        0 => sender,
        pu => pu,
    };
    at_local(by_matcher, receiver).beside(remote)
}

/// What is known of the local end: its port or address, if that is declared, else its socket.
#[inline(always)]
fn at_local(by_matcher: Attribution, by_socket: u16) -> Attribution {
    if by_matcher.is_by(how::BY_CIDR) || by_socket == index::HOST {
        by_matcher
    } else {
        Attribution::by(by_socket, how::BY_SOCKET)
    }
}

/// The unit that receives what is sent on loopback: whose port or address it goes to, else whose socket takes it.
#[inline(always)]
pub(crate) fn receiver<K: Key>(skb: Skb, packet: &Packet) -> u16 {
    let key = packet.key::<K>();
    let (address, port) = if packet.sent() {
        (key.remote(), of_remote_port(key.rest()))
    } else {
        (key.local(), of_local_port(key.rest()))
    };
    match named(declared(address), port) {
        0 => of_socket(socket::on_loopback::<K>(skb, packet)),
        pu => pu,
    }
}

/// The unit that declares an end's port, else its address, whose unit is `pu`; 0 where that is the host's.
#[inline(always)]
fn named(pu: Option<NonZeroU16>, port: Option<NonZeroU16>) -> u16 {
    match port.or(pu) {
        Some(pu) if pu.get() >= index::FIRST => pu.get(),
        _ => 0,
    }
}

/// The unit of a socket that was asked for.
#[inline(always)]
fn of_socket(asked: Socket) -> u16 {
    match asked {
        Socket::Found => cgroup::of_receiver(),
        Socket::None | Socket::NotAsked => index::HOST,
    }
}
