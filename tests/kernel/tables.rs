//! Caches and tables: what is counted is found again, once, wherever it was kept.

use std::{collections::BTreeMap, panic, sync::Barrier, thread};

use aya::programs::{TestRun as _, TestRunOptions};
use collector_ebpf::abi::{
    flow::{RX, TX},
    pu::Role,
    report::kind,
};
use collector_tests::{
    Result,
    frames::{ENDS_4, ENDS_6, Ends},
    testrun::{Datapath, Hook, UNIT, explained_without_flow, own},
    traffic::pin,
};
use collector_user::kernel::{
    cpus,
    settings::{Settings, Transport},
};

/// The smallest cache there can be on a CPU, and a budget that nobody spends.
fn smallest() -> Settings {
    Settings {
        slots_4: 16,
        slots_6: 16,
        table_4: 1 << 12,
        table_6: 1 << 12,
        new_flows_per_second: 1_000_000,
        new_flows_burst: 1_000_000,
        ..Settings::default()
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_flow_that_lives_through_a_swap_begins_once() -> Result<()> {
    let mut datapath = Datapath::load(&Settings::default())?;
    for ends in [ENDS_4, ENDS_6] {
        let mut begun = 0;
        for runs in [5, 7, 1, 3] {
            for _ in 0..runs {
                datapath.run(Hook::Ingress, &ends.udp(10))?;
            }
            let (_, counted) = datapath.drain_one()?;
            assert_eq!(counted.packets, [runs, 0]);
            assert_eq!(counted.bytes, [runs * ends.udp(10).len() as u64, 0]);
            begun += counted.begun;
        }
        assert!(datapath.drain()?.is_empty(), "an epoch without packets");
        assert_eq!(begun, 1);
        let kinds: Vec<_> = datapath.news()?.iter().map(|news| news.kind).collect();
        assert_eq!(kinds, [kind::START]);
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn flows_that_take_each_others_slots_are_all_counted() -> Result<()> {
    const FLOWS: u16 = 200;
    const ROUNDS: u64 = 10;
    let mut datapath = Datapath::load(&smallest())?;
    for ends in [ENDS_4, ENDS_6] {
        datapath.begin_anew(&[].into())?;
        for _ in 0..ROUNDS {
            for port in 1..=FLOWS {
                let ends = ends.from_port(port);
                datapath.run(Hook::Egress, &ends.udp(usize::from(port)))?;
                datapath.run(Hook::Ingress, &ends.back().udp(10))?;
            }
        }
        let all = datapath.drain()?;
        assert_eq!(all.len(), usize::from(FLOWS));
        for (id, counted) in &all {
            let length = |data: u16| ends.udp(usize::from(data)).len() as u64;
            assert_eq!(counted.packets, [ROUNDS; 2], "{id:?}");
            assert_eq!(counted.bytes, [ROUNDS * length(10), ROUNDS * length(id.local_port)], "{id:?}");
            assert_eq!(counted.begun, 1, "{id:?}");
        }
        let ledger = datapath.ledger()?;
        assert_eq!((ledger.seen, explained_without_flow(&ledger)), (2 * ROUNDS * u64::from(FLOWS), 0));
        assert_eq!((ledger.reported, ledger.reserve_failed), (u64::from(FLOWS), 0));
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_finds_no_room_in_a_full_table_is_in_the_units_totals() -> Result<()> {
    const FLOWS: u64 = 1000;
    const ROUNDS: u64 = 10;
    let mut datapath = Datapath::load(&Settings { table_4: 16, table_6: 16, ..smallest() })?;
    for ends in [ENDS_4, ENDS_6] {
        datapath.begin_anew(&[].into())?;
        run_on_both_cpus(&mut datapath, ends, FLOWS, ROUNDS)?;
        let sum = sum(&datapath.drain()?);
        let unit = datapath.unit(UNIT)?.flowless[TX];
        let ledger = datapath.ledger()?;
        let sent = FLOWS * ROUNDS;
        let bytes = sent * ends.udp(10).len() as u64;
        assert!(ledger.table_full > 0, "the table was not full");
        assert_eq!(sum.0 + unit.packets, sent, "flows and what none holds: {ledger:?}");
        assert_eq!(sum.1 + unit.bytes, bytes);
        assert_eq!(unit.skbs, ledger.table_full);
        assert_eq!(datapath.unit(UNIT)?.table_full, ledger.table_full, "the unit's counters say whose");
        assert_eq!(ledger.seen, sum.2 + explained_without_flow(&ledger), "{ledger:?}");
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn flows_on_both_cpus_at_once_are_exact_with_and_without_caches() -> Result<()> {
    const FLOWS: u64 = 1000;
    const ROUNDS: u64 = 20;
    // All have slots, one of them, none.
    for slots_on in [None, Some(vec![1]), Some(Vec::new())] {
        let mut datapath = Datapath::load(&Settings { slots_on, ..smallest() })?;
        for ends in [ENDS_4, ENDS_6] {
            datapath.begin_anew(&[].into())?;
            run_on_both_cpus(&mut datapath, ends, FLOWS, ROUNDS)?;
            let all = datapath.drain()?;
            assert_eq!(all.len() as u64, FLOWS);
            for (id, counted) in &all {
                assert_eq!((counted.packets, counted.skbs), ([0, ROUNDS], [0, ROUNDS]), "{id:?}");
            }
            let ledger = datapath.ledger()?;
            assert_eq!((ledger.seen, explained_without_flow(&ledger)), (FLOWS * ROUNDS, 0));
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_flow_that_both_cpus_meet_at_once_begins_once() -> Result<()> {
    const FLOWS: u64 = 10_000;
    let mut datapath = Datapath::load(&Settings { table_4: 1 << 15, table_6: 1 << 15, ..smallest() })?;
    for ends in [ENDS_4, ENDS_6] {
        datapath.begin_anew(&[].into())?;
        // Each CPU sends each flow's first packet, in the same order.
        run_on_both_cpus(&mut datapath, ends, FLOWS, 2)?;
        let all = datapath.drain()?;
        let twice = all.values().filter(|counted| counted.begun != 1).count();
        assert_eq!((all.len() as u64, twice), (FLOWS, 0), "flows, and those that did not begin once");
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_flow_that_moves_to_the_long_lived_while_both_cpus_count_it_begins_once() -> Result<()> {
    const FLOWS: u64 = 500;
    const ROUNDS: u64 = 20;
    let mut datapath = Datapath::load(&Settings { table_4: 1 << 15, table_6: 1 << 15, ..smallest() })?;
    for ends in [ENDS_4, ENDS_6] {
        datapath.begin_anew(&[].into())?;
        for port in 1..=FLOWS {
            datapath.run(Hook::Egress, &ends.from_port(port as u16).udp(10))?;
        }
        let begun: u64 = datapath.drain()?.values().map(|counted| counted.begun).sum();
        assert_eq!(begun, FLOWS);
        // In another epoch than it was met in, a flow lives on: both CPUs find that out at their first packet of it.
        run_on_both_cpus(&mut datapath, ends, FLOWS, ROUNDS)?;
        let again: u64 = datapath.drain()?.values().map(|counted| counted.begun).sum();
        assert_eq!(again, 0, "flows that were told as new once more");
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn new_flows_beyond_the_budget_are_in_the_units_totals_and_nowhere_else() -> Result<()> {
    const FLOWS: u64 = 5000;
    // One more with each tick: as little as there is.
    let mut datapath =
        Datapath::load(&Settings { new_flows_per_second: 1, new_flows_burst: 50, ..smallest() })?;
    for port in 1..=FLOWS {
        datapath.run(Hook::Egress, &ENDS_4.from_port(port as u16).udp(10))?;
    }
    let all = datapath.drain()?;
    let unit = datapath.unit(UNIT)?;
    let ledger = datapath.ledger()?;
    let (flows, refused) = (all.len() as u64, unit.rate_limited);
    assert!(flows >= 50 && refused > 0, "{flows} flows, {refused} refused");
    assert_eq!(flows + refused, FLOWS);
    assert_eq!((unit.flows, ledger.rate_limited), (flows, refused));
    assert_eq!((unit.flowless[TX].packets, unit.flowless[RX].packets), (refused, 0));
    assert_eq!(ledger.seen, flows + explained_without_flow(&ledger));
    assert_eq!(datapath.news()?.len() as u64, flows);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_full_ring_or_buffer_loses_news_but_no_packet() -> Result<()> {
    const FLOWS: u64 = 2000;
    for transport in [Transport::Auto, Transport::Perf] {
        pin(0)?;
        let mut datapath =
            Datapath::load(&Settings { transport, ring: 4096, table_4: 1 << 14, ..smallest() })?;
        for port in 1..=FLOWS {
            datapath.run(Hook::Egress, &ENDS_4.from_port(port as u16).udp(10))?;
        }
        let ledger = datapath.ledger()?;
        // The unit's share of the page that there is.
        let (_, record) = room(transport, 4096)?;
        assert_eq!((ledger.reported, ledger.reserve_failed), share(FLOWS, 4096, record), "{transport:?}");
        assert_eq!(datapath.unit(UNIT)?.reserve_failed, ledger.reserve_failed, "the ledger says whose");
        assert_eq!(datapath.news()?.len() as u64, ledger.reported);
        let all = datapath.drain()?;
        assert_eq!(all.len() as u64, FLOWS);
        assert!(all.values().all(|counted| counted.packets == [0, 1] && counted.begun == 1));
    }
    Ok(())
}

/// What `Settings::ring` has to be so that a CPU has room for so many octets; and how many a record takes.
fn room(transport: Transport, octets: u32) -> Result<(u32, u64)> {
    Ok(match transport {
        // A header of eight, the length of four, and padding to eight.
        Transport::Perf => (octets * cpus::online()?.len() as u32, 88),
        _ => (octets, 80),
    })
}

/// Of so much news of one unit, which nobody reads, what is written and what is lost: it has half of what it leaves.
fn share(news: u64, room: u64, record: u64) -> (u64, u64) {
    let written = room / 3 / record + 1;
    (written, news - written)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn by_a_buffer_of_its_cpu_a_drain_is_asked_for_at_once() -> Result<()> {
    const FLOWS: u64 = 100;
    pin(0)?;
    let settings =
        Settings { transport: Transport::Perf, slots_on: Some(Vec::new()), table_4: 256, ..smallest() };
    let mut datapath = Datapath::load(&settings)?;
    for port in 1..=FLOWS {
        datapath.run(Hook::Egress, &ENDS_4.from_port(port as u16).udp(10))?;
    }
    // Less than half of the buffer: nothing else would wake its reader.
    assert_eq!(datapath.wait_for_news()?.len() as u64, FLOWS);
    assert_eq!((datapath.pressed, datapath.sequences.skipped, datapath.sequences.repeated), (1, 0, 0));
    let ledger = datapath.ledger()?;
    assert_eq!((ledger.reported, ledger.reserve_failed), (FLOWS + 1, 0));
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn who_waits_for_news_by_a_buffer_is_woken_when_it_is_half_full_again_and_again() -> Result<()> {
    const HALF: u32 = 1 << 15;
    pin(0)?;
    let (ring, record) = room(Transport::Perf, 2 * HALF)?;
    let mut datapath =
        Datapath::load(&Settings { transport: Transport::Perf, ring, table_4: 1 << 14, ..smallest() })?;
    let mut port = 0;
    for _ in 0..5 {
        let mut written = 0;
        let mut units = (UNIT..UNIT + 3).cycle();
        while written * record <= u64::from(HALF) {
            // Each has a share.
            datapath.controller.set_role(Role { pu: units.next().unwrap_or(UNIT), ..own() })?;
            port += 1;
            datapath.run(Hook::Egress, &ENDS_4.from_port(port).udp(10))?;
            written += 1;
        }
        assert_eq!(datapath.wait_for_news()?.len() as u64, written);
    }
    assert_eq!(datapath.ledger()?.reserve_failed, 0);
    Ok(())
}

/// Sends every flow once a round, half of the rounds on each CPU, at the same time.
fn run_on_both_cpus(datapath: &mut Datapath, ends: Ends, flows: u64, rounds: u64) -> Result<()> {
    let programs = [datapath.program(Hook::Egress)?, datapath.program(Hook::Egress)?];
    let together = &Barrier::new(programs.len());
    thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..)
            .zip(&programs)
            .map(|(cpu, program)| {
                scope.spawn(move || -> Result<()> {
                    pin(cpu)?;
                    for _ in 0..rounds / 2 {
                        for port in 1..=flows {
                            // Side by side, again and again: what goes wrong only then shall.
                            if port % 20 == 1 {
                                together.wait();
                            }
                            let frame = ends.from_port(port as u16).udp(10);
                            program.test_run(TestRunOptions {
                                data_in: Some(&frame),
                                ..TestRunOptions::default()
                            })?;
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap_or_else(|cause| panic::resume_unwind(cause))?;
        }
        Ok(())
    })
}

/// Packets, octets and buffers of all flows.
fn sum<K>(all: &BTreeMap<K, collector_tests::testrun::Counted>) -> (u64, u64, u64) {
    all.values().fold((0, 0, 0), |sum, counted| {
        (
            sum.0 + counted.packets[RX] + counted.packets[TX],
            sum.1 + counted.bytes[RX] + counted.bytes[TX],
            sum.2 + counted.skbs[RX] + counted.skbs[TX],
        )
    })
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_flood_of_one_units_news_costs_another_none() -> Result<()> {
    for transport in [Transport::Auto, Transport::Perf] {
        flood_costs_another_none(transport)?;
    }
    Ok(())
}

fn flood_costs_another_none(transport: Transport) -> Result<()> {
    const FLOWS: u64 = 2000;
    const OTHERS: u64 = 100;
    const OTHER: u16 = UNIT + 1;
    const ROOM: u32 = 1 << 16;
    // Each CPU has a share of its own.
    pin(0)?;
    let (ring, record) = room(transport, ROOM)?;
    let mut datapath = Datapath::load(&Settings { transport, ring, table_4: 1 << 14, ..smallest() })?;
    let flood = |datapath: &mut Datapath, pu, ports: std::ops::RangeInclusive<u64>| -> Result<()> {
        datapath.controller.set_role(Role { pu, ..own() })?;
        for port in ports {
            datapath.run(Hook::Egress, &ENDS_4.from_port(port as u16).udp(10))?;
        }
        Ok(())
    };
    // Nobody reads. The flood has a third of the room: half of what it leaves.
    flood(&mut datapath, UNIT, 1..=FLOWS)?;
    flood(&mut datapath, OTHER, FLOWS + 1..=FLOWS + OTHERS)?;
    let (own, _) = share(FLOWS, ROOM.into(), record);
    assert_eq!(datapath.unit(UNIT)?.reserve_failed, FLOWS - own);
    assert_eq!(datapath.unit(OTHER)?.reserve_failed, 0);
    let ledger = datapath.ledger()?;
    assert_eq!((ledger.reported, ledger.reserve_failed), (own + OTHERS, FLOWS - own));
    let news = datapath.news()?;
    let of = |pu| news.iter().filter(|news| news.pu == pu).count() as u64;
    assert_eq!((of(UNIT), of(OTHER)), (own, OTHERS));
    // Read to its end: what the records' numbers passed over is what found no room.
    assert_eq!((datapath.sequences.skipped, datapath.sequences.repeated), (ledger.reserve_failed, 0));
    // What was read is nothing that waits, whatever others write before the unit does again, and nobody reads.
    flood(&mut datapath, OTHER, 10_001..=12_000)?;
    let others = datapath.unit(OTHER)?.reserve_failed;
    assert!(others > 0);
    flood(&mut datapath, UNIT, 12_001..=12_050)?;
    assert_eq!(datapath.unit(UNIT)?.reserve_failed, FLOWS - own);
    assert_eq!(datapath.news()?.len() as u64, 2000 - others + 50);
    // What was read makes room.
    flood(&mut datapath, UNIT, FLOWS + OTHERS + 1..=FLOWS + OTHERS + own)?;
    assert_eq!(datapath.unit(UNIT)?.reserve_failed, FLOWS - own);
    assert_eq!(datapath.news()?.len() as u64, own);
    // Packets are counted whatever becomes of the news of them.
    let all = datapath.drain()?;
    assert_eq!(all.len() as u64, FLOWS + OTHERS + 2050 + own);
    assert!(all.values().all(|counted| counted.packets == [0, 1] && counted.begun == 1));
    Ok(())
}
