//! Super-packets over wires: each counts as the packets that the kernel cuts it into, whatever its octets look like.

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    panic, thread,
};

use anyhow::{Context as _, ensure};
use collector_tests::{
    PATIENCE, Result,
    books::assert_explained,
    collector::{Running, options},
    events::{self, Totals},
    frames::{ACK, ENDS_4, IPV4, IPV6, ONE_4, TCP, TWO_4, UDP, ethernet, ethernet_between, ipv4, ipv6, tcp},
    lab::{End, Wire},
    release,
    talk::listener,
    traffic::{Host, PacketSocket, TcpInfo, headers, pin, sender, set_option, settle, transfer},
};
use collector_user::{
    event::{DropClass, FlowRecord},
    kernel::drops::DropLimits,
};

use rustix::net::{AddressFamily, SocketType};

use crate::{
    assert_balanced,
    drops::cause::dropped,
    overlay::{AROUND, VXLAN, tunnel_by},
};

/// `UDP_SEGMENT` (include/uapi/linux/udp.h): octets of each datagram that what is sent is cut into. Linux 4.18.
const UDP_SEGMENT: libc::c_int = 103;
/// Octets of a segment here.
const SEGMENT: usize = 1200;
const SEGMENTS: usize = 40;

/// Anybody may send them, and none of what they look like is on the wire.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn datagrams_that_look_like_a_tunnels_packets_are_datagrams() -> Result<()> {
    const COUNT: u64 = 100;
    let wire = Wire::new()?;
    let sent_from = Running::start(&wire.a.place, options())?;
    let sent_to = Running::start(&wire.b.place, options())?;
    pin(0)?;
    let host = Host::new(&wire.b, &[5004, VXLAN])?;
    let inside =
        ethernet(&[], IPV4, &ipv4((ONE_4, TWO_4), &[], 0x4000, TCP, &tcp(ENDS_4.ports(), ACK, &[], 0)));
    let mut like_a_tunnel = [&[8, 0, 0, 0, 0, 0, 42, 0][..], &inside].concat();
    // As long as a header of TCP can be.
    like_a_tunnel[8 + 14 + 20 + 12] = 0xF0;
    like_a_tunnel.resize(SEGMENT, 0);
    let payload = like_a_tunnel.repeat(SEGMENTS);
    for version in [4, 6] {
        let socket = sender(&wire.a, version, 40_000)?;
        set_option(&socket, (libc::SOL_UDP, UDP_SEGMENT), &(SEGMENT as libc::c_int).to_ne_bytes())?;
        for port in [5004, VXLAN] {
            for _ in 0..COUNT {
                socket.send_to(&payload, host.address(version, port))?;
            }
        }
    }
    settle(&wire.a, &host)?;
    // Before Linux 5.12 the device that they leave by cuts them.
    for (collector, is_sender) in [(sent_from, true), (sent_to, false)] {
        let finished = collector.stop()?;
        assert_balanced(&finished);
        for (version, port) in [(4, 5004), (6, 5004), (4, VXLAN), (6, VXLAN)] {
            let to = host.address(version, port);
            let is_it = |flow: &FlowRecord| {
                events::is_to(flow, UDP, port) && events::ip_of(flow.destination.as_ref()) == Some(to.ip())
            };
            let packets = COUNT * SEGMENTS as u64;
            let bytes = packets * (SEGMENT as u64 + 8 + headers(to.ip()));
            let want = Totals { packets, bytes, count: 1, ..Totals::default() };
            assert_eq!(events::total(&finished.events, is_it), want, "{to}");
            let buffers: u64 =
                events::flows(&finished.events).filter(|flow| is_it(flow)).map(|flow| flow.skbs).sum();
            assert!(buffers == COUNT || !is_sender, "{to}: they were cut before: {buffers}");
        }
    }
    Ok(())
}

