//! Packet filters: programs of classic BPF, as libpcap compiles them, and the machine that runs one.
//!
//! What each instruction does is in [`filter`](crate::filter).

use super::layout::layout;

/// An instruction of classic BPF, with the numbers of `include/uapi/linux/bpf_common.h`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instruction {
    /// What it does.
    pub code: u16,
    /// Instructions that are passed over where a condition holds.
    pub jt: u8,
    /// Instructions that are passed over where it does not.
    pub jf: u8,
    /// A number, an offset into the packet, or the index of a word of the scratch memory.
    pub k: u32,
}

layout!(Instruction, 8, { code: 0, jt: 2, jf: 3, k: 4 });

/// Instructions that a program may have: as many as the kernel's own classic BPF (`BPF_MAXINSNS` of
/// `include/uapi/linux/bpf_common.h`).
pub const MOST_INSTRUCTIONS: usize = 4096;

/// A program. Behind its last instruction are zeros.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// The instructions, from the first one that runs.
    pub instructions: [Instruction; MOST_INSTRUCTIONS],
}

layout!(Program, 32768, { instructions: 0 });

impl Program {
    /// A program that has the same instruction everywhere.
    #[expect(clippy::large_stack_arrays, reason = "32 KiB for a moment, in user space")]
    pub const fn all(instruction: Instruction) -> Self {
        Self { instructions: [instruction; MOST_INSTRUCTIONS] }
    }

    /// The program of these instructions; `None` where there are more than [`MOST_INSTRUCTIONS`].
    pub fn new(instructions: &[Instruction]) -> Option<Self> {
        let mut program = Self::all(Instruction::default());
        program.instructions.get_mut(..instructions.len())?.copy_from_slice(instructions);
        Some(program)
    }
}

/// Programs that the map `FILTER` holds: one for each of [`link`](super::packet::link) whose octets are a packet's.
pub const PROGRAMS: u32 = 2;

/// Octets from a packet's start that a filter sees. Those of a tag that lay beside the frame are added.
pub const WINDOW: u32 = 256;
/// Octets of a tag.
pub const TAG: u32 = 4;

/// Words of scratch memory that a program has.
pub const SCRATCH_WORDS: usize = 16;

/// The registers of a run and the packet that it looks at: a CPU's entry of the map `FILTER_RUNS`.
///
/// They lie in memory because the kernel's verifier knows nothing of a number that lies there: the many ways through an
/// instruction end as one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Packets that did not match because an octet was asked for that they have and the window has not. It only grows.
    pub beyond: u64,
    /// The index of the next instruction.
    pub next: u64,
    /// The accumulator.
    pub a: u32,
    /// The index register.
    pub x: u32,
    /// Octets of the packet, as it would be captured.
    pub length: u32,
    /// Octets of it in the window.
    pub copied: u32,
    /// What the last run came to; 0 is no match.
    pub verdict: u32,
    #[doc(hidden)]
    pub _pad: u32,
    /// The scratch memory, as an earlier run left it: what libpcap compiles reads no word that it has not written.
    pub scratch: [u32; SCRATCH_WORDS],
    /// The start of the packet; behind [`copied`](Self::copied) octets what an earlier one left there.
    pub window: [u8; (WINDOW + 2 * TAG) as usize],
}

layout!(Machine, 368, {
    beyond: 0, next: 8, a: 16, x: 20, length: 24, copied: 28, verdict: 32, _pad: 36, scratch: 40, window: 104,
});

/// The entry of `FILTER_RUNS` that programs at TC use.
pub const AT_TC: u32 = 0;
/// The entry that the program of drops uses, which an interrupt may start while one at TC runs.
pub const AT_DROPS: u32 = 1;
/// Entries there are.
pub const MACHINES: u32 = 2;

impl Default for Machine {
    fn default() -> Self {
        Self {
            beyond: 0,
            next: 0,
            a: 0,
            x: 0,
            length: 0,
            copied: 0,
            verdict: 0,
            _pad: 0,
            scratch: [0; SCRATCH_WORDS],
            window: [0; (WINDOW + 2 * TAG) as usize],
        }
    }
}
