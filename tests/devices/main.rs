//! Tests that need devices of which a host's kernel may have none: two network cards on each of two cables, VLAN devices,
//! bonds, tunnels, flow tables. They run in the guests of `cargo xtask vm`, whose kernels have them all.

#![expect(clippy::indexing_slicing, reason = "a test that looks where nothing is shall fail there")]

// The cards.
mod cable;
// VLAN devices, bridges, bonds, what stands above a card: a packet is counted at the card, once.
mod stacked;
// Connections that a flow table passes on without the stack.
mod offloaded;
// Tunnels without ports.
mod tunnels;

use collector_tests::collector::Finished;
use collector_user::event::Unseen;

/// The ledger explains every buffer, and nothing was lost.
///
/// # Panics
///
/// It does not, or something was.
fn assert_balanced(finished: &Finished) {
    let ledger = &finished.status.ledger;
    assert_eq!(ledger.seen, ledger.explained(), "{ledger:?}");
    assert!(ledger.losses().is_empty(), "{:?}", ledger.losses());
    for interface in &finished.status.interfaces {
        assert_eq!(interface.unseen.unwrap_or_default(), Unseen::default(), "{interface:?}");
    }
}
