//! Questions and answers. None is asked before the one before it is answered, so that when a talk is over, each of its
//! packets has crossed all that lay on its way, and how many there were is known.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
};

use anyhow::{Context as _, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt},
};

use crate::{
    PATIENCE, Result,
    frames::{TCP, UDP},
    netns::Place,
    traffic::{Host, TcpInfo, headers},
};

/// Packets and octets of the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Packets.
    pub packets: u64,
    /// Octets of layer 2.
    pub bytes: u64,
}

/// What two sockets have said to each other.
#[derive(Clone, Copy, Debug)]
pub struct Talk {
    /// The IP protocol.
    pub protocol: u8,
    /// The VLAN at an uplink; 0 without.
    pub vlan: u16,
    /// Who asked, as it calls itself.
    pub source: SocketAddr,
    /// Who was asked, as the source calls it.
    pub destination: SocketAddr,
    /// The questions.
    pub forth: Amount,
    /// The answers.
    pub back: Amount,
    /// Connections that the collector saw begin; a flow of datagrams is one.
    pub begun: u64,
}

impl Talk {
    /// Datagrams that nobody answers.
    pub fn one_way(source: SocketAddr, destination: SocketAddr, count: u64, size: usize) -> Self {
        Self {
            protocol: UDP,
            vlan: 0,
            source,
            destination,
            forth: datagrams(source.ip(), count, size),
            back: Amount::default(),
            begun: 1,
        }
    }

    /// Datagrams that are answered with the same.
    pub fn answered(source: SocketAddr, destination: SocketAddr, count: u64, size: usize) -> Self {
        let all = datagrams(source.ip(), count, size);
        Self { back: all, ..Self::one_way(source, destination, count, size) }
    }

    /// The same where its addresses are translated.
    #[must_use]
    pub fn between(self, source: SocketAddr, destination: SocketAddr) -> Self {
        Self { source, destination, ..self }
    }

    /// Packets and octets received, then sent, by who asked.
    pub fn of_source(&self) -> [u64; 4] {
        [self.back.packets, self.back.bytes, self.forth.packets, self.forth.bytes]
    }

    /// The same of who was asked.
    pub fn of_destination(&self) -> [u64; 4] {
        [self.forth.packets, self.forth.bytes, self.back.packets, self.back.bytes]
    }

    /// With what was said later between the same two.
    #[must_use]
    pub fn and(self, later: &Self) -> Self {
        let sum = |one: Amount, other: Amount| Amount {
            packets: one.packets + other.packets,
            bytes: one.bytes + other.bytes,
        };
        Self { forth: sum(self.forth, later.forth), back: sum(self.back, later.back), ..self }
    }
}

fn datagrams(address: IpAddr, count: u64, size: usize) -> Amount {
    Amount { packets: count, bytes: count * (headers(address) + 8 + size as u64) }
}

