//! Single packets, reported once they are counted: of the units, the directions and the time that were asked for.

use collector_ebpf::abi::{
    flow::{RX, TX},
    packet::{PacketRecord, event, link},
    pu::{Role, index, role},
    trace::{ALL, FOR_EVER, Trace},
};
use collector_tests::{
    Result,
    frames::{ACK, ARP, ENDS_4, ENDS_6, TIMESTAMPS, arp, ethernet, tcp},
    testrun::{Buffers, Context, Datapath, Hook, IFINDEX, NOTHING, UNIT, own, uplink},
    traffic::pin,
};
use collector_user::{
    drain::decode::Packet,
    kernel::{
        cpus,
        settings::{Settings, Transport},
    },
};

const BUFFER: u32 = 1 << 18;
/// Octets reported of a packet.
const CAPTURED: u32 = 96;

/// The programs with buffers, on one CPU, tracing as soon as they are told whom.
fn begin(buffer: u32) -> Result<(Datapath, Buffers)> {
    begin_by(Transport::Auto, buffer)
}

/// The same, by a transport.
fn begin_by(transport: Transport, buffer: u32) -> Result<(Datapath, Buffers)> {
    pin(0)?;
    let mut datapath = Datapath::load(&Settings { transport, packets: buffer, ..Settings::default() })?;
    let buffers = datapath.buffers()?;
    datapath.controller.capture(CAPTURED);
    Ok((datapath, buffers))
}

fn both() -> Trace {
    Trace { until_ns: [FOR_EVER; 2], every: 1, _pad: 0 }
}

fn only(direction: usize) -> Trace {
    let mut trace = Trace { every: 1, ..Trace::default() };
    trace.until_ns[direction] = FOR_EVER;
    trace
}

