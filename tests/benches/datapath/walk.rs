//! Walks over flows: the programs whose names begin with `walk` write the next flow's ends into the frame, in the order
//! that lies in their map.

use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context as _, ensure};
use collector_ebpf::abi::bench::{STEPS, Walk, step};
use collector_tests::{Result, measure::Random, testrun::Datapath};
use collector_user::kernel::object::ReferenceMaps;

use crate::PORT;

/// Where in a frame the ends lie that are written.
#[derive(Clone, Copy)]
pub(crate) enum Written {
    /// The source's address, over IPv4 or IPv6.
    Source(u8),
    /// The destination's address.
    Destination(u8),
}

/// The flow of a number: another address for each, and any port of the changing end.
pub(crate) fn flow(number: u32, written: Written) -> u64 {
    // Below 11.0.0.0/8, which nothing here has.
    let address = (11 << 24 | number & 0xFF_FFFF).to_be_bytes();
    let port = 1 << 14 | Random::new(number.into()).next() as u16;
    match written {
        Written::Source(_) => step(address, port, PORT),
        Written::Destination(_) => step(address, PORT, port),
    }
}

/// Says where ends are written, and begins at the first step.
pub(crate) fn begin(datapath: &Datapath, written: Written) -> Result<()> {
    const ETHERNET: u32 = 14;
    let (address_at, ports_at, wide) = match written {
        Written::Source(4) => (12, 20, 0),
        Written::Destination(4) => (16, 20, 0),
        // The second half of the address.
        Written::Source(_) => (16, 40, 1),
        Written::Destination(_) => (32, 40, 1),
    };
    let (address_at, ports_at) = (u64::from(ETHERNET + address_at), u64::from(ETHERNET + ports_at));
    set(datapath, std::mem::offset_of!(Walk, steps), 0)?;
    set(datapath, std::mem::offset_of!(Walk, address_at), address_at | ports_at << 32)?;
    set(datapath, std::mem::offset_of!(Walk, wide), wide)
}

/// Writes the steps; where there are fewer than a walk has, the others stay as they are.
pub(crate) fn lay(datapath: &Datapath, flows: impl IntoIterator<Item = u64>) -> Result<()> {
    let steps = &maps(datapath)?.steps;
    for (index, flow) in flows.into_iter().enumerate() {
        ensure!(index < STEPS as usize, "a walk has no more than {STEPS} steps");
        steps.word(index, 0).context("no such step")?.store(flow, Relaxed);
    }
    Ok(())
}

/// Packets of `repeat` whose flow held its slot.
pub(crate) fn held(datapath: &mut Datapath, frame: &[u8], repeat: u32) -> Result<u64> {
    set(datapath, std::mem::offset_of!(Walk, held), 0)?;
    crate::run(datapath, "walk_held", frame, repeat)?;
    Ok(maps(datapath)?.walk.read(0).context("no walk")?.held)
}

fn set(datapath: &Datapath, offset: usize, value: u64) -> Result<()> {
    maps(datapath)?.walk.word(0, offset).context("no such word")?.store(value, Relaxed);
    Ok(())
}

fn maps(datapath: &Datapath) -> Result<&ReferenceMaps> {
    datapath.reference.as_ref().context("the programs of the bench were not loaded")
}
