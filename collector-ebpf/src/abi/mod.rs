//! The contract between the programs and user space: one family of records a file.
//!
//! Every type is `#[repr(C)]` with fixed-width integers, has no hidden padding and no value that is invalid,
//! so any bytes of the right length are a value. Sizes and offsets are asserted at compile time; the table of
//! all of them ([`layouts`]) is compared with a blessed file by the tests, so that a change is seen and
//! [`VERSION`] raised.
//!
//! Integers are in host byte order unless a field says otherwise.
#![expect(
    clippy::pub_underscore_fields,
    clippy::used_underscore_binding,
    reason = "padding has a name, for hidden padding is uninitialised, and whoever makes a value sets it"
)]

pub mod bench;
pub mod control;
pub mod counter;
pub mod drop;
pub mod filter;
pub mod flow;
pub mod layout;
pub mod network;
pub mod packet;
pub mod policy;
pub mod pu;
pub mod report;
pub mod trace;
pub mod xdp;

use layout::Layout;

/// The version of this contract. User space refuses an object that was built for another one.
pub const VERSION: u32 = 17;

/// The layout of every type of the contract, in the order of the files.
pub fn layouts() -> [&'static Layout; 34] {
    [
        &control::Control::LAYOUT,
        &control::Anchor::LAYOUT,
        &counter::DirectionCounters::LAYOUT,
        &counter::PuCounters::LAYOUT,
        &counter::Ledger::LAYOUT,
        &counter::Fill::LAYOUT,
        &drop::DropKey::LAYOUT,
        &drop::DropCounts::LAYOUT,
        &drop::DropLedger::LAYOUT,
        &drop::DropBudget::LAYOUT,
        &filter::Instruction::LAYOUT,
        &filter::Program::LAYOUT,
        &filter::Machine::LAYOUT,
        &flow::FlowKey4::LAYOUT,
        &flow::FlowKey6::LAYOUT,
        &flow::SlotAmounts::LAYOUT,
        &flow::SlotCounts::LAYOUT,
        &flow::Slot4::LAYOUT,
        &flow::Slot6::LAYOUT,
        &flow::TableKey4::LAYOUT,
        &flow::TableKey6::LAYOUT,
        &flow::TableCounts::LAYOUT,
        &flow::Identity::LAYOUT,
        &policy::PolicyEntry::LAYOUT,
        &policy::RemoteKey::LAYOUT,
        &policy::ServiceKey::LAYOUT,
        &policy::ClassesKey::LAYOUT,
        &packet::PacketRecord::LAYOUT,
        &pu::Role::LAYOUT,
        &pu::FreeUnit::LAYOUT,
        &report::FlowEvent::LAYOUT,
        &trace::Trace::LAYOUT,
        &xdp::Handed::LAYOUT,
        &xdp::XdpLedger::LAYOUT,
    ]
}
