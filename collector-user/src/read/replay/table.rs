//! The table of flows that the programs have in the kernel: what was counted for each since the last drain, and how its
//! connection stands.

use std::{
    collections::{HashMap, hash_map},
    hash::{BuildHasherDefault, Hash, Hasher},
};

use collector_ebpf::{
    abi::flow::{FlowKey4, FlowKey6},
    flow::connection::State,
};

use crate::drain::flow::{FlowDelta, FlowId};

/// A flow's key, of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    V4(FlowKey4),
    V6(FlowKey6),
}

impl Hash for Key {
    /// In words: each octet by itself would cost as much as all the rest of a packet.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let word = |one: u16, two: u16, three: u16, four: [u8; 2]| {
            u64::from(one)
                | u64::from(two) << 16
                | u64::from(three) << 32
                | u64::from(u16::from_ne_bytes(four)) << 48
        };
        match self {
            Self::V4(key) => {
                let [local, remote] = [key.local, key.remote].map(u32::from_ne_bytes);
                state.write_u64(u64::from(local) << 32 | u64::from(remote));
                state.write_u64(word(
                    key.local_port,
                    key.remote_port,
                    key.boundary,
                    [key.protocol, key.ports],
                ));
            }
            Self::V6(key) => {
                for address in [key.local, key.remote].map(u128::from_ne_bytes) {
                    state.write_u64((address >> 64) as u64);
                    state.write_u64(address as u64);
                }
                state.write_u64(word(
                    key.local_port,
                    key.remote_port,
                    key.boundary,
                    [key.protocol, key.ports],
                ));
            }
        }
    }
}

impl Key {
    /// Exchanges the local and the remote end.
    pub(super) fn turn(&mut self) {
        match self {
            Self::V4(key) => key.turn(),
            Self::V6(key) => key.turn(),
        }
    }

    /// As the rest of user space has it.
    pub(super) fn id(&self) -> FlowId {
        match self {
            Self::V4(key) => key.into(),
            Self::V6(key) => key.into(),
        }
    }

    fn of(id: &FlowId) -> Option<Self> {
        id.key4().map(Self::V4).or_else(|| id.key6().map(Self::V6))
    }
}

/// What a packet adds.
pub(super) struct Amount {
    pub(super) direction: usize,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) tcp_flags: u8,
    pub(super) time: u64,
}

/// What is known of a flow, and what it has counted since the last drain.
pub(super) struct Entry {
    pub(super) pu: u16,
    pub(super) how: u8,
    pub(super) state: State,
    pub(super) begun: u64,
    packets: [u64; 2],
    bytes: [u64; 2],
    skbs: [u64; 2],
    tcp_flags: [u8; 2],
    first: u64,
    last: u64,
    is_listed: bool,
}

impl Entry {
    /// A flow that is met at a packet, which is not added yet.
    pub(super) const fn met(pu: u16, how: u8, tcp_flags: u8, sent: bool, time: u64) -> Self {
        Self {
            pu,
            how,
            state: State::met(tcp_flags, sent),
            begun: 0,
            packets: [0; 2],
            bytes: [0; 2],
            skbs: [0; 2],
            tcp_flags: [0; 2],
            first: time,
            last: time,
            is_listed: true,
        }
    }

    #[inline]
    pub(super) fn add(&mut self, amount: &Amount) {
        let Amount { direction, packets, bytes, tcp_flags, time } = *amount;
        if self.skbs == [0; 2] {
            (self.first, self.last) = (time, time);
        }
        let [of_packets, of_bytes, of_skbs] = [&mut self.packets, &mut self.bytes, &mut self.skbs];
        for (into, more) in [(of_packets, packets), (of_bytes, bytes), (of_skbs, 1)] {
            if let Some(into) = into.get_mut(direction) {
                *into += more;
            }
        }
        if let Some(into) = self.tcp_flags.get_mut(direction) {
            *into |= tcp_flags;
        }
        (self.first, self.last) = (self.first.min(time), self.last.max(time));
    }

    /// Takes out what was counted, with the times of its first and last packet.
    pub(super) fn take(&mut self, key: Key) -> Option<(FlowDelta, u64, u64)> {
        if self.skbs == [0; 2] {
            return None;
        }
        let delta = FlowDelta {
            id: key.id(),
            bytes: std::mem::take(&mut self.bytes),
            packets: std::mem::take(&mut self.packets),
            skbs: std::mem::take(&mut self.skbs),
            begun: std::mem::take(&mut self.begun),
            first: 0,
            last: 0,
            pu: self.pu,
            interface: 0,
            tcp_flags: std::mem::take(&mut self.tcp_flags),
            how: self.how,
            host_pu: 0,
            verdict: 0,
            rejected: [0; 2],
        };
        Some((delta, self.first, self.last))
    }
}

