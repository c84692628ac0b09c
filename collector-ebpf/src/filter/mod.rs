//! Packet filters: what each instruction of classic BPF does, the same in the kernel and in user space.
//!
//! The instructions are those that libpcap compiles an expression to for a saved file (pcap-filter(7)): none of Linux's
//! extensions, which read beside the packet. Their meaning is that of libpcap's own interpreter, and of the paper that
//! introduced them (The BSD Packet Filter, USENIX Winter 1993). Jumps go forward only.
//!
//! A run sees a [`window`](Machine::window) of the packet. An instruction that reads beyond the packet ends the run, and
//! the packet does not match; so does one that reads what the packet has and the window has not, which is counted.

pub mod code;

use core::{mem::offset_of, ptr};

use code::{
    ABS, ADD, ALU, AND, B, DIV, H, IMM, IND, JA, JEQ, JGE, JGT, JMP, JSET, LD, LDX, LEN, LSH, MEM, MISC, MOD,
    MSH, MUL, NEG, OR, RET, RSH, ST, STX, SUB, TAX, TXA, W, XOR,
};

use crate::{
    abi::filter::{MOST_INSTRUCTIONS, Machine, Program, WINDOW},
    wire::bytes::Window,
};

/// What a run comes to where the packet does not match.
pub const NO_MATCH: u32 = 0;

/// Instructions that are run in one [`turn`].
const IN_A_TURN: usize = 16;
/// Turns after which no program has anything left to run.
pub const TURNS: usize = MOST_INSTRUCTIONS / IN_A_TURN;

/// Whether the packet in the machine's window matches: [`NO_MATCH`], or what the program returns.
///
/// Whatever the program is, the run ends, and it reads nothing but the window and the scratch memory.
pub fn run(program: &Program, machine: &mut Machine) -> u32 {
    begin(machine);
    while !turn(program, machine) {}
    verdict(machine)
}

/// Begins a run, which is no match until its end says otherwise.
#[inline(always)]
pub fn begin(machine: &mut Machine) {
    set(&mut machine.next, 0);
    set(&mut machine.a, 0);
    set(&mut machine.x, 0);
    set(&mut machine.verdict, NO_MATCH);
}

/// Goes on with a run that has [begun](begin); whether it has come to its end. One that has not in [`TURNS`] turns has run all
/// of its program, and matches nothing.
///
/// In turns, because the verifier follows every instruction that a loop may run: in the programs a turn is a function that it
/// follows by itself, once, whatever the length of a program.
#[inline(always)]
pub fn turn(program: &Program, machine: &mut Machine) -> bool {
    // No instruction runs twice, for each goes forward.
    for _ in 0..IN_A_TURN {
        match step(program, machine) {
            Step::GoOn => {}
            Step::End(end) => {
                set(&mut machine.verdict, end);
                return true;
            }
            Step::Beyond => {
                machine.beyond += 1;
                return true;
            }
        }
    }
    false
}

/// What a run has come to so far, which is no match until its end.
#[inline(always)]
pub fn verdict(machine: &Machine) -> u32 {
    get(&machine.verdict)
}

/// What comes after an instruction.
enum Step {
    /// The next one.
    GoOn,
    /// Nothing: the run comes to this.
    End(u32),
    /// Nothing: it wants octets that are not in the window.
    Beyond,
}

impl Step {
    /// The packet does not match.
    const FAIL: Self = Self::End(NO_MATCH);
}

