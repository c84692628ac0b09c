//! Counters of processing units.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Text;

/// The counters of a processing unit since its last report; with empty ids, those of the datapath itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CounterReport {
    /// The unit's namespace.
    pub namespace: Text,
    /// The unit's id.
    pub context_id: Text,
    /// All counters, always in the same order, zeros included.
    pub counters: Vec<Counters>,
}

/// One counter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counters {
    /// Its name.
    pub name: Text,
    /// By how much it grew.
    pub value: u64,
}
