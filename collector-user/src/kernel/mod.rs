//! Everything that speaks `bpf(2)`.
//!
//! - [`object`]: loads the embedded programs and maps, sized for this host.
//! - [`programs`]: what is attached, and what is run by hand.
//! - [`settings`]: what is decided before.
//! - [`transport`]: by what records come: rings, or [`perf`] buffers.
//! - [`attach`]: puts the programs on interfaces, by TCX or clsact.
//! - [`filters`]: the clsact filters on an interface: leftovers of a killed collector, and room for ours.
//! - [`xdp`]: puts the program at XDP on interfaces.
//! - [`control`]: the only writer of what the programs obey: epoch, generation, lease, roles, addresses, ranges.
//! - [`policies`]: the only writer of policies.
//! - [`cgroups`]: which unit a socket's control group is, and indexes for groups that nobody knows.
//! - [`users`]: where a socket's user is found, and which unit declares which; [`ports`]: which unit declares a port; `ends`:
//!   both.
//! - [`counters`]: reads the cumulative counters of processing units, and the ledger.
//! - [`drops`]: the program that counts what the kernel drops; [`btf`] and [`reasons`] say what that kernel is like,
//!   [`folding`] which of its drops are no news.
//! - `superpackets`: where the programs find how the kernel will cut one.
//! - [`cpus`]: which CPUs there are, and whose slots are where.
//! - [`requirements`]: what must hold before anything is loaded, and what the kernel is like.
//! - `maps`: takes the maps out of what was loaded; `packet_filter`: fills that of the packet filter.
//! - [`networks`]: reads how the programs have numbered networks inside of tunnels.
//! - [`batch`] and [`memory`]: the two things that aya's typed maps do not offer.

pub mod attach;
pub mod batch;
pub mod btf;
pub mod cgroups;
pub mod control;
pub mod counters;
pub mod cpus;
pub mod drops;
mod ends;
pub mod error;
pub mod filters;
pub mod folding;
pub mod instructions;
mod maps;
pub mod memory;
pub mod networks;
pub mod object;
mod packet_filter;
pub mod perf;
pub mod policies;
pub mod ports;
pub mod programs;
pub mod reasons;
pub mod requirements;
pub mod settings;
mod superpackets;
pub mod transport;
pub mod users;
pub mod xdp;