/// Runs one instruction.
#[inline(always)]
fn step(program: &Program, machine: &mut Machine) -> Step {
    let at = get(&machine.next);
    let Some(instruction) = program.instructions.get(at as usize) else { return Step::FAIL };
    let code = u32::from(instruction.code);
    let k = instruction.k;
    let mut next = at + 1;
    match code & code::CLASS {
        LD => match code & code::MODE {
            ABS | IND => {
                let base = if code & code::MODE == IND { get(&machine.x) } else { 0 };
                let from = u64::from(base) + u64::from(k);
                let loaded = match code & code::SIZE {
                    W => load::<4>(machine, from).map(u32::from_be_bytes),
                    H => load::<2>(machine, from).map(|it| u16::from_be_bytes(it).into()),
                    B => load::<1>(machine, from).map(|[it]| it.into()),
                    _ => Err(Step::FAIL),
                };
                match loaded {
                    Ok(value) => set(&mut machine.a, value),
                    Err(step) => return step,
                }
            }
            IMM => set(&mut machine.a, k),
            MEM => {
                let Some(value) = recall(machine, k) else { return Step::FAIL };
                set(&mut machine.a, value);
            }
            LEN => set(&mut machine.a, machine.length),
            _ => return Step::FAIL,
        },
        JMP => {
            let operand = if code & code::X != 0 { get(&machine.x) } else { k };
            let a = get(&machine.a);
            let holds = match code & code::OPERATION {
                JA => {
                    set(&mut machine.next, next + u64::from(k));
                    return Step::GoOn;
                }
                JEQ => a == operand,
                JGT => a > operand,
                JGE => a >= operand,
                JSET => a & operand != 0,
                _ => return Step::FAIL,
            };
            next += u64::from(if holds { instruction.jt } else { instruction.jf });
        }
        RET => {
            return Step::End(match code & code::RETURNED {
                code::K => k,
                code::A => get(&machine.a),
                _ => NO_MATCH,
            });
        }
        ALU => {
            let operand = if code & code::X != 0 { get(&machine.x) } else { k };
            match operate(code & code::OPERATION, get(&machine.a), operand) {
                Some(value) => set(&mut machine.a, value),
                None => return Step::FAIL,
            }
        }
        LDX => match code & code::MODE {
            MSH => match load::<1>(machine, k.into()) {
                Ok([octet]) => set(&mut machine.x, u32::from(octet & 0xF) * 4),
                Err(step) => return step,
            },
            IMM => set(&mut machine.x, k),
            MEM => {
                let Some(value) = recall(machine, k) else { return Step::FAIL };
                set(&mut machine.x, value);
            }
            LEN => set(&mut machine.x, machine.length),
            _ => return Step::FAIL,
        },
        ST | STX => {
            let value = get(if code & code::CLASS == ST { &machine.a } else { &machine.x });
            let Some(word) = machine.scratch.get_mut(k as usize) else { return Step::FAIL };
            set(word, value);
        }
        MISC => match code & code::MOVE {
            TAX => set(&mut machine.x, get(&machine.a)),
            TXA => set(&mut machine.a, get(&machine.x)),
            _ => return Step::FAIL,
        },
        _ => return Step::FAIL,
    }
    set(&mut machine.next, next);
    Step::GoOn
}

/// What an instruction makes of the accumulator; `None` where it divides by 0 or is unknown.
#[inline(always)]
fn operate(operation: u32, a: u32, operand: u32) -> Option<u32> {
    Some(match operation {
        ADD => a.wrapping_add(operand),
        SUB => a.wrapping_sub(operand),
        MUL => a.wrapping_mul(operand),
        DIV => a.checked_div(operand)?,
        MOD => a.checked_rem(operand)?,
        AND => a & operand,
        OR => a | operand,
        XOR => a ^ operand,
        LSH => a.checked_shl(operand).unwrap_or(0),
        RSH => a.checked_shr(operand).unwrap_or(0),
        NEG => a.wrapping_neg(),
        _ => return None,
    })
}

/// The `N` octets of the packet at `at`, or how the run ends without them.
#[inline(always)]
fn load<const N: usize>(machine: &Machine, at: u64) -> Result<[u8; N], Step> {
    let end = at + N as u64;
    if end > u64::from(machine.copied) || at > CAPACITY - N as u64 {
        return Err(if end > u64::from(machine.length) { Step::FAIL } else { Step::Beyond });
    }
    // SAFETY: `at + N` is at most CAPACITY, and so many octets lie there.
    unsafe {
        let window = ptr::from_ref(machine).cast::<u8>().add(offset_of!(Machine, window));
        Ok(Window::<N>::new(window.add(at as usize)).get::<0, N>())
    }
}

/// Octets that the window has room for.
const CAPACITY: u64 = (size_of::<Machine>() - offset_of!(Machine, window)) as u64;

/// A word of the scratch memory.
#[inline(always)]
fn recall(machine: &Machine, index: u32) -> Option<u32> {
    machine.scratch.get(index as usize).map(get)
}

/// Reads a register. Volatile, so that the compiler takes none of them out of memory, where they shall lie.
#[inline(always)]
fn get<T: Copy>(register: &T) -> T {
    // SAFETY: a reference is valid.
    unsafe { ptr::from_ref(register).read_volatile() }
}

/// Writes a register.
#[inline(always)]
fn set<T: Copy>(register: &mut T, value: T) {
    // SAFETY: a reference is valid.
    unsafe { ptr::from_mut(register).write_volatile(value) }
}

impl Machine {
    /// Puts a packet into the window, or as much of it as fits. Of a packet that was captured in part, `length` is what it
    /// had on the wire.
    pub fn show(&mut self, packet: &[u8], length: u32) {
        let shown = packet.get(..WINDOW as usize).unwrap_or(packet);
        if let Some(window) = self.window.get_mut(..shown.len()) {
            window.copy_from_slice(shown);
        }
        self.copied = shown.len() as u32;
        self.length = length;
    }
}

#[cfg(test)]
mod tests;
