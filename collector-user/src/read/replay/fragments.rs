//! Later fragments, tied to the flow of the first one: what the programs keep in a map.

use std::collections::{BTreeMap, HashMap};

use collector_ebpf::wire::fragment::Piece;

use super::table::Key;
use crate::drain::mix::Seed;

/// For so long a receiver waits for the rest (RFC 1122 section 3.3.2: 60 to 120 seconds; Linux: 30).
const LIFE_NS: u64 = 30_000_000_000;
/// Datagrams that are remembered at most, as in the programs' map.
const MOST: usize = 4096;

/// The datagram that a fragment is a piece of: its key without what only the first piece shows, its identification, and the
/// protocol that is part of its name.
type Datagram = (Key, u32, u8);

/// What first fragments said.
#[derive(Default)]
pub(super) struct Fragments {
    said: HashMap<Datagram, (u64, Said), Seed>,
    /// By age: when each was said, and the number among all.
    ages: BTreeMap<u64, Datagram>,
    number: u64,
}

#[derive(Clone, Copy)]
struct Said {
    ports: (u16, u16),
    protocol: u8,
    kind: u8,
    at: u64,
}

impl Fragments {
    /// Remembers what a first fragment says, and gives a later one what was said; whether anything was.
    pub(super) fn tie(&mut self, key: &mut Key, piece: Piece, now: u64) -> bool {
        let (name, said) = taken_apart(*key, now);
        let datagram = (name, piece.id, piece.protocol);
        if piece.first {
            self.remember(datagram, said);
            return true;
        }
        let Some((_, said)) =
            self.said.get(&datagram).filter(|(_, said)| now.saturating_sub(said.at) < LIFE_NS)
        else {
            return false;
        };
        put_back(key, *said);
        true
    }

    fn remember(&mut self, datagram: Datagram, said: Said) {
        self.number += 1;
        if let Some((number, _)) = self.said.insert(datagram, (self.number, said)) {
            self.ages.remove(&number);
        }
        self.ages.insert(self.number, datagram);
        if self.said.len() > MOST
            && let Some((_, oldest)) = self.ages.pop_first()
        {
            self.said.remove(&oldest);
        }
    }
}

/// The key of the datagram, and what the piece adds to it.
fn taken_apart(key: Key, at: u64) -> (Key, Said) {
    match key {
        Key::V4(mut key) => {
            let said = Said {
                ports: (key.local_port, key.remote_port),
                protocol: key.protocol,
                kind: key.ports,
                at,
            };
            (key.local_port, key.remote_port, key.protocol, key.ports) = (0, 0, 0, 0);
            (Key::V4(key), said)
        }
        Key::V6(mut key) => {
            let said = Said {
                ports: (key.local_port, key.remote_port),
                protocol: key.protocol,
                kind: key.ports,
                at,
            };
            (key.local_port, key.remote_port, key.protocol, key.ports) = (0, 0, 0, 0);
            (Key::V6(key), said)
        }
    }
}

fn put_back(key: &mut Key, said: Said) {
    let Said { ports: (local, remote), protocol, kind, .. } = said;
    match key {
        Key::V4(key) => {
            (key.local_port, key.remote_port, key.protocol, key.ports) = (local, remote, protocol, kind);
        }
        Key::V6(key) => {
            (key.local_port, key.remote_port, key.protocol, key.ports) = (local, remote, protocol, kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use collector_ebpf::{
        abi::flow::{FlowKey4, ports},
        wire::fragment::Piece,
    };

    use super::{Fragments, Key, LIFE_NS, MOST};

    fn key(port: u16, kind: u8) -> Key {
        Key::V4(FlowKey4 {
            local: [10, 0, 0, 1],
            local_port: port,
            protocol: 17,
            ports: kind,
            ..FlowKey4::default()
        })
    }

    fn piece(id: u32, first: bool) -> Piece {
        Piece { id, protocol: 17, first }
    }

    #[test]
    fn later_pieces_are_in_the_flow_of_the_first() {
        let mut fragments = Fragments::default();
        let first = key(7, ports::TRANSPORT);
        let mut later = key(0, ports::FRAGMENT);
        assert!(!fragments.tie(&mut later, piece(1, false), 0), "nothing was said");
        assert!(fragments.tie(&mut first.clone(), piece(1, true), 0));
        assert!(!fragments.tie(&mut later, piece(2, false), 0), "another datagram");
        assert!(!fragments.tie(&mut later.clone(), piece(1, false), LIFE_NS), "too late");
        assert!(fragments.tie(&mut later, piece(1, false), LIFE_NS - 1));
        assert_eq!(later, first);
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let mut fragments = Fragments::default();
        for id in 0..=MOST as u32 {
            fragments.tie(&mut key(id as u16, ports::TRANSPORT), piece(id, true), 0);
        }
        assert_eq!((fragments.said.len(), fragments.ages.len()), (MOST, MOST));
        assert!(!fragments.tie(&mut key(0, ports::FRAGMENT), piece(0, false), 0), "the oldest went");
        assert!(fragments.tie(&mut key(0, ports::FRAGMENT), piece(1, false), 0));
    }
}
