//! The map of the packet filter: its program for each kind of link.

use aya::{
    Ebpf,
    maps::{Array, MapData},
};
use collector_ebpf::{
    abi::{
        filter::{Instruction, Program},
        packet::link,
    },
    filter::code,
};

use super::{error::KernelError, maps::typed};
use crate::host::pcap::Filter;

/// The programs of the packet filter, where there is one.
pub(super) fn filters(
    ebpf: &mut Ebpf,
    filter: Option<&Filter>,
) -> Result<Array<MapData, Program>, KernelError> {
    let mut filters = typed(ebpf, "FILTER")?;
    if let Some(filter) = filter {
        fill(&mut filters, filter)?;
    }
    Ok(filters)
}

/// Puts the filter's program for each kind of link into their map.
pub(super) fn fill(programs: &mut Array<MapData, Program>, filter: &Filter) -> Result<(), KernelError> {
    fill_each(programs, |link| filter.program(link))
}

/// Puts programs there that match nothing, whichever of their instructions runs next.
pub(super) fn empty(programs: &mut Array<MapData, Program>) -> Result<(), KernelError> {
    let end = Instruction { code: code::RET as u16, ..Instruction::default() };
    fill_each(programs, |_| Program::all(end))
}

fn fill_each(
    programs: &mut Array<MapData, Program>,
    program: impl Fn(u8) -> Program,
) -> Result<(), KernelError> {
    for link in [link::ETHERNET, link::RAW_IP] {
        programs.set(link.into(), program(link), 0).map_err(|source| KernelError::Map {
            map: "FILTER",
            action: "filled",
            source,
        })?;
    }
    Ok(())
}
