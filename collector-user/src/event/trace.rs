//! Traces of packets through the kernel.

use serde::{Deserialize, Serialize};

/// Lines of a trace, in the order in which they were seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceRecord {
    /// The lines, without line ends.
    pub records: Vec<String>,
}
