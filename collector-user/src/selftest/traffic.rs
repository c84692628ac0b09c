//! What is sent, and what the sockets say of it.
#![expect(unsafe_code, reason = "TCP_INFO and UDP_SEGMENT are asked for by getsockopt and setsockopt")]

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    panic,
    sync::mpsc,
    thread,
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt},
};

use super::{
    PATIENCE,
    case::{Case, Traffic},
    place::PlaceError,
    world::World,
};

/// Traffic did not go as it must for a figure to compare with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum TrafficError {
    /// A namespace cannot be entered.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A socket fails.
    #[error("cannot {action}")]
    Socket {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A connection carried another number of octets.
    #[error("{received} of {sent} octets arrived")]
    Octets {
        /// Sent.
        sent: usize,
        /// Received.
        received: usize,
    },
    /// Nobody connects.
    #[error("nobody has connected to port {port} within {} s", PATIENCE.as_secs())]
    Nobody {
        /// Where it was waited.
        port: u16,
    },
    /// The other side gave up.
    #[error("the other side of the connection gave up")]
    GivenUp,
    /// A connection did not come to its end.
    #[error("the connection was not over within {} s", PATIENCE.as_secs())]
    Open,
    /// The end of a connection was said twice: what answers the second time is no socket, and counts nothing.
    #[error(
        "the end of each of {ATTEMPTS} connections was lost or late, and nobody counts how it is repeated"
    )]
    Repeated,
}

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// The client's port.
    pub(super) from: u16,
    /// The server's.
    pub(super) to: u16,
    /// Wire packets, both directions.
    pub(super) packets: u64,
}

const SERVER_PORT: u16 = 5001;
const CLIENT_PORTS: [u16; 2] = [40_001, 40_002];
/// Connections that are tried, where the machine is too busy for one that ends as it should.
const ATTEMPTS: u32 = 5;
/// Room for what a side has not read yet. The kernel queues 1,000 packets a CPU (`net.core.netdev_max_backlog`) and drops what
/// is beyond, be it before the collector or behind it: a window that is as wide as it likes has more on the way where
/// nothing makes one buffer of many packets.
const WINDOW: usize = 128 << 10;
/// Octets to the server, and back.
const FORTH: usize = 2_000_000;
const BACK: usize = 200_000;
const DATAGRAMS: u64 = 1000;
/// Datagrams in one buffer, where the kernel or the device cuts them.
const SEGMENTS: u64 = 10;
const DATAGRAM: usize = 200;
/// More than two packets of any path.
const LONG_DATAGRAM: usize = 4000;

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> TrafficError {
    move |source| TrafficError::Socket { action, source }
}

/// Sends what a case is about.
///
/// # Errors
///
/// [`TrafficError`].
pub(super) fn send(case: Case, world: &World) -> Result<Sent, TrafficError> {
    let [short, long] = CLIENT_PORTS;
    match case.traffic {
        Traffic::Tcp => {
            let end = |tried: &Result<Sent, TrafficError>| !matches!(tried, Err(TrafficError::Repeated));
            (0..ATTEMPTS).map(|_| connection(world)).find(end).unwrap_or(Err(TrafficError::Repeated))
        }
        Traffic::Udp => {
            let segments = if case.setting.offloads { SEGMENTS } else { 1 };
            datagrams(world, short, segments, DATAGRAM, 1)
        }
        Traffic::Fragments => {
            let packets = fragments(LONG_DATAGRAM, world.mtu, case.setting.family);
            datagrams(world, long, 1, LONG_DATAGRAM, packets)
        }
    }
}

/// Packets that a datagram with so many octets of data becomes. Fragments begin at multiples of 8 octets (RFC 791 section
/// 3.1, RFC 8200 section 4.5).
fn fragments(data: usize, mtu: u32, family: u8) -> u64 {
    const UDP: u64 = 8;
    let headers = if family == 4 { 20 } else { 40 + 8 };
    let each = (u64::from(mtu).saturating_sub(headers) / 8 * 8).max(8);
    (data as u64 + UDP).div_ceil(each)
}

