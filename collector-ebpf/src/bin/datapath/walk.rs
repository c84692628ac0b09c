//! Another flow for each run of one frame: `BPF_PROG_TEST_RUN` repeats a frame as it is, and a cache that only ever sees
//! one flow says nothing about many.
//!
//! What writes the flow into the frame goes on with a program by a tail call: what is measured is the very program that
//! counts, and that somebody measures it changes nothing of what the compiler makes of it.

use aya_ebpf::programs::TcContext;
use collector_ebpf::abi::{
    bench,
    control::Control,
    flow::{RX, TX},
};

use crate::{
    Skb, account,
    family::Key,
    maps::{PROGRAMS, STEPS, WALK},
    packet::opaque,
    read::{read4, read6, role_of_index, unit_sent},
    slot,
};

/// Writes the next flow's address and ports into the frame.
///
/// The flows lie in the order in which they are walked, so that the processor has them at hand when they are needed; and
/// each end is written in the width in which it is read, for a read of what was written in parts waits for the
/// writes.
#[inline(always)]
pub(crate) fn step(ctx: &TcContext) {
    let skb = ctx.skb.skb;
    let Some(walk) = WALK.get_ptr_mut(0) else { return };
    // SAFETY: only one CPU walks; user space writes before and reads after.
    let (step, walk) = unsafe {
        let step = (*walk).steps;
        (*walk).steps = step + 1;
        (step as u32 & (bench::STEPS - 1), *walk)
    };
    let Some(ends) = STEPS.get(step) else { return };
    let (address, ports) = (*ends as u32, (*ends >> 32) as u32);
    if walk.wide == 0 {
        write(skb, walk.address_at, address);
    } else {
        write(skb, walk.address_at, u64::from(address) << 32);
    }
    write(skb, walk.ports_at, ports);
}

/// Writes to the frame's linear part. The kernel allows it at any alignment wherever the CPU does.
#[inline(always)]
fn write<T>(skb: Skb, at: u32, value: T) {
    // SAFETY: the kernel hands the program a live context.
    let (start, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    // The verifier wants to see a bound.
    let to = opaque(start + (at & 0xFF) as usize);
    if to + size_of::<T>() <= end {
        // SAFETY: compared with the packet's end in the form that the verifier follows.
        unsafe { (to as *mut T).write_volatile(value) };
    }
}

/// Goes on with a program of [`PROGRAMS`]; the number is the program's that calls, which the kernel makes a jump of.
/// What is returned says that there was none.
#[inline(always)]
pub(crate) fn go_on<const PROGRAM: u32>(ctx: &TcContext) -> i32 {
    const TC_ACT_OK: i32 = 0;
    // SAFETY: nothing here waits to be dropped.
    unsafe { PROGRAMS.tail_call(ctx, PROGRAM) };
    TC_ACT_OK
}

/// Counts the packet if its flow holds its slot.
#[inline(always)]
pub(crate) fn count_held(skb: Skb) {
    let Some(control) = account::control() else { return };
    // SAFETY: the kernel hands the program a live context.
    let Some(role) = role_of_index(unsafe { (*skb).ifindex }) else { return };
    let sent = unit_sent::<false>(role);
    let held = if let Some((key, transport)) = read4(skb, role) {
        is_held(control, key, sent, transport.tcp_flags)
    } else if let Some((key, transport)) = read6(skb, role) {
        is_held(control, key, sent, transport.tcp_flags)
    } else {
        false
    };
    if held && let Some(walk) = WALK.get_ptr_mut(0) {
        // SAFETY: as above.
        unsafe { (*walk).held += 1 };
    }
}

#[inline(always)]
fn is_held<K: Key>(control: *const Control, mut key: K, sent: bool, tcp_flags: u8) -> bool {
    if !sent {
        key.turn();
    }
    // SAFETY: the entry is live.
    let word = unsafe { account::word(control) };
    let direction = if sent { TX } else { RX };
    let held = slot::of(&key, key.index(control, word));
    held.is_some_and(|slot| slot::is_steady(&slot, direction, tcp_flags))
}
