//! What the kernel side and the user side agree on, and the packet logic that needs no kernel.
//!
//! - [`abi`]: every byte that crosses the border between the programs and user space: map keys and values,
//!   ring records, their sizes, offsets and version.
//! - [`wire`]: one protocol a file; [`wire::parse`] turns the bytes of a frame into what a flow is made of.
//! - [`flow`]: what a packet says of its flow: key, initiator, the end of a connection.
//! - [`filter`]: what a packet filter makes of a packet.
//!
//! Nothing here knows aya's kernel side or a file descriptor: the same source runs in the programs
//! (`src/bin/datapath`), in user space, and under `cargo test` with byte arrays.
#![no_std]
#![expect(
    clippy::inline_always,
    reason = "the programs are made of these: a call costs registers, stack and the verifier's budget"
)]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod filter;
pub mod flow;
pub mod wire;
