//! Whether a policy asks for the flow of a packet to be encrypted.

use collector_ebpf::abi::{
    flow::ports,
    packet::{PacketRecord, event},
    policy::{INCOMING, OUTGOING},
    pu::role,
};

use super::Daemon;
use crate::{drain::flow::FlowId, event::PacketReport, policy::rule::Opened};

/// The bits of a tag that are the VLAN's id (IEEE 802.1Q-2022 clause 9.6).
const VLAN_ID: u16 = 0xFFF;

impl Daemon<'_> {
    /// Whether one asks for that. A flow that was not drained yet is taken for one that the packet opens. Of ICMP only its
    /// protocol is asked about.
    pub(super) fn is_to_be_encrypted(&self, record: &PacketRecord, report: &PacketReport) -> bool {
        if !self.policies.sets.all().any(|set| set.asks_for_encryption()) {
            return false;
        }
        let (Some(source), Some(destination)) = (report.source_ip, report.destination_ip) else {
            return false;
        };
        let interface = self.watched.interfaces.get(&record.ifindex);
        let (flags, boundary) =
            interface.and_then(|it| it.role.as_ref()).map_or((0, 0), |role| (role.flags, role.boundary));
        let id = FlowId {
            local: source,
            remote: destination,
            local_port: report.source_port,
            remote_port: report.destination_port,
            boundary: if flags & role::UPLINK == 0 { boundary } else { record.vlan_tci & VLAN_ID },
            protocol: report.protocol,
            ports: ports::TRANSPORT,
        };
        // One that has only begun has no verdict yet.
        if let Some(number) = self.flows.verdict(&id).filter(|number| *number != 0) {
            return self.policies.sets.verdicts.get(number).is_some_and(|verdict| verdict.action.encrypted());
        }
        let is_sent = (record.event == event::TRANSMITTED) != (flags & role::FAR != 0);
        let (remote, direction) = if is_sent { (destination, OUTGOING) } else { (source, INCOMING) };
        let flow = Opened { remote, protocol: report.protocol, port: report.destination_port };
        let policy = self.units.get(record.pu).map(|unit| self.policies.sets.of(unit.index));
        let set = policy.and_then(|policy| self.policies.sets.get(*policy.sets.get(direction)?));
        set.and_then(|set| set.compiled.lookup(&flow)).is_some_and(|verdict| verdict.action.encrypted())
    }
}
