//! The programs: entry points, nothing else.
//!
//! A packet's way: [`packet`] shows its bytes, [`read`] what they say; [`account`] counts it where its flow
//! holds its slot of the CPU's cache, and [`cold`] does all that is rarer: any kind of packet, [`identity`]
//! (and [`classify`], once or twice a flow, which asks for a [`socket`], its [`cgroup`] and [`user`], a [`route`], or about
//! both [`ends`]; or that of the flow
//! that an ICMP error is a [`quote`] of), [`policy`], [`slot`], [`table`], [`fill`], and [`report`], which tells user space of
//! flows that begin and end. Last, [`trace`] reports the packet itself, where somebody asks for its unit's. What is [`unread`] is no flow's. What is reported
//! goes by a [`transport`]. Programs at TC let a packet pass on (`TC_ACT_UNSPEC`: the next program sees it too), and write
//! nothing to it but its mark; what a policy rejects, and shall not pass, they [`reject`].
//! The one at [`xdp`] is before all that: it [`refuse`]s frames of flows that were rejected.
//!
//! On the host this file is an empty program, so that the bodies are linted by the stable toolchain.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(internal_features, reason = "the kernel's atomic add is an intrinsic")
)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics, asm_experimental_arch))]
#![expect(
    clippy::inline_always,
    reason = "a call costs registers, stack and the verifier's budget: each is decided by measurement"
)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a value that is handed over is copied on the stack once more (measured: 15 instructions, 8 octets)"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the macro of a program calls it with its context by value"
)]

mod account;
mod atomic;
mod cgroup;
mod classify;
mod cold;
mod count;
mod drops;
mod ends;
mod family;
mod fill;
mod filter;
mod fragments;
mod identity;
mod inner;
mod maps;
mod packet;
mod places;
mod policy;
mod quote;
mod read;
mod reference;
mod refuse;
mod reject;
mod report;
mod route;
mod settings;
mod share;
mod slot;
mod socket;
mod superpacket;
mod table;
mod trace;
mod transport;
mod unread;
mod untyped;
mod user;
mod walk;
mod xdp;

use aya_ebpf::{
    bindings::{__sk_buff, xdp_action, xdp_md},
    macros::{btf_tracepoint, classifier, raw_tracepoint, xdp},
    programs::{BtfTracePointContext, RawTracePointContext, TcContext, XdpContext},
};
use collector_ebpf::abi::bench;

/// `TC_ACT_UNSPEC`, which is also TCX's `TCX_NEXT`: go on with the next program, or accept.
const PASS_ON: i32 = -1;

/// Counts what comes in by an interface.
#[classifier]
pub(crate) fn tc_ingress(ctx: TcContext) -> i32 {
    account::run::<false>(ctx.skb.skb);
    PASS_ON
}

/// Counts what leaves by an interface, at the moment when it is handed to the queue.
#[classifier]
pub(crate) fn tc_egress(ctx: TcContext) -> i32 {
    account::run::<true>(ctx.skb.skb);
    PASS_ON
}

/// Looks at a frame before there is a socket buffer: drops what is known to be rejected, and tells `tc_ingress` of all else what
/// it has found. For frames in several buffers, too (Linux 5.18).
#[xdp(frags)]
pub(crate) fn xdp_ingress(ctx: XdpContext) -> u32 {
    xdp::run::<true>(ctx.ctx)
}

/// The same for kernels that hand no frame in several buffers to any program.
#[xdp]
pub(crate) fn xdp_linear(ctx: XdpContext) -> u32 {
    xdp::run::<false>(ctx.ctx)
}

/// Counts what the kernel drops.
#[btf_tracepoint(function = "kfree_skb")]
pub(crate) fn kfree_skb(ctx: BtfTracePointContext) -> i32 {
    drops::run(&ctx);
    0
}

/// Ties the kernel's ticks to its boot clock. Run by user space through `BPF_PROG_TEST_RUN`, attached to nothing. What a
/// classifier is tried on is a socket buffer, which the kernel then drops: at a raw tracepoint there is none.
#[raw_tracepoint]
pub(crate) fn anchor(_ctx: RawTracePointContext) -> i32 {
    report::anchor();
    0
}

/// What the bench subtracts: the cost of running a program at all.
#[classifier]
pub(crate) fn empty(_ctx: TcContext) -> i32 {
    PASS_ON
}

/// What the bench subtracts of a drop: that a program runs at all.
#[btf_tracepoint(function = "kfree_skb")]
pub(crate) fn empty_drop(_ctx: BtfTracePointContext) -> i32 {
    0
}

/// `empty` at XDP.
#[xdp]
pub(crate) fn xdp_empty(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// What the bench compares with: the usual way to count flows, one update of a hash and one counter.
#[classifier]
pub(crate) fn floor(ctx: TcContext) -> i32 {
    reference::floor(ctx.skb.skb);
    PASS_ON
}

/// What tests and the bench run a packet filter by: 1 for a packet that it wants, else 0.
#[classifier]
pub(crate) fn filter_probe(ctx: TcContext) -> i32 {
    filter::probe(ctx.skb.skb)
}

/// `empty` with a packet of the next flow: what the bench subtracts where each packet is another flow's.
#[classifier]
pub(crate) fn walk_empty(ctx: TcContext) -> i32 {
    walk::step(&ctx);
    walk::go_on::<{ bench::EMPTY }>(&ctx)
}

/// `floor` with a packet of the next flow.
#[classifier]
pub(crate) fn walk_floor(ctx: TcContext) -> i32 {
    walk::step(&ctx);
    walk::go_on::<{ bench::FLOOR }>(&ctx)
}

/// `tc_ingress` with a packet of the next flow.
#[classifier]
pub(crate) fn walk_ingress(ctx: TcContext) -> i32 {
    walk::step(&ctx);
    walk::go_on::<{ bench::INGRESS }>(&ctx)
}

/// `tc_egress` with a packet of the next flow.
#[classifier]
pub(crate) fn walk_egress(ctx: TcContext) -> i32 {
    walk::step(&ctx);
    walk::go_on::<{ bench::EGRESS }>(&ctx)
}

/// `walk_ingress`, which looks beforehand whether the flow holds its slot. Not for timing.
#[classifier]
pub(crate) fn walk_held(ctx: TcContext) -> i32 {
    walk::step(&ctx);
    walk::count_held(ctx.skb.skb);
    walk::go_on::<{ bench::INGRESS }>(&ctx)
}

/// The context that the helpers of the programs take.
type Skb = *mut __sk_buff;
/// That of the programs at XDP.
type Frame = *mut xdp_md;

/// The licence that the kernel reads: GPL-only helpers are used.
#[cfg(target_arch = "bpf")]
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // A reachable panic is a loop that the verifier rejects at load, never undefined behaviour at run time.
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
