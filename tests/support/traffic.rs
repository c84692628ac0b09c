//! What goes over the wires: exact numbers of datagrams, whole TCP connections, frames as they are.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd},
    panic,
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, Timespec, epoll, poll},
    thread::{CpuSet, sched_setaffinity},
};

use crate::{PATIENCE, Result, lab::End};

/// Keeps the calling thread on one CPU.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("CPU {cpu}"))
}

/// Sockets on a host that take what comes, and answer on one port.
#[derive(Debug)]
pub struct Host {
    end: End,
    _sinks: Vec<UdpSocket>,
    answering: Option<(thread::JoinHandle<()>, UdpSocket)>,
}

/// Where a [`Host`] answers.
pub const ANSWERS: u16 = 7;

impl Host {
    /// Opens `sinks`, UDP ports whose datagrams nobody reads (and nobody refuses), and the port that answers.
    pub fn new(end: &End, sinks: &[u16]) -> Result<Self> {
        Self::at(end, sinks, (Ipv6Addr::UNSPECIFIED, ANSWERS).into())
    }

    /// The same, and answers at one address alone.
    pub fn at(end: &End, sinks: &[u16], answering: SocketAddr) -> Result<Self> {
        let (sockets, answers) = end.place.within(|| {
            let mut sockets = Vec::new();
            for port in sinks {
                // IPv4 comes to it as well.
                sockets.push(UdpSocket::bind(("::", *port))?);
            }
            Ok((sockets, UdpSocket::bind(answering)?))
        })?;
        let socket = answers.try_clone()?;
        let thread = thread::spawn(move || {
            let mut question = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                if length == 0 {
                    return;
                }
                let _ = socket.send_to(&question[..length], from);
            }
        });
        Ok(Self { end: end.clone(), _sinks: sockets, answering: Some((thread, answers)) })
    }

    /// The address of one of its ports.
    pub fn address(&self, version: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.end.address(version), port)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let Some((thread, socket)) = self.answering.take() else { return };
        // An empty datagram from the same host ends it.
        let stopped = self.end.place.within(|| {
            let mut to = socket.local_addr()?;
            if to.ip().is_unspecified() {
                to.set_ip(Ipv6Addr::LOCALHOST.into());
            }
            let from = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            Ok(UdpSocket::bind(from)?.send_to(&[], to)?)
        });
        if stopped.is_ok() {
            let _ = thread.join();
        }
    }
}

/// A stream of datagrams, all alike.
#[derive(Clone, Copy, Debug)]
pub struct Datagrams {
    /// Where to.
    pub to: SocketAddr,
    /// How many.
    pub count: u64,
    /// Octets of payload.
    pub size: usize,
}

/// A socket on a host to send datagrams from.
pub fn sender(from: &End, version: u8, port: u16) -> Result<UdpSocket> {
    let address = SocketAddr::new(from.address(version), port);
    from.place.within(|| UdpSocket::bind(address).with_context(|| address.to_string()))
}

/// Sends all of `datagrams` from the calling thread, and fails unless the kernel took every one.
pub fn send(socket: &UdpSocket, datagrams: &Datagrams) -> Result<()> {
    let payload = vec![0x55; datagrams.size];
    for number in 0..datagrams.count {
        let sent = socket.send_to(&payload, datagrams.to).with_context(|| format!("datagram {number}"))?;
        ensure!(sent == payload.len(), "datagram {number} was cut");
    }
    Ok(())
}

