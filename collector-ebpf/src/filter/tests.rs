use proptest::{collection, prelude::*};
use std::{vec, vec::Vec};

use super::{NO_MATCH, code, run};
use crate::abi::filter::{Instruction, MOST_INSTRUCTIONS, Machine, Program, SCRATCH_WORDS, WINDOW};

fn of(code: u32, k: u32) -> Instruction {
    Instruction { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(condition: u32, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code: (code::JMP | condition) as u16, jt, jf, k }
}

const RET_A: u32 = code::RET | code::A;
const RET_K: u32 = code::RET | code::K;

/// What a program comes to on a packet, and how often it asked for octets beyond the window.
fn outcome(instructions: &[Instruction], packet: &[u8], length: u32) -> (u32, u64) {
    let program = Program::new(instructions).unwrap();
    let mut machine = Machine::default();
    machine.show(packet, length);
    let verdict = run(&program, &mut machine);
    assert_eq!(verdict, machine.verdict);
    (verdict, machine.beyond)
}

fn verdict(instructions: &[Instruction], packet: &[u8]) -> u32 {
    let (verdict, beyond) = outcome(instructions, packet, packet.len() as u32);
    assert_eq!(beyond, 0);
    verdict
}

/// The accumulator behind these instructions.
fn accumulator(instructions: &[Instruction], packet: &[u8]) -> u32 {
    verdict(&[instructions, &[of(RET_A, 0)]].concat(), packet)
}

const PACKET: [u8; 8] = [0x45, 0x01, 0x02, 0x03, 0xF4, 0xFF, 0x06, 0x07];

#[test]
fn loads_are_in_network_order() {
    use code::{ABS, B, H, IMM, IND, LD, LDX, LEN, MSH, W};
    let x = of(LDX | IMM, 2);
    for (instructions, want) in [
        (vec![of(LD | W | ABS, 1)], 0x0102_03F4),
        (vec![of(LD | H | ABS, 4)], 0xF4FF),
        (vec![of(LD | B | ABS, 7)], 0x07),
        (vec![x, of(LD | W | IND, 2)], 0xF4FF_0607),
        (vec![x, of(LD | H | IND, 0)], 0x0203),
        (vec![x, of(LD | B | IND, 3)], 0xFF),
        (vec![of(LD | IMM, 77)], 77),
        (vec![of(LD | LEN, 0)], 8),
        (vec![of(LDX | LEN, 0), of(code::MISC | code::TXA, 0)], 8),
        (vec![of(LDX | B | MSH, 0), of(code::MISC | code::TXA, 0)], 20),
        (vec![of(LDX | B | MSH, 4), of(code::MISC | code::TXA, 0)], 16),
        (
            vec![
                of(LD | IMM, 9),
                of(code::MISC | code::TAX, 0),
                of(LD | IMM, 1),
                of(code::MISC | code::TXA, 0),
            ],
            9,
        ),
    ] {
        assert_eq!(accumulator(&instructions, &PACKET), want, "{instructions:?}");
    }
}

#[test]
fn words_of_the_scratch_memory_are_kept() {
    use code::{IMM, LD, LDX, MEM, MISC, ST, STX, TXA};
    for word in 0..SCRATCH_WORDS as u32 {
        let stored = [of(LD | IMM, 5), of(ST, word), of(LD | IMM, 0), of(LD | MEM, word)];
        assert_eq!(accumulator(&stored, &PACKET), 5);
        let stored = [of(LDX | IMM, 6), of(STX, word), of(LDX | MEM, word), of(MISC | TXA, 0)];
        assert_eq!(accumulator(&stored, &PACKET), 6);
    }
    for beyond in [SCRATCH_WORDS as u32, u32::MAX] {
        for code in [ST, STX, LD | MEM, LDX | MEM] {
            assert_eq!(verdict(&[of(code, beyond), of(RET_K, 1)], &PACKET), NO_MATCH);
        }
    }
}

#[test]
fn calculations_are_of_32_bits() {
    use code::{ADD, ALU, AND, DIV, IMM, LD, LDX, LSH, MOD, MUL, NEG, OR, RSH, SUB, X, XOR};
    const MAX: u32 = u32::MAX;
    for (operation, a, operand, want) in [
        (ADD, MAX, 2, Some(1)),
        (SUB, 1, 2, Some(MAX)),
        (MUL, 0x8000_0001, 2, Some(2)),
        (DIV, 7, 2, Some(3)),
        (DIV, 7, 0, None),
        (MOD, 7, 4, Some(3)),
        (MOD, 7, 0, None),
        (AND, 0b1100, 0b1010, Some(0b1000)),
        (OR, 0b1100, 0b1010, Some(0b1110)),
        (XOR, 0b1100, 0b1010, Some(0b0110)),
        (LSH, 3, 31, Some(0x8000_0000)),
        (LSH, 3, 32, Some(0)),
        (RSH, MAX, 31, Some(1)),
        (RSH, MAX, 32, Some(0)),
        (NEG, 1, 0, Some(MAX)),
        (0xB0, 1, 1, None),
        (0xF0, 1, 1, None),
    ] {
        let by_number = [of(LD | IMM, a), of(ALU | operation, operand)];
        let by_x = [of(LD | IMM, a), of(LDX | IMM, operand), of(ALU | operation | X, 0x5555)];
        for instructions in [&by_number[..], &by_x] {
            let ends_well = verdict(&[instructions, &[of(RET_K, 1)]].concat(), &PACKET) == 1;
            assert_eq!(ends_well, want.is_some(), "{instructions:?}");
            assert_eq!(accumulator(instructions, &PACKET), want.unwrap_or(NO_MATCH), "{instructions:?}");
        }
    }
}

#[test]
fn conditions_choose_how_many_instructions_are_passed_over() {
    use code::{IMM, JEQ, JGE, JGT, JSET, LD, LDX, X};
    for (condition, a, operand, holds) in [
        (JEQ, 5, 5, true),
        (JEQ, 5, 6, false),
        (JGT, 6, 5, true),
        (JGT, 5, 5, false),
        (JGT, u32::MAX, 1, true),
        (JGE, 5, 5, true),
        (JGE, 4, 5, false),
        (JSET, 6, 2, true),
        (JSET, 6, 9, false),
    ] {
        let ends = [of(RET_K, 10), of(RET_K, 20), of(RET_K, 30)];
        let want = if holds { 30 } else { 20 };
        let by_number = [of(LD | IMM, a), jump(condition, operand, 2, 1)];
        assert_eq!(verdict(&[&by_number[..], &ends].concat(), &PACKET), want, "{condition:#x}");
        let by_x = [of(LD | IMM, a), of(LDX | IMM, operand), jump(condition | X, 0x5555, 2, 1)];
        assert_eq!(verdict(&[&by_x[..], &ends].concat(), &PACKET), want, "{condition:#x}");
    }
}

#[test]
fn jumps_go_forward_only() {
    let always = |k| [of(code::JMP | code::JA, k), of(RET_K, 1), of(RET_K, 2)];
    assert_eq!(verdict(&always(0), &PACKET), 1);
    assert_eq!(verdict(&always(1), &PACKET), 2);
    // Far beyond the program, and not back to where it came from.
    for k in [MOST_INSTRUCTIONS as u32, -1_i32 as u32, -2_i32 as u32, i32::MIN as u32] {
        assert_eq!(verdict(&always(k), &PACKET), NO_MATCH);
    }
}

#[test]
fn a_program_without_an_end_ends() {
    assert_eq!(verdict(&vec![of(code::LD | code::IMM, 1); MOST_INSTRUCTIONS], &PACKET), NO_MATCH);
    assert_eq!(verdict(&[], &PACKET), NO_MATCH);
    assert_eq!(Program::new(&vec![of(RET_K, 1); MOST_INSTRUCTIONS + 1]), None);
    let mut longest = vec![of(code::LD | code::IMM, 1); MOST_INSTRUCTIONS];
    longest[MOST_INSTRUCTIONS - 1] = of(RET_K, 9);
    assert_eq!(verdict(&longest, &PACKET), 9);
}

#[test]
fn unknown_instructions_do_not_match() {
    // A load of a size or mode that is none, a return of the index register, a move, a jump.
    for code in [0x38, 0xE0, 0xC0, 0xE1, 0x0E, 0x1E, 0x0F, 0x47, 0x55 | 0x80] {
        assert_eq!(verdict(&[of(code, 0), of(RET_K, 1)], &PACKET), NO_MATCH, "{code:#x}");
    }
}

#[test]
fn linux_extensions_are_beyond_the_packet() {
    // SKF_AD_OFF, from which Linux counts what it has beside the packet.
    let extension = (-0x1000_i32) as u32;
    for k in 0..64 {
        assert_eq!(
            verdict(&[of(code::LD | code::W | code::ABS, extension + k), of(RET_K, 1)], &PACKET),
            NO_MATCH
        );
    }
}

#[test]
fn a_load_beyond_the_packet_is_no_match_and_one_beyond_the_window_is_counted() {
    use code::{ABS, B, H, IMM, IND, LD, LDX, MSH, W};
    let packet = [1; 300];
    for (size, octets) in [(W, 4), (H, 2), (B, 1)] {
        for (at, want) in [
            (0, (1, 0)),
            (WINDOW - octets, (1, 0)),
            (WINDOW - octets + 1, (0, 1)),
            (300 - octets, (0, 1)),
            (300 - octets + 1, (0, 0)),
            (u32::MAX, (0, 0)),
        ] {
            let absolute = [of(LD | size | ABS, at), of(RET_K, 1)];
            assert_eq!(outcome(&absolute, &packet, 300), want, "{octets} at {at}");
            let by_x = [of(LDX | IMM, at / 2), of(LD | size | IND, at - at / 2), of(RET_K, 1)];
            assert_eq!(outcome(&by_x, &packet, 300), want, "{octets} at {at}");
        }
    }
    let header = |at| [of(LDX | B | MSH, at), of(RET_K, 1)];
    assert_eq!(outcome(&header(WINDOW - 1), &packet, 300), (1, 0));
    assert_eq!(outcome(&header(WINDOW), &packet, 300), (0, 1));
    assert_eq!(outcome(&header(300), &packet, 300), (0, 0));
    // The sum has more than 32 bits.
    let both = [of(LDX | IMM, u32::MAX), of(LD | B | IND, 1), of(RET_K, 1)];
    assert_eq!(outcome(&both, &packet, 300), (0, 0));
    // A packet that was captured in part.
    assert_eq!(outcome(&[of(LD | B | ABS, 20), of(RET_K, 1)], &packet[..20], 300), (0, 1));
    assert_eq!(outcome(&[of(LD | code::LEN, 0), of(RET_A, 0)], &packet[..20], 300), (300, 0));
}

/// The same once more, as simply as can be.
fn simply(program: &[Instruction], shown: &[u8], length: u64) -> (u32, u64) {
    let (mut a, mut x, mut scratch) = (0_u32, 0_u32, [0_u32; SCRATCH_WORDS]);
    let mut at = 0;
    loop {
        let Some(Instruction { code, jt, jf, k }) = program.get(at).copied() else { return (0, 0) };
        at += 1;
        let jumped = |holds: bool| at + usize::from(if holds { jt } else { jf });
        let source = if code & 8 == 0 { k } else { x };
        let octets = |from: u64, size: u64| -> Result<u32, (u32, u64)> {
            let octets = (from..from + size).map(|at| shown.get(usize::try_from(at).unwrap()).copied());
            let octets: Option<Vec<u8>> = octets.collect();
            let Some(octets) = octets else { return Err((0, u64::from(from + size <= length))) };
            Ok(octets.into_iter().fold(0, |sum, octet| sum << 8 | u32::from(octet)))
        };
        let read = match code {
            0x20 => octets(k.into(), 4),
            0x28 => octets(k.into(), 2),
            0x30 => octets(k.into(), 1),
            0x40 => octets(u64::from(k) + u64::from(x), 4),
            0x48 => octets(u64::from(k) + u64::from(x), 2),
            0x50 => octets(u64::from(k) + u64::from(x), 1),
            0xB1 => octets(k.into(), 1).map(|octet| 4 * (octet & 15)),
            _ => Ok(0),
        };
        let read = match read {
            Ok(read) => read,
            Err(end) => return end,
        };
        let word = k as usize;
        match code {
            0x20 | 0x28 | 0x30 | 0x40 | 0x48 | 0x50 => a = read,
            0xB1 => x = read,
            0x00 => a = k,
            0x01 => x = k,
            0x80 => a = length as u32,
            0x81 => x = length as u32,
            0x60 if word < SCRATCH_WORDS => a = scratch[word],
            0x61 if word < SCRATCH_WORDS => x = scratch[word],
            0x02 if word < SCRATCH_WORDS => scratch[word] = a,
            0x03 if word < SCRATCH_WORDS => scratch[word] = x,
            0x04 | 0x0C => a = a.wrapping_add(source),
            0x14 | 0x1C => a = a.wrapping_sub(source),
            0x24 | 0x2C => a = a.wrapping_mul(source),
            0x34 | 0x3C if source != 0 => a /= source,
            0x94 | 0x9C if source != 0 => a %= source,
            0x44 | 0x4C => a |= source,
            0x54 | 0x5C => a &= source,
            0xA4 | 0xAC => a ^= source,
            0x64 | 0x6C => a = if source < 32 { a << source } else { 0 },
            0x74 | 0x7C => a = if source < 32 { a >> source } else { 0 },
            0x84 | 0x8C => a = 0_u32.wrapping_sub(a),
            0x05 | 0x0D => at = at.saturating_add(word),
            0x15 | 0x1D => at = jumped(a == source),
            0x25 | 0x2D => at = jumped(a > source),
            0x35 | 0x3D => at = jumped(a >= source),
            0x45 | 0x4D => at = jumped(a & source != 0),
            0x06 => return (k, 0),
            0x16 => return (a, 0),
            0x07 => x = a,
            0x87 => a = x,
            _ => return (0, 0),
        }
    }
}

/// The codes of the paper and of `bpf_common.h`.
const CODES: [u16; 48] = [
    0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x00, 0x60, 0x80, 0x01, 0x61, 0x81, 0xB1, 0x02, 0x03, 0x04, 0x0C,
    0x14, 0x1C, 0x24, 0x2C, 0x34, 0x3C, 0x44, 0x4C, 0x54, 0x5C, 0x64, 0x6C, 0x74, 0x7C, 0x84, 0x94, 0x9C,
    0xA4, 0xAC, 0x05, 0x15, 0x1D, 0x25, 0x2D, 0x35, 0x45, 0x4D, 0x06, 0x16, 0x07, 0x87,
];

/// Some that are none.
const UNKNOWN: [u16; 8] = [0x38, 0xA0, 0xC0, 0xE0, 0x0E, 0x0F, 0x47, 0x55 | 0x80];

fn instruction() -> impl Strategy<Value = Instruction> {
    let code = prop_oneof![
        60 => prop::sample::select(&CODES[..]),
        1 => prop::sample::select(&UNKNOWN[..]),
    ];
    let number = prop_oneof![6 => 0..16_u32, 3 => 0..320_u32, 1 => any::<u32>()];
    (code, 0..6_u8, 0..6_u8, number).prop_map(|(code, jt, jf, k)| Instruction { code, jt, jf, k })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any program on any packet comes to what it comes to simply, whatever lay in the window before.
    #[test]
    fn any_program_is_run_as_it_is_written(
        instructions in collection::vec(instruction(), 0..60),
        packet in collection::vec(any::<u8>(), 0..320),
        more in 0..3_u32,
        left in any::<u8>(),
    ) {
        let program = Program::new(&instructions).unwrap();
        let length = packet.len() as u32 + 100 * more;
        let mut machine = Machine::default();
        machine.window.fill(left);
        machine.show(&packet, length);
        let verdict = run(&program, &mut machine);
        let shown = &packet[..packet.len().min(WINDOW as usize)];
        // Behind the last instruction are zeros, which are instructions too, and then nothing.
        let want = simply(&program.instructions, shown, length.into());
        prop_assert_eq!((verdict, machine.beyond), want);
    }

    /// Octets that are no instructions end the run, mostly at once: longer ones would show no more.
    #[test]
    fn any_octets_end(numbers in collection::vec(any::<u64>(), 0..512), packet in collection::vec(any::<u8>(), 0..80)) {
        let instructions: Vec<_> = numbers
            .iter()
            .map(|number| Instruction {
                code: *number as u16,
                jt: (number >> 16) as u8,
                jf: (number >> 24) as u8,
                k: (number >> 32) as u32,
            })
            .collect();
        let mut machine = Machine::default();
        machine.show(&packet, packet.len() as u32);
        run(&Program::new(&instructions).unwrap(), &mut machine);
        prop_assert!(machine.beyond == 0);
    }
}
