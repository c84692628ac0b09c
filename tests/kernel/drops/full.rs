//! What finds no room: in a socket's buffer, or in a queue.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
};

use anyhow::{bail, ensure};
use collector_tests::{
    Result,
    collector::{Running, options},
    lab::Wire,
    release,
    talk::listener,
    traffic::sender,
};
use collector_user::event::{DropClass, QueueSum};

use super::cause::{Packet, assert_dropped, caused, dropped_by_queue, told};

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

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_a_queue_dropped_that_has_gone_hides_nothing_of_others() -> Result<()> {
    let wire = Wire::new()?;
    let dev = &wire.a.dev;
    wire.a.place.run(&format!("tc qdisc add dev {dev} root tbf rate 8kbit burst 2kb limit 4kb"))?;
    let collector = Running::start(&wire.a.place, options())?;
    let socket = sender(&wire.a, 4, 40_000)?;
    for _ in 0..100 {
        let _ = socket.send_to(&[0; 900], (IpAddr::V4(wire.b.v4), 6001));
    }
    let said = dropped_by_queue(&wire.a)?;
    wire.a.place.run(&format!("tc qdisc del dev {dev} root"))?;
    let finished = collector.stop()?;
    let QueueSum { dropped, told, untold } = finished.status.queues;
    assert_eq!((dropped, untold), (0, None));
    if release::is_at_least((5, 18)) {
        assert!(told.is_some_and(|told| told >= said), "{told:?} of {said}");
    }
    Ok(())
}