/// Returns when all that the calling thread sent before has arrived at `host`. A CPU hands packets on in their order, so
/// the thread must have stayed on one ([`pin`]).
pub fn settle(from: &End, host: &Host) -> Result<()> {
    let socket = sender(from, 4, 0)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.connect(host.address(4, ANSWERS))?;
    for number in 0..PATIENCE.as_secs() {
        socket.send(&number.to_ne_bytes())?;
        match socket.recv(&mut [0; 64]) {
            Ok(_) => return Ok(()),
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("{} does not answer", host.end.place.name())
}

/// Sends from one host to another on one CPU, and waits until all has arrived.
pub fn send_and_settle(from: &End, port: u16, host: &Host, all: &[Datagrams]) -> Result<()> {
    thread::scope(|scope| {
        let work = || {
            pin(0)?;
            for datagrams in all {
                let version = if datagrams.to.is_ipv4() { 4 } else { 6 };
                send(&sender(from, version, port)?, datagrams)?;
            }
            settle(from, host)
        };
        scope.spawn(work).join().unwrap_or_else(|cause| panic::resume_unwind(cause))
    })
}

/// What a TCP socket says of its connection (`struct tcp_info`, include/uapi/linux/tcp.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// The connection carries timestamps: 12 octets in every header.
    pub timestamps: bool,
    /// Segments sent, acknowledgements and repetitions included. The answer to a SYN is not: it is sent before there is
    /// a socket.
    pub segs_out: u64,
    /// Segments received.
    pub segs_in: u64,
    /// Segments with data sent.
    pub data_segs_out: u64,
    /// Octets of data sent, repetitions included.
    pub bytes_sent: u64,
    /// Octets of data sent again.
    pub bytes_retrans: u64,
    /// Segments sent again, the answer to a SYN included.
    pub repeated: u64,
    /// The connection is over.
    pub is_closed: bool,
}

impl TcpInfo {
    /// Asks a socket.
    pub fn of(socket: &TcpStream) -> Result<Self> {
        const NEWEST_FIELD: usize = 216;
        const TCPI_OPT_TIMESTAMPS: u8 = 1;
        const TCP_CLOSE: u8 = 7;
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
        ensure!(result == 0, "TCP_INFO: {}", std::io::Error::last_os_error());
        ensure!(
            length as usize >= NEWEST_FIELD,
            "this kernel's TCP_INFO is too short: Linux 4.19 has all of it"
        );
        let word =
            |at: usize| u64::from(u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]));
        let double = |at: usize| {
            let mut octets = [0; 8];
            octets.copy_from_slice(&info[at..at + 8]);
            u64::from_ne_bytes(octets)
        };
        Ok(Self {
            timestamps: info[5] & TCPI_OPT_TIMESTAMPS != 0,
            segs_out: word(136),
            segs_in: word(140),
            data_segs_out: word(156),
            bytes_sent: double(200),
            bytes_retrans: double(208),
            repeated: word(100),
            is_closed: info[0] == TCP_CLOSE,
        })
    }
}

/// A connection that was closed by both sides.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// The client's address.
    pub client: SocketAddr,
    /// The server's.
    pub server: SocketAddr,
    /// What the client's socket said when all was over.
    pub client_info: TcpInfo,
    /// What the server's socket said when all was over.
    pub server_info: TcpInfo,
}

/// Opens a connection, sends `forth` octets to the server and `back` octets to the client, and closes it: first the
/// client, then the server. Returns when the last acknowledgement has arrived at the server.
pub fn transfer(
    client: &End,
    server: &End,
    version: u8,
    port: u16,
    forth: usize,
    back: usize,
) -> Result<Connection> {
    let address = SocketAddr::new(server.address(version), port);
    let listener = server.place.within(|| Ok(TcpListener::bind(address)?))?;
    let (told, client_has_all) = mpsc::channel();
    thread::scope(|scope| {
        let answering = scope.spawn(move || -> Result<_> {
            let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
            let mut waiting = [PollFd::new(&listener, PollFlags::IN)];
            ensure!(poll(&mut waiting, Some(&patience))? == 1, "nobody connects");
            let (mut socket, client) = listener.accept()?;
            let opened = TcpInfo::of(&socket)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            let received = read_all(&mut socket)?;
            ensure!(received == forth, "{received} of {forth} octets arrived at the server");
            write_all(&mut socket, back)?;
            client_has_all.recv_timeout(PATIENCE)?;
            let before = TcpInfo::of(&socket)?;
            socket.shutdown(Shutdown::Write)?;
            let info = closed(&socket)?;
            // On a machine that is too busy: there is no socket, and so no count, for what answers a SYN or an end anew.
            ensure!(opened.repeated == 0, "the answer to the SYN was repeated, which nobody counts");
            ensure!(info.repeated == before.repeated, "the end was repeated, whose answers nobody counts");
            Ok((client, info))
        });
        let asked = (|| -> Result<_> {
            let mut socket = client.place.within(|| Ok(TcpStream::connect_timeout(&address, PATIENCE)?))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            write_all(&mut socket, forth)?;
            socket.shutdown(Shutdown::Write)?;
            socket.read_exact(&mut vec![0; back])?;
            told.send(())?;
            let more = read_all(&mut socket)?;
            ensure!(more == 0, "{more} octets more than {back} arrived at the client");
            TcpInfo::of(&socket)
        })();
        // Where this side failed, the other shall not wait.
        drop(told);
        let client_info = asked?;
        let (client, server_info) = answering.join().unwrap_or_else(|cause| panic::resume_unwind(cause))?;
        Ok(Connection { client, server: address, client_info, server_info })
    })
}

