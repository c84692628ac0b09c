//! Flow records that are held, to become one.

use std::{
    collections::{HashMap, hash_map::Entry},
    mem,
    time::Duration,
};

use serde::Deserialize;

use crate::event::{ActionType, EndPoint, Ended, FlowRecord, ServiceType, Text, Tunnel, hash};

/// How long nothing must have been heard of a flow that is not TCP before its record is handed on: longer than the
/// daemon remembers such a flow, and than it waits with the record of its last packets.
pub const QUIET: Duration = Duration::from_mins(3);

/// How long a connection is held at most while it lives; one that lives longer has a record each time that this has
/// passed.
pub const LONGEST: Duration = Duration::from_mins(30);

const TCP: u8 = 6;

/// Which flow records belong together.
///
/// Always summed: `packets`, `bytes`, `skbs`, those of the reply, and `count`. `first_seen` is the earliest, `last_seen`
/// the latest, `tcp_flags` are those of all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Aggregate {
    /// Those of one connection: one record a connection, when it is over.
    ///
    /// They share both ends with all that is known of them, the protocol, the processing unit and its namespace, the VLAN,
    /// and what was decided (actions, policies, service, drop reason): a connection of which some packets were dropped has
    /// a record for these. Tags, interface, and how ends and unit are known, are the last record's.
    ///
    /// A record is handed on at the second flush after the connection's end, with what came late, or when the same ends
    /// begin another connection. What is not TCP is over when nothing was heard of it for [`QUIET`]. One that lives is
    /// handed on when it has been held for [`LONGEST`]; until then its amounts stand nowhere else, and are gone with a
    /// process that is killed.
    Connection,
    /// Those of one service, as the original merges them: all that have one
    /// [`stats_flow_hash`](crate::event::hash::stats_flow_hash), between two flushes.
    ///
    /// That hash is of both ends' ids and addresses, the destination's port and URI, the actions' words and the drop
    /// reason. So these become one, although they differ, and all but amounts and times is the **first** record's:
    ///
    /// - connections from different ports of one client, which is what it is for;
    /// - TCP and UDP to one port: `l4_protocol` then says either, and so do `ended` and `reset_by`;
    /// - one connection as two processing units see it, if its ends have the same ids in both: its packets then count
    ///   twice, once for each unit, and `context_id`, `namespace` and `tags` are the first one's;
    /// - flows of the same addresses in two VLANs, those under different policies, and those whose actions have no word
    ///   of their own (any combination of bits is `unknown`);
    /// - all that has no ports, between the same two ends.
    ///
    /// As in the original, a record counts for at least one: a `count` of 0, as a long connection has it in all records
    /// but the first, becomes 1. `count` is then the sum of connections and of such records, not of connections alone.
    Service,
}

impl Aggregate {
    /// The name in the configuration and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Service => "service",
        }
    }
}

/// What became of a record.
pub(super) enum Taken {
    /// It is held.
    Held,
    /// It was added to one that is held.
    Merged,
    /// It is held in the place of this one, which belongs to an earlier connection of the same ends.
    Replaced(Box<FlowRecord>),
    /// There is no room: this has to be handed on at once.
    NoRoom(Box<FlowRecord>),
}

/// The records that are held.
pub(super) struct Flows {
    aggregate: Aggregate,
    most: usize,
    held: HashMap<Key, Held>,
}

#[derive(PartialEq, Eq, Hash)]
enum Key {
    Connection(Box<Connection>),
    Service(String, Tunnel, u32),
}

/// What makes a connection, and what was decided on it.
#[derive(PartialEq, Eq, Hash)]
struct Connection {
    context_id: Text,
    namespace: Text,
    source: Option<EndPoint>,
    destination: Option<EndPoint>,
    l4_protocol: u8,
    vlan: u16,
    tunnel: (Tunnel, u32),
    action: ActionType,
    observed_action: ActionType,
    drop_reason: Text,
    policy_id: Text,
    observed_policy_id: Text,
    service_type: ServiceType,
    service_id: Text,
}

struct Held {
    record: FlowRecord,
    /// When it came.
    since: Duration,
    /// The flush before which something was added last.
    heard: Duration,
    /// Something was added since the last flush.
    is_fresh: bool,
}

