//! What became of every packet and of every record.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The ledger: counts since the collector started, that only grow.
///
/// Packets: `seen` = `flows` + `looped` + `second_pass` + `table_full` + `rate_limited` + `rejected` + `captured_drops` +
/// all of `unparsed`, in socket buffers, of captures in frames. Packets that are traced: `traced` = `filtered` + `sampled` +
/// `output_failed` + `packets` + `packets_lost`, in socket buffers of `seen`. Drops: `drops_seen` = `drops_counted` +
/// `drops_no_packet` + `drops_table_full`; of `drops_counted`, `drops_of_units` = `drop_reports` + `drop_reports_folded` +
/// `drop_reports_filtered` + `drop_reports_held_back` + `drop_reports_failed`. Records of a sink: those it was handed = its
/// `delivered` + its `queue_full` + its `sink_failed`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Ledger {
    /// Socket buffers that the programs looked at.
    pub seen: u64,
    /// Those that were counted in a flow.
    pub flows: u64,
    /// Those that could not be parsed, by reason: in the totals of their unit, in no flow.
    pub unparsed: BTreeMap<String, u64>,
    /// Own multicast that came back: already counted as sent.
    pub looped: u64,
    /// Those that an ifb handed back to the interface that they were leaving by: already counted.
    pub second_pass: u64,
    /// Those whose flow found no room: in the totals of their unit, in no flow.
    pub table_full: u64,
    /// Those of new flows beyond the budget of their unit: in its totals, in no flow.
    pub rate_limited: u64,
    /// Those that a policy rejected as they were about to leave: counted as rejected in their flow and their unit, and not as
    /// sent. What a policy rejects as it comes in is in `flows`.
    pub rejected: u64,
    /// Frames of a capture that the kernel had dropped, and that `collector capture --drops` wrote down for that: in no flow.
    pub captured_drops: u64,
    /// Frames of a capture of which fewer octets were captured than they had: they count as long as they were, and nothing is
    /// lost by that but what may stand in the rest.
    pub cut: u64,
    /// Frames of a capture that are more than a second older than one before them: nothing is lost by that.
    pub backwards: u64,
    /// Records of events that found no room in the ring, or in the buffer of their CPU.
    pub reserve_failed: u64,
    /// Socket buffers that were counted and whose unit is traced.
    pub traced: u64,
    /// Of these, those that a filter left out.
    pub filtered: u64,
    /// Of these, those that sampling left out.
    pub sampled: u64,
    /// Of these, those whose record found no room in the buffer of its CPU, or no buffer there; or none in the ring.
    pub output_failed: u64,
    /// Of these, those that user space took from the kernel.
    pub packets: u64,
    /// Of these, those that a program wrote and nobody has read.
    pub packets_lost: u64,
    /// Flows whose identity found no room among the long-lived; nothing is lost by that.
    pub identity_full: u64,
    /// Socket buffers on an interface without a role, counted as `unknown`'s; nothing is lost by that.
    pub no_role: u64,
    /// Socket buffers with a later fragment whose first one was not seen before it: counted in a flow without ports.
    pub orphan_fragments: u64,
    /// Flows of control groups that nobody knew and for which no index was left: they are `host`'s until somebody knows them.
    pub units_exhausted: u64,
    /// Control groups of sockets that sent or took something, which nobody has seen: they had gone before they could be looked
    /// at. What they did is `host`'s. One that is seen yet is taken off.
    pub cgroups_unseen: u64,
    /// Flows whose user was not asked for, for too many were to be asked for at once, or too many of their unit: they have none in
    /// their records.
    pub users_unasked: u64,
    /// Users that were forgotten before their ten minutes were over, since there were too many: they are told again.
    pub users_evicted: u64,
    /// Packets that the packet filter may have wanted and that it did not match, since it asked for octets beyond the start of
    /// a packet that it sees. They are counted in their flows all the same.
    pub filter_window: u64,
    /// Socket buffers of tunnels whose inside was wanted: `inner_flows` + `inner_unparsed` + `inner_lost`. Each is one of
    /// `seen`, too, as the tunnel's.
    pub inner_seen: u64,
    /// Those that were counted in a flow inside.
    pub inner_flows: u64,
    /// Those whose inside is no packet that is understood.
    pub inner_unparsed: u64,
    /// Those for whose flow inside there was no room or no budget.
    pub inner_lost: u64,
    /// Socket buffers that the kernel said it drops: `drops_counted` + `drops_no_packet` + `drops_table_full`.
    pub drops_seen: u64,
    /// Those that are in the rows of what was dropped.
    pub drops_counted: u64,
    /// Those that are nothing a network carries: messages of netlink, of sockets of this host.
    pub drops_no_packet: u64,
    /// Those whose unit, reason and place found no room for a row.
    pub drops_table_full: u64,
    /// Drops of which the kernel told nothing, since they came in the midst of the telling of another (Linux 6.1 and
    /// newer): beside `drops_seen`, of nobody knows whom.
    pub drops_skipped: u64,
    /// Of `drops_counted`, those that are a unit's: the sum of `skbs` of the rows with an id. Each is in one of the five that
    /// follow.
    pub drops_of_units: u64,
    /// Those of which a report was written, and that nothing left out.
    pub drop_reports: u64,
    /// Those that are not wanted: of drops that a network has on a good day.
    pub drop_reports_folded: u64,
    /// Those that the filter left out, and in a capture that names interfaces those of others.
    pub drop_reports_filtered: u64,
    /// Those beyond the budget of their unit.
    pub drop_reports_held_back: u64,
    /// Those that found no room in the buffer.
    pub drop_reports_failed: u64,
    /// Of `drop_reports`, those that nobody read.
    pub drop_reports_lost: u64,
    /// Wire packets of drops that have their reports, and for which there was no room among those that wait for the record
    /// of their flow, or none for more of their unit.
    pub drop_flows_lost: u64,
    /// Frames that the program at XDP looked at: `xdp_passed` and `xdp_dropped`. What passes is no part of `seen` there,
    /// for a frame that passes comes to TC, too.
    pub xdp_seen: u64,
    /// Those that it let pass.
    pub xdp_passed: u64,
    /// Those that it dropped, for a policy rejects their flow: they are in `seen`, as those that were dropped later.
    pub xdp_dropped: u64,
    /// Those that break the rules of their own protocol, by reason.
    pub xdp_malformed: BTreeMap<String, u64>,
    /// Those that went on with what is known of their destination.
    pub xdp_handed: u64,
    /// Those that went on without, since their driver has no room for it; nothing is lost by that.
    pub xdp_unhanded: u64,
    /// Of `xdp_handed`, those whose flow has its unit from there: its first packet, mostly.
    pub xdp_taken: u64,
    /// Of `seen`, those that the kernel had copied for a program at generic XDP, anybody's, so that they came without their
    /// Ethernet header: they are counted with it.
    pub xdp_headless: u64,
    /// Times that the collector was stopped for so long that the programs counted nothing until it went on.
    pub gaps: u64,
    /// Times that somebody took our programs off an interface, whose packets were not counted until they were on it again:
    /// at once where a filter went, a minute later at most where a TCX link did, of which nobody is told. The program at XDP
    /// is one of them: TC counts on while that one is off.
    pub taken_off: u64,
    /// Times that another configuration was taken over while the collector ran.
    pub reloads: u64,
    /// Times that one was refused, so that the one before was kept.
    pub reloads_refused: u64,
    /// Records that user space took from the kernel.
    pub drained: u64,
    /// Records that the programs wrote and that nobody read: those written, less those drained.
    pub lost: u64,
    /// Records that could not be decoded.
    pub undecodable: u64,
    /// Numbers of records that were passed over: each is one of `reserve_failed` or of `undecodable`.
    pub skipped: u64,
    /// Records whose number had come before: they are not taken in again.
    pub repeated: u64,
    /// Of `reserve_failed`, those of each processing unit's flows: its share of the ring was full. The rest only asked for
    /// a drain.
    pub reserve_failed_of: BTreeMap<String, u64>,
    /// Whose flows `table_full` were, by processing unit.
    pub table_full_of: BTreeMap<String, u64>,
    /// Whose `rate_limited` were.
    pub rate_limited_of: BTreeMap<String, u64>,
    /// Whose `inner_lost` were.
    pub inner_lost_of: BTreeMap<String, u64>,
    /// Whose `output_failed` were.
    pub output_failed_of: BTreeMap<String, u64>,
    /// Whose flows `users_unasked` were.
    pub users_unasked_of: BTreeMap<String, u64>,
    /// Whose `drops_table_full` were.
    pub drops_table_full_of: BTreeMap<String, u64>,
    /// Whose `drop_reports_held_back` were.
    pub drop_reports_held_back_of: BTreeMap<String, u64>,
    /// Whose `drop_reports_failed` were.
    pub drop_reports_failed_of: BTreeMap<String, u64>,
    /// Whose `drop_flows_lost` were.
    pub drop_flows_lost_of: BTreeMap<String, u64>,
    /// Events that found a sink's queue full, or in it no room for more of their unit, by sink; `aggregate` are packet, DNS
    /// and ping reports that found no room where flows are merged, and reached no sink.
    pub queue_full: BTreeMap<String, u64>,
    /// Whose they were, by processing unit, wherever that was; an event of no unit has the empty id.
    pub queue_full_of: BTreeMap<String, u64>,
    /// Events that a sink could not write: it failed on them, or its output had ended. By sink.
    pub sink_failed: BTreeMap<String, u64>,
    /// Events that a sink wrote, by sink. While a run goes on, what waits in a queue is in none of the three.
    pub delivered: BTreeMap<String, u64>,
}