/// A socket on a host that sends from one address to another.
pub fn asker(place: &Place, from: SocketAddr, to: SocketAddr) -> Result<UdpSocket> {
    let socket = place.within(|| {
        let socket = UdpSocket::bind(from).with_context(|| from.to_string())?;
        socket.connect(to)?;
        Ok(socket)
    })?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Asks `count` questions of `size` octets of a [`Host`] that answers with the same.
pub fn ask(socket: &UdpSocket, count: u64, size: usize) -> Result<Talk> {
    let (source, destination) = (socket.local_addr()?, socket.peer_addr()?);
    let mut answer = [0; 2048];
    for number in 0..count {
        socket.send(&vec![number as u8; size])?;
        let length = socket.recv(&mut answer).with_context(|| format!("{destination} does not answer"))?;
        ensure!(answer[..length] == vec![number as u8; size], "another answer: {:?}", &answer[..length]);
    }
    Ok(Talk::answered(source, destination, count, size))
}

/// Both at once: 100 questions of 100 octets to where the host answers.
pub fn talk(place: &Place, from: SocketAddr, to: SocketAddr) -> Result<Talk> {
    ask(&asker(place, from, to)?, 100, 100)
}

/// The same between two sockets that the calling thread holds.
pub fn converse(asking: &UdpSocket, answering: &UdpSocket, count: u64, size: usize) -> Result<Talk> {
    let (mut question, mut answer) = ([0; 2048], [0; 2048]);
    for socket in [asking, answering] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    for number in 0..count {
        asking.send(&vec![number as u8; size])?;
        let (length, from) = answering.recv_from(&mut question).context("the question does not come")?;
        answering.send_to(&question[..length], from)?;
        let length = asking.recv(&mut answer).context("the answer does not come")?;
        ensure!(answer[..length] == vec![number as u8; size], "another answer: {:?}", &answer[..length]);
    }
    Ok(Talk::answered(asking.local_addr()?, asking.peer_addr()?, count, size))
}

/// Sends datagrams of `size` octets to a socket that takes them one by one. Returns when all have come.
pub fn tell(from: &UdpSocket, to: &UdpSocket, count: u64, size: usize) -> Result<Talk> {
    to.set_read_timeout(Some(PATIENCE))?;
    let seen_as = to.local_addr()?;
    for number in 0..count {
        from.send(&vec![0x55; size])?;
        let length = to.recv(&mut [0; 2048]).with_context(|| format!("datagram {number} does not come"))?;
        ensure!(length == size, "another datagram at {seen_as}");
    }
    Ok(Talk::one_way(from.local_addr()?, from.peer_addr()?, count, size))
}

/// A socket of a host's that waits for datagrams.
pub fn listener(place: &Place, at: SocketAddr) -> Result<UdpSocket> {
    let socket = place.within(|| UdpSocket::bind(at).with_context(|| at.to_string()))?;
    sockopt::set_socket_recv_buffer_size(&socket, ROOM)?;
    Ok(socket)
}

/// Octets of room in a [`listener`], which anyone may ask for (`net.core.rmem_max`). A datagram takes a page of it where a veth
/// has native XDP on older kernels: of the usual room 49 fill it.
const ROOM: usize = 212_992;

/// A TCP connection, both of whose ends the calling thread holds, and the socket that still listens for others.
#[derive(Debug)]
pub struct Connected {
    _listener: TcpListener,
    client: TcpStream,
    server: TcpStream,
    /// Who the server believes it is connected to.
    pub seen_as: SocketAddr,
    source: SocketAddr,
    destination: SocketAddr,
    /// What both sockets had counted when the collector came; nothing where it saw them begin.
    before: Option<[TcpInfo; 2]>,
}

/// Connects from an address (and any port) on one host to another, where `listening` waits for it.
pub fn connect(
    client: &Place,
    from: IpAddr,
    to: SocketAddr,
    server: &Place,
    listening: SocketAddr,
) -> Result<Connected> {
    let listener = server.within(|| TcpListener::bind(listening).with_context(|| listening.to_string()))?;
    connect_to(client, from, to, listener)
}

/// The same, where somebody listens already.
pub fn connect_to(client: &Place, from: IpAddr, to: SocketAddr, listener: TcpListener) -> Result<Connected> {
    let client = client.within(|| {
        let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
        rustix::net::bind(&socket, &SocketAddr::new(from, 0))?;
        rustix::net::connect(&socket, &to).with_context(|| to.to_string())?;
        Ok(TcpStream::from(socket))
    })?;
    accept(client, to, listener)
}

/// The same of a client that has connected already.
pub fn accept(client: TcpStream, to: SocketAddr, listener: TcpListener) -> Result<Connected> {
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let mut waiting = [PollFd::new(&listener, PollFlags::IN)];
    ensure!(poll(&mut waiting, Some(&patience))? == 1, "the connection to {to} does not come");
    let (server, seen_as) = listener.accept()?;
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    let source = client.local_addr()?;
    Ok(Connected { _listener: listener, client, server, seen_as, source, destination: to, before: None })
}

impl Connected {
    /// Nothing was said so far, and no collector has seen the connection begin.
    pub fn unseen_so_far(&mut self) -> Result<()> {
        self.before = Some([TcpInfo::of(&self.client)?, TcpInfo::of(&self.server)?]);
        Ok(())
    }

    /// The client asks 20 questions of 3,000 octets, more than a segment holds, and is answered with as many.
    pub fn ask(&mut self) -> Result<()> {
        for _ in 0..20 {
            hand_over(&mut self.client, &mut self.server)?;
            hand_over(&mut self.server, &mut self.client)?;
        }
        Ok(())
    }

    /// The server says something unasked.
    pub fn tell(&mut self) -> Result<()> {
        hand_over(&mut self.server, &mut self.client)
    }

    /// Closes it from both ends, the client first. Returns when the last acknowledgement has arrived.
    pub fn close(mut self) -> Result<Talk> {
        self.client.shutdown(Shutdown::Write)?;
        ensure!(self.server.read(&mut [0])? == 0, "the client had more to say");
        self.server.shutdown(Shutdown::Write)?;
        ensure!(self.client.read(&mut [0])? == 0, "the server had more to say");
        let (client, server) = (TcpInfo::of(&self.client)?, TcpInfo::of(&self.server)?);
        ensure!(client.timestamps && server.timestamps, "every header shall be of one length: {client:?}");
        // Closing then waits for the last acknowledgement.
        sockopt::set_socket_linger(&self.server, Some(PATIENCE))?;
        drop(self.server);
        let each = headers(self.source.ip()) + 20 + 12;
        let of = |now: &TcpInfo, before: Option<TcpInfo>, unseen: u64| {
            let was = before.unwrap_or_default();
            // The first segment has 8 octets more of options. That the server answered the SYN, its socket does not
            // count: it came to be by what answered that.
            let (opening, more) = if before.is_some() { (0, 0) } else { (unseen, 8) };
            let packets = now.segs_out - was.segs_out + opening;
            Amount { packets, bytes: now.bytes_sent - was.bytes_sent + packets * each + more }
        };
        Ok(Talk {
            protocol: TCP,
            vlan: 0,
            source: self.source,
            destination: self.destination,
            forth: of(&client, self.before.map(|[client, _]| client), 0),
            back: of(&server, self.before.map(|[_, server]| server), 1),
            begun: u64::from(self.before.is_none()),
        })
    }
}

fn hand_over(from: &mut TcpStream, to: &mut TcpStream) -> Result<()> {
    let mut chunk = [0xAA; 3000];
    from.write_all(&chunk)?;
    to.read_exact(&mut chunk)?;
    Ok(())
}

/// A whole connection: opened, questions and answers, closed.
pub fn transfer(
    client: &Place,
    from: IpAddr,
    to: SocketAddr,
    server: &Place,
    listening: SocketAddr,
) -> Result<(Talk, SocketAddr)> {
    let mut connected = connect(client, from, to, server, listening)?;
    connected.ask()?;
    let seen_as = connected.seen_as;
    Ok((connected.close()?, seen_as))
}

/// The same, where somebody listens already.
pub fn transfer_to(client: &Place, from: IpAddr, to: SocketAddr, listener: TcpListener) -> Result<Talk> {
    let mut connected = connect_to(client, from, to, listener)?;
    connected.ask()?;
    connected.close()
}

/// Sets the mark of all that a socket sends.
pub fn set_mark(socket: &UdpSocket, mark: u32) -> Result<()> {
    // SAFETY: the option is a number of four octets.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MARK,
            (&raw const mark).cast(),
            size_of_val(&mark) as libc::socklen_t,
        )
    };
    ensure!(result == 0, "SO_MARK: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Where a host answers.
pub fn answers(host: &Host, version: u8) -> SocketAddr {
    host.address(version, crate::traffic::ANSWERS)
}
