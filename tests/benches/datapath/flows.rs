//! Many flows, whose packets come mixed: each run of a program has another flow's packet.
//!
//! All flows are met and settled before: each has its identity among those that lived on, and its entry in the table of
//! the epoch, which is checked. All run on one CPU, which has its share of the cache's slots and no more.

use std::collections::BTreeMap;

use anyhow::ensure;
use collector_ebpf::abi::{bench::STEPS, pu::index};
use collector_tests::{
    Result,
    frames::ACK,
    measure::{Random, median},
    testrun::{Datapath, uplink},
};
use collector_user::kernel::settings::Settings;

use crate::{
    HERE, ends, settings,
    walk::{self, Written},
};

/// Timed packets in one call.
const REPEAT: u32 = 1 << 20;
/// Flows that are met in one epoch while they settle: no more than newcomers are remembered.
const AT_ONCE: u32 = 1 << 14;

const PROGRAMS: [&str; 3] = ["walk_empty", "walk_floor", "walk_ingress"];

/// How packets fall to flows.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// Each flow as often as any other.
    Uniform,
    /// The flow of rank `n` one `n`th as often as the first.
    Zipf,
}

const BOTH: [Order; 2] = [Order::Uniform, Order::Zipf];

/// A size of the cache, and the numbers of flows that are met there.
struct Cache {
    name: &'static str,
    /// Slots of all CPUs together in an epoch, of each family; the default where nothing is said.
    slots: Option<u32>,
    /// Over IPv4 and over IPv6: no more than the tables hold.
    flows: [&'static [u32]; 2],
}

const CACHES: [Cache; 3] = [
    Cache { name: "default", slots: None, flows: [&[1, 1 << 10, 1 << 16], &[1 << 14]] },
    Cache { name: "roomy", slots: Some(1 << 20), flows: [&[1 << 16], &[1 << 16]] },
    Cache { name: "large", slots: Some(1 << 22), flows: [&[1 << 20], &[]] },
];

pub(crate) fn run(rounds: usize) -> Result<()> {
    println!("\nMany flows on one CPU, TCP, ns over an empty program that writes the flow into the frame");
    println!(
        "{:<10} {:<10} {:<6} {:>9} {:<8} {:>8} {:>12} {:>12} {:>8}",
        "cache", "slots", "over", "flows", "order", "floor", "tc_ingress", "of floor's", "held"
    );
    for cache in &CACHES {
        let mut settings = settings();
        if let Some(slots) = cache.slots {
            // Room for all the flows of the bench, whatever it takes.
            settings = Settings {
                slots_4: slots,
                slots_6: slots.min(1 << 20),
                table_4: 5 << 18,
                table_6: 1 << 17,
                identities_4: 5 << 18,
                identities_6: 1 << 17,
                ..settings
            };
        }
        let mut datapath = Datapath::load(&settings)?;
        datapath.controller.set_role(uplink(index::HOST, 0))?;
        for address in HERE {
            datapath.controller.add_local(address, index::HOST)?;
        }
        for (version, flows) in [4, 6].into_iter().zip(cache.flows) {
            let slots = if version == 4 { settings.slots_4 } else { settings.slots_6 };
            let mut met = 0;
            for flows in flows {
                meet(&mut datapath, version, met..*flows)?;
                met = *flows;
                for order in BOTH {
                    if *flows == 1 && matches!(order, Order::Zipf) {
                        continue;
                    }
                    let row = measure(&mut datapath, version, *flows, order, rounds)?;
                    let name = format!("{order:?}");
                    println!(
                        "{:<10} {slots:<10} IPv{version:<3} {flows:>9} {name:<8} {:>8.0} {:>12.0} {:>12.2} {:>7.1}%",
                        cache.name,
                        row.floor,
                        row.ingress,
                        row.ingress / row.floor,
                        row.held * 100.0
                    );
                }
            }
            datapath.forget_floor()?;
        }
    }
    Ok(())
}

fn frame(version: u8) -> Vec<u8> {
    ends(version).tcp(ACK, 10)
}

/// Shows flows to the programs in two epochs: then they have lived on.
fn meet(datapath: &mut Datapath, version: u8, flows: std::ops::Range<u32>) -> Result<()> {
    let written = Written::Source(version);
    let mut first = flows.start;
    while first < flows.end {
        let count = (flows.end - first).min(AT_ONCE);
        walk::lay(datapath, (first..first + count).map(|number| walk::flow(number, written)))?;
        for _ in 0..2 {
            walk::begin(datapath, written)?;
            crate::run(datapath, "walk_ingress", &frame(version), count)?;
            datapath.discard()?;
        }
        first += count;
    }
    Ok(())
}

struct Row {
    floor: f64,
    ingress: f64,
    held: f64,
}

fn measure(datapath: &mut Datapath, version: u8, flows: u32, order: Order, rounds: usize) -> Result<Row> {
    let (written, frame) = (Written::Source(version), frame(version));
    // Every flow once more, in this epoch: none is met for the first time while the clock runs.
    walk::lay(datapath, (0..flows).map(|number| walk::flow(number, written)))?;
    for program in PROGRAMS {
        datapath.renew()?;
        walk::begin(datapath, written)?;
        crate::run(datapath, program, &frame, flows)?;
    }
    walk::lay(datapath, sequence(flows, order).map(|number| walk::flow(number, written)))?;
    walk::begin(datapath, written)?;
    let before = begun(datapath)?;
    let mut figures = BTreeMap::<usize, Vec<f64>>::new();
    for round in 0..=rounds {
        for (column, program) in PROGRAMS.into_iter().enumerate() {
            datapath.renew()?;
            let ns = crate::run(datapath, program, &frame, REPEAT)?;
            // The first round brings the flows to their slots.
            if round > 0 {
                figures.entry(column).or_default().push(ns);
            }
        }
    }
    datapath.renew()?;
    let held = walk::held(datapath, &frame, REPEAT)? as f64 / f64::from(REPEAT);
    let (after, ledger) = (begun(datapath)?, datapath.ledger()?);
    ensure!(before == after, "{} flows were met anew while the clock ran", after - before);
    ensure!(ledger.table_full + ledger.identity_full == 0, "the tables are too small: {ledger:?}");
    datapath.discard()?;
    let mut of = |column| figures.get_mut(&column).map_or(f64::NAN, |ns| median(ns));
    let empty = of(0);
    Ok(Row { floor: of(1) - empty, ingress: of(2) - empty, held })
}

/// Flows that began so far.
fn begun(datapath: &Datapath) -> Result<u64> {
    let of = |unit| datapath.unit(unit).map(|counters| counters.flows);
    Ok(of(index::HOST)? + of(index::UNKNOWN)?)
}

/// The numbers of the flows, packet by packet.
fn sequence(flows: u32, order: Order) -> impl Iterator<Item = u32> {
    let mut random = Random::new(u64::from(flows));
    let mut sum = 0.0;
    // Up to each rank, how often any of them comes.
    let shares: Vec<f64> = match order {
        Order::Uniform => Vec::new(),
        Order::Zipf => (1..=flows)
            .map(|rank| {
                sum += 1.0 / f64::from(rank);
                sum
            })
            .collect(),
    };
    (0..STEPS).map(move |_| {
        let at = random.fraction();
        let number = match order {
            Order::Uniform => (at * f64::from(flows)) as u32,
            Order::Zipf => shares.partition_point(|share| *share <= at * sum) as u32,
        };
        number.min(flows - 1)
    })
}
