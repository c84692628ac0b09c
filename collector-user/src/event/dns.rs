//! Lookups of names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EndPoint, Text, Time};

/// Lookups of one name by one processing unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DnsRequestReport {
    /// The unit's namespace.
    pub namespace: Text,
    /// Who asked.
    pub source: Option<EndPoint>,
    /// The name, with its trailing dot, in the case in which it was asked.
    pub name_lookup: Text,
    /// What went wrong; empty when nothing did.
    pub error: Text,
    /// Lookups since the last report.
    pub count: u64,
    /// When the report was made.
    pub ts: Time,
}
