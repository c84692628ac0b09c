//! How much stack the programs need, counted as the kernel's verifier counts it (`check_max_stack_depth` in
//! `kernel/bpf/verifier.c`).
//!
//! Newer kernels are generous, older ones refuse to load what they once let pass, and on this host all is well: so it is
//! looked at when the object is built, not when it is first loaded elsewhere.

use std::{collections::HashMap, fmt};

use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex, SymbolKind,
    read::File,
};

/// Octets of stack for all that is called at one time (`MAX_BPF_STACK`).
const MOST: usize = 512;
/// Before Linux 6.9 each frame takes a multiple of so many, and no less than one.
const ROUNDED: usize = 32;
/// Functions that are called at one time (`MAX_CALL_FRAMES`).
const DEEPEST: usize = 8;

/// An instruction is 8 octets; that which loads 64 bits takes two (RFC 9669 section 3).
const INSTRUCTION: usize = 8;
const LOAD_64: u8 = 0x18;
const CALL: u8 = 0x85;
/// `dst = src`, and `dst += number`, both of 64 bits.
const MOVE: u8 = 0xBF;
const ADD: u8 = 0x07;
/// The lower bits of an operation: its class. Loads from memory, stores of a number, stores of a register.
const CLASS: u8 = 0x07;
const LDX: u8 = 0x01;
const ST: u8 = 0x02;
const STX: u8 = 0x03;
/// The source of a call of a function of the same object.
const OF_OBJECT: u8 = 1;
/// The register that points to the end of the stack.
const FRAME: u8 = 10;

/// Functions, each called by the one before, that some supported kernel refuses to load.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMuch {
    /// Name, and octets of its own.
    calls: Vec<(String, usize)>,
    total: usize,
}

impl fmt::Display for TooMuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} octets in {} calls:", self.total, self.calls.len())?;
        self.calls.iter().try_for_each(|(name, own)| write!(f, "\n    {own:>4} {name}"))
    }
}

/// The chain of calls that needs most, of each program that has one which is refused.
///
/// # Errors
///
/// What is wrong with the octets, if they are no object file or none of this kind.
pub(crate) fn check(octets: &[u8]) -> Result<Vec<TooMuch>, String> {
    let functions = functions(&File::parse(octets).map_err(|error| error.to_string())?)?;
    let called: Vec<Place> = functions.values().flat_map(|function| function.calls.clone()).collect();
    let mut refused: Vec<_> = functions
        .keys()
        .filter(|place| !called.contains(place))
        .filter_map(|place| worst(&functions, *place, &mut Vec::new()))
        .collect();
    refused.sort_by(|one, other| one.calls.cmp(&other.calls));
    Ok(refused)
}

/// A section, and where in it.
type Place = (SectionIndex, u64);

struct Function {
    name: String,
    /// Octets of stack.
    own: usize,
    calls: Vec<Place>,
}

/// All functions of an object.
fn functions(file: &File<'_>) -> Result<HashMap<Place, Function>, String> {
    let mut functions = HashMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let name = symbol.name().map_err(|error| error.to_string())?.to_owned();
        let Some(section) = symbol.section_index() else { continue };
        let section = file.section_by_index(section).map_err(|error| error.to_string())?;
        let code = section
            .data_range(symbol.address(), symbol.size())
            .map_err(|error| error.to_string())?
            .ok_or_else(|| format!("{name} reaches beyond its section"))?;
        let targets = targets(file, &section, symbol.address(), code)?;
        functions
            .insert((section.index(), symbol.address()), Function { name, own: own(code), calls: targets });
    }
    Ok(functions)
}

/// Instructions of a function, each with where it begins. The second half of a long one is none.
fn instructions(code: &[u8]) -> impl Iterator<Item = (usize, [u8; INSTRUCTION])> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let here = at;
        let instruction: [u8; INSTRUCTION] = code.get(here..here + INSTRUCTION)?.try_into().ok()?;
        at += if instruction[0] == LOAD_64 { 2 * INSTRUCTION } else { INSTRUCTION };
        Some((here, instruction))
    })
}

/// The number in an instruction.
const fn number([_, _, _, _, a, b, c, d]: [u8; INSTRUCTION]) -> i32 {
    i32::from_le_bytes([a, b, c, d])
}

/// How far below the end of its stack a function reaches.
fn own(code: &[u8]) -> usize {
    let mut lowest = 0;
    let mut copied_to = None;
    for (_, instruction) in instructions(code) {
        let [operation, registers, low, high, ..] = instruction;
        let (to, from) = (registers & 0xF, registers >> 4);
        let offset = i32::from(i16::from_le_bytes([low, high]));
        match operation & CLASS {
            LDX if from == FRAME => lowest = lowest.min(offset),
            ST | STX if to == FRAME => lowest = lowest.min(offset),
            // The address of a variable is computed in two steps, one right after the other.
            _ if operation == ADD && copied_to == Some(to) => lowest = lowest.min(number(instruction)),
            _ => {}
        }
        copied_to = (operation == MOVE && from == FRAME).then_some(to);
    }
    lowest.unsigned_abs() as usize
}

