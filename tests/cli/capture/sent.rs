//! What goes over the wire meanwhile, known to the octet.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::Duration,
};

use crate::process::{Wire, within};

/// Longer than anything takes that passes.
const PATIENCE: Duration = Duration::from_mins(1);

/// A datagram to and fro: the other side has received it when this returns.
pub(crate) fn exchange(wire: &Wire, near: &str, far: &str, octets: &[u8]) {
    let [near, far] = [(&wire.near, near), (&wire.far, far)].map(|(namespace, address)| {
        let socket = within(namespace, || UdpSocket::bind(address).expect("the address is free"));
        socket.set_read_timeout(Some(PATIENCE)).expect("a time is a time");
        socket
    });
    for (from, to) in [(&near, &far), (&far, &near)] {
        from.send_to(octets, to.local_addr().expect("it is bound")).expect("it is sent");
        let mut received = vec![0; octets.len() + 1];
        assert_eq!(to.recv(&mut received).expect("it arrives"), octets.len());
    }
}

/// Three datagrams in VLAN 7 from a device, to nobody. A host needs no VLAN devices for that.
pub(crate) fn send_tagged(namespace: &str, device: &str) {
    let script = "import socket, sys\n\
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n\
        s.bind((sys.argv[1], 0))\n\
        own = s.getsockname()[4]\n\
        for last in range(3):\n  \
            s.send(bytes([2, 0, 0, 0, 0, 9]) + own + bytes.fromhex('81000007080045000020000000004011000\
        00a5800010a580002') + bytes.fromhex('1b591b59000c0000') + bytes([1, 2, 3, last]))\n";
    let status = Command::new("ip")
        .args(["netns", "exec", namespace, "python3", "-c", script, device])
        .status()
        .expect("ip runs");
    assert!(status.success(), "tagged frames cannot be sent");
}

/// A frame of LLDP, with nothing in it.
pub(super) fn send_lldp(namespace: &str, device: &str) {
    let script = "import socket, sys\n\
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n\
        s.bind((sys.argv[1], 0))\n\
        s.send(bytes.fromhex('0180c200000e') + s.getsockname()[4] + bytes.fromhex('88cc') + bytes(46))\n";
    let status = Command::new("ip")
        .args(["netns", "exec", namespace, "python3", "-c", script, device])
        .status()
        .expect("ip runs");
    assert!(status.success(), "the frame cannot be sent");
}

/// A megabyte by TCP from the near host to the far one, in super-packets where there are any, and a word back.
pub(crate) fn transfer(wire: &Wire) {
    let listener = within(&wire.far, || TcpListener::bind("10.88.0.2:0").expect("the address is free"));
    let to = listener.local_addr().expect("it is bound");
    let mut near = within(&wire.near, || TcpStream::connect(to).expect("somebody listens"));
    let (mut far, _) = listener.accept().expect("somebody connects");
    let sent = thread::spawn(move || {
        near.write_all(&vec![0x5A; 1 << 20]).expect("it is sent");
        near.shutdown(std::net::Shutdown::Write).expect("it is open");
        let mut word = Vec::new();
        near.read_to_end(&mut word).expect("it is answered");
        word
    });
    let mut received = Vec::new();
    far.read_to_end(&mut received).expect("it arrives");
    assert_eq!(received.len(), 1 << 20);
    far.write_all(b"thanks").expect("it is sent");
    drop(far);
    assert_eq!(sent.join().expect("the thread ends"), b"thanks");
}