/// Datagrams from a port, each of so many packets; `segments` of them in one buffer.
fn datagrams(
    world: &World,
    port: u16,
    segments: u64,
    size: usize,
    packets_each: u64,
) -> Result<Sent, TrafficError> {
    let (from, to) = world.addresses;
    // Nobody reads them, and nobody refuses them.
    let _sink = world.server.within(|| UdpSocket::bind((to, SERVER_PORT)))?.map_err(failed("open a port"))?;
    let socket = world.client().within(|| UdpSocket::bind((from, port)))?.map_err(failed("open a socket"))?;
    socket.connect((to, SERVER_PORT)).map_err(failed("connect"))?;
    if segments > 1 {
        segment(&socket, size).map_err(failed("have datagrams cut (UDP_SEGMENT)"))?;
    }
    let buffer = vec![0x55; size * segments as usize];
    for _ in 0..DATAGRAMS / segments {
        let sent = socket.send(&buffer).map_err(failed("send a datagram"))?;
        if sent != buffer.len() {
            return Err(TrafficError::Octets { sent: buffer.len(), received: sent });
        }
    }
    Ok(Sent { from: port, to: SERVER_PORT, packets: DATAGRAMS * packets_each })
}

/// Lets the kernel or the device cut what is sent into datagrams (`UDP_SEGMENT`, Linux 4.18).
fn segment(socket: &UdpSocket, size: usize) -> io::Result<()> {
    const UDP_SEGMENT: libc::c_int = 103;
    let size = size as libc::c_int;
    // SAFETY: the kernel reads an integer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            UDP_SEGMENT,
            (&raw const size).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A connection: data to the server, data back, closed by both sides.
fn connection(world: &World) -> Result<Sent, TrafficError> {
    let (_, to) = world.addresses;
    let server = SocketAddr::from((to, SERVER_PORT));
    let listener = world.server.within(|| listen(server))?.map_err(failed("listen"))?;
    let (told, client_has_all) = mpsc::channel();
    thread::scope(|scope| {
        let answering = scope.spawn(move || -> Result<u64, TrafficError> {
            let (mut socket, _) = listener.accept().map_err(|source| match source.kind() {
                io::ErrorKind::WouldBlock => TrafficError::Nobody { port: SERVER_PORT },
                _ => failed("accept a connection")(source),
            })?;
            // The answer to the SYN is sent before there is a socket to count it; how often it was repeated, that knows.
            let opening = 1 + Info::of(&socket)?.repeated;
            socket.set_read_timeout(Some(PATIENCE)).map_err(failed("set a time"))?;
            expect(FORTH, read_all(&mut socket)?)?;
            write_all(&mut socket, BACK)?;
            client_has_all.recv().map_err(|_gone| TrafficError::GivenUp)?;
            let before = Info::of(&socket)?;
            socket.shutdown(Shutdown::Write).map_err(failed("close a connection"))?;
            let after = closed(&socket)?;
            // The client's socket was gone by then, and what answered has no count.
            if after.repeated != before.repeated {
                return Err(TrafficError::Repeated);
            }
            Ok(opening + after.segments)
        });
        let asked = (|| -> Result<(u16, u64), TrafficError> {
            let mut socket = world.client().within(|| connect(server))?.map_err(failed("connect"))?;
            socket.set_read_timeout(Some(PATIENCE)).map_err(failed("set a time"))?;
            write_all(&mut socket, FORTH)?;
            socket.shutdown(Shutdown::Write).map_err(failed("close a connection"))?;
            let mut all = vec![0; BACK];
            socket.read_exact(&mut all).map_err(failed("receive"))?;
            // Where it has gone, its own error says why.
            let _ = told.send(());
            expect(0, read_all(&mut socket)?)?;
            let port = socket.local_addr().map_err(failed("ask a socket"))?.port();
            Ok((port, Info::of(&socket)?.segments))
        })();
        // Who waits for this side shall not where it failed.
        drop(told);
        let answered = answering.join().unwrap_or_else(|cause| panic::resume_unwind(cause));
        let (port, client) = asked?;
        Ok(Sent { from: port, to: SERVER_PORT, packets: client + answered? })
    })
}

/// A socket that waits for connections, for so long; the windows of those are narrow.
fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = narrow(at)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // For how long `accept` waits, too.
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    rustix::net::bind(&socket, &at)?;
    rustix::net::listen(&socket, 1)?;
    Ok(socket.into())
}

/// A connection with a narrow window.
fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = narrow(to)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
    rustix::net::connect(&socket, &to)?;
    Ok(socket.into())
}

