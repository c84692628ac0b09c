//! The packet filter alone: what it costs to ask whether a packet is wanted.

use std::collections::{BTreeMap, BTreeSet};

use collector_tests::{Result, filters, frames::ACK, measure::median, testrun::Datapath};
use collector_user::kernel::{programs::FILTER_PROBE, settings::Settings};

use crate::{ends, settings};

/// Timed runs in one call.
const REPEAT: u32 = 200_000;
/// Runs before those.
const WARM_UP: u32 = 10_000;

pub(crate) fn run(rounds: usize) -> Result<()> {
    let frames = [
        ("TCP/IPv4", ends(4).tcp(ACK, 10)),
        ("TCP/IPv6", ends(6).tcp(ACK, 10)),
        ("TCP/IPv4, 1500", ends(4).tcp(ACK, 1446)),
    ];
    let expressions = ["ip", "tcp port 443", filters::LONG];
    let first = Some(filters::of(expressions[0])?);
    let mut datapath = Datapath::load(&Settings { filter: first, ..settings() })?;
    let mut figures = BTreeMap::<(usize, usize), Vec<f64>>::new();
    let mut wanted = BTreeSet::new();
    for _ in 0..rounds {
        for (row, (_, frame)) in frames.iter().enumerate() {
            crate::run(&mut datapath, "empty", frame, WARM_UP)?;
            let ns = crate::run(&mut datapath, "empty", frame, REPEAT)?;
            figures.entry((row, 0)).or_default().push(ns);
            for (column, expression) in expressions.into_iter().enumerate() {
                datapath.controller.set_filter(&filters::of(expression)?)?;
                let action = i32::from(datapath.probe(frame)?);
                if action != 0 {
                    wanted.insert((row, column + 1));
                }
                crate::run_for(&mut datapath, FILTER_PROBE, action, frame, WARM_UP)?;
                let ns = crate::run_for(&mut datapath, FILTER_PROBE, action, frame, REPEAT)?;
                figures.entry((row, column + 1)).or_default().push(ns);
            }
        }
    }
    println!("The packet filter, ns over an empty program (*: the packet matches)");
    println!("{:<16} {:>8} {:>8} {:>14} {:>8}", "frame", "empty", expressions[0], expressions[1], "long");
    for (row, (name, _)) in frames.iter().enumerate() {
        let mut of = |column| figures.get_mut(&(row, column)).map_or(f64::NAN, |ns| median(ns));
        let empty = of(0);
        let [one, two, long] = [1, 2, 3].map(|column| {
            let star = if wanted.contains(&(row, column)) { "*" } else { "" };
            format!("{:.0}{star}", of(column) - empty)
        });
        println!("{name:<16} {empty:>8.0} {one:>8} {two:>14} {long:>8}");
    }
    println!("long: {}", expressions[2]);
    Ok(())
}
