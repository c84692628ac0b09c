//! Networks inside of tunnels, as the programs number them.

use std::collections::BTreeMap;

use aya::maps::{HashMap, MapData, PerCpuArray};
use collector_ebpf::abi::network;

use super::error::KernelError;

/// Kind and identifier of a network, by the number that stands for it in flows.
pub type Numbers = BTreeMap<u16, (u8, u32)>;

/// What the programs have numbered so far.
pub struct Networks {
    numbers: HashMap<MapData, u64, u32>,
    /// How many each CPU has.
    made: PerCpuArray<MapData, u32>,
    read: u64,
}

impl Networks {
    pub(super) const fn new(numbers: HashMap<MapData, u64, u32>, made: PerCpuArray<MapData, u32>) -> Self {
        Self { numbers, made, read: 0 }
    }

    /// All numbers, if there are more of them than at the call before.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`] where a map cannot be read.
    pub fn news(&mut self) -> Result<Option<Numbers>, KernelError> {
        let made = self.made.get(&0, 0).map_err(failed("NETWORKS_MADE"))?;
        let made = made.iter().map(|count| u64::from(*count)).sum();
        if made == self.read {
            return Ok(None);
        }
        let mut numbers = Numbers::new();
        for entry in &self.numbers {
            let (key, number) = entry.map_err(failed("NETWORKS"))?;
            // A boundary has 16 bits; the programs make no greater one.
            numbers.insert(number as u16, network::of_key(key));
        }
        self.read = made;
        Ok(Some(numbers))
    }
}

fn failed(map: &'static str) -> impl Fn(aya::maps::MapError) -> KernelError {
    move |source| KernelError::Map { map, action: "read", source }
}