/// Sends 48,000 octets a thousand times, which the kernel cuts into datagrams of 1,200, and takes every one of these at the other
/// end: so many each side counts, in a VLAN with `tag` octets more in each.
fn a_thousand_super_packets(wire: &Wire, [from, to]: [&End; 2], vlan: u16, tag: u64) -> Result<()> {
    const COUNT: u64 = 1000;
    const PORT: u16 = 5005;
    let receiver = listener(&to.place, to.at(4, PORT))?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    let socket = sender(from, 4, 40_000)?;
    set_option(&socket, (libc::SOL_UDP, UDP_SEGMENT), &(SEGMENT as libc::c_int).to_ne_bytes())?;
    let payload = vec![0x55; SEGMENTS * SEGMENT];
    let collectors = [Running::start(&wire.a.place, options())?, Running::start(&wire.b.place, options())?];
    let mut arrived = 0;
    for _ in 0..COUNT {
        let sent = socket.send_to(&payload, to.at(4, PORT))?;
        ensure!(sent == payload.len(), "{sent} octets were sent");
        // One buffer at a time, for which the socket has room.
        for _ in 0..SEGMENTS {
            let length = receiver.recv(&mut [0; 2048]).context("a datagram does not come")?;
            ensure!(length == SEGMENT, "a datagram of {length} octets");
            arrived += 1;
        }
    }
    for collector in collectors {
        let finished = collector.stop()?;
        assert_balanced(&finished);
        let is_it = |flow: &FlowRecord| events::is_to(flow, UDP, PORT) && flow.vlan == vlan;
        let want =
            Totals { packets: 40_000, bytes: 49_680_000 + 40_000 * tag, count: 1, ..Totals::default() };
        assert_eq!((arrived, events::total(&finished.events, is_it)), (40_000, want));
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn super_packets_of_udp_are_all_their_datagrams() -> Result<()> {
    let wire = Wire::silent()?;
    a_thousand_super_packets(&wire, [&wire.a, &wire.b], 0, 0)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn super_packets_in_a_vlan_have_a_tag_in_each_datagram() -> Result<()> {
    const VLAN: u16 = 29;
    let wire = Wire::silent()?;
    let above = |end: &End, last: u8| -> Result<End> {
        let above = End {
            dev: format!("v{VLAN}"),
            v4: [10, 29, 0, last].into(),
            v6: format!("fd29::{last}").parse()?,
            ..end.clone()
        };
        above.place.ip(&format!("link add link {} name {} type vlan id {VLAN}", end.dev, above.dev))?;
        above.place.ip(&format!("link set {} up", above.dev))?;
        above.has_its_addresses()?;
        Ok(above)
    };
    // Whether this kernel has such devices is asked with one that nobody uses.
    if wire.a.place.ip(&format!("link add link {} name v1 type vlan id 1", wire.a.dev)).is_err() {
        release::has_none("VLAN devices");
        return Ok(());
    }
    let (here, there) = (above(&wire.a, 1)?, above(&wire.b, 2)?);
    here.knows(&there)?;
    there.knows(&here)?;
    for end in [&here, &there] {
        end.wait_for_carrier()?;
    }
    a_thousand_super_packets(&wire, [&here, &there], VLAN, 4)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_tunnel_by_any_port_repeats_all_its_headers() -> Result<()> {
    for port in [VXLAN, 7777] {
        let wire = Wire::new()?;
        let (here, there) = (tunnel_by(&wire.a, &wire.b, 1, port)?, tunnel_by(&wire.b, &wire.a, 2, port)?);
        here.knows(&there)?;
        there.knows(&here)?;
        let collector = Running::start(&wire.a.place, options())?;
        let connection = transfer(&here, &there, 4, 5001, 10_000_000, 1_000_000)?;
        let finished = collector.stop()?;
        assert_balanced(&finished);
        let inside = events::total(&finished.events, |flow| events::is_to(flow, TCP, 5001));
        let sent = &connection.client_info;
        assert_eq!((inside.packets, inside.count), (sent.segs_out, 1), "{connection:#?}");
        assert_eq!(inside.bytes, sent.bytes_sent + sent.segs_out * (14 + 20 + 32) + 8);
        let from = |end: Ipv4Addr| {
            events::total(&finished.events, |flow: &FlowRecord| {
                events::is_to(flow, UDP, port) && events::ip_of(flow.source.as_ref()) == Some(end.into())
            })
        };
        let [forth, back] = [from(wire.a.v4), from(wire.b.v4)];
        assert_eq!(
            [[forth.packets, forth.bytes], [back.packets, back.bytes]],
            [
                [inside.packets, inside.bytes + inside.packets * AROUND],
                [inside.reply_packets, inside.reply_bytes + inside.reply_packets * AROUND],
            ],
            "by {port}"
        );
    }
    Ok(())
}

/// A header of `length` octets whose option anybody skips who does not know it (RFC 8200 section 4.2).
fn long_options(next_header: u8, length: usize) -> Vec<u8> {
    let mut options = vec![next_header, (length / 8 - 1) as u8, 0x1E, (length - 4) as u8];
    options.resize(length, 0x6F);
    options
}

/// More than is read of a packet.
const LONG: usize = 240;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn headers_that_are_not_read_are_on_the_wire_all_the_same() -> Result<()> {
    const OCTETS: usize = 2_000_000;
    let wire = Wire::new()?;
    let collector = Running::start_beside(&wire.a.place, options(), Some(&wire.a.dev))?;
    let to = wire.b.at(6, 5001);
    let listener = wire.b.place.within(|| Ok(TcpListener::bind(to)?))?;
    let info = thread::scope(|scope| -> Result<TcpInfo> {
        let reading = scope.spawn(move || -> Result<u64> {
            let (mut socket, _) = listener.accept()?;
            Ok(io::copy(&mut socket, &mut io::sink())?)
        });
        let socket = wire.a.place.within(|| {
            let socket = rustix::net::socket(AddressFamily::INET6, SocketType::STREAM, None)?;
            set_option(&socket, (libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS), &long_options(0, LONG))?;
            rustix::net::connect(&socket, &to)?;
            Ok(TcpStream::from(socket))
        })?;
        (&socket).write_all(&vec![0xAA; OCTETS])?;
        socket.shutdown(Shutdown::Write)?;
        let arrived = reading.join().unwrap_or_else(|cause| panic::resume_unwind(cause))?;
        ensure!(arrived == OCTETS as u64, "{arrived} of {OCTETS} octets arrived");
        // The other side's end has come.
        io::copy(&mut &socket, &mut io::sink())?;
        TcpInfo::of(&socket)
    })?;
    let finished = collector.stop()?;
    // A veth device has not room for all that is sent so fast, and what it drops is sent again.
    assert_explained(&finished);
    let [_, _, packets, bytes] = events::unit(&finished.events, "host");
    // The acknowledgement of the other side's end is sent before that is read.
    let each = 14 + 40 + LONG as u64 + 32;
    let others = finished.link.tx_packets;
    assert!(others < packets, "{others} buffers for {packets} packets: no offloads");
    assert_eq!((packets, bytes), (info.segs_out, info.bytes_sent + info.segs_out * each + 8), "{info:?}");
    Ok(())
}

/// `struct virtio_net_hdr` (`include/uapi/linux/virtio_net.h`) before a frame whose transport header begins at `transport`.
fn uncounted(kind: u8, transport: u16, frame: &[u8]) -> Vec<u8> {
    const NEEDS_CHECKSUM: u8 = 1;
    const CHECKSUM_OF_TCP: u16 = 16;
    let mut header = vec![NEEDS_CHECKSUM, kind];
    for number in [transport + 20, SEGMENT as u16, transport, CHECKSUM_OF_TCP] {
        header.extend(number.to_ne_bytes());
    }
    [&header[..], frame].concat()
}

/// Super-packets as a virtual machine hands them to its host.
struct Uncounted {
    socket: PacketSocket,
    /// Of IPv4, and of IPv6 with more headers than are read.
    frames: [Vec<u8>; 2],
}

impl Uncounted {
    fn new(wire: &Wire) -> Result<Self> {
        const TCP_4: u8 = 1;
        const TCP_6: u8 = 4;
        let socket = PacketSocket::of_super_packets(&wire.a)?;
        let [a, b] = [&wire.a, &wire.b];
        let segment = tcp(ENDS_4.ports(), ACK, &[], SEGMENTS * SEGMENT);
        let four = ipv4((a.v4, b.v4), &[], 0x4000, TCP, &segment);
        let six = ipv6((a.v6, b.v6), 60, &[long_options(TCP, LONG), segment].concat());
        let frame = |ethertype, packet: &[u8]| ethernet_between(a.mac, b.mac, &[], ethertype, packet);
        let frames = [
            uncounted(TCP_4, 14 + 20, &frame(IPV4, &four)),
            uncounted(TCP_6, 14 + 40 + LONG as u16, &frame(IPV6, &six)),
        ];
        Ok(Self { socket, frames })
    }

    /// Sends so many of each; what is dropped on the way may be told to its sender.
    fn send(&self, count: u64) {
        for frame in &self.frames {
            for _ in 0..count {
                let _ = self.socket.send(frame);
            }
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_its_sender_has_not_counted_is_counted_by_its_size() -> Result<()> {
    const COUNT: u64 = 50;
    let wire = Wire::silent()?;
    let collector = Running::start(&wire.a.place, options())?;
    Uncounted::new(&wire)?.send(COUNT);
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let packets = COUNT * SEGMENTS as u64;
    let four = events::total(&finished.events, |flow| flow.l4_protocol == TCP);
    let each = SEGMENT as u64 + 14 + 20 + 20;
    assert_eq!([four.packets, four.bytes], [packets, packets * each]);
    let [_, _, all, octets] = events::unit(&finished.events, "host");
    assert_eq!([all, octets], [2 * packets, packets * (each + each + 20 + LONG as u64)]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_its_sender_has_not_counted_is_counted_so_where_it_is_dropped() -> Result<()> {
    const COUNT: u64 = 50;
    /// The hook behind which a packet leaves.
    const EGRESS: (u32, u32) = (5, 16);
    if release::lacks("nft's egress hook", EGRESS) {
        return Ok(());
    }
    let wire = Wire::silent()?;
    wire.a.place.nft(&format!(
        "table netdev lost {{ chain leaving {{ type filter hook egress device {} priority 0; drop; }}; }}",
        wire.a.dev
    ))?;
    let mut options = options();
    options.settings.drops = Some(DropLimits::default());
    let collector = Running::start(&wire.a.place, options)?;
    Uncounted::new(&wire)?.send(COUNT);
    let finished = collector.stop()?;
    let want = 2 * COUNT * SEGMENTS as u64;
    let found = dropped(&finished, "host", &["NETFILTER_DROP"], DropClass::Policy);
    assert_eq!(found, want, "{:#?}", finished.status.drops);
    Ok(())
}
