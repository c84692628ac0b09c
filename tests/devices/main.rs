//! Tests that need devices of which a host's kernel may have none: two network cards on each of two cables, VLAN devices,
//! bonds, teams, tunnels, flow tables. They run in the guests of `cargo xtask vm`, whose kernels have them all.

#![expect(clippy::indexing_slicing, reason = "a test that looks where nothing is shall fail there")]

// The cards.
mod cable;
// VLAN devices, bridges, bonds, teams, what stands above a card: a packet is counted at the card, once.
mod stacked;
// The modes of team devices.
mod team;
// A CPU that goes and comes back.
mod cpus;
// Connections that a flow table passes on without the stack.
mod offloaded;
// Tunnels without ports.
mod tunnels;

use collector_tests::books::assert_balanced;
