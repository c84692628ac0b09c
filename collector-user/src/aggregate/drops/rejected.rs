//! Drops that were reported one by one, as flow records: one for each flow and cause, of all its packets since the last drain.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use collector_ebpf::{
    abi::{
        flow::{how, ports},
        packet::{PacketRecord, end},
        pu::index,
    },
    wire::tcp,
};

use crate::{
    aggregate::{
        initiator::{self, Initiator},
        record::Scribe,
        waiting::Waiting,
    },
    clock::Moment,
    drain::flow::FlowId,
    event::{
        ActionType, AttributedBy, EndPoint, FlowRecord, InitiatorBy, PacketReport, ServiceType, Text, Tunnel,
    },
    pu::registry::{Registry, is_named},
};

/// Flows and causes that wait for a record at most. In a run their reports come within the budgets of their units: more is a
/// flood of many.
const MOST: usize = 16_384;

/// A flow, as the packet had it, and why the packet was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pu: u16,
    /// One of [`end`].
    end: u8,
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    protocol: u8,
    word: Text,
    reason: Text,
    place: Text,
}

/// Packets of a flow that were dropped for one cause.
#[derive(Clone, Debug)]
pub struct Row {
    packets: u64,
    /// `CLOCK_BOOTTIME` in nanoseconds.
    first: u64,
    last: u64,
    tcp_flags: u16,
    interface: Text,
}

/// Drops that wait for their records.
#[derive(Debug)]
pub struct Rejected {
    rows: HashMap<Key, Row>,
    waiting: Waiting,
}

impl Default for Rejected {
    fn default() -> Self {
        Self { rows: HashMap::new(), waiting: Waiting::new(MOST) }
    }
}

impl Rejected {
    /// Takes in a report of a drop. What has no addresses is no flow's.
    pub fn add(&mut self, record: &PacketRecord, report: &PacketReport) {
        let (Some(source), Some(destination)) = (report.source_ip, report.destination_ip) else { return };
        let key = Key {
            pu: record.pu,
            end: record.end,
            source: (source, report.source_port),
            destination: (destination, report.destination_port),
            protocol: report.protocol,
            word: report.drop_reason.clone(),
            reason: report.kernel_reason.clone(),
            place: report.drop_place.clone(),
        };
        if !self.rows.contains_key(&key) && !self.waiting.admit(record.pu) {
            self.waiting.lose(record.pu, record.packets.into());
            return;
        }
        let row = self.rows.entry(key).or_insert_with(|| Row {
            packets: 0,
            first: record.boot_ns,
            last: record.boot_ns,
            tcp_flags: 0,
            interface: report.interface.clone(),
        });
        row.packets += u64::from(record.packets);
        row.first = row.first.min(record.boot_ns);
        row.last = row.last.max(record.boot_ns);
        row.tcp_flags |= report.tcp_flags;
    }

    /// Takes out all that waits, in the order of time.
    pub fn take(&mut self) -> Vec<(Key, Row)> {
        self.waiting.emptied();
        let mut rows: Vec<_> = self.rows.drain().collect();
        rows.sort_by_key(|(_, row)| row.first);
        rows
    }

    /// Whether so many wait that soon there would be no room for more of a unit: who need not wait for the drain takes them out.
    pub fn should_be_taken(&self) -> bool {
        self.rows.len() >= MOST / 2
    }

    /// Packets for whose flow there was no room, or none for more of their unit: they have their reports, and no flow record.
    pub fn lost(&self) -> u64 {
        self.waiting.lost()
    }

    /// Those of the unit with this index.
    pub fn lost_of(&self, index: u16) -> u64 {
        self.waiting.lost_of(index)
    }
}

impl Key {
    /// The flow as its packet's sender has it.
    #[must_use]
    pub const fn flow(&self) -> FlowId {
        FlowId {
            local: self.source.0,
            remote: self.destination.0,
            local_port: self.source.1,
            remote_port: self.destination.1,
            boundary: 0,
            protocol: self.protocol,
            ports: ports::TRANSPORT,
        }
    }

