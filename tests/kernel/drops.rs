//! Drops, caused for real: each is a row with the kernel's own reason, and the count is exact.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    num::NonZeroU32,
    os::fd::AsRawFd as _,
    panic,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context as _, bail, ensure};
use collector_tests::{
    PATIENCE, Result,
    books::{assert_balanced, assert_explained},
    collector::{Finished, Running, declared, options},
    frames,
    lab::{Addressed, End, Wire, host, join},
    netns::{NetNs, Place},
    program::{Dropping, Hook},
    release,
    talk::listener,
    traffic::{PacketSocket, pin, sender},
};
use collector_user::{
    daemon::Options,
    event::{DeviceDrops, DropClass, QueueSum},
    pu::trace::{Directions, Whose, Wish},
};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// A packet from one host to another, as octets.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) from: Ipv4Addr,
    pub(crate) to: Ipv4Addr,
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    pub(crate) size: usize,
    /// 1 makes the header's checksum wrong.
    pub(crate) error: u16,
    /// Of UDP: 0 is none.
    pub(crate) checksum: u16,
}

impl Packet {
    pub(crate) const fn udp(from: &End, to: Ipv4Addr) -> Self {
        Self { from: from.v4, to, protocol: frames::UDP, ttl: 64, size: 60, error: 0, checksum: 0 }
    }

    /// The frame that carries it to the next hop, to port 6001.
    pub(crate) fn frame(self, from: &End, next: &End) -> Vec<u8> {
        let mut datagram = frames::udp([0x9C, 0x40, 0x17, 0x71], self.size);
        datagram[6..8].copy_from_slice(&self.checksum.to_be_bytes());
        let mut packet = frames::ipv4((self.from, self.to), &[], 0x4000, self.protocol, &datagram);
        packet[8] = self.ttl;
        let checksum = frames::checksum(&packet[..20]) ^ self.error;
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        frames::ethernet_between(from.mac, next.mac, &[], frames::IPV4, &packet)
    }

    /// Sends it so often.
    pub(crate) fn send(self, count: u64, from: &End, next: &End) -> Result<()> {
        let socket = PacketSocket::new(from)?;
        let frame = self.frame(from, next);
        (0..count).try_for_each(|_| socket.send(&frame))
    }
}

/// What of a unit was dropped for one of these reasons; where the kernel names none, of this class.
pub(crate) fn dropped(finished: &Finished, unit: &str, reasons: &[&str], class: DropClass) -> u64 {
    let fits = |reason: &str, of: DropClass| {
        if ["", "NOT_SPECIFIED"].contains(&reason) { of == class } else { reasons.contains(&reason) }
    };
    let rows = finished.status.drops.iter();
    rows.filter(|row| &*row.puid == unit && fits(&row.kernel_reason, row.class)).map(|row| row.packets).sum()
}

/// So many, of this unit, and of no other; the class is what people are told.
#[track_caller]
fn assert_dropped(finished: &Finished, unit: &str, reasons: &[&str], class: DropClass, count: u64) {
    assert_explained(finished);
    let rows = &finished.status.drops;
    assert_eq!(dropped(finished, unit, reasons, class), count, "{reasons:?} of {unit} in {rows:#?}");
    let fits = |reason: &str| reasons.contains(&reason);
    for row in rows.iter().filter(|row| fits(&row.kernel_reason)) {
        assert_eq!(row.class, class, "{row:?}");
        assert!(row.place.contains('+'), "a place has a name: {row:?}");
        assert!(&*row.puid == unit || row.puid.is_empty(), "another unit's: {row:?}");
    }
}

/// Says what each drop was, as this kernel tells it: what a run of `cargo xtask vm` is read for.
#[expect(clippy::print_stdout, reason = "the rows are for who runs the test")]
fn told(finished: Finished) -> Finished {
    for row in &finished.status.drops {
        println!(
            "DROPPED {} {:?} {} of {:?}, {}",
            row.packets,
            row.kernel_reason,
            row.class.text(),
            row.puid,
            row.place
        );
    }
    finished
}

