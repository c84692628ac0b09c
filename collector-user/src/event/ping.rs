//! Pings between processing units.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Text, vocabulary::vocabulary};

vocabulary! {
    /// Which identity a ping carries.
    PingType {
        /// None: it is no ping.
        None = "None",
        /// That of the processing unit.
        DefaultIdentity = "DefaultIdentity",
        /// One that was made for the ping.
        CustomIdentity = "CustomIdentity",
        /// That of the processing unit, and the ping reaches the application.
        DefaultIdentityPassthrough = "DefaultIdentityPassthrough",
    }
}

impl PingType {
    /// The type with this number; out of range it is [`None`](Self::None), as the original prints it.
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::DefaultIdentity,
            2 => Self::CustomIdentity,
            3 => Self::DefaultIdentityPassthrough,
            _ => Self::None,
        }
    }
}

vocabulary! {
    /// At which point of a ping a report is made.
    Stage {
        /// 0: it was sent.
        Origin = "origin",
        /// 1: it was answered.
        Reply = "reply",
        /// Any other number.
        Unknown = "unknown",
    }
}

impl Stage {
    /// The stage with this number.
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Origin,
            1 => Self::Reply,
            _ => Self::Unknown,
        }
    }
}

/// One step of a ping.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PingReport {
    /// The unit that pings.
    pub source_id: Text,
    /// Its namespace.
    pub source_namespace: Text,
    /// The unit that is pinged; empty until it answers.
    pub destination_id: Text,
    /// Its namespace.
    pub destination_namespace: Text,
    /// `source:destination:source port:destination port`.
    pub flow_tuple: Text,
    /// The time to the answer, with its unit; empty until it comes.
    pub latency: Text,
    /// The version of the reporting agent.
    pub agent_version: Text,
    /// The IP protocol number.
    pub protocol: u8,
    /// The layer of the service, as text.
    pub service_type: Text,
    /// Octets of payload.
    pub payload_size: u64,
    /// Which of a series it is, from 1.
    pub request: u64,
    /// Which identity it carries.
    pub r#type: PingType,
    /// At which point the report is made.
    pub stage: Stage,
    /// What joins the reports of one ping.
    pub session_id: Text,
}

#[cfg(test)]
mod tests {
    use super::{PingReport, PingType, Stage};

    #[test]
    fn numbers_and_words() {
        let stages: Vec<_> = (0..3).map(|code| Stage::from_code(code).text()).collect();
        assert_eq!(stages, ["origin", "reply", "unknown"]);
        let types: Vec<_> = (0..5).map(|code| PingType::from_code(code).text()).collect();
        let want = ["None", "DefaultIdentity", "CustomIdentity", "DefaultIdentityPassthrough", "None"];
        assert_eq!(types, want);
    }

    #[test]
    fn a_report_round_trips() {
        let report =
            PingReport { r#type: PingType::CustomIdentity, stage: Stage::Reply, ..PingReport::default() };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<PingReport>(&text).unwrap(), report);
    }
}