    /// It only passed through.
    #[must_use]
    pub const fn is_forwarded(&self) -> bool {
        self.pu == index::FORWARDED
    }

    /// Whether the packet's sender opened its flow, and by what that is known, if the flow itself is not.
    fn opened(&self, tcp_flags: u16) -> Initiator {
        let flags = tcp_flags as u8 & (tcp::SYN | tcp::ACK);
        if flags & tcp::SYN != 0 {
            return Initiator { local: flags & tcp::ACK == 0, by: InitiatorBy::Syn };
        }
        initiator::decide(&self.flow(), how::LOCAL_INITIATED | how::BY_FIRST_PACKET << how::INITIATOR_SHIFT)
    }
}

impl Scribe {
    /// The record of packets that were dropped. `known` says of a flow by its packet's ends whether their sender opened it.
    pub fn rejected(
        &self,
        key: &Key,
        row: &Row,
        known: Option<Initiator>,
        units: &Registry,
        moment: &Moment,
    ) -> FlowRecord {
        let unit = units.get(key.pu);
        let (own, other) = (|ip| self.own(unit, ip), |ip| self.other(units, ip));
        let at = |(ip, port): (IpAddr, u16), which| EndPoint {
            ip: Some(ip),
            port,
            ..if key.end == which { own(ip) } else { other(ip) }
        };
        let (sender, receiver) = (at(key.source, end::SOURCE), at(key.destination, end::DESTINATION));
        let Initiator { local: by_sender, by } = known.unwrap_or_else(|| key.opened(row.tcp_flags));
        let (source, destination) = if by_sender { (sender, receiver) } else { (receiver, sender) };
        FlowRecord {
            context_id: unit.map(|unit| unit.id.clone()).unwrap_or_default(),
            namespace: unit.map(|unit| unit.namespace.clone()).unwrap_or_default(),
            source: Some(source),
            destination: Some(destination),
            tags: unit.map_or_else(Arc::default, |unit| unit.tags.clone()),
            drop_reason: key.word.clone(),
            policy_id: "default".into(),
            service_type: ServiceType::L3,
            action: ActionType::REJECT,
            l4_protocol: key.protocol,
            first_seen: moment.wall_of_boot(row.first),
            last_seen: moment.wall_of_boot(row.last),
            tcp_flags: row.tcp_flags,
            interface: row.interface.clone(),
            tunnel: Tunnel::None,
            dropped_packets: row.packets,
            kernel_reason: key.reason.clone(),
            drop_place: key.place.clone(),
            initiator_by: by,
            attributed_by: match key.pu {
                index::FORWARDED => AttributedBy::Route,
                unit if is_named(unit) => AttributedBy::Declared,
                _ => AttributedBy::Address,
            },
            ..FlowRecord::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use collector_ebpf::abi::packet::{PacketRecord, end};

    use super::{MOST, Rejected};
    use crate::{
        aggregate::record::Scribe,
        clock::Moment,
        event::{ActionType, EndPointType, InitiatorBy, PacketReport},
        policy::networks::{ExternalNetwork, Networks},
        pu::registry::Registry,
    };

    fn report(port: u16, reason: &str) -> PacketReport {
        PacketReport {
            source_ip: Some([192, 0, 2, 1].into()),
            destination_ip: Some([192, 0, 2, 2].into()),
            source_port: 40_000,
            destination_port: port,
            protocol: 17,
            drop_reason: "connection".into(),
            kernel_reason: reason.into(),
            ..PacketReport::default()
        }
    }

    fn record(boot_ns: u64) -> PacketRecord {
        PacketRecord { boot_ns, packets: 1, pu: 1, end: end::DESTINATION, ..PacketRecord::EMPTY }
    }

    #[test]
    fn packets_of_a_flow_with_one_cause_are_one_record() {
        let mut rejected = Rejected::default();
        rejected.add(&record(9), &report(53, "NO_SOCKET"));
        rejected.add(&record(7), &report(53, "NO_SOCKET"));
        rejected.add(&record(8), &report(53, "UDP_CSUM"));
        rejected.add(&record(1), &PacketReport::default());
        let rows = rejected.take();
        assert!(rejected.take().is_empty() && rejected.lost() == 0);
        let units = Registry::new(&[]).unwrap();
        let moment = Moment { jiffies: 0, boot_ns: 0, wall_ns: 0, hz: 100 };
        let told: Vec<_> = rows
            .iter()
            .map(|(key, row)| Scribe::default().rejected(key, row, None, &units, &moment))
            .map(|flow| (flow.dropped_packets, flow.kernel_reason.to_string(), flow))
            .collect();
        assert_eq!(
            told.iter().map(|(count, reason, _)| (*count, &**reason)).collect::<Vec<_>>(),
            [(2, "NO_SOCKET"), (1, "UDP_CSUM")]
        );
        let flow = &told[0].2;
        assert_eq!(
            (&*flow.context_id, flow.action, &*flow.drop_reason),
            ("host", ActionType::REJECT, "connection")
        );
        assert_eq!((flow.packets, flow.count), (0, 0), "its packets are counted elsewhere");
        let destination = flow.destination.as_ref().unwrap();
        assert_eq!((&*destination.id, destination.port), ("host", 53));
        assert_eq!(flow.initiator_by, InitiatorBy::FirstPacket);
        assert_eq!(flow.first_seen.as_unix_nanos(), 7);
    }

    #[test]
    fn an_end_in_a_network_that_has_a_name_has_that() {
        let mut rejected = Rejected::default();
        rejected.add(&record(1), &report(53, ""));
        let cidr = ["192.0.2.0/24", "192.0.2.2/32"].map(|cidr| cidr.parse().unwrap()).to_vec();
        let office = ExternalNetwork { id: "office".into(), cidr };
        let scribe = Scribe::new(Networks::new(&[office.into()]));
        let units = Registry::new(&[]).unwrap();
        let moment = Moment { jiffies: 0, boot_ns: 0, wall_ns: 0, hz: 100 };
        let (key, row) = &rejected.take()[0];
        let flow = scribe.rejected(key, row, None, &units, &moment);
        let [source, destination] = [flow.source, flow.destination].map(Option::unwrap);
        assert_eq!((&*source.id, source.r#type), ("office", EndPointType::ExternalIp));
        assert_eq!((&*destination.id, destination.r#type), ("host", EndPointType::Pu), "a unit comes first");
    }

    #[test]
    fn the_answer_to_an_opening_is_no_opening() {
        let mut rejected = Rejected::default();
        rejected.add(
            &record(1),
            &PacketReport { protocol: 6, tcp_flags: 0x12, ..report(40_000, "NETFILTER_DROP") },
        );
        let rows = rejected.take();
        let units = Registry::new(&[]).unwrap();
        let moment = Moment { jiffies: 0, boot_ns: 0, wall_ns: 0, hz: 100 };
        let flow = Scribe::default().rejected(&rows[0].0, &rows[0].1, None, &units, &moment);
        assert_eq!(flow.source.unwrap().ip, Some([192, 0, 2, 2].into()));
        assert_eq!(flow.initiator_by, InitiatorBy::Syn);
    }

    #[test]
    fn there_is_an_end_to_what_waits() {
        let mut rejected = Rejected::default();
        for port in 0..=u16::MAX {
            rejected.add(&record(1), &report(port, ""));
        }
        let others = PacketRecord { pu: 2, ..record(2) };
        rejected.add(&others, &report(53, ""));
        let rows = rejected.take();
        assert_eq!(rows.len(), MOST * 4 / 5 + 2, "four times what is left, and the other's");
        assert_eq!((rejected.lost(), rejected.lost_of(2)), (65_537 - rows.len() as u64, 0));
    }
}
