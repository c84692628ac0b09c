//! Rows that are taken out of the programs' table, so that it never fills with those of units that are no more.

use std::{collections::BTreeMap, net::UdpSocket};

use anyhow::{Context as _, ensure};
use collector_ebpf::abi::{
    drop::{DropCounts, DropKey},
    pu::index,
};
use collector_tests::{Result, lab::Wire};
use collector_user::kernel::{
    control::Controller,
    drops::{DropLimits, DropMaps},
    object,
    requirements::ticks_per_second,
    settings::Settings,
};

/// Units, one after another, of which more have rows than there is room for.
const UNITS: u16 = 250;
const ROWS: u32 = 200;

/// What stands in the rows of a unit.
fn of(maps: &DropMaps, unit: u16) -> Result<BTreeMap<DropKey, DropCounts>> {
    Ok(maps.rows()?.into_iter().filter(|(key, _)| key.pu == unit).collect())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_is_taken_out_makes_room_and_nothing_is_lost() -> Result<()> {
    let wire = Wire::new()?;
    wire.a.place.ip("link set lo up")?;
    wire.a.place.within(|| {
        let limits = DropLimits { rows: ROWS, ..DropLimits::default() };
        let loaded = object::load(&Settings { drops: Some(limits), ..Settings::default() })?;
        let (mut programs, mut controller) =
            (loaded.programs, Controller::new(loaded.control, ticks_per_second()?)?);
        let mut maps = loaded.drops.context("drops were asked for")??.maps;
        programs.attach_drops()?;
        let socket = UdpSocket::bind((wire.a.v4, 40_000))?;
        let mut taken = 0;
        for unit in index::FIRST..index::FIRST + UNITS {
            // The programs count by whatever index they are told.
            controller.add_local(wire.a.v4.into(), unit)?;
            for _ in 0..unit {
                // Nobody listens there.
                ensure!(socket.send_to(&[0; 18], (wire.a.v4, 6001))? == 18, "all of it is sent");
            }
            let rows = of(&maps, unit)?;
            assert!(rows.values().any(|counts| counts.skbs == u64::from(unit)), "{unit}: {rows:?}");
            // From here on nothing is counted by it.
            controller.add_local(wire.a.v4.into(), index::HOST)?;
            assert_eq!(maps.take_out(|pu| pu == unit)?, rows);
            assert!(of(&maps, unit)?.is_empty());
            taken += rows.values().map(|counts| counts.skbs).sum::<u64>();
        }
        let ledger = maps.ledger()?;
        let left: u64 = maps.rows()?.values().map(|counts| counts.skbs).sum();
        assert_eq!(ledger.table_full, 0, "{ledger:?}");
        // Other namespaces may drop something meanwhile: what was read last is no less.
        assert!(ledger.seen <= taken + left + ledger.no_packet, "{ledger:?}, {taken}, {left}");
        Ok(())
    })
}
