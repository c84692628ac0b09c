//! The life of processing units.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ExtendedMap, TagStore, Text};

/// A step in the life of a processing unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerRecord {
    /// The unit's id.
    pub context_id: Text,
    /// Its addresses, by the name of the network they belong to.
    pub ip_address: ExtendedMap,
    /// Its tags.
    pub tags: Arc<TagStore>,
    /// What happened: one of [`reason`](super::reason)'s words for containers.
    pub event: Text,
}
