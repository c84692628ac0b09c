//! Packet filters in the syntax of pcap-filter(7), compiled by libpcap.
//!
//! The library is loaded when the first expression comes: a collector without a filter does not need it.

mod library;

use std::{fmt, str::FromStr};

use collector_ebpf::{
    abi::{
        filter::{Instruction, MOST_INSTRUCTIONS, Program},
        packet::link,
    },
    filter::code,
};
pub use library::Compiled;

/// What packets begin with, as libpcap counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header (`DLT_EN10MB`).
    Ethernet,
    /// An IP header (`DLT_RAW`).
    RawIp,
}

/// An expression, and what it was compiled to.
#[derive(Clone, PartialEq, Eq)]
pub struct Filter {
    expression: String,
    ethernet: Vec<Instruction>,
    raw_ip: Option<Vec<Instruction>>,
}

/// Why an expression cannot be a filter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// The library cannot be loaded.
    #[error("a filter is compiled by libpcap, which cannot be loaded: install it (Debian: libpcap0.8)")]
    NoLibrary {
        /// What the loader said.
        source: libloading::Error,
    },
    /// The library lacks a function.
    #[error("libpcap has no function {name}: install a newer one (Debian: libpcap0.8)")]
    NoFunction {
        /// The function.
        name: &'static str,
        /// What the loader said.
        source: libloading::Error,
    },
    /// The library has no memory left.
    #[error("libpcap finds no memory for a filter")]
    NoMemory,
    /// The expression is none.
    #[error("{} is no filter (pcap-filter(7)): {reason}", cut(expression))]
    Expression {
        /// The expression.
        expression: String,
        /// What libpcap says.
        reason: String,
    },
    /// It is longer than the kernel side takes.
    #[error(
        "{} is compiled to {length} instructions: expected one of at most {MOST_INSTRUCTIONS}",
        cut(expression)
    )]
    TooLong {
        /// The expression.
        expression: String,
        /// Its instructions.
        length: usize,
    },
    /// It goes back: `protochain` follows headers by a loop.
    #[error(
        "{} is compiled to a loop, which the kernel side has not: expected one without `protochain`",
        cut(expression)
    )]
    Loop {
        /// The expression.
        expression: String,
    },
    /// It asks for what stands beside a packet.
    #[error(
        "{} asks for what no packet says (inbound, outbound, ifindex): expected one of octets; directions are those of \
         --trace PU:in",
        cut(expression)
    )]
    Live {
        /// The expression.
        expression: String,
    },
    /// It has an instruction that the kernel side does not know.
    #[error(
        "{} is compiled to an instruction that the kernel side does not know: {code:#06x}",
        cut(expression)
    )]
    Instruction {
        /// The expression.
        expression: String,
        /// The instruction.
        code: u16,
    },
}

/// Characters of an expression that an error repeats.
const SHOWN: usize = 72;

/// An expression as an error shows it: the beginning of a long one.
fn cut(expression: &str) -> String {
    let end = expression.char_indices().nth(SHOWN).map_or(expression.len(), |(end, _)| end);
    let dots = if end < expression.len() { "\u{2026}" } else { "" };
    format!("{:?}", format!("{}{dots}", expression.get(..end).unwrap_or(expression)))
}

impl Filter {
    /// Compiles an expression for every kind of link.
    ///
    /// One that has no meaning without an Ethernet header (`vlan 5`) matches no packet of an interface that has none.
    ///
    /// # Errors
    ///
    /// [`FilterError`].
    pub fn compile(expression: &str) -> Result<Self, FilterError> {
        let program = |link| {
            let instructions = Compiled::new(expression, link)?.instructions();
            check(expression, &instructions).map(|()| instructions)
        };
        let ethernet = program(Link::Ethernet)?;
        let raw_ip = match program(Link::RawIp) {
            Ok(instructions) => Some(instructions),
            Err(FilterError::Expression { .. }) => None,
            Err(other) => return Err(other),
        };
        Ok(Self { expression: expression.to_owned(), ethernet, raw_ip })
    }

    /// Instructions that libpcap has compiled before.
    ///
    /// # Errors
    ///
    /// [`FilterError`], but for those of the library.
    pub fn of(
        expression: &str,
        ethernet: &[Instruction],
        raw_ip: Option<&[Instruction]>,
    ) -> Result<Self, FilterError> {
        for instructions in [Some(ethernet), raw_ip].into_iter().flatten() {
            check(expression, instructions)?;
        }
        Ok(Self {
            expression: expression.to_owned(),
            ethernet: ethernet.to_vec(),
            raw_ip: raw_ip.map(<[Instruction]>::to_vec),
        })
    }

    /// What it was compiled from.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// Whether it can match packets that begin with an IP header.
    pub const fn knows_raw_ip(&self) -> bool {
        self.raw_ip.is_some()
    }

    /// The program for a kind of link, one of [`link`]; one that matches nothing where there is none.
    pub fn program(&self, link: u8) -> Program {
        let instructions = match link {
            link::ETHERNET => Some(&self.ethernet),
            link::RAW_IP => self.raw_ip.as_ref(),
            _ => None,
        };
        let nothing = [Instruction { code: code::RET as u16, ..Instruction::default() }];
        let instructions = instructions.map_or(&nothing[..], Vec::as_slice);
        // `check` has seen that it fits.
        Program::new(instructions).unwrap_or_else(|| Program::all(nothing[0]))
    }
}

