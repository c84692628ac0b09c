//! Fragments are counted in the flow of the one that begins their datagram, and no port is guessed.

use collector_ebpf::abi::flow::ports;
use collector_tests::{
    Result,
    collector::{Running, options},
    events::{self, Totals},
    frames::{
        ENDS_4, ENDS_6, Ends, IPV4, IPV6, ONE_4, ONE_6, TWO_4, TWO_6, UDP, destination_options, ethernet,
        fragment_6, ipv4, ipv6, udp,
    },
    lab::Wire,
    testrun::{Datapath, Hook},
    traffic::{Datagrams, Host, headers, send_and_settle},
};
use collector_user::kernel::settings::Settings;

use crate::assert_balanced;

/// A datagram's first piece, and its second.
fn pieces(ends: Ends, id: u8) -> [Vec<u8>; 2] {
    let begin = udp(ends.ports(), 40);
    let rest = vec![0x55; 24];
    let four = |fragment, payload: &[u8]| {
        let mut packet = ipv4((ONE_4, TWO_4), &[], fragment, UDP, payload);
        packet[5] = id;
        ethernet(&[], IPV4, &packet)
    };
    let six = |next, offset, more, payload: Vec<u8>| {
        let mut header = fragment_6(next, offset, more);
        header[7] = id;
        ethernet(&[], IPV6, &ipv6((ONE_6, TWO_6), 44, &[header, payload].concat()))
    };
    if ends.source.is_ipv4() {
        return [four(0x2000, &begin), four(6, &rest)];
    }
    // A later one need not show the protocol that the first one shows behind its options.
    [six(60, 0, true, [destination_options(UDP), begin].concat()), six(60, 56, false, rest)]
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_later_fragment_is_counted_with_the_first_of_its_datagram() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    for ends in [ENDS_4, ENDS_6] {
        for hook in Hook::BOTH {
            let name = format!("{}, {hook:?}", ends.source);
            for id in [1, 2] {
                for piece in pieces(ends, id) {
                    datapath.run(hook, &piece)?;
                }
            }
            let (flow, counted) = datapath.drain_one()?;
            assert_eq!((flow.ports, flow.protocol), (ports::TRANSPORT, UDP), "{name}");
            assert_eq!(counted.packets.iter().sum::<u64>(), 4, "{name}");
            assert_eq!((counted.begun, datapath.ledger()?.orphan_fragments), (1, 0), "{name}");
            datapath.begin_anew(&[(flow, counted)].into())?;
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn without_its_first_a_fragment_has_no_ports_and_the_ledger_says_so() -> Result<()> {
    // With a memory of no time, each comes too late.
    for fragment_seconds in [30, 0] {
        let mut datapath = Datapath::load(&Settings { fragment_seconds, ..Settings::default() })?;
        for ends in [ENDS_4, ENDS_6] {
            let [first, later] = pieces(ends, 1);
            let [_, of_another] = pieces(ends, 2);
            // Before its first one; of another datagram; and, if that is remembered, behind it.
            for frame in [&later, &first, &of_another, &later] {
                datapath.run(Hook::Egress, frame)?;
            }
            let all = datapath.drain()?;
            let of_kind = |kind| {
                let flows = all.iter().filter(move |(flow, _)| flow.ports == kind);
                flows.map(|(_, counted)| counted.packets[1]).sum::<u64>()
            };
            let tied = u64::from(fragment_seconds != 0);
            assert_eq!(of_kind(ports::TRANSPORT), 1 + tied, "{all:#?}");
            assert_eq!(of_kind(ports::FRAGMENT), 3 - tied, "{all:#?}");
            assert!(
                all.keys().all(|flow| flow.ports == ports::TRANSPORT || flow.local_port == 0),
                "{all:#?}"
            );
            let ledger = datapath.ledger()?;
            assert_eq!((ledger.orphan_fragments, ledger.seen), (3 - tied, 4));
            datapath.begin_anew(&all)?;
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn datagrams_that_do_not_fit_are_one_flow_at_both_ends() -> Result<()> {
    const COUNT: u64 = 1000;
    const SIZE: u64 = 4000;
    let wire = Wire::new()?;
    let sent_from = Running::start(&wire.a.place, options())?;
    let sent_to = Running::start(&wire.b.place, options())?;
    let host = Host::new(&wire.b, &[5004, 5006])?;
    let datagrams =
        |version, port| Datagrams { to: host.address(version, port), count: COUNT, size: SIZE as usize };
    let all = [datagrams(4, 5004), datagrams(6, 5006)];
    send_and_settle(&wire.a, 40_000, &host, &all)?;
    for collector in [sent_from, sent_to] {
        let finished = collector.stop()?;
        assert_balanced(&finished);
        for (datagrams, fragment_header) in all.iter().zip([0, 8]) {
            // Three pieces each, at an MTU of 1,500.
            let bytes = SIZE + 8 + 3 * (headers(datagrams.to.ip()) + fragment_header);
            assert_eq!(
                events::total(&finished.events, |flow| events::is_to(flow, UDP, datagrams.to.port())),
                Totals { packets: 3 * COUNT, bytes: COUNT * bytes, count: 1, ..Totals::default() },
                "{}",
                datagrams.to
            );
        }
        assert_eq!(finished.status.ledger.orphan_fragments, 0);
        let mut flows = events::flows(&finished.events).filter(|flow| flow.l4_protocol == UDP);
        assert!(flows.all(|flow| events::port_of(flow.source.as_ref()) != 0), "no flow without ports");
    }
    Ok(())
}