impl Flows {
    pub(super) fn new(aggregate: Aggregate, most: usize) -> Self {
        Self { aggregate, most, held: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn take(&mut self, record: &FlowRecord, now: Duration) -> Taken {
        let Self { aggregate, most, held } = self;
        let has_room = held.len() < *most;
        match held.entry(aggregate.key(record)) {
            Entry::Occupied(mut entry) => {
                let held = entry.get_mut();
                if *aggregate == Aggregate::Connection && held.is_followed_by(record) {
                    let before = mem::replace(held, Held::new(aggregate.counted(record), now));
                    return Taken::Replaced(Box::new(before.record));
                }
                held.add(*aggregate, record);
                Taken::Merged
            }
            Entry::Vacant(entry) if has_room => {
                entry.insert(Held::new(aggregate.counted(record), now));
                Taken::Held
            }
            Entry::Vacant(_) => Taken::NoRoom(Box::new(aggregate.counted(record))),
        }
    }

    /// Takes out what has fallen due.
    pub(super) fn flush(&mut self, now: Duration) -> Vec<FlowRecord> {
        match self.aggregate {
            Aggregate::Connection => {
                in_order(self.held.extract_if(|_, held| held.is_due(now)).map(|(_, held)| held.record))
            }
            Aggregate::Service => self.drain(),
        }
    }

    /// Takes out everything.
    pub(super) fn drain(&mut self) -> Vec<FlowRecord> {
        in_order(self.held.drain().map(|(_, held)| held.record))
    }
}

/// The order in which their last packets were seen.
fn in_order(records: impl Iterator<Item = FlowRecord>) -> Vec<FlowRecord> {
    let mut records: Vec<_> = records.collect();
    records.sort_by_key(|record| record.last_seen);
    records
}

impl Aggregate {
    fn key(self, record: &FlowRecord) -> Key {
        match self {
            Self::Connection => Key::Connection(Box::new(Connection {
                context_id: record.context_id.clone(),
                namespace: record.namespace.clone(),
                source: record.source.clone(),
                destination: record.destination.clone(),
                l4_protocol: record.l4_protocol,
                vlan: record.vlan,
                tunnel: (record.tunnel, record.tunnel_id),
                action: record.action,
                observed_action: record.observed_action,
                drop_reason: record.drop_reason.clone(),
                policy_id: record.policy_id.clone(),
                observed_policy_id: record.observed_policy_id.clone(),
                service_type: record.service_type,
                service_id: record.service_id.clone(),
            })),
            Self::Service => Key::Service(hash::stats_flow_hash(record), record.tunnel, record.tunnel_id),
        }
    }

    /// What a record counts for.
    fn count(self, record: &FlowRecord) -> u64 {
        let least = match self {
            Self::Connection => 0,
            Self::Service => 1,
        };
        record.count.max(least)
    }

    fn counted(self, record: &FlowRecord) -> FlowRecord {
        FlowRecord { count: self.count(record), ..record.clone() }
    }
}

impl Held {
    fn new(record: FlowRecord, now: Duration) -> Self {
        Self { record, since: now, heard: now, is_fresh: true }
    }

    /// Whether a record of the same ends belongs to a later connection.
    fn is_followed_by(&self, record: &FlowRecord) -> bool {
        record.count > 0 && (self.record.count > 0 || self.record.ended != Ended::Live)
    }

    fn add(&mut self, aggregate: Aggregate, later: &FlowRecord) {
        self.is_fresh = true;
        let record = &mut self.record;
        for (sum, amount) in [
            (&mut record.count, aggregate.count(later)),
            (&mut record.packets, later.packets),
            (&mut record.bytes, later.bytes),
            (&mut record.reply_packets, later.reply_packets),
            (&mut record.reply_bytes, later.reply_bytes),
            (&mut record.skbs, later.skbs),
            (&mut record.reply_skbs, later.reply_skbs),
            (&mut record.rejected_packets, later.rejected_packets),
            (&mut record.dropped_packets, later.dropped_packets),
        ] {
            *sum = sum.saturating_add(amount);
        }
        record.first_seen = record.first_seen.min(later.first_seen);
        record.last_seen = record.last_seen.max(later.last_seen);
        record.tcp_flags |= later.tcp_flags;
        if aggregate == Aggregate::Connection {
            record.tags.clone_from(&later.tags);
            record.interface.clone_from(&later.interface);
            record.initiator_by = later.initiator_by;
            record.attributed_by = later.attributed_by;
            if later.ended != Ended::Live {
                record.ended = later.ended;
                record.reset_by = later.reset_by;
            }
        }
    }

    /// Whether it is to be handed on. What was added since the last flush may be followed by more.
    fn is_due(&mut self, now: Duration) -> bool {
        let is_old = now.saturating_sub(self.since) >= LONGEST;
        if mem::take(&mut self.is_fresh) {
            self.heard = now;
            return is_old;
        }
        let is_quiet = self.record.l4_protocol != TCP && now.saturating_sub(self.heard) >= QUIET;
        is_old || is_quiet || self.record.ended != Ended::Live
    }
}
