//! A packet whose flow holds its slot, and what reports of packets add to it.

use std::collections::BTreeMap;

use anyhow::ensure;
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
use collector_user::kernel::{
    programs::INGRESS,
    settings::{Settings, Transport},
};

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
    let mut ways = [Transport::Perf, Transport::Ring]
        .into_iter()
        .map(|transport| {
            let mut datapath = Datapath::load(&Settings { transport, packets: BUFFER, ..settings() })?;
            datapath.controller.set_role(own())?;
            let buffers = datapath.buffers()?;
            Ok((datapath, buffers))
        })
        .collect::<Result<Vec<_>>>()?;
    let every = |every| Some(Trace { until_ns: [FOR_EVER; 2], every, _pad: 0 });
    let [own, other] = [index::FIRST, index::FIRST + 1].map(u32::from);
    let cases = [
        ("nothing", own, None, 0),
        ("another unit's", other, every(1), 0),
        ("one of 1,000", own, every(1000), REPEAT / 1000),
        ("each", own, every(1), REPEAT),
    ];
    let mut figures = BTreeMap::<(usize, usize), Vec<f64>>::new();
    for _ in 0..rounds {
        for (number, (name, unit, trace, told)) in cases.iter().enumerate() {
            for (way, (datapath, buffers)) in ways.iter_mut().enumerate() {
                datapath.renew()?;
                if let Some(trace) = trace {
                    datapath.controller.trace(*unit, *trace)?;
                }
                datapath.controller.capture(if trace.is_some() { CAPTURED } else { 0 });
                crate::run(datapath, INGRESS, &frame, WARM_UP)?;
                let empty = crate::run(datapath, "empty", &frame, REPEAT)?;
                buffers.take()?;
                let ns = crate::run(datapath, INGRESS, &frame, REPEAT)?;
                figures.entry((number, way)).or_default().push(ns - empty);
                // One that finds no room is cheaper.
                ensure!(buffers.take()?.len() == *told as usize, "{name}: not all of {told} were told");
                datapath.controller.end_trace(*unit)?;
            }
        }
    }
    println!("What is traced, ns of a packet over an empty program");
    println!("{:<20} {:>8} {:>8}", "", "perf", "ring");
    for (number, (name, ..)) in cases.iter().enumerate() {
        let [perf, ring] =
            [0, 1].map(|way| figures.get_mut(&(number, way)).map_or(f64::NAN, |ns| median(ns)));
        println!("{name:<20} {perf:>8.0} {ring:>8.0}");
    }
    Ok(())
}
