//! Numbers of networks inside of tunnels, in the place of the boundary in the keys of their flows: what the programs keep in a map.

use std::collections::HashMap;

use collector_ebpf::abi::network;

/// The numbers that were given.
#[derive(Default)]
pub(super) struct Inside(HashMap<(u8, u32), u16>);

impl Inside {
    /// The number that stands for a network of a kind of tunnel; `None` where there are too many.
    pub(super) fn number(&mut self, kind: u8, id: u32) -> Option<u16> {
        if let Some(number) = self.0.get(&(kind, id)) {
            return Some(*number);
        }
        let nth = u16::try_from(self.0.len()).ok().filter(|nth| u32::from(*nth) < network::MOST)?;
        let number = network::FIRST + nth;
        self.0.insert((kind, id), number);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use collector_ebpf::abi::network;

    use super::Inside;

    #[test]
    fn each_network_has_one_as_long_as_there_are_any() {
        let mut inside = Inside::default();
        for id in 0..network::MOST {
            assert_eq!(inside.number(network::VXLAN, id), Some(network::FIRST + id as u16));
        }
        assert_eq!(inside.number(network::GRE, 0), None);
        assert_eq!(inside.number(network::VXLAN, 7), Some(network::FIRST + 7));
    }
}