/// The ledger's rows of what is traced: all, filtered, sampled, failed.
fn rows(datapath: &Datapath) -> Result<[u64; 4]> {
    let ledger = datapath.ledger()?;
    Ok([ledger.traced, ledger.filtered, ledger.sampled, ledger.output_failed])
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_packet_is_reported_once_it_is_counted_with_all_that_is_known_of_it() -> Result<()> {
    for transport in [Transport::Auto, Transport::Ring] {
        is_reported_with_all_that_is_known_of_it(transport)?;
    }
    Ok(())
}

fn is_reported_with_all_that_is_known_of_it(transport: Transport) -> Result<()> {
    let (mut datapath, mut buffers) = begin_by(transport, BUFFER)?;
    datapath.controller.trace(UNIT.into(), both())?;
    let context = Context { mark: 0x2A, ..Context::default() };
    let mut all = Vec::new();
    for (frame, hook, event) in [
        (ENDS_4.udp(200), Hook::Egress, event::TRANSMITTED),
        (ENDS_6.udp(10), Hook::Ingress, event::RECEIVED),
        (ENDS_4.back().udp(1), Hook::Ingress, event::RECEIVED),
    ] {
        // First what has no slot yet, then the steady state.
        for _ in 0..3 {
            let verdict = datapath.run_with(hook, &frame, context)?;
            assert_eq!(verdict.mark, u32::from(UNIT) << 18 | 0x2A, "the mark is written all the same");
            let captured = CAPTURED.min(frame.len() as u32);
            let [Packet { record, octets }] = &buffers.take()?[..] else { panic!("one packet was expected") };
            let expected = PacketRecord {
                boot_ns: record.boot_ns,
                ifindex: IFINDEX,
                mark: 0x2A,
                length: frame.len() as u32,
                captured,
                packets: 1,
                pu: UNIT,
                event,
                link: link::ETHERNET,
                ..PacketRecord::default()
            };
            assert_eq!(*record, expected);
            assert_eq!(octets[..], frame[..captured as usize]);
            all.push(record.boot_ns);
        }
    }
    assert!(all.is_sorted() && all[0] > 0, "{all:?}");
    let now = datapath.programs.anchor()?.boot_ns;
    assert!(all.last().is_some_and(|last| *last <= now));
    assert_eq!(rows(&datapath)?, [9, 0, 0, 0]);
    let flows = datapath.drain()?;
    assert_eq!(flows.values().map(|counted| counted.skbs.iter().sum::<u64>()).sum::<u64>(), 9);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn who_is_not_asked_for_is_not_reported() -> Result<()> {
    let (mut datapath, mut buffers) = begin(BUFFER)?;
    let out = ENDS_4.udp(1);
    let back = ENDS_4.back().udp(1);
    let reported = |datapath: &mut Datapath, buffers: &mut Buffers| -> Result<[usize; 2]> {
        for _ in 0..2 {
            datapath.run(Hook::Egress, &out)?;
            datapath.run(Hook::Ingress, &back)?;
        }
        let all = buffers.take()?;
        Ok([event::RECEIVED, event::TRANSMITTED]
            .map(|event| all.iter().filter(|packet| packet.record.event == event).count()))
    };
    let unit = u32::from(UNIT);
    assert_eq!(reported(&mut datapath, &mut buffers)?, [0, 0], "nobody asks");
    datapath.controller.trace(unit + 1, both())?;
    assert_eq!(reported(&mut datapath, &mut buffers)?, [0, 0], "another unit");
    datapath.controller.trace(unit, only(RX))?;
    assert_eq!(reported(&mut datapath, &mut buffers)?, [2, 0], "what it receives");
    datapath.controller.trace(unit, only(TX))?;
    assert_eq!(reported(&mut datapath, &mut buffers)?, [0, 2], "what it sends");
    datapath.controller.trace(ALL, only(RX))?;
    assert_eq!(reported(&mut datapath, &mut buffers)?, [2, 2], "its own wish, and that of all");
    datapath.controller.end_trace(unit)?;
    assert_eq!(reported(&mut datapath, &mut buffers)?, [2, 0], "that of all");
    // The same unit behind the interface: what comes in there, it has sent.
    datapath.controller.set_role(Role { boundary: 4097, ..uplink(UNIT, role::OWN | role::FAR) })?;
    datapath.controller.next_generation();
    assert_eq!(reported(&mut datapath, &mut buffers)?, [0, 2], "what goes out is what it receives");
    datapath.controller.set_role(own())?;
    let before = rows(&datapath)?;
    datapath.controller.capture(0);
    assert_eq!(reported(&mut datapath, &mut buffers)?, [0, 0], "nothing at all");
    assert_eq!(rows(&datapath)?, before);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_over_is_not_reported() -> Result<()> {
    const HOUR: u64 = 3_600_000_000_000;
    let (mut datapath, mut buffers) = begin(BUFFER)?;
    let mut reported = |datapath: &mut Datapath, until_ns: [u64; 2]| -> Result<usize> {
        datapath.controller.trace(UNIT.into(), Trace { until_ns, every: 1, _pad: 0 })?;
        datapath.run(Hook::Egress, &ENDS_4.udp(1))?;
        Ok(buffers.take()?.len())
    };
    let now = datapath.programs.anchor()?.boot_ns;
    assert_eq!(reported(&mut datapath, [0, now + HOUR])?, 1);
    assert_eq!(reported(&mut datapath, [now + HOUR, now])?, 0, "the other direction goes on");
    assert_eq!(rows(&datapath)?, [1, 0, 0, 0]);
    datapath.controller.trace(ALL, both())?;
    assert_eq!(reported(&mut datapath, [0, now])?, 1, "that of all is not over");
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn of_so_many_packets_the_first_is_reported() -> Result<()> {
    const MANY: u32 = 7;
    const PACKETS: u16 = 100;
    let (mut datapath, mut buffers) = begin(BUFFER)?;
    datapath.controller.trace(UNIT.into(), Trace { every: MANY, ..both() })?;
    for port in 0..PACKETS {
        datapath.run(Hook::Egress, &ENDS_4.from_port(port).udp(1))?;
    }
    let ports: Vec<u16> = buffers
        .take()?
        .iter()
        .map(|packet| u16::from_be_bytes([packet.octets[34], packet.octets[35]]))
        .collect();
    let expected: Vec<u16> = (0..PACKETS).step_by(MANY as usize).collect();
    assert_eq!(ports, expected);
    let left_out = u64::from(PACKETS) - expected.len() as u64;
    assert_eq!(rows(&datapath)?, [PACKETS.into(), 0, left_out, 0]);
    // More are left out than shall be from now on.
    datapath.controller.trace(UNIT.into(), Trace { every: 2, ..both() })?;
    for _ in 0..4 {
        datapath.run(Hook::Egress, &ENDS_4.udp(1))?;
    }
    assert_eq!(buffers.take()?.len(), 2);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_super_packet_is_reported_once_and_says_for_how_many_it_stands() -> Result<()> {
    let (mut datapath, mut buffers) = begin(BUFFER)?;
    datapath.controller.trace(UNIT.into(), both())?;
    let frame = ENDS_4.frame(6, &tcp(ENDS_4.ports(), ACK, &TIMESTAMPS, 3000));
    for (gso_size, gso_segs, packets) in [(1448, 3, 3), (1448, 0, 3), (2999, 0, 2), (0, 0, 1)] {
        for _ in 0..2 {
            datapath.run_with(Hook::Egress, &frame, Context { gso_size, gso_segs, ..Context::default() })?;
            let [packet] = &buffers.take()?[..] else { panic!("one packet was expected") };
            assert_eq!((packet.record.packets, packet.record.length), (packets, frame.len() as u32));
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_not_understood_is_reported_for_its_interface() -> Result<()> {
    let (mut datapath, mut buffers) = begin(BUFFER)?;
    datapath.controller.trace(ALL, both())?;
    let request = ethernet(&[], ARP, &arp());
    datapath.run(Hook::Ingress, &request)?;
    // Nobody said anything of the interface: it is `unknown`'s, as the count is.
    datapath.controller.remove_role(IFINDEX)?;
    datapath.run(Hook::Ingress, &request)?;
    let packets = buffers.take()?;
    assert_eq!(packets.iter().map(|packet| packet.record.pu).collect::<Vec<_>>(), [UNIT, index::UNKNOWN]);
    assert!(packets.iter().all(|packet| packet.octets == request));
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn loopback_is_reported_where_it_is_sent_and_where_it_is_received() -> Result<()> {
    let (mut datapath, mut buffers) = begin(BUFFER)?;
    datapath.controller.trace(UNIT.into(), both())?;
    datapath.controller.set_role(Role { flags: role::LOOPBACK, ..own() })?;
    let frame = ENDS_4.udp(1);
    for hook in [Hook::Egress, Hook::Ingress] {
        datapath.run(hook, &frame)?;
    }
    let events: Vec<_> =
        buffers.take()?.iter().map(|packet| (packet.record.pu, packet.record.event)).collect();
    assert_eq!(events, [(UNIT, event::TRANSMITTED), (UNIT, event::RECEIVED)]);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_buffer_that_nobody_reads_loses_what_the_ledger_says_and_no_count() -> Result<()> {
    const PACKETS: u64 = 500;
    // A page.
    let (mut datapath, mut buffers) = begin(4096)?;
    datapath.controller.trace(UNIT.into(), both())?;
    let frame = ENDS_4.udp(100);
    for _ in 0..PACKETS {
        datapath.run(Hook::Egress, &frame)?;
    }
    let reported = buffers.take()?.len() as u64;
    let [traced, _, _, failed] = rows(&datapath)?;
    assert_eq!([traced, reported + failed], [PACKETS; 2]);
    assert!(reported >= 4096 / 256 && failed > 0, "{reported} reported, {failed} lost");
    assert_eq!(datapath.unit(UNIT)?.output_failed, failed, "the unit's counters say whose");
    let (_, counted) = datapath.drain_one()?;
    assert_eq!((counted.packets[TX], counted.bytes[TX]), (PACKETS, PACKETS * frame.len() as u64));
    assert_eq!(datapath.unit(UNIT)?.flowless, NOTHING);
    // What is beyond the unit's share the kernel was not asked for.
    datapath.run(Hook::Egress, &frame)?;
    assert_eq!((buffers.take()?.len(), buffers.skipped()), (1, 0));
    // Wherever in the buffer one lies, over its end too, it is whole.
    for _ in 0..100 {
        datapath.run(Hook::Egress, &frame)?;
        let [packet] = &buffers.take()?[..] else { panic!("one packet was expected") };
        assert_eq!(packet.octets[..], frame[..CAPTURED as usize]);
    }
    // The shares of many leave less than a record takes. Once there is room, the kernel says how many it had none for.
    datapath.controller.trace(ALL, both())?;
    for pu in UNIT + 1..UNIT + 20 {
        datapath.controller.set_role(Role { pu, ..own() })?;
        let frame = ENDS_4.from_port(20_000 + pu).udp(100);
        for _ in 0..PACKETS / 10 {
            datapath.run(Hook::Egress, &frame)?;
        }
    }
    buffers.take()?;
    datapath.run(Hook::Egress, &frame)?;
    let [_, _, _, all_failed] = rows(&datapath)?;
    assert_eq!(buffers.take()?.len(), 1);
    assert!((1..=all_failed - failed).contains(&buffers.skipped()), "{} of {all_failed}", buffers.skipped());
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_ring_that_nobody_reads_loses_what_the_ledger_says_and_no_count() -> Result<()> {
    const PACKETS: u64 = 500;
    // Two pages on two CPUs.
    let (mut datapath, mut buffers) = begin_by(Transport::Ring, 4096)?;
    let room = 4096 * (cpus::online()?.len() as u64).next_power_of_two();
    datapath.controller.trace(UNIT.into(), both())?;
    let frame = ENDS_4.udp(100);
    for _ in 0..PACKETS {
        datapath.run(Hook::Egress, &frame)?;
    }
    // With a header of eight. As long as it has no more than four times what is left.
    let fit = share(room, 8 + size_of::<PacketRecord>() as u64 + u64::from(CAPTURED));
    assert!(fit < PACKETS);
    assert_eq!(buffers.take()?.len() as u64, fit);
    assert_eq!(rows(&datapath)?, [PACKETS, 0, 0, PACKETS - fit]);
    let (_, counted) = datapath.drain_one()?;
    assert_eq!((counted.packets[TX], counted.bytes[TX]), (PACKETS, PACKETS * frame.len() as u64));
    assert_eq!(datapath.unit(UNIT)?.flowless, NOTHING);
    // Wherever in the ring one lies, over its end too, it is whole.
    for _ in 0..100 {
        datapath.run(Hook::Egress, &frame)?;
        let [packet] = &buffers.take()?[..] else { panic!("one packet was expected") };
        assert_eq!(packet.octets[..], frame[..CAPTURED as usize]);
    }
    assert_eq!(rows(&datapath)?, [PACKETS + 100, 0, 0, PACKETS - fit]);
    Ok(())
}

/// How many records of so many octets one unit has alone in an empty buffer that nobody reads: no more than four times what is
/// left, and one.
fn share(room: u64, record: u64) -> u64 {
    4 * room / 5 / record + 1
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_flood_of_one_unit_costs_another_no_report() -> Result<()> {
    const FLOOD: u64 = 2000;
    const FEW: u64 = 20;
    const OTHER: u16 = UNIT + 1;
    const THIRD: u16 = UNIT + 2;
    for transport in [Transport::Auto, Transport::Ring] {
        let octets = 1 << 15;
        let (mut datapath, mut buffers) = begin_by(transport, octets)?;
        let (room, header) = match transport {
            Transport::Ring => (u64::from(octets) * (cpus::online()?.len() as u64).next_power_of_two(), 8),
            _ => (octets.into(), 12),
        };
        let record = (header + size_of::<PacketRecord>() as u64 + u64::from(CAPTURED)).next_multiple_of(8);
        datapath.controller.trace(ALL, both())?;
        let send = |datapath: &mut Datapath, pu, packets| -> Result<()> {
            datapath.controller.set_role(Role { pu, ..own() })?;
            // Each a flow of its own: a known flow stays with its unit.
            let frame = ENDS_4.from_port(20_000 + pu).udp(100);
            for _ in 0..packets {
                datapath.run(Hook::Egress, &frame)?;
            }
            Ok(())
        };
        let failed = |datapath: &Datapath| -> Result<[u64; 3]> {
            let mut all = [0; 3];
            for (of, pu) in all.iter_mut().zip([UNIT, OTHER, THIRD]) {
                *of = datapath.unit(pu)?.output_failed;
            }
            Ok(all)
        };
        // Nobody reads.
        for (pu, packets) in [(UNIT, FLOOD), (OTHER, FEW)] {
            send(&mut datapath, pu, packets)?;
        }
        assert_eq!(
            failed(&datapath)?[1..],
            [0, 0],
            "{transport:?}: who has little finds room behind a flood"
        );
        for (pu, packets) in [(UNIT, FLOOD), (OTHER, FLOOD), (THIRD, 1)] {
            send(&mut datapath, pu, packets)?;
        }
        let own = share(room, record);
        let lost = failed(&datapath)?;
        assert_eq!(
            lost[0],
            2 * FLOOD - own,
            "{transport:?}: what there is room for beside the others is its own"
        );
        assert!(lost[1] > 0 && lost[1] <= FLOOD, "{transport:?}: {lost:?}");
        assert_eq!(lost[2], 0, "{transport:?}: who has little finds room behind two floods");
        let written = rows(&datapath)?[0] - lost.iter().sum::<u64>();
        assert_eq!(rows(&datapath)?[3], lost.iter().sum::<u64>(), "{transport:?}: each has its unit");
        let told = buffers.take()?;
        let of = |unit| told.iter().filter(|packet| packet.record.pu == unit).count() as u64;
        assert_eq!([of(UNIT), of(THIRD), told.len() as u64], [own, 1, written], "{transport:?}");
        assert_eq!(of(OTHER), FEW + FLOOD - lost[1], "{transport:?}");
        // What was read is nothing that waits.
        for _ in 0..3 {
            send(&mut datapath, UNIT, own)?;
            assert_eq!(buffers.take()?.len() as u64, own, "{transport:?}");
        }
        assert_eq!(failed(&datapath)?, lost, "{transport:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn by_a_ring_as_much_is_captured_as_by_a_perf_buffer() -> Result<()> {
    // The most that a run takes as a frame leaves no room for its own use of a page.
    let frame = ENDS_4.udp(3300);
    for transport in [Transport::Auto, Transport::Ring] {
        let (mut datapath, mut buffers) = begin_by(transport, BUFFER)?;
        datapath.controller.trace(UNIT.into(), both())?;
        let length = frame.len() as u32;
        for captured in [1, 14, 63, 64, 65, 1000, length - 1, length, length + 1, u32::MAX] {
            datapath.controller.capture(captured);
            datapath.run(Hook::Egress, &frame)?;
            let [packet] = &buffers.take()?[..] else { panic!("one packet was expected") };
            let expected = captured.min(length);
            assert_eq!((packet.record.captured, packet.record.length), (expected, length), "{transport:?}");
            assert_eq!(packet.octets[..], frame[..expected as usize], "{transport:?}");
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn who_waits_for_a_ring_is_woken_by_each_part_of_it_that_is_written() -> Result<()> {
    // The second: a part is so many records without a rest, and ends with the octets that the ring adds to one.
    for captured in [CAPTURED, 56] {
        let (mut datapath, mut buffers) = begin_by(Transport::Ring, 1 << 16)?;
        datapath.controller.capture(captured);
        let part = ((cpus::online()?.len() as u64).next_power_of_two() << 16) / 4;
        datapath.controller.trace(UNIT.into(), both())?;
        let frame = ENDS_4.udp(100);
        let record = (8 + size_of::<PacketRecord>() as u64 + u64::from(captured)).next_multiple_of(8);
        let mut written = 0;
        for parts in 1..6 {
            let before = written;
            while written < parts * part {
                datapath.run(Hook::Egress, &frame)?;
                written += record;
            }
            assert_eq!(buffers.wait()?.len() as u64, (written - before) / record, "{captured}");
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn who_waits_is_woken_when_a_buffer_is_half_full_again_and_again() -> Result<()> {
    let (mut datapath, mut buffers) = begin(1 << 16)?;
    datapath.controller.trace(UNIT.into(), both())?;
    let frame = ENDS_4.udp(100);
    let record = u64::from(CAPTURED) + size_of::<PacketRecord>() as u64 + 8 + 4;
    for _ in 0..5 {
        let mut written = 0;
        while written <= 1 << 15 {
            datapath.run(Hook::Egress, &frame)?;
            written += record.next_multiple_of(8);
        }
        let packets = buffers.wait()?;
        assert_eq!(packets.len() as u64, written / record.next_multiple_of(8));
        assert!(packets.iter().all(|packet| packet.octets[..] == frame[..CAPTURED as usize]));
    }
    assert_eq!(buffers.skipped(), 0);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn without_buffers_each_packet_is_a_named_loss() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    datapath.controller.capture(CAPTURED);
    datapath.controller.trace(UNIT.into(), both())?;
    datapath.run(Hook::Egress, &ENDS_4.udp(1))?;
    assert_eq!(rows(&datapath)?, [1, 0, 0, 1]);
    Ok(())
}
