//! A packet that a policy rejects, and that is dropped at TC: counted, and signed for the drop program to know it by. What is
//! dropped [before](crate::refuse) has no buffer to be signed.
//!
//! The flow never holds a slot while it is rejected, so each of its packets comes here and the steady state knows nothing
//! of policies. What came in by an interface is counted as that counts it, in the flow and in its unit; what was about to
//! leave never does, so it is counted as rejected and nothing else.

use collector_ebpf::abi::packet::end;

use crate::{
    Skb, account, count, family::Key, identity::Who, packet::Wire, policy::Units, read::Packet,
    settings::SIGNATURE,
};

/// Counts the packet for its units, and signs it; `in_flow` is not 0 where its flow has counted it. 0.
#[inline(never)]
pub(crate) fn count<K: Key>(skb: Skb, packet: &Packet, who: u64, in_flow: u32) -> u32 {
    for_units::<K>(packet, Who::unpack(who), packet.wire(skb), in_flow != 0);
    if packet.is_leaving() {
        if !Who::unpack(who).refused {
            count::ledger(|ledger| ledger.rejected += 1);
        }
        if let Some(control) = account::control() {
            // The interface does not count it.
            // SAFETY: the entry is live, and this CPU's own.
            unsafe { account::cross::<true>(control, skb, &packet.role, -1) };
        }
    }
    sign(skb, packet, Who::unpack(who));
    0
}

/// Counts it as rejected, and as received where that is to be said and no flow has.
#[inline(always)]
pub(crate) fn for_units<K: Key>(packet: &Packet, who: Who, wire: Wire, in_flow: bool) {
    let direction = packet.direction();
    let Who { pu, how, host_pu, .. } = who;
    let (whose, direction_there) = if who.is_by_other() {
        (Units { pu, how, host_pu }.other(packet.key::<K>().rest()), 1 - direction)
    } else {
        (pu, direction)
    };
    count::count_rejected(whose, direction_there, wire.packets);
    if !packet.is_leaving() && !in_flow {
        count::count_flowless(pu, direction, wire);
    }
}

/// Writes to the buffer's control block, which nobody reads any more but the drop program, who has rejected it: what is
/// dropped is told apart from what programs of others drop, and needs no second look for whose it is.
#[inline(always)]
fn sign(skb: Skb, packet: &Packet, who: Who) {
    let signature = SIGNATURE.load();
    // SAFETY: the kernel hands the program a live context, whose control block it may write.
    unsafe {
        (*skb).cb[0] = signature as u32;
        (*skb).cb[1] = (signature >> 32) as u32;
        (*skb).cb[2] = u32::from(who.number()) | u32::from(who.pu) << 16;
        (*skb).cb[3] = end_of(packet).into();
    }
}

/// Which end of a rejected packet is its unit's.
#[inline(always)]
pub(crate) fn end_of(packet: &Packet) -> u8 {
    if packet.sent() { end::SOURCE } else { end::DESTINATION }
}

/// Ends the program with `TC_ACT_SHOT` (2), which is also TCX's `TCX_DROP`: no other program sees the packet.
///
/// By hand: of a number that is returned in several places LLVM has a copy on every packet's way.
#[inline(always)]
#[cfg(target_arch = "bpf")]
pub(crate) fn end() -> ! {
    // SAFETY: what a program leaves on its stack and in its registers is nobody's.
    unsafe { core::arch::asm!("r0 = 2", "exit", options(noreturn, nomem, nostack)) }
}

#[inline(always)]
#[cfg(not(target_arch = "bpf"))]
pub(crate) fn end() -> ! {
    std::process::abort()
}
