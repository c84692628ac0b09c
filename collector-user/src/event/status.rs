//! How the collector stands.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Ledger;

/// What the collector is attached to, and the ledger: the last record of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The interfaces it knows, those it left out among them.
    pub interfaces: Vec<InterfaceStatus>,
    /// What became of every packet and record.
    pub ledger: Ledger,
}

/// An interface, as the collector sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// What it is: `uplink`, `declared`, `unknown`, `overlay`, ...
    pub role: String,
    /// Why it is that.
    pub reason: String,
    /// Where the programs run: `ingress+egress`, ...; empty where none does.
    pub hook: String,
    /// How they are attached: `tcx` or `clsact`; empty where they are not.
    pub mechanism: String,
}