/// Two hosts; the daemon counts on the first. What `cause` does there is dropped.
pub(crate) fn caused(cause: impl FnOnce(&Wire) -> Result<()>) -> Result<Finished> {
    let wire = Wire::new()?;
    let collector = Running::start(&wire.a.place, options())?;
    cause(&wire)?;
    collector.stop().map(told)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_nobody_listens_for() -> Result<()> {
    let finished = caused(|wire| {
        for version in [4, 6] {
            let socket = sender(&wire.b, version, 40_000)?;
            for _ in 0..50 {
                let to = SocketAddr::new(wire.a.address(version), 6001);
                ensure!(socket.send_to(&[0; 64], to)? == 64, "all of it is sent");
            }
        }
        Ok(())
    })?;
    assert_dropped(&finished, "host", &["NO_SOCKET"], DropClass::NoSocket, 100);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_a_rule_drops() -> Result<()> {
    let finished = caused(|wire| {
        wire.a.place.nft(
            "table inet t { chain i { type filter hook input priority 0; udp dport 6001 drop; \
             ct state invalid drop; }; }",
        )?;
        Packet::udp(&wire.b, wire.a.v4).send(70, &wire.b, &wire.a)?;
        // A segment that neither opens nor belongs to a connection.
        let segment = frames::tcp([0x9C, 0x40, 0, 80], frames::SYN | frames::FIN, &[], 0);
        let ends = (wire.b.v4, wire.a.v4);
        let segment = frames::with_checksums(&frames::ipv4(ends, &[], 0x4000, frames::TCP, &segment));
        let frame = frames::ethernet_between(wire.b.mac, wire.a.mac, &[], frames::IPV4, &segment);
        let socket = PacketSocket::new(&wire.b)?;
        (0..30).try_for_each(|_| socket.send(&frame))
    })?;
    assert_dropped(&finished, "host", &["NETFILTER_DROP"], DropClass::Policy, 100);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_finds_a_full_buffer() -> Result<()> {
    let mut lost = 0;
    let finished = caused(|wire| {
        let reader = listener(&wire.a.place, SocketAddr::new(wire.a.v4.into(), 6001))?;
        receive_buffer(&reader, 4096)?;
        Packet { size: 1000, ..Packet::udp(&wire.b, wire.a.v4) }.send(200, &wire.b, &wire.a)?;
        reader.set_nonblocking(true)?;
        let mut read = 0;
        let mut buffer = [0; 2000];
        loop {
            match reader.recv(&mut buffer) {
                Ok(_) => read += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => bail!(error),
            }
        }
        lost = 200 - read;
        Ok(())
    })?;
    assert!(lost > 100, "the buffer is small: {lost}");
    assert_dropped(&finished, "host", &["SOCKET_RCVBUFF", "PROTO_MEM"], DropClass::Resource, lost);
    Ok(())
}

/// Makes a socket's buffer small.
fn receive_buffer(socket: &UdpSocket, octets: i32) -> Result<()> {
    // SAFETY: the value is as long as is said.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const octets).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    ensure!(set == 0, "SO_RCVBUF: {}", std::io::Error::last_os_error());
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_broken() -> Result<()> {
    let finished = caused(|wire| {
        let whole = Packet::udp(&wire.b, wire.a.v4);
        let reader = listener(&wire.a.place, SocketAddr::new(wire.a.v4.into(), 6001))?;
        Packet { error: 1, ..whole }.send(11, &wire.b, &wire.a)?;
        Packet { checksum: 0xBAD1, ..whole }.send(22, &wire.b, &wire.a)?;
        // Its reader finds that out, where the kernel does not do it at once.
        reader.set_nonblocking(true)?;
        let read = reader.recv(&mut [0; 100]);
        ensure!(read.is_err(), "nothing is whole: {read:?}");
        Packet { protocol: 253, ..whole }.send(33, &wire.b, &wire.a)?;
        let frame = frames::ethernet_between(wire.b.mac, wire.a.mac, &[], 0x88B5, &[0; 60]);
        let socket = PacketSocket::new(&wire.b)?;
        (0..44).try_for_each(|_| socket.send(&frame))
    })?;
    assert_balanced(&finished);
    if release::is_at_least((5, 18)) {
        for (reason, count) in
            [("IP_CSUM", 11), ("UDP_CSUM", 22), ("IP_NOPROTO", 33), ("UNHANDLED_PROTO", 44)]
        {
            assert_dropped(&finished, "host", &[reason], DropClass::Malformed, count);
        }
    }
    // The device counts what no protocol takes, and what the stack finds broken is none of its business.
    let drops = finished.status.interfaces.iter().find_map(|interface| interface.device_drops);
    assert_eq!(drops, Some(DeviceDrops { received: 44, ..DeviceDrops::default() }));
    Ok(())
}

/// A host between two: what the first sends through it to the second is forwarded.
pub(crate) struct Between {
    pub(crate) inner: [End; 2],
    pub(crate) outer: [End; 2],
    _hosts: [NetNs; 3],
}

impl Between {
    pub(crate) fn new() -> Result<Self> {
        let hosts = [host()?, host()?, host()?];
        let (first, a) = join(&hosts[0], &hosts[1], 1, Addressed::Both)?;
        let (second, b) = join(&hosts[0], &hosts[2], 2, Addressed::Both)?;
        hosts[0].place().sysctl(&[("ipv4/ip_forward", "1")])?;
        Ok(Self { inner: [first, second], outer: [a, b], _hosts: hosts })
    }

    pub(crate) fn place(&self) -> &Place {
        &self.inner[0].place
    }

    /// Sends packets in at the first wire.
    pub(crate) fn send(&self, packet: Packet, count: u64) -> Result<()> {
        packet.send(count, &self.outer[0], &self.inner[0])
    }

    pub(crate) fn packet(&self, to: Ipv4Addr) -> Packet {
        Packet::udp(&self.outer[0], to)
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_cannot_go_on() -> Result<()> {
    let between = Between::new()?;
    between.place().ip(&format!("link set {} mtu 1000", between.inner[1].dev))?;
    let collector = Running::start(between.place(), options())?;
    let on = between.packet(between.outer[1].v4);
    between.send(Packet { ttl: 1, ..on }, 11)?;
    between.send(Packet { size: 1200, ..on }, 22)?;
    between.send(between.packet(Ipv4Addr::new(203, 0, 113, 1)), 33)?;
    let finished = told(collector.stop()?);
    assert_balanced(&finished);
    if release::is_at_least((6, 12)) {
        assert_dropped(&finished, "forwarded", &["IP_INHDR"], DropClass::Malformed, 11);
        assert_dropped(&finished, "forwarded", &["PKT_TOO_BIG"], DropClass::Route, 22);
        assert_dropped(&finished, "forwarded", &["IP_INNOROUTES"], DropClass::Route, 33);
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_comes_from_where_no_answer_would_go() -> Result<()> {
    let finished = caused(|wire| {
        wire.a.place.sysctl(&[
            ("ipv4/conf/all/rp_filter", "1"),
            (&format!("ipv4/conf/{}/rp_filter", wire.a.dev), "1"),
        ])?;
        let packet = Packet { from: Ipv4Addr::new(198, 51, 100, 9), ..Packet::udp(&wire.b, wire.a.v4) };
        packet.send(40, &wire.b, &wire.a)
    })?;
    // Where the kernel gives no reason, the function is that which refuses broken headers, too.
    let class = if release::is_at_least((5, 17)) { DropClass::Route } else { DropClass::Malformed };
    assert_dropped(&finished, "host", &["IP_RPFILTER"], class, 40);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn whom_nobody_answers_for() -> Result<()> {
    let between = Between::new()?;
    let nobody = Ipv4Addr::new(10, 77, 2, 99);
    let waiting = format!("ipv4/neigh/{}", between.inner[1].dev);
    between.place().sysctl(&[
        (&format!("{waiting}/mcast_solicit"), "1"),
        (&format!("{waiting}/retrans_time_ms"), "10"),
        (&format!("{waiting}/unres_qlen_bytes"), "1000000"),
    ])?;
    let collector = Running::start(between.place(), options())?;
    between.send(between.packet(nobody), 40)?;
    // The host itself hears of it when all that waited has been given up.
    between.place().ip("link set lo up")?;
    let connected =
        between.place().within(|| Ok(TcpStream::connect_timeout(&(nobody, 9).into(), PATIENCE)))?;
    let unreachable = connected.is_err_and(|error| error.kind() == ErrorKind::HostUnreachable);
    ensure!(unreachable, "the host hears nothing of it");
    let finished = told(collector.stop()?);
    assert_balanced(&finished);
    let reasons = ["NEIGH_FAILED"];
    if release::is_at_least((5, 18)) {
        assert_eq!(
            dropped(&finished, "forwarded", &reasons, DropClass::Route),
            40,
            "{:#?}",
            finished.status.drops
        );
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_programs_of_others_drop() -> Result<()> {
    for (hook, reason, first) in [
        (Hook::Xdp, "XDP", (5, 18)),
        (Hook::TcIngress, "TC_INGRESS", (6, 6)),
        (Hook::TcEgress, "TC_EGRESS", (6, 6)),
    ] {
        if !release::is_at_least(first) {
            continue;
        }
        let finished = caused(|wire| {
            let _program = Dropping::at(&wire.a, hook)?;
            if hook == Hook::TcEgress {
                let socket = sender(&wire.a, 4, 40_000)?;
                for _ in 0..60 {
                    // That it is dropped may be told to the sender.
                    let _ = socket.send_to(&[0; 10], (IpAddr::V4(wire.b.v4), 6001));
                }
                return Ok(());
            }
            Packet::udp(&wire.b, wire.a.v4).send(60, &wire.b, &wire.a)
        })?;
        assert_dropped(&finished, "host", &[reason], DropClass::Policy, 60);
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_finds_a_full_queue() -> Result<()> {
    // One that is there before has dropped before; one that comes later has not.
    for is_before in [true, false] {
        let wire = Wire::new()?;
        let dev = &wire.a.dev;
        let is_full =
            || wire.a.place.run(&format!("tc qdisc add dev {dev} root tbf rate 8kbit burst 2kb limit 4kb"));
        let socket = sender(&wire.a, 4, 40_000)?;
        let send = || {
            for _ in 0..100 {
                let _ = socket.send_to(&[0; 900], (IpAddr::V4(wire.b.v4), 6001));
            }
            dropped_by_queue(&wire.a)
        };
        let mut before = 0;
        if is_before {
            is_full()?;
            before = send()?;
            assert!(before > 50, "the queue is short: {before}");
        }
        let collector = Running::start(&wire.a.place, options())?;
        if !is_before {
            is_full()?;
        }
        let said = send()? - before;
        let finished = told(collector.stop()?);
        assert!(said > 50, "the queue is short: {said}");
        assert_dropped(&finished, "host", &["QDISC_DROP", "QDISC_OVERLIMIT"], DropClass::Resource, said);
        let queues: Vec<_> =
            finished.status.interfaces.iter().filter_map(|link| link.queue_drops.as_ref()).collect();
        let [queue] = queues.as_slice() else { bail!("one interface has a queue: {queues:?}") };
        assert_eq!((&*queue.discipline, queue.dropped), ("tbf", said));
        let QueueSum { dropped, told, untold } = finished.status.queues;
        assert_eq!(dropped, said);
        if release::is_at_least((5, 18)) {
            assert_eq!((told, untold), (Some(said), Some(0)));
        }
    }
    Ok(())
}

/// What the queue of an interface has dropped, as `tc` shows it.
fn dropped_by_queue(end: &End) -> Result<u64> {
    let shown = end.place.run(&format!("tc -s qdisc show dev {} root", end.dev))?;
    let words = shown.split_whitespace().skip_while(|word| *word != "(dropped").nth(1);
    Ok(words.context("how many were dropped")?.trim_end_matches(',').parse()?)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn drops_belong_to_the_unit_that_declares_an_end() -> Result<()> {
    let wire = Wire::new()?;
    let units = vec![declared("peer", &[], &[format!("{}/32", wire.b.v4)])?];
    let collector = Running::start(&wire.a.place, Options { units, ..options() })?;
    // It comes to the host, whose drop it is, from a unit's address.
    Packet::udp(&wire.b, wire.a.v4).send(20, &wire.b, &wire.a)?;
    // Nobody of ours has this address, and the host passes nothing on: the sender's.
    Packet::udp(&wire.b, Ipv4Addr::new(203, 0, 113, 1)).send(30, &wire.b, &wire.a)?;
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let of = |unit: &str| {
        finished.status.drops.iter().filter(|row| &*row.puid == unit).map(|row| row.packets).sum::<u64>()
    };
    assert_eq!((of("host"), of("peer")), (20, 30), "{:#?}", finished.status.drops);
    Ok(())
}

/// How many packets the rules of a host have dropped, by their own counters.
pub(crate) fn counted_by_rules(place: &Place) -> Result<u64> {
    let shown = place.run("nft list ruleset")?;
    let numbers =
        shown.split("counter packets ").skip(1).map(|rest| rest.split(' ').next().unwrap_or_default());
    numbers.map(|number| Ok(number.parse::<u64>()?)).sum()
}

/// Nobody shows it addresses of the kernel, so that nothing is known by its place.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_the_collector_does_itself_is_no_drop() -> Result<()> {
    let alone = || -> Result<Finished> {
        let wire = Wire::new()?;
        // Privileges are the thread's own, and of those that it begins.
        let mut held = capabilities(None)?;
        held.effective.remove(CapabilitySet::SYSLOG);
        set_capabilities(None, held)?;
        let collector = Running::start(&wire.a.place, Options { benign_drops: true, ..options() })?;
        let missing = collector.started.missing.join("; ");
        ensure!(missing.contains("without CAP_SYSLOG"), "what hides the names is said: {missing}");
        // It looks at its clocks.
        let wish =
            Wish { whose: Whose::All, directions: Directions::Both, duration: None, every: NonZeroU32::MIN };
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        (0..3).try_for_each(|_| runtime.block_on(collector.started.tracer.enable(wish.clone())))?;
        collector.stop()
    };
    let finished =
        thread::scope(|scope| scope.spawn(alone).join().unwrap_or_else(|cause| panic::resume_unwind(cause)))?;
    let ours: Vec<_> = finished.status.drops.iter().filter(|row| !row.puid.is_empty()).collect();
    assert!(ours.is_empty(), "{ours:#?}");
    assert_explained(&finished);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_drop_in_the_midst_of_another_is_counted_or_said_to_be_skipped() -> Result<()> {
    let wire = Wire::new()?;
    wire.a.place.nft(
        "table inet t { chain o { type filter hook output priority 0; udp dport 6001 counter drop; }; \
         chain i { type filter hook input priority 0; udp dport 6002 counter drop; }; }",
    )?;
    // What is queued here leaves by a timer, in an interrupt, on the CPU that queued it.
    wire.b
        .place
        .run(&format!("tc qdisc add dev {} root tbf rate 20mbit burst 2kb limit 100mb", wire.b.dev))?;
    let collector = Running::start(&wire.a.place, options())?;
    let is_over = AtomicBool::new(false);
    let (tx, rx) = (sender(&wire.a, 4, 40_000)?, sender(&wire.b, 4, 40_000)?);
    let last = listener(&wire.a.place, SocketAddr::new(wire.a.v4.into(), 6003))?;
    last.set_read_timeout(Some(PATIENCE))?;
    thread::scope(|scope| -> Result<()> {
        let process = scope.spawn(|| {
            pin(0)?;
            while !is_over.load(Ordering::Relaxed) {
                let _ = tx.send_to(&[0; 10], (wire.b.v4, 6001));
            }
            Ok::<_, anyhow::Error>(())
        });
        let queued = scope.spawn(|| {
            pin(0)?;
            (0..20_000).try_for_each(|_| rx.send_to(&[0; 100], (wire.a.v4, 6002)).map(drop))?;
            rx.send_to(&[0; 100], (wire.a.v4, 6003))?;
            Ok::<_, anyhow::Error>(())
        });
        queued.join().unwrap_or_else(|cause| panic::resume_unwind(cause))?;
        // The last comes behind all others.
        last.recv(&mut [0; 100])?;
        is_over.store(true, Ordering::Relaxed);
        process.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
    })?;
    let counted = counted_by_rules(&wire.a.place)?;
    let finished = collector.stop()?;
    assert_explained(&finished);
    let skipped = finished.status.ledger.drops_skipped;
    let told = dropped(&finished, "host", &["NETFILTER_DROP"], DropClass::Policy);
    // Linux 6.1 is the first that does not run a program in the midst of itself.
    if !release::is_at_least((6, 1)) {
        assert_eq!((told, skipped), (counted, 0));
        return Ok(());
    }
    assert!(told <= counted, "{counted} counted, {:#?}", finished.status);
    assert!(skipped > 0, "none came in the midst of another, of {counted}");
    // `skipped` is the kernel's own number. On a machine that does other things meanwhile it is short: runs of the program
    // and misses of it together are fewer than the tracepoint was passed, as ftrace counts that (5 to 115 of 1,000
    // misses on Linux 6.18). Other hosts on this kernel may have had such drops, too, so that it may be more.
    let unsaid = counted.saturating_sub(told + skipped);
    assert!(
        unsaid <= skipped / 2,
        "{unsaid} of {counted} are neither counted nor said to be skipped ({skipped})"
    );
    Ok(())
}
