//! Traces of packets through the kernel.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Lines of a trace, in the order in which they were seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TraceRecord {
    /// The lines, without line ends.
    pub records: Vec<String>,
}