/// All flows that are known.
pub(super) struct Table {
    most: usize,
    entries: HashMap<Key, Entry, BuildHasherDefault<Mix>>,
    /// Of those that counted something since the last drain.
    touched: Vec<Key>,
    /// Room for what is drained.
    pub(super) deltas: Vec<(FlowDelta, u64, u64)>,
}

impl Table {
    /// One of at most `most` flows.
    pub(super) fn new(most: usize) -> Self {
        Self { most, entries: HashMap::default(), touched: Vec::new(), deltas: Vec::new() }
    }

    /// The entry of a flow, and whether it is new; `None` where there is no room.
    #[inline]
    pub(super) fn entry(&mut self, key: Key, new: impl FnOnce() -> Entry) -> Option<(&mut Entry, bool)> {
        let is_full = self.entries.len() >= self.most;
        match self.entries.entry(key) {
            hash_map::Entry::Occupied(entry) => {
                let entry = entry.into_mut();
                if !std::mem::replace(&mut entry.is_listed, true) {
                    self.touched.push(key);
                }
                Some((entry, false))
            }
            hash_map::Entry::Vacant(_) if is_full => None,
            hash_map::Entry::Vacant(place) => {
                self.touched.push(key);
                Some((place.insert(new()), true))
            }
        }
    }

    /// Takes out what was counted since the last drain, in the order in which flows were met.
    pub(super) fn drain(&mut self, into: &mut Vec<(FlowDelta, u64, u64)>) {
        for key in self.touched.drain(..) {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.is_listed = false;
                into.extend(entry.take(key));
            }
        }
    }

    /// Forgets flows that are over.
    pub(super) fn forget(&mut self, over: &[FlowId]) {
        for key in over.iter().filter_map(Key::of) {
            self.entries.remove(&key);
        }
    }
}

/// Words, each multiplied by a random odd number and folded: keys are no secret, but come from a network, so the numbers are
/// chosen anew by each process.
#[derive(Default)]
pub(super) struct Mix(u64);

impl Mix {
    #[inline]
    fn word(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ *SEED) * u128::from(FACTOR);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

static SEED: std::sync::LazyLock<u64> = std::sync::LazyLock::new(|| {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(FACTOR)
});

impl Hasher for Mix {
    /// Not what keys are made of.
    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.word(u64::from(*octet));
        }
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.word(number);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use collector_ebpf::abi::flow::{FlowKey4, RX, TX, ports};

    use super::{Amount, Entry, Key, Table};

    fn key(port: u16) -> Key {
        Key::V4(FlowKey4 {
            remote_port: port.to_be(),
            protocol: 6,
            ports: ports::TRANSPORT,
            ..FlowKey4::default()
        })
    }

    #[test]
    fn a_drain_takes_what_was_counted_since_the_last() {
        let mut table = Table::new(2);
        let amount = |direction, time| Amount { direction, packets: 2, bytes: 100, tcp_flags: 0x10, time };
        for (port, direction, time) in [(1, TX, 5), (2, TX, 6), (1, RX, 9), (1, RX, 3)] {
            let (entry, is_new) = table.entry(key(port), || Entry::met(1, 0, 0, true, time)).unwrap();
            assert_eq!(is_new, time == 5 || time == 6);
            entry.add(&amount(direction, time));
        }
        assert!(table.entry(key(3), || Entry::met(1, 0, 0, true, 0)).is_none(), "it is full");
        let mut deltas = Vec::new();
        table.drain(&mut deltas);
        let [(one, first, last), (two, ..)] = deltas.as_slice() else { panic!("{deltas:?}") };
        assert_eq!((one.packets, one.bytes, one.skbs, *first, *last), ([4, 2], [200, 100], [2, 1], 3, 9));
        assert_eq!((two.packets, two.tcp_flags), ([0, 2], [0, 0x10]));
        let mut nothing = Vec::new();
        table.drain(&mut nothing);
        assert!(nothing.is_empty());
        table.forget(&[key(1).id()]);
        assert!(
            table.entry(key(1), || Entry::met(1, 0, 0, true, 0)).unwrap().1,
            "forgotten, and room for it again"
        );
    }
}