/// The functions that one calls, or hands to a helper that calls them.
fn targets<'data>(
    file: &File<'data>,
    section: &object::read::Section<'data, '_>,
    address: u64,
    code: &[u8],
) -> Result<Vec<Place>, String> {
    let relocations: HashMap<u64, _> = section.relocations().collect();
    let mut targets = Vec::new();
    for (at, instruction) in instructions(code) {
        let [operation, registers, ..] = instruction;
        let here = address + at as u64;
        let is_call = operation == CALL && registers >> 4 == OF_OBJECT;
        if !is_call && operation != LOAD_64 {
            continue;
        }
        // Counted in instructions, from the one behind.
        let steps = (i64::from(number(instruction)) + 1) * INSTRUCTION as i64;
        let Some(relocation) = relocations.get(&here) else {
            if is_call {
                targets.push((section.index(), here.wrapping_add_signed(steps)));
            }
            continue;
        };
        let RelocationTarget::Symbol(index) = relocation.target() else { continue };
        let symbol = file.symbol_by_index(index).map_err(|error| error.to_string())?;
        let Some(target) = symbol.section_index() else { continue };
        match symbol.kind() {
            SymbolKind::Text => targets.push((target, symbol.address())),
            SymbolKind::Section if is_call => targets.push((target, 0_u64.wrapping_add_signed(steps))),
            _ => {}
        }
    }
    Ok(targets)
}

/// The most that a function needs with all that it calls, if that is too much. `path` is what has called it.
fn worst(functions: &HashMap<Place, Function>, place: Place, path: &mut Vec<Place>) -> Option<TooMuch> {
    // A function that calls itself the kernel refuses by itself.
    if path.contains(&place) {
        return None;
    }
    path.push(place);
    let calls = functions.get(&place).map_or(&[][..], |function| &function.calls);
    let below = calls.iter().filter_map(|called| worst(functions, *called, path));
    let found = below.max_by_key(|chain| chain.total).or_else(|| too_much(functions, path));
    path.pop();
    found
}

/// The chain of functions, if some kernel refuses it.
fn too_much(functions: &HashMap<Place, Function>, path: &[Place]) -> Option<TooMuch> {
    let calls: Vec<_> = path
        .iter()
        .filter_map(|place| functions.get(place))
        .map(|function| (function.name.clone(), function.own))
        .collect();
    let total = calls.iter().map(|(_, own)| own.max(&1).next_multiple_of(ROUNDED)).sum();
    (total > MOST || calls.len() > DEEPEST).then_some(TooMuch { calls, total })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use object::SectionIndex;

    use super::{Function, Place, TooMuch, own, worst};

    const fn place(at: u64) -> Place {
        (SectionIndex(1), at)
    }

    fn function(name: &str, own: usize, calls: &[u64]) -> Function {
        Function { name: name.to_owned(), own, calls: calls.iter().copied().map(place).collect() }
    }

    fn worst_of(functions: [(u64, Function); 3]) -> Option<TooMuch> {
        let functions: HashMap<_, _> =
            functions.into_iter().map(|(at, function)| (place(at), function)).collect();
        worst(&functions, place(0), &mut Vec::new())
    }

    #[test]
    fn a_function_reaches_as_far_as_it_loads_stores_or_points() {
        let code: Vec<u8> = [
            // *(u64 *)(r10 - 16) = r1
            [0x7B, 0x1A, 0xF0, 0xFF, 0, 0, 0, 0],
            // r2 = *(u64 *)(r10 - 24)
            [0x79, 0xA2, 0xE8, 0xFF, 0, 0, 0, 0],
            // r3 = -0x1000 ll, whose second half is no instruction, whatever it looks like
            [0x18, 0x03, 0, 0, 0, 0xF0, 0xFF, 0xFF],
            [0x7B, 0x1A, 0x00, 0xF0, 0, 0, 0, 0],
            // r4 = r10; r4 += -40
            [0xBF, 0xA4, 0, 0, 0, 0, 0, 0],
            [0x07, 0x04, 0, 0, 0xD8, 0xFF, 0xFF, 0xFF],
            // r4 += -400, which points elsewhere by now
            [0x07, 0x04, 0, 0, 0x70, 0xFE, 0xFF, 0xFF],
        ]
        .concat();
        assert_eq!(own(&code), 40);
        assert_eq!(own(&[]), 0);
    }

    #[test]
    fn each_call_is_rounded_up_and_one_without_variables_counts() {
        let fits = [
            (0, function("program", 224, &[8, 16])),
            (8, function("a", 225, &[16])),
            (16, function("b", 0, &[])),
        ];
        assert_eq!(worst_of(fits), None);
        let refused = [
            (0, function("program", 225, &[8, 16])),
            (8, function("a", 225, &[16])),
            (16, function("b", 0, &[])),
        ];
        let calls = vec![("program".to_owned(), 225), ("a".to_owned(), 225), ("b".to_owned(), 0)];
        assert_eq!(worst_of(refused), Some(TooMuch { calls, total: 544 }));
    }

    #[test]
    fn a_chain_of_nine_is_too_deep() {
        const NEXT: [[u64; 1]; 8] = [[1], [2], [3], [4], [5], [6], [7], [8]];
        let chain = |last: u64| -> Option<TooMuch> {
            let functions = (0..=last)
                .map(|at| (place(at), function("f", 8, if at == last { &[] } else { &NEXT[at as usize] })))
                .collect();
            worst(&functions, place(0), &mut Vec::new())
        };
        assert_eq!(chain(7), None);
        assert_eq!(chain(8).map(|chain| chain.total), Some(288));
    }
}
