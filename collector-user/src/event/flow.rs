//! Who talked to whom.

use std::{fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    ActionType, AttributedBy, EndPoint, Ended, InitiatorBy, ResetBy, ServiceType, TagStore, Text, Time,
    Tunnel,
};

/// A flow as one processing unit saw it.
///
/// Records of a flow come while it lives, each report interval, and when it ends or is cut off. Amounts are those since
/// the flow's previous record, so that their sum over all records is the total.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FlowRecord {
    /// The id of the processing unit whose boundary the flow crossed.
    pub context_id: Text,
    /// The namespace of that unit.
    pub namespace: Text,
    /// The initiator. Never changes places with the destination after a flow's first record.
    pub source: Option<EndPoint>,
    /// The other end.
    pub destination: Option<EndPoint>,
    /// The unit's tags.
    pub tags: Arc<TagStore>,
    /// Why packets were dropped, a word of [`reason`](super::reason); empty when none was.
    pub drop_reason: Text,
    /// The policy that was applied; `default` where no rule holds.
    pub policy_id: Text,
    /// The policy that was only observed.
    pub observed_policy_id: Text,
    /// The layer of the service.
    pub service_type: ServiceType,
    /// The service.
    pub service_id: Text,
    /// Connections begun since the previous record.
    pub count: u64,
    /// What was done.
    pub action: ActionType,
    /// What a policy that is only observed would have done.
    pub observed_action: ActionType,
    /// The IP protocol number: 6 for TCP, 17 for UDP.
    pub l4_protocol: u8,

    /// Wire packets from source to destination.
    pub packets: u64,
    /// Wire octets (L2, without FCS) from source to destination.
    pub bytes: u64,
    /// Wire packets from destination to source.
    pub reply_packets: u64,
    /// Wire octets from destination to source.
    pub reply_bytes: u64,
    /// Socket buffers from source to destination: a super-packet of many segments is one.
    pub skbs: u64,
    /// Socket buffers from destination to source.
    pub reply_skbs: u64,
    /// When the flow's first packet was seen.
    pub first_seen: Time,
    /// When its last packet was seen.
    pub last_seen: Time,
    /// All TCP flags seen, those of both directions together.
    pub tcp_flags: u16,
    /// The name of the interface that the last packet crossed.
    pub interface: Text,
    /// The VLAN id at an uplink, 0 without.
    pub vlan: u16,
    /// The tunnel that the flow is inside of. Such a flow stands beside the tunnel's own and counts for no unit's totals;
    /// its octets are those of what the tunnel carries.
    pub tunnel: Tunnel,
    /// Which of the tunnel's networks: VXLAN's or GENEVE's identifier, GRE's key; 0 without.
    pub tunnel_id: u32,
    /// Wire packets of it, both ways, that a policy rejected and that were dropped for it. Those that came in by the
    /// interface are in the amounts above as well; those that were about to leave by it never did, and are not.
    #[serde(default)]
    pub rejected_packets: u64,
    /// Wire packets of it that the kernel dropped and that were reported one by one. A record that has any holds nothing
    /// else: the flow's packets, these among them as far as they came so far, stand in its other records.
    pub dropped_packets: u64,
    /// The kernel's own reason for that, by the name it has in the running kernel; empty before Linux 5.17.
    pub kernel_reason: Text,
    /// The function that dropped them, and how far in it.
    pub drop_place: Text,
    /// How the initiator is known.
    pub initiator_by: InitiatorBy,
    /// How the processing unit is known.
    pub attributed_by: AttributedBy,
    /// How the flow ended; empty while it lives.
    pub ended: Ended,
    /// Which end reset it.
    pub reset_by: ResetBy,
}

