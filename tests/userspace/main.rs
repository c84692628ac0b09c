//! Tests that need no privilege: the user side, on values made here. Time is a number.

#![expect(clippy::unwrap_used, reason = "a value that a test makes is as the test says, or the test fails")]

// The layout of the contract, against a blessed table.
mod abi;
// From the octets of a ring record to news of a flow.
mod decode;
// From what was counted to records: intervals, ends, cuts, timeouts.
mod records;
// Whatever comes in whatever order, nothing is lost and nothing told twice.
mod conservation;
// Captures as flows: what a live run would have told of the same packets.
mod read;
// Generated frames, read by the parser and by another project's.
mod differential;
// The same, read by the parser and by a second reading of the documents.
mod second;
// Packet filters, against libpcap's own verdict on generated and on captured frames.
mod filter;
// The JSON Schema, against what is really written and by a validator that knows nothing of it.
mod schema;
// The mock behind the library's feature, as a user's test has it.
mod mock;
// Who is logged in by SSH, whom a policy could cut off.
mod ssh;
// A configuration that is read once more.
mod reread;

use collector_user::{aggregate::booking::HostEnd, drain::flow::FlowId};

/// For flows at an uplink, which have no end on this host beside their unit's.
fn nobody(id: &FlowId, _: u16) -> HostEnd {
    panic!("asked for the host's end of {id:?}");
}
