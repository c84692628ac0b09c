//! The table of flows that the programs have in the kernel: what was counted for each since the last drain, and how its
//! connection stands.
//!
//! A flow has a number, which is its place, for as long as it is known: what lies beside the keys in the index is small, and a
//! drain goes by numbers.
//!
//! Where there are many, what is known of one lies in no cache, and a packet costs what it takes to fetch that. So the index
//! has the hashes: it [guesses](Table::guess) a number without a look at the flow, and whoever has several of them
//! [fetches](Table::fetch) all of these before the first is needed.

use std::{
    hash::{BuildHasher as _, Hash, Hasher},
    hint, mem,
};

use collector_ebpf::{
    abi::flow::{FlowKey4, FlowKey6},
    flow::connection::State,
};
use hashbrown::HashTable;

use crate::drain::{
    flow::{FlowDelta, FlowId, words},
    mix::Seed,
};

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
        match self {
            Self::V4(key) => {
                let [local, remote] = [key.local, key.remote].map(u32::from_ne_bytes);
                state.write_u64(u64::from(local) << 32 | u64::from(remote));
                state.write_u64(words(
                    [key.local_port, key.remote_port, key.boundary],
                    [key.protocol, key.ports],
                ));
            }
            Self::V6(key) => {
                for address in [key.local, key.remote].map(u128::from_ne_bytes) {
                    state.write_u64((address >> 64) as u64);
                    state.write_u64(address as u64);
                }
                state.write_u64(words(
                    [key.local_port, key.remote_port, key.boundary],
                    [key.protocol, key.ports],
                ));
            }
        }
    }
}