/// Refuses what the kernel side does not run.
fn check(expression: &str, instructions: &[Instruction]) -> Result<(), FilterError> {
    let expression = || expression.to_owned();
    if let Some(instruction) = instructions.iter().find(|it| !is_known(it.code)) {
        return Err(FilterError::Instruction { expression: expression(), code: instruction.code });
    }
    // What libpcap asks a live socket for: `inbound`, `outbound`, `ifindex`. No packet has octets there.
    let is_live = |it: &Instruction| {
        u32::from(it.code) & (code::CLASS | code::MODE) == code::LD | code::ABS && it.k >= LIVE
    };
    if instructions.iter().any(is_live) {
        return Err(FilterError::Live { expression: expression() });
    }
    // A jump back is one by a number below 0.
    let jump = (code::JMP | code::JA) as u16;
    if instructions.iter().any(|it| it.code == jump && it.k as i32 <= 0 && it.k != 0) {
        return Err(FilterError::Loop { expression: expression() });
    }
    if instructions.len() > MOST_INSTRUCTIONS {
        return Err(FilterError::TooLong { expression: expression(), length: instructions.len() });
    }
    Ok(())
}

/// Where classic BPF has what it knows beside a packet (`SKF_AD_OFF`, `include/uapi/linux/filter.h`).
const LIVE: u32 = 0xFFFF_F000;

/// Whether it is one of the instructions that [`filter`](collector_ebpf::filter) knows.
fn is_known(instruction: u16) -> bool {
    use code::{ABS, ALU, B, H, IMM, IND, JMP, LD, LDX, LEN, MEM, MISC, MSH, RET, ST, STX, TAX, TXA, W, X};
    let instruction = u32::from(instruction);
    match instruction & code::CLASS {
        LD => {
            let sized = [W, H, B].into_iter().flat_map(|size| [ABS, IND].map(|mode| LD | size | mode));
            sized.chain([IMM, MEM, LEN].map(|mode| LD | mode)).any(|it| it == instruction)
        }
        LDX => [B | MSH, IMM, MEM, LEN].iter().any(|it| LDX | it == instruction),
        ST => instruction == ST,
        STX => instruction == STX,
        ALU => (instruction & !(code::OPERATION | X)) == ALU && instruction & code::OPERATION <= code::XOR,
        JMP => (instruction & !(code::OPERATION | X)) == JMP && instruction & code::OPERATION <= code::JSET,
        RET => [code::K, code::A].iter().any(|it| RET | it == instruction),
        _ => [TAX, TXA].iter().any(|it| MISC | it == instruction),
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(expression: &str) -> Result<Self, FilterError> {
        Self::compile(expression)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.expression)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filter").field(&self.expression).finish()
    }
}

#[cfg(test)]
mod tests {
    use collector_ebpf::abi::{
        filter::{Instruction, MOST_INSTRUCTIONS},
        packet::link,
    };

    use super::{Filter, FilterError, is_known};

    const RET: Instruction = Instruction { code: 0x06, jt: 0, jf: 0, k: 1 };

    #[test]
    fn instructions_that_the_kernel_side_does_not_run_are_refused() {
        let of = |instructions: &[Instruction]| Filter::of("it", instructions, None);
        assert!(of(&vec![RET; MOST_INSTRUCTIONS]).is_ok());
        let error = of(&vec![RET; MOST_INSTRUCTIONS + 1]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"it\" is compiled to 4097 instructions: expected one of at most 4096"
        );
        let back = Instruction { code: 0x05, k: -3_i32 as u32, ..RET };
        assert!(matches!(of(&[RET, RET, back]), Err(FilterError::Loop { .. })));
        let forward = Instruction { code: 0x05, k: 1, ..RET };
        assert!(of(&[forward, RET, RET]).is_ok());
        let unknown = Instruction { code: 0x0E, ..RET };
        assert!(matches!(of(&[unknown]), Err(FilterError::Instruction { code: 0x0E, .. })));
    }

    #[test]
    fn known_are_the_instructions_of_the_paper_and_two_more() {
        // The paper's, in the numbers of bpf_common.h, with MOD and XOR, which came later.
        let mut known: Vec<u16> = vec![
            0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x00, 0x60, 0x80, 0x01, 0x61, 0x81, 0xB1, 0x02, 0x03, 0x05,
            0x0D, 0x06, 0x16, 0x07, 0x87,
        ];
        known.extend((0..=0xA0).step_by(0x10).flat_map(|operation| [operation | 0x04, operation | 0x0C]));
        known.extend((0x10..=0x40).step_by(0x10).flat_map(|condition| [condition | 0x05, condition | 0x0D]));
        known.sort_unstable();
        assert_eq!((0..=u16::MAX).filter(|it| is_known(*it)).collect::<Vec<_>>(), known);
    }

    #[test]
    fn without_a_program_for_a_link_nothing_of_it_matches() {
        let filter = Filter::of("it", &[RET], None).unwrap();
        assert!(!filter.knows_raw_ip());
        assert_eq!(filter.program(link::ETHERNET).instructions[0], RET);
        for link in [link::RAW_IP, link::NONE] {
            assert_eq!(filter.program(link).instructions[0], Instruction { k: 0, ..RET });
        }
    }
}