impl Ledger {
    /// The socket buffers whose fate is known; equals `seen` at a quiet moment.
    pub fn explained(&self) -> u64 {
        let unparsed: u64 = self.unparsed.values().sum();
        let elsewhere = self.looped + self.second_pass + self.table_full + self.rate_limited;
        self.flows + elsewhere + self.rejected + self.captured_drops + unparsed
    }

    /// The packets that were traced of which the fate is known; equals `traced`.
    pub fn traced_explained(&self) -> u64 {
        self.filtered + self.sampled + self.output_failed + self.packets + self.packets_lost
    }

    /// The socket buffers of tunnels of whose inside the fate is known; equals `inner_seen` at a quiet moment.
    pub fn inner_explained(&self) -> u64 {
        self.inner_flows + self.inner_unparsed + self.inner_lost
    }

    /// The drops of units of whose report the fate is known; equals `drops_of_units` at a quiet moment.
    pub fn drops_explained(&self) -> u64 {
        self.drop_reports
            + self.drop_reports_folded
            + self.drop_reports_filtered
            + self.drop_reports_held_back
            + self.drop_reports_failed
    }

    /// What was lost, each with its name: events and details of flows, never a packet of a unit's totals.
    pub fn losses(&self) -> Vec<(String, u64)> {
        let nobodys = |count: u64, of: &BTreeMap<String, u64>| count.saturating_sub(of.values().sum());
        let plain = [
            ("table_full", nobodys(self.table_full, &self.table_full_of)),
            ("rate_limited", nobodys(self.rate_limited, &self.rate_limited_of)),
            ("inner_lost", nobodys(self.inner_lost, &self.inner_lost_of)),
            ("units_exhausted", self.units_exhausted),
            ("cgroups_unseen", self.cgroups_unseen),
            ("users_unasked", nobodys(self.users_unasked, &self.users_unasked_of)),
            ("filter_window", self.filter_window),
            ("reserve_failed", nobodys(self.reserve_failed, &self.reserve_failed_of)),
            ("output_failed", nobodys(self.output_failed, &self.output_failed_of)),
            ("packets_lost", self.packets_lost),
            ("lost", self.lost),
            ("drops_table_full", nobodys(self.drops_table_full, &self.drops_table_full_of)),
            ("drops_skipped", self.drops_skipped),
            ("drop_reports_failed", nobodys(self.drop_reports_failed, &self.drop_reports_failed_of)),
            ("drop_reports_lost", self.drop_reports_lost),
            ("drop_flows_lost", nobodys(self.drop_flows_lost, &self.drop_flows_lost_of)),
            ("gaps", self.gaps),
            ("taken_off", self.taken_off),
            ("undecodable", self.undecodable),
            ("repeated", self.repeated),
        ];
        let by_whose = [
            ("table_full", &self.table_full_of),
            ("rate_limited", &self.rate_limited_of),
            ("reserve_failed", &self.reserve_failed_of),
            ("inner_lost", &self.inner_lost_of),
            ("output_failed", &self.output_failed_of),
            ("users_unasked", &self.users_unasked_of),
            ("drops_table_full", &self.drops_table_full_of),
            ("drop_reports_failed", &self.drop_reports_failed_of),
            ("drop_flows_lost", &self.drop_flows_lost_of),
            ("queue_full", &self.queue_full),
            ("sink_failed", &self.sink_failed),
        ];
        plain
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count))
            .chain(by_whose.into_iter().flat_map(|(name, counts)| {
                counts.iter().map(move |(whose, count)| (format!("{name}.{whose}"), *count))
            }))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Ledger;

    #[test]
    fn every_fate_explains_a_packet() {
        let ledger = Ledger {
            flows: 1,
            unparsed: [("arp".to_owned(), 2), ("llc".to_owned(), 3)].into(),
            looped: 4,
            traced: 100,
            filtered: 100,
            sampled: 100,
            table_full: 7,
            rate_limited: 8,
            second_pass: 9,
            rejected: 10,
            no_role: 100,
            orphan_fragments: 100,
            identity_full: 100,
            ..Ledger::default()
        };
        assert_eq!(ledger.explained(), 44);
    }

    #[test]
    fn what_is_inside_has_a_sum_of_its_own() {
        let ledger = Ledger {
            seen: 9,
            flows: 9,
            inner_seen: 6,
            inner_flows: 3,
            inner_unparsed: 2,
            inner_lost: 1,
            ..Ledger::default()
        };
        assert_eq!((ledger.explained(), ledger.inner_explained()), (9, 6));
        assert_eq!(ledger.losses(), [("inner_lost".to_owned(), 1)]);
    }

    #[test]
    fn what_is_traced_has_a_sum_of_its_own() {
        let ledger = Ledger {
            seen: 30,
            flows: 30,
            traced: 15,
            filtered: 1,
            sampled: 2,
            output_failed: 3,
            packets: 4,
            packets_lost: 5,
            ..Ledger::default()
        };
        assert_eq!((ledger.explained(), ledger.traced_explained()), (30, 15));
        let losses = [("output_failed".to_owned(), 3), ("packets_lost".to_owned(), 5)];
        assert_eq!(ledger.losses(), losses);
    }

    #[test]
    fn drops_of_units_have_a_sum_of_their_own() {
        let ledger = Ledger {
            drops_seen: 18,
            drops_counted: 16,
            drops_of_units: 15,
            drop_reports: 1,
            drop_reports_folded: 2,
            drop_reports_filtered: 3,
            drop_reports_held_back: 4,
            drop_reports_failed: 5,
            drop_reports_lost: 1,
            ..Ledger::default()
        };
        assert_eq!((ledger.explained(), ledger.drops_explained()), (0, 15));
    }

    #[test]
    fn losses_have_names() {
        let mut ledger = Ledger { seen: 5, flows: 5, identity_full: 1, no_role: 2, ..Ledger::default() };
        ledger.delivered.insert("json".to_owned(), 3);
        ledger.queue_full.insert("json".to_owned(), 0);
        assert!(ledger.losses().is_empty());
        ledger.queue_full.insert("json".to_owned(), 4);
        ledger.lost = 1;
        assert_eq!(ledger.losses(), [("lost".to_owned(), 1), ("queue_full.json".to_owned(), 4)]);
    }

    #[test]
    fn keys_may_join() {
        let ledger: Ledger = serde_json::from_str(r#"{"seen":3}"#).unwrap();
        assert_eq!(ledger, Ledger { seen: 3, ..Ledger::default() });
    }
}
