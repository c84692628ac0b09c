//! What the bench tells its programs. Not among the [`layouts`](super::layouts): nothing of it is there in a collector
//! that runs.

use super::layout::layout;

/// Where a walk over flows stands. `BPF_PROG_TEST_RUN` repeats one frame; the bench's programs write the ends of another
/// flow into it each time, in the order of the map `STEPS`. Written by both, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Steps taken.
    pub steps: u64,
    /// Packets whose flow held its slot; counted by `walk_held` only.
    pub held: u64,
    /// Octets from the start of the frame to the address that is written, or for IPv6 to its second half.
    pub address_at: u32,
    /// Octets from the start of the frame to both ports.
    pub ports_at: u32,
    /// 0 for an address of four octets, 1 for eight octets of which the last four are the step's.
    pub wide: u32,
    /// Zero.
    pub _pad: u32,
}

layout!(Walk, 32, { steps: 0, held: 8, address_at: 16, ports_at: 20, wide: 24, _pad: 28 });

/// Steps before a walk begins again; a power of two.
pub const STEPS: u32 = 1 << 21;

/// Indices of the programs that a step goes on with.
pub const EMPTY: u32 = 0;
/// See [`EMPTY`].
pub const FLOOR: u32 = 1;
/// See [`EMPTY`].
pub const INGRESS: u32 = 2;
/// See [`EMPTY`].
pub const EGRESS: u32 = 3;

/// What a step writes: an address as it lies in a frame, and both ports.
#[inline(always)]
pub const fn step(address: [u8; 4], source: u16, destination: u16) -> u64 {
    u32::from_ne_bytes(address) as u64 | (source.to_be() as u64) << 32 | (destination.to_be() as u64) << 48
}
