//! Counts near the ends of what their numbers hold, and collectors that start again.

use collector_ebpf::abi::{
    counter::DirectionCounters,
    flow::{FLUSH_AT, SlotAmounts, TX},
};
use collector_tests::{
    Result,
    books::assert_balanced,
    collector::{Running, options},
    events::{self, Totals},
    frames::{ARP, ENDS_4, ENDS_6, UDP},
    lab::Wire,
    testrun::{Datapath, Hook, UNIT},
    traffic::{Datagrams, Host, headers, send_and_settle},
};
use collector_user::kernel::{requirements::is_preempt_rt, settings::Settings};

/// Packets from just before an end to behind it.
const OVER: u64 = 100;

fn settings() -> Settings {
    Settings { slots_4: 16, slots_6: 16, table_4: 1 << 10, table_6: 1 << 10, ..Settings::default() }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_slot_is_emptied_before_it_runs_over() -> Result<()> {
    // Under PREEMPT_RT no flow holds one: there all goes on in the table.
    let held = usize::from(!is_preempt_rt());
    let mut datapath = Datapath::load(&settings())?;
    // Ten packets before it is emptied, each as long as there are; and of 32 bits all.
    let most = FLUSH_AT - 10;
    let full = SlotAmounts { bytes: u64::from(most) * 65_535, packets: most, skbs: most };
    for ends in [ENDS_4, ENDS_6] {
        datapath.begin_anew(&[].into())?;
        let frame = ends.udp(10);
        for swaps in 0..2 {
            datapath.run(Hook::Egress, &frame)?;
            assert_eq!(datapath.write_slots(full), held, "slots that are taken");
            for _ in 0..OVER {
                datapath.run(Hook::Egress, &frame)?;
            }
            let (_, counted) = datapath.drain_one()?;
            let before = if held == 1 { [most.into(), full.bytes] } else { [1, frame.len() as u64] };
            assert_eq!(counted.packets, [0, before[0] + OVER]);
            assert_eq!(counted.skbs, [0, before[0] + OVER]);
            assert_eq!(counted.bytes, [0, before[1] + OVER * frame.len() as u64]);
            assert_eq!(counted.begun, u64::from(swaps == 0));
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_table_counts_beyond_32_bits() -> Result<()> {
    let mut datapath = Datapath::load(&Settings { slots_on: Some(Vec::new()), ..settings() })?;
    let before = u64::from(u32::MAX) - 9;
    for ends in [ENDS_4, ENDS_6] {
        datapath.begin_anew(&[].into())?;
        let frame = ends.udp(10);
        datapath.run(Hook::Egress, &frame)?;
        assert_eq!(datapath.write_tables(before, before)?, 1, "entries");
        for _ in 0..OVER {
            datapath.run(Hook::Egress, &frame)?;
        }
        let (_, counted) = datapath.drain_one()?;
        assert_eq!(counted.packets, [0, before + OVER]);
        assert_eq!(counted.bytes, [0, before + OVER * frame.len() as u64]);
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_units_counters_go_on_behind_their_last_number() -> Result<()> {
    let mut datapath = Datapath::load(&settings())?;
    let mut frame = ENDS_4.udp(10);
    frame[12..14].copy_from_slice(&ARP.to_be_bytes());
    for before in [u64::from(u32::MAX) - 9, u64::MAX - 9] {
        datapath.write_unit(UNIT, DirectionCounters { packets: before, bytes: before, skbs: before })?;
        datapath.begin_anew(&[].into())?;
        for _ in 0..OVER {
            datapath.run(Hook::Egress, &frame)?;
        }
        let bytes = OVER * frame.len() as u64;
        assert_eq!(
            datapath.unit(UNIT)?.flowless[TX],
            DirectionCounters { packets: OVER, bytes, skbs: OVER },
            "from {before} on"
        );
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn each_start_counts_what_comes_after_it() -> Result<()> {
    let wire = Wire::new()?;
    let host = Host::new(&wire.b, &[5004])?;
    let bytes = 100 + 8 + headers(host.address(4, 5004).ip());
    let mut last = None;
    for _ in 0..3 {
        let collector = Running::start_beside(&wire.b.place, options(), Some(&wire.b.dev))?;
        let datagrams = Datagrams { to: host.address(4, 5004), count: OVER, size: 100 };
        send_and_settle(&wire.a, 40_000, &host, &[datagrams])?;
        let finished = collector.stop()?;
        assert_balanced(&finished);
        assert_eq!(
            events::total(&finished.events, |flow| events::is_to(flow, UDP, 5004)),
            Totals { packets: OVER, bytes: OVER * bytes, count: 1, ..Totals::default() }
        );
        let [received, octets, ..] = events::all_units(&finished.events);
        assert_eq!([received, octets], [finished.link.rx_packets, finished.link.rx_bytes]);
        // The flow is one as long as its sender's socket is, and begins for each collector when that first meets it.
        let began = events::flows(&finished.events)
            .find(|flow| events::is_to(flow, UDP, 5004))
            .map(|flow| flow.first_seen);
        assert!(began.is_some() && began > last, "{began:?} after {last:?}");
        last = began;
    }
    Ok(())
}
