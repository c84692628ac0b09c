//! The codes of classic BPF (`include/uapi/linux/bpf_common.h`): a class, and what is added to it.

/// The bits of the class.
pub const CLASS: u32 = 0x07;
/// Class: load the accumulator.
pub const LD: u32 = 0x00;
/// Class: load the index register.
pub const LDX: u32 = 0x01;
/// Class: store the accumulator.
pub const ST: u32 = 0x02;
/// Class: store the index register.
pub const STX: u32 = 0x03;
/// Class: calculate.
pub const ALU: u32 = 0x04;
/// Class: jump.
pub const JMP: u32 = 0x05;
/// Class: end.
pub const RET: u32 = 0x06;
/// Class: move between the registers.
pub const MISC: u32 = 0x07;

/// The bits of what a load reads.
pub const SIZE: u32 = 0x18;
/// A word of four octets.
pub const W: u32 = 0x00;
/// Two octets.
pub const H: u32 = 0x08;
/// An octet.
pub const B: u32 = 0x10;

/// The bits of where a load reads.
pub const MODE: u32 = 0xE0;
/// The number itself.
pub const IMM: u32 = 0x00;
/// The packet, at the number.
pub const ABS: u32 = 0x20;
/// The packet, at the index register and the number.
pub const IND: u32 = 0x40;
/// The scratch memory.
pub const MEM: u32 = 0x60;
/// The packet's length.
pub const LEN: u32 = 0x80;
/// Four times the lower half of an octet: the length of an IPv4 header.
pub const MSH: u32 = 0xA0;

/// The bits of what is calculated, or of the condition of a jump.
pub const OPERATION: u32 = 0xF0;
/// Sum.
pub const ADD: u32 = 0x00;
/// Difference.
pub const SUB: u32 = 0x10;
/// Product.
pub const MUL: u32 = 0x20;
/// Quotient.
pub const DIV: u32 = 0x30;
/// Bits of either.
pub const OR: u32 = 0x40;
/// Bits of both.
pub const AND: u32 = 0x50;
/// Shift to the left; by 32 and more nothing is left.
pub const LSH: u32 = 0x60;
/// Shift to the right; likewise.
pub const RSH: u32 = 0x70;
/// The accumulator below 0.
pub const NEG: u32 = 0x80;
/// Remainder.
pub const MOD: u32 = 0x90;
/// Bits of one only.
pub const XOR: u32 = 0xA0;

/// Always.
pub const JA: u32 = 0x00;
/// Equal.
pub const JEQ: u32 = 0x10;
/// Greater.
pub const JGT: u32 = 0x20;
/// Greater or equal.
pub const JGE: u32 = 0x30;
/// Some bit is in both.
pub const JSET: u32 = 0x40;

/// The operand is the number.
pub const K: u32 = 0x00;
/// The operand is the index register.
pub const X: u32 = 0x08;

/// The bits of what is returned, if not the number.
pub const RETURNED: u32 = 0x18;
/// The accumulator is returned.
pub const A: u32 = 0x10;

/// The bits of a move.
pub const MOVE: u32 = 0xF8;
/// To the index register.
pub const TAX: u32 = 0x00;
/// To the accumulator.
pub const TXA: u32 = 0x80;