fn narrow(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_recv_buffer_size(&socket, WINDOW)?;
    Ok(socket)
}

/// Waits until the other side has acknowledged the end, after which nothing is sent.
fn closed(socket: &TcpStream) -> Result<Info, TrafficError> {
    let waiting = || -> io::Result<OwnedFd> {
        let waiting = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Each change of its state, and no more: that it is closed on both sides it is from the beginning.
        let changes = epoll::EventFlags::HUP | epoll::EventFlags::ET;
        epoll::add(&waiting, socket, epoll::EventData::new_u64(0), changes)?;
        Ok(waiting)
    };
    let waiting = waiting().map_err(failed("wait for a socket"))?;
    let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    loop {
        let info = Info::of(socket)?;
        if info.is_closed {
            return Ok(info);
        }
        let mut events = Vec::with_capacity(1);
        epoll::wait(&waiting, spare_capacity(&mut events), Some(&patience))
            .map_err(|error| failed("wait for a socket")(error.into()))?;
        if events.is_empty() {
            return Err(TrafficError::Open);
        }
    }
}

fn expect(sent: usize, received: usize) -> Result<(), TrafficError> {
    if sent == received { Ok(()) } else { Err(TrafficError::Octets { sent, received }) }
}

/// What a socket says of its connection (`struct tcp_info`, `include/uapi/linux/tcp.h`).
#[derive(Clone, Copy, Debug)]
struct Info {
    /// It is over.
    is_closed: bool,
    /// Segments that were sent again, the answer to the SYN included (`tcpi_total_retrans`).
    repeated: u64,
    /// Segments that the socket has sent, acknowledgements and repetitions included (`tcpi_segs_out`, Linux 4.2).
    segments: u64,
}

impl Info {
    fn of(socket: &TcpStream) -> Result<Self, TrafficError> {
        Self::asked(socket).map_err(failed("ask a socket (TCP_INFO)"))
    }

    fn asked(socket: &TcpStream) -> io::Result<Self> {
        const STATE: usize = 0;
        const TOTAL_RETRANS: usize = 100;
        const SEGS_OUT: usize = 136;
        /// `TCP_CLOSE` (`include/net/tcp_states.h`).
        const CLOSED: u8 = 7;
        let mut info = [0_u8; 512];
        let mut length = info.len() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` octets into the buffer, which has as many.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let said = info.get(..length as usize).unwrap_or_default();
        let word = |at: usize| -> io::Result<u64> {
            let octets = said.get(at..at + 4).and_then(|word| word.try_into().ok());
            Ok(u64::from(u32::from_ne_bytes(octets.ok_or(io::ErrorKind::Unsupported)?)))
        };
        Ok(Self {
            is_closed: said.get(STATE) == Some(&CLOSED),
            repeated: word(TOTAL_RETRANS)?,
            segments: word(SEGS_OUT)?,
        })
    }
}

fn write_all(socket: &mut TcpStream, mut octets: usize) -> Result<(), TrafficError> {
    let chunk = vec![0xAA; 1 << 16];
    while octets > 0 {
        let part = chunk.get(..octets.min(chunk.len())).unwrap_or_default();
        socket.write_all(part).map_err(failed("send"))?;
        octets -= part.len();
    }
    Ok(())
}

fn read_all(socket: &mut TcpStream) -> Result<usize, TrafficError> {
    let mut chunk = vec![0; 1 << 16];
    let mut octets = 0;
    loop {
        match socket.read(&mut chunk).map_err(failed("receive"))? {
            0 => return Ok(octets),
            length => octets += length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fragments;

    #[test]
    fn fragments_as_the_documents_say() {
        // 4,008 octets in pieces of 1,480 and of 1,448.
        assert_eq!(fragments(4000, 1500, 4), 3);
        assert_eq!(fragments(4000, 1500, 6), 3);
        // Exactly two, and one more octet.
        assert_eq!(fragments(2 * 1480 - 8, 1500, 4), 2);
        assert_eq!(fragments(2 * 1480 - 7, 1500, 4), 3);
        // A tunnel's 1,450: pieces of 1,424 and of 1,400.
        assert_eq!(fragments(4000, 1450, 4), 3);
        assert_eq!(fragments(4000, 1450, 6), 3);
    }
}
