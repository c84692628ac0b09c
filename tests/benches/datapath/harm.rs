//! What the collector does to others: TCP over a veth pair, in rotation with nothing attached and with each of what can be.
//! Each part of a rotation stands beside the one with nothing, so that whatever else the machine does meets both.

use std::collections::BTreeMap;

use collector_tests::{
    Result,
    collector::{Running, options},
    lab::Wire,
    measure::median,
    traffic::transfer,
};
use collector_user::{
    daemon::Options,
    kernel::xdp::{Choice, Mode},
};
use tokio::time::Instant;

/// Octets of one transfer.
const OCTETS: usize = 500_000_000;

pub(crate) fn run(rounds: usize) -> Result<()> {
    let cases = [
        ("TC (the default)", Choice::Off),
        ("TC and generic XDP", Choice::Only(Mode::Generic)),
        ("TC and native XDP", Choice::Only(Mode::Native)),
    ];
    let mut ratios = BTreeMap::<usize, Vec<f64>>::new();
    let mut bare = Vec::new();
    let wire = Wire::new()?;
    for _ in 0..rounds {
        for (number, (_, choice)) in cases.iter().enumerate() {
            let before = rate(&wire)?;
            let collector = Running::start(&wire.b.place, Options { xdp: *choice, ..options() })?;
            let with = rate(&wire)?;
            collector.stop()?;
            let after = rate(&wire)?;
            bare.extend([before, after]);
            ratios.entry(number).or_default().push(with * 2.0 / (before + after));
        }
    }
    println!("\nTCP over a veth pair, of what goes with nothing attached ({:.1} Gbit/s)", median(&mut bare));
    for (number, (name, _)) in cases.iter().enumerate() {
        println!("{name:<30} {:>8.2}", ratios.get_mut(&number).map_or(f64::NAN, |all| median(all)));
    }
    Ok(())
}

/// Gbit/s of one transfer.
fn rate(wire: &Wire) -> Result<f64> {
    let begun = Instant::now();
    transfer(&wire.a, &wire.b, 4, 5_202, OCTETS, 0)?;
    Ok(OCTETS as f64 * 8.0 / 1e9 / begun.elapsed().as_secs_f64())
}
