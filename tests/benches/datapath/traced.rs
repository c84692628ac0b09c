//! A packet whose flow holds its slot, and what reports of packets add to it.

use std::collections::BTreeMap;

use collector_ebpf::abi::{
    pu::index,
    trace::{FOR_EVER, Trace},
};
use collector_tests::{
    Result,
    frames::ACK,
    measure::median,
    testrun::{Datapath, own},
};
use collector_user::kernel::{programs::INGRESS, settings::Settings};

use crate::{ends, settings};

/// Timed runs in one call: so many records fit into the buffer.
const REPEAT: u32 = 50_000;
/// Runs before those.
const WARM_UP: u32 = 10_000;
/// Octets of a CPU's buffer.
const BUFFER: u32 = 1 << 24;
/// Octets that are reported of a packet where the snap length is 64.
const CAPTURED: u32 = 128;

pub(crate) fn run(rounds: usize) -> Result<()> {
    let frame = ends(4).tcp(ACK, 1400);
    let mut datapath = Datapath::load(&Settings { packets: BUFFER, ..settings() })?;
    datapath.controller.set_role(own())?;
    let mut buffers = datapath.buffers()?;
    let every = |every| Some(Trace { until_ns: [FOR_EVER; 2], every, _pad: 0 });
    let [own, other] = [index::FIRST, index::FIRST + 1].map(u32::from);
    let cases = [
        ("nothing", own, None),
        ("another unit's", other, every(1)),
        ("one of 1,000", own, every(1000)),
        ("each", own, every(1)),
    ];
    let mut figures = BTreeMap::<usize, Vec<f64>>::new();
    for _ in 0..rounds {
        for (number, (_, unit, trace)) in cases.iter().enumerate() {
            datapath.renew()?;
            if let Some(trace) = trace {
                datapath.controller.trace(*unit, *trace)?;
            }
            datapath.controller.capture(if trace.is_some() { CAPTURED } else { 0 });
            crate::run(&mut datapath, INGRESS, &frame, WARM_UP)?;
            let empty = crate::run(&mut datapath, "empty", &frame, REPEAT)?;
            buffers.take()?;
            let ns = crate::run(&mut datapath, INGRESS, &frame, REPEAT)?;
            figures.entry(number).or_default().push(ns - empty);
            buffers.take()?;
            datapath.controller.end_trace(*unit)?;
        }
    }
    println!("What is traced, ns of a packet over an empty program");
    for (number, (name, ..)) in cases.iter().enumerate() {
        println!("{name:<20} {:>8.0}", figures.get_mut(&number).map_or(f64::NAN, |ns| median(ns)));
    }
    Ok(())
}