/// Waits until the other side has acknowledged the end, after which nothing is sent.
fn closed(socket: &TcpStream) -> Result<TcpInfo> {
    let changes = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    // Each change of its state, and no more: that it is closed on both sides it is from the beginning.
    epoll::add(
        &changes,
        socket,
        epoll::EventData::new_u64(0),
        epoll::EventFlags::HUP | epoll::EventFlags::ET,
    )?;
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    loop {
        let info = TcpInfo::of(socket)?;
        if info.is_closed {
            return Ok(info);
        }
        let mut events = Vec::with_capacity(1);
        epoll::wait(&changes, spare_capacity(&mut events), Some(&patience))?;
        ensure!(!events.is_empty(), "nobody acknowledges the end of the connection");
    }
}

fn write_all(socket: &mut TcpStream, mut octets: usize) -> Result<()> {
    let chunk = vec![0xAA; 1 << 16];
    while octets > 0 {
        let length = octets.min(chunk.len());
        socket.write_all(&chunk[..length])?;
        octets -= length;
    }
    Ok(())
}

fn read_all(socket: &mut TcpStream) -> Result<usize> {
    let mut chunk = vec![0; 1 << 16];
    let mut octets = 0;
    loop {
        match socket.read(&mut chunk)? {
            0 => return Ok(octets),
            length => octets += length,
        }
    }
}

/// A socket that sends frames as they are, through the queue of an interface.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    ifindex: u32,
}

impl PacketSocket {
    /// Opens one on an interface.
    pub fn new(end: &End) -> Result<Self> {
        let socket = end.place.within(|| {
            // Protocol 0: it receives nothing.
            // SAFETY: no memory is involved; a descriptor that comes back is nobody else's.
            let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
            ensure!(socket >= 0, "a packet socket: {}", std::io::Error::last_os_error());
            // SAFETY: as above.
            Ok(unsafe { OwnedFd::from_raw_fd(socket) })
        })?;
        Ok(Self { socket, ifindex: end.ifindex })
    }

    /// The same, and it hands its frames to the driver past the queue, where no program sees them.
    pub fn past_the_queue(end: &End) -> Result<Self> {
        let socket = Self::new(end)?;
        set_option(&socket.socket, (libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS), &1_i32.to_ne_bytes())?;
        Ok(socket)
    }

    /// The same, and each frame is sent behind a `virtio_net_hdr` (`include/uapi/linux/virtio_net.h`): as a super-packet, if that
    /// says so, as a virtual machine hands it to its host.
    pub fn of_super_packets(end: &End) -> Result<Self> {
        const PACKET_VNET_HDR: libc::c_int = 15;
        let socket = Self::new(end)?;
        set_option(&socket.socket, (libc::SOL_PACKET, PACKET_VNET_HDR), &1_i32.to_ne_bytes())?;
        Ok(socket)
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: integers, for all of which zero is a value.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = self.ifindex as i32;
        // SAFETY: frame and address are as long as is said.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        ensure!(sent == frame.len() as isize, "a frame was not sent: {}", std::io::Error::last_os_error());
        Ok(())
    }
}

/// Sets an option of a socket, by its level and name.
pub fn set_option(
    socket: &impl AsRawFd,
    (level, name): (libc::c_int, libc::c_int),
    value: &[u8],
) -> Result<()> {
    // SAFETY: the value is as long as is said.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    ensure!(done == 0, "option {name} of level {level}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Octets of Ethernet and IP headers.
pub fn headers(address: IpAddr) -> u64 {
    14 + if address.is_ipv4() { 20 } else { 40 }
}
