//! Single packets.

use std::net::IpAddr;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DropClass, Text, Time, vocabulary::vocabulary};

vocabulary! {
    /// What happened to a packet.
    PacketEvent {
        /// Nobody has said.
        Unspecified = "",
        /// It came in.
        Received = "Received",
        /// It was sent.
        Transmitted = "Transmitted",
        /// It was dropped.
        Dropped = "Dropped",
    }
}

/// One packet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PacketReport {
    /// The TCP flags; 0 for other protocols.
    pub tcp_flags: u16,
    /// The tags of the processing unit's identity.
    pub claims: Vec<Text>,
    /// The destination's address; text in JSON.
    #[serde(with = "super::address")]
    #[schemars(schema_with = "super::address::schema")]
    pub destination_ip: Option<IpAddr>,
    /// The destination's port, 0 for protocols without.
    pub destination_port: u16,
    /// Why it was dropped: a word of [`reason`](super::reason), or the kernel's own.
    pub drop_reason: Text,
    /// Whether the policy asks for encryption. Of ICMP, and of a flow that began a moment ago, it is that on what the packet would
    /// open.
    pub encrypt: bool,
    /// What happened to it.
    pub event: PacketEvent,
    /// What its frame carries, where that is no IP packet: `arp`, `lldp`, ..., or the Ethertype's number as `0x88b5`.
    #[serde(default)]
    pub ethertype: Text,
    /// The IP total length in octets; that of the frame where there is no IP header to tell it.
    pub length: u32,
    /// The mark of its socket buffer.
    pub mark: u32,
    /// The namespace of the processing unit.
    pub namespace: Text,
    /// The IPv4 identification; 0 for IPv6.
    pub packet_id: u32,
    /// The IP protocol number.
    pub protocol: u8,
    /// The processing unit.
    pub puid: Text,
    /// The source's address; text in JSON.
    #[serde(with = "super::address")]
    #[schemars(schema_with = "super::address::schema")]
    pub source_ip: Option<IpAddr>,
    /// The source's port, 0 for protocols without.
    pub source_port: u16,
    /// Whether it belongs to a processing unit that is managed.
    pub trireme_packet: bool,
    /// The wire packets that it stands for: more than one for a super-packet.
    pub packets: u32,
    /// The name of the interface; empty where it is not known.
    pub interface: Text,
    /// The kernel's own reason for dropping it, by the name it has in the running kernel; empty before Linux 5.17.
    pub kernel_reason: Text,
    /// The function that dropped it, and how far in it.
    pub drop_place: Text,
    /// What kind of a drop it was.
    pub drop_class: DropClass,
    /// What to do about such a drop, for people.
    pub advice: Text,
    /// Reports of drops of this unit that its budget held back since its report before this one.
    pub suppressed: u64,
    /// Its octets from the IP header on, up to the snap length; hexadecimal in JSON.
    #[serde(with = "super::hex")]
    #[schemars(schema_with = "super::hex::schema")]
    pub payload: Bytes,
    /// When it was seen.
    pub ts: Time,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{PacketEvent, PacketReport};
    use crate::event::{DropClass, Time};

    #[test]
    fn all_fields_round_trip() {
        let report = PacketReport {
            tcp_flags: 2,
            claims: vec!["a=b".into()],
            destination_ip: Some([192, 0, 2, 1].into()),
            destination_port: 53,
            drop_reason: "NETFILTER_DROP".into(),
            encrypt: true,
            event: PacketEvent::Dropped,
            ethertype: "arp".into(),
            length: 70000,
            mark: u32::MAX,
            namespace: "/n".into(),
            packet_id: 65535,
            protocol: 17,
            puid: "web".into(),
            source_ip: None,
            source_port: 5353,
            trireme_packet: true,
            packets: 44,
            interface: "eth0".into(),
            kernel_reason: "NETFILTER_DROP".into(),
            drop_place: "nft_do_chain+0x46f".into(),
            drop_class: DropClass::Policy,
            advice: "look".into(),
            suppressed: 1 << 40,
            payload: Bytes::from_static(&[0x45, 0x00, 0xff]),
            ts: Time::from_unix_nanos(1),
        };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<PacketReport>(&text).unwrap(), report);
        assert!(text.contains(r#""event":"Dropped""#) && text.contains(r#""payload":"4500ff""#), "{text}");
        assert!(text.contains(r#""source_ip":"""#), "{text}");
    }
}