impl Key {
    /// Exchanges the local and the remote end unless they `stand` as they should: not by a branch, for nobody can guess which of
    /// it comes next.
    #[inline]
    pub(super) fn turn_unless(&mut self, stand: bool) {
        match self {
            Self::V4(key) => {
                let ends = [key.local, key.remote].map(u32::from_ne_bytes);
                [key.local, key.remote] = turned_unless(stand, ends).map(u32::to_ne_bytes);
                [key.local_port, key.remote_port] = turned_unless(stand, [key.local_port, key.remote_port]);
            }
            Self::V6(key) => {
                let ends = [key.local, key.remote].map(u128::from_ne_bytes);
                [key.local, key.remote] = turned_unless(stand, ends).map(u128::to_ne_bytes);
                [key.local_port, key.remote_port] = turned_unless(stand, [key.local_port, key.remote_port]);
            }
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

#[inline]
fn turned_unless<T: Copy>(stand: bool, [one, other]: [T; 2]) -> [T; 2] {
    [hint::select_unpredictable(stand, one, other), hint::select_unpredictable(stand, other, one)]
}

/// What a packet adds.
pub(super) struct Amount {
    pub(super) direction: usize,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) tcp_flags: u8,
    pub(super) time: u64,
}

/// What is known of a flow, and what it has counted since the last drain: two lines of a cache, one of them what it is, the
/// other what it counted.
#[repr(C, align(64))]
pub(super) struct Entry {
    key: Key,
    /// Of the [`State`] of its connection, which would be longer in one piece.
    fins: u64,
    pub(super) pu: u16,
    pub(super) how: u8,
    is_listed: bool,
    tcp_flags: [u8; 2],
    ended: bool,
    /// Connections: one at most, for what was counted before another begins is taken out.
    pub(super) begun: u8,
    packets: [u64; 2],
    bytes: [u64; 2],
    skbs: [u64; 2],
    first: u64,
    last: u64,
}

const _: () = assert!(size_of::<Entry>() == 128);

impl Entry {
    /// A flow that is met at a packet, which is not added yet.
    pub(super) const fn met(key: Key, pu: u16, how: u8, tcp_flags: u8, sent: bool, time: u64) -> Self {
        let State { fins, ended } = State::met(tcp_flags, sent);
        Self {
            key,
            fins,
            pu,
            how,
            is_listed: true,
            tcp_flags: [0; 2],
            ended,
            begun: 0,
            packets: [0; 2],
            bytes: [0; 2],
            skbs: [0; 2],
            first: time,
            last: time,
        }
    }

    /// Whether it is that flow's.
    #[inline]
    pub(super) fn is_of(&self, key: &Key) -> bool {
        self.key == *key
    }

    /// What another packet makes of its connection; what is to be told, or 0.
    #[inline]
    pub(super) const fn follow(&mut self, tcp_flags: u8, sent: bool) -> u8 {
        let mut state = State { fins: self.fins, ended: self.ended };
        let told = state.follow(tcp_flags, sent);
        (self.fins, self.ended) = (state.fins, state.ended);
        told
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
    pub(super) fn take(&mut self) -> Option<(FlowDelta, u64, u64)> {
        if self.skbs == [0; 2] {
            return None;
        }
        let delta = FlowDelta {
            id: self.key.id(),
            bytes: mem::take(&mut self.bytes),
            packets: mem::take(&mut self.packets),
            skbs: mem::take(&mut self.skbs),
            begun: mem::take(&mut self.begun).into(),
            first: 0,
            last: 0,
            pu: self.pu,
            interface: 0,
            tcp_flags: mem::take(&mut self.tcp_flags),
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
    seed: Seed,
    /// The number of each, by its key.
    numbers: HashTable<Place>,
    entries: Vec<Entry>,
    /// Numbers that are nobody's any more.
    free: Vec<u32>,
    /// Of those that counted something since the last drain.
    touched: Vec<u32>,
}

/// Where a flow is.
struct Place {
    hash: u32,
    number: u32,
}

/// A hash as the index wants it, which looks at both ends.
#[inline]
const fn spread(hash: u32) -> u64 {
    (hash as u64) << 32 | hash as u64
}

impl Table {
    /// One of at most `most` flows.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            seed: Seed::default(),
            numbers: HashTable::new(),
            entries: Vec::new(),
            free: Vec::new(),
            touched: Vec::new(),
        }
    }

    /// Where a key belongs.
    #[inline]
    pub(super) fn hash(&self, key: &Key) -> u32 {
        let hash = self.seed.hash_one(key);
        (hash >> 32) as u32 ^ hash as u32
    }

    /// The number of a flow with that hash: as a rule it is the one that is sought.
    #[inline]
    pub(super) fn guess(&self, hash: u32) -> Option<u32> {
        Some(self.numbers.find(spread(hash), |place| place.hash == hash)?.number)
    }

    /// Has what is known of flows at hand, that of all of them at once.
    #[inline]
    pub(super) fn fetch(&self, numbers: impl Iterator<Item = u32>) {
        let entries = numbers.filter_map(|number| self.entries.get(number as usize));
        hint::black_box(entries.fold(0, |all, entry| all ^ u64::from(entry.pu) ^ entry.last));
    }

    /// The number of a flow, which stays its until it is [forgotten](Self::forget).
    #[inline]
    pub(super) fn find(&self, key: &Key, hash: u32) -> Option<u32> {
        let is_it = |place: &Place| {
            place.hash == hash
                && self.entries.get(place.number as usize).is_some_and(|entry| entry.is_of(key))
        };
        Some(self.numbers.find(spread(hash), is_it)?.number)
    }

    /// The same, where a number was guessed.
    #[inline]
    pub(super) fn find_by(&self, guess: Option<u32>, key: &Key, hash: u32) -> Option<u32> {
        let is_it = |number: &u32| self.entries.get(*number as usize).is_some_and(|entry| entry.is_of(key));
        guess.filter(is_it).or_else(|| self.find(key, hash))
    }

    /// The entry of a flow that has a number.
    #[inline]
    pub(super) fn entry(&mut self, number: u32) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(number as usize)?;
        if !mem::replace(&mut entry.is_listed, true) {
            self.touched.push(number);
        }
        Some(entry)
    }

    /// Gives a flow that has none a number; `None` where there is no room.
    pub(super) fn add(&mut self, hash: u32, entry: Entry) -> Option<u32> {
        if self.numbers.len() >= self.most {
            return None;
        }
        let Self { entries, numbers, free, .. } = self;
        let number = if let Some(number) = free.pop() {
            *entries.get_mut(number as usize)? = entry;
            number
        } else {
            let number = u32::try_from(entries.len()).ok()?;
            entries.push(entry);
            number
        };
        numbers.insert_unique(spread(hash), Place { hash, number }, |place| spread(place.hash));
        self.touched.push(number);
        Some(number)
    }

    /// The numbers of flows that have counted something since this was asked last, in the order in which they were met. What they
    /// have counted is to be [taken](Self::take).
    pub(super) fn touched(&mut self) -> Vec<u32> {
        mem::take(&mut self.touched)
    }

    /// Takes out what a flow has counted, with the times of its first and last packet.
    pub(super) fn take(&mut self, number: u32) -> Option<(FlowDelta, u64, u64)> {
        let entry = self.entries.get_mut(number as usize)?;
        entry.is_listed = false;
        entry.take()
    }

    /// Forgets flows that are over, all of which were drained.
    pub(super) fn forget(&mut self, over: &[FlowId]) {
        for key in over.iter().filter_map(Key::of) {
            let hash = self.hash(&key);
            let Self { entries, numbers, free, .. } = self;
            let is_it = |place: &Place| {
                place.hash == hash
                    && entries.get(place.number as usize).is_some_and(|entry| entry.is_of(&key))
            };
            if let Ok(found) = numbers.find_entry(spread(hash), is_it) {
                let (Place { number, .. }, _) = found.remove();
                free.push(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use collector_ebpf::abi::flow::{FlowKey4, FlowKey6, RX, TX, ports};

    use super::{Amount, Entry, Key, Table};

    fn key(port: u16) -> Key {
        Key::V4(FlowKey4 {
            remote_port: port.to_be(),
            protocol: 6,
            ports: ports::TRANSPORT,
            ..FlowKey4::default()
        })
    }

    /// The entry of a flow, and whether it is new.
    fn entry(table: &mut Table, port: u16, time: u64) -> Option<(&mut Entry, bool)> {
        let (key, hash) = (key(port), table.hash(&key(port)));
        let found = table.find(&key, hash);
        let number = found.or_else(|| table.add(hash, Entry::met(key, 1, 0, 0, true, time)))?;
        Some((table.entry(number)?, found.is_none()))
    }

    #[test]
    fn a_drain_takes_what_was_counted_since_the_last() {
        let mut table = Table::new(2);
        let amount = |direction, time| Amount { direction, packets: 2, bytes: 100, tcp_flags: 0x10, time };
        for (port, direction, time) in [(1, TX, 5), (2, TX, 6), (1, RX, 9), (1, RX, 3)] {
            let (entry, is_new) = entry(&mut table, port, time).unwrap();
            assert_eq!(is_new, time == 5 || time == 6);
            entry.add(&amount(direction, time));
        }
        assert!(entry(&mut table, 3, 0).is_none(), "it is full");
        let touched = table.touched();
        let deltas: Vec<_> = touched.iter().filter_map(|number| table.take(*number)).collect();
        let [(one, first, last), (two, ..)] = deltas.as_slice() else { panic!("{deltas:?}") };
        assert_eq!((one.packets, one.bytes, one.skbs, *first, *last), ([4, 2], [200, 100], [2, 1], 3, 9));
        assert_eq!((two.packets, two.tcp_flags), ([0, 2], [0, 0x10]));
        assert!(table.touched().is_empty());
        table.forget(&[key(1).id()]);
        let (_, is_new) = entry(&mut table, 1, 0).unwrap();
        assert!(is_new, "forgotten, and room for it again");
        assert!(!entry(&mut table, 2, 0).unwrap().1, "the other is known as before");
    }

    #[test]
    fn flows_of_one_hash_are_told_apart() {
        let mut table = Table::new(2);
        let [one, other, unknown] = [1, 2, 3].map(key);
        let hash = table.hash(&one);
        let numbers = [one, other].map(|key| table.add(hash, Entry::met(key, 1, 0, 0, true, 0)));
        let guess = table.guess(hash);
        assert!(guess.is_some() && numbers.contains(&guess));
        assert_eq!([one, other].map(|key| table.find_by(guess, &key, hash)), numbers);
        assert_eq!(table.find_by(guess, &unknown, hash), None);
    }

    #[test]
    fn a_key_is_turned_unless_it_stands() {
        let ends = |local, remote| FlowKey4 { local_port: local, remote_port: remote, ..FlowKey4::default() };
        let six =
            |last| FlowKey6 { local: [last; 16], remote: [1; 16], local_port: 7, ..FlowKey6::default() };
        for key in [Key::V4(ends(1, 2)), Key::V6(six(9))] {
            let (mut stands, mut turned) = (key, key);
            stands.turn_unless(true);
            turned.turn_unless(false);
            let (id, want) = (turned.id(), key.id());
            assert_eq!(stands, key);
            assert_eq!((id.local, id.local_port), (want.remote, want.remote_port));
            assert_eq!((id.remote, id.remote_port), (want.local, want.local_port));
        }
    }

    #[test]
    fn many_flows_keep_their_numbers_as_it_grows() {
        let mut table = Table::new(10_000);
        let numbers: Vec<_> = (0..10_000)
            .map(|port| {
                assert!(entry(&mut table, port, 0).unwrap().1, "{port}");
                table.find(&key(port), table.hash(&key(port)))
            })
            .collect();
        for (port, number) in (0..).zip(numbers) {
            assert!(number.is_some() && table.find(&key(port), table.hash(&key(port))) == number, "{port}");
        }
    }
}