impl fmt::Display for FlowRecord {
    /// The original's one line, its odd blank behind `sourceIP:` included. An end that is absent reads as an empty one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, destination) = (self.source.as_ref(), self.destination.as_ref());
        write!(
            f,
            "<flowrecord contextID:{} namespace:{} count:{} sourceID:{} destinationID:{} sourceIP: {} \
             destinationIP:{} destinationPort:{} action:{} mode:{}>",
            self.context_id,
            self.namespace,
            self.count,
            source.map_or("", |end| &end.id),
            destination.map_or("", |end| &end.id),
            source.map(EndPoint::ip_text).unwrap_or_default(),
            destination.map(EndPoint::ip_text).unwrap_or_default(),
            destination.map_or(0, |end| end.port),
            self.action,
            self.drop_reason,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::FlowRecord;
    use crate::event::{
        ActionType, AttributedBy, EndPoint, Ended, InitiatorBy, ResetBy, ServiceType, Time, Tunnel,
    };

    #[test]
    fn all_fields_round_trip_beyond_32_bits() {
        let record = FlowRecord {
            context_id: "web".into(),
            namespace: "/prod".into(),
            source: Some(EndPoint { ip: Some([10, 0, 0, 1].into()), port: 40000, ..EndPoint::default() }),
            destination: Some(EndPoint { ip: Some([10, 0, 0, 2].into()), port: 443, ..EndPoint::default() }),
            tags: Arc::new(["app=web"].into_iter().collect()),
            drop_reason: "policy".into(),
            policy_id: "p".into(),
            observed_policy_id: "o".into(),
            service_type: ServiceType::Http,
            service_id: "s".into(),
            count: u64::MAX,
            action: ActionType::REJECT,
            observed_action: ActionType::ACCEPT,
            l4_protocol: 6,
            packets: 1 << 40,
            bytes: 1 << 50,
            reply_packets: 2,
            reply_bytes: 3,
            skbs: 4,
            reply_skbs: 5,
            first_seen: Time::from_unix_nanos(1),
            last_seen: Time::from_unix_nanos(2),
            tcp_flags: 0x1FF,
            interface: "eth0".into(),
            vlan: 4094,
            tunnel: Tunnel::Vxlan,
            tunnel_id: 0xFF_FFFF,
            rejected_packets: 7,
            dropped_packets: 6,
            kernel_reason: "NETFILTER_DROP".into(),
            drop_place: "nft_do_chain+0x46f".into(),
            initiator_by: InitiatorBy::Syn,
            attributed_by: AttributedBy::Declared,
            ended: Ended::Reset,
            reset_by: ResetBy::Destination,
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<FlowRecord>(&text).unwrap(), record);
        for part in [
            r#""tags":["app=web"]"#,
            r#""service_type":1"#,
            r#""action":"reject""#,
            r#""observed_action":"accept""#,
            r#""bytes":1125899906842624"#,
            r#""first_seen":"1970-01-01T00:00:00.000000001Z""#,
            r#""tcp_flags":511"#,
            r#""tunnel":"vxlan","tunnel_id":16777215"#,
            r#""ended":"reset","reset_by":"destination""#,
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn what_is_absent_is_null_zero_or_empty() {
        let text = serde_json::to_string(&FlowRecord::default()).unwrap();
        assert!(text.contains(r#""source":null,"destination":null,"tags":[],"drop_reason":"""#), "{text}");
        assert!(text.contains(r#""ended":"","reset_by":"""#), "{text}");
    }

    #[test]
    fn the_text_is_the_originals_line() {
        let end = |id: &str, last, port| {
            Some(EndPoint { id: id.into(), ip: Some([10, 0, 0, last].into()), port, ..EndPoint::default() })
        };
        let record = FlowRecord {
            context_id: "web".into(),
            namespace: "/prod".into(),
            source: end("a", 1, 40000),
            destination: end("b", 2, 443),
            count: 3,
            action: ActionType::REJECT,
            drop_reason: "policy".into(),
            ..FlowRecord::default()
        };
        assert_eq!(
            record.to_string(),
            "<flowrecord contextID:web namespace:/prod count:3 sourceID:a destinationID:b sourceIP: 10.0.0.1 \
             destinationIP:10.0.0.2 destinationPort:443 action:reject mode:policy>"
        );
        assert_eq!(
            FlowRecord::default().to_string(),
            "<flowrecord contextID: namespace: count:0 sourceID: destinationID: sourceIP:  destinationIP: \
             destinationPort:0 action:unknown mode:>"
        );
    }
}
