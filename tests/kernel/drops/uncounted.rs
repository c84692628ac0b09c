//! What is no drop, and what may be passed over: drops of the collector's own, and drops in the midst of others.

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    panic,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::ensure;
use collector_tests::{
    PATIENCE, Result,
    books::assert_explained,
    collector::{Finished, Running, options},
    lab::Wire,
    release,
    talk::listener,
    traffic::{pin, sender},
};
use collector_user::{
    daemon::Options,
    event::DropClass,
    kernel::requirements::is_preempt_rt,
    pu::trace::{Directions, Whose, Wish},
};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::cause::{counted_by_rules, dropped};

/// Nobody shows it addresses of the kernel, so that nothing is known by its place.
#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_the_collector_does_itself_is_no_drop() -> Result<()> {
    let alone = || -> Result<Finished> {
        let wire = Wire::new()?;
        // Privileges are the thread's own, and of those that it begins.
        let mut held = capabilities(None)?;
        held.effective.remove(CapabilitySet::SYSLOG);
        set_capabilities(None, held)?;
        let collector = Running::start(&wire.a.place, Options { benign_drops: true, ..options() })?;
        let missing = collector.started.missing.join("; ");
        ensure!(missing.contains("without CAP_SYSLOG"), "what hides the names is said: {missing}");
        // It looks at its clocks.
        let wish =
            Wish { whose: Whose::All, directions: Directions::Both, duration: None, every: NonZeroU32::MIN };
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        (0..3).try_for_each(|_| runtime.block_on(collector.started.tracer.enable(wish.clone())))?;
        collector.stop()
    };
    let finished =
        thread::scope(|scope| scope.spawn(alone).join().unwrap_or_else(|cause| panic::resume_unwind(cause)))?;
    let ours: Vec<_> = finished.status.drops.iter().filter(|row| !row.puid.is_empty()).collect();
    assert!(ours.is_empty(), "{ours:#?}");
    assert_explained(&finished);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_drop_in_the_midst_of_another_is_counted_or_said_to_be_skipped() -> Result<()> {
    let wire = Wire::new()?;
    wire.a.place.nft(
        "table inet t { chain o { type filter hook output priority 0; udp dport 6001 counter drop; }; \
         chain i { type filter hook input priority 0; udp dport 6002 counter drop; }; }",
    )?;
    // What is queued here leaves by a timer, in an interrupt, on the CPU that queued it.
    wire.b
        .place
        .run(&format!("tc qdisc add dev {} root tbf rate 20mbit burst 2kb limit 100mb", wire.b.dev))?;
    let collector = Running::start(&wire.a.place, options())?;
    let is_over = AtomicBool::new(false);
    let (tx, rx) = (sender(&wire.a, 4, 40_000)?, sender(&wire.b, 4, 40_000)?);
    let last = listener(&wire.a.place, SocketAddr::new(wire.a.v4.into(), 6003))?;
    last.set_read_timeout(Some(PATIENCE))?;
    thread::scope(|scope| -> Result<()> {
        let process = scope.spawn(|| {
            pin(0)?;
            while !is_over.load(Ordering::Relaxed) {
                let _ = tx.send_to(&[0; 10], (wire.b.v4, 6001));
            }
            Ok::<_, anyhow::Error>(())
        });
        let queued = scope.spawn(|| {
            pin(0)?;
            (0..20_000).try_for_each(|_| rx.send_to(&[0; 100], (wire.a.v4, 6002)).map(drop))?;
            rx.send_to(&[0; 100], (wire.a.v4, 6003))?;
            Ok::<_, anyhow::Error>(())
        });
        queued.join().unwrap_or_else(|cause| panic::resume_unwind(cause))?;
        // The last comes behind all others.
        last.recv(&mut [0; 100])?;
        is_over.store(true, Ordering::Relaxed);
        process.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
    })?;
    let counted = counted_by_rules(&wire.a.place)?;
    let finished = collector.stop()?;
    assert_explained(&finished);
    let skipped = finished.status.ledger.drops_skipped;
    let told = dropped(&finished, "host", &["NETFILTER_DROP"], DropClass::Policy);
    // Linux 6.1 is the first that does not run a program in the midst of itself.
    if !release::is_at_least((6, 1)) {
        assert_eq!((told, skipped), (counted, 0));
        return Ok(());
    }
    assert!(told <= counted, "{counted} counted, {:#?}", finished.status);
    // Under PREEMPT_RT a softirq is a thread, which seldom takes a CPU from who tells of a drop: then each has to be counted.
    assert!(skipped > 0 || is_preempt_rt(), "none came in the midst of another, of {counted}");
    // `skipped` is the kernel's own number. On a machine that does other things meanwhile it is short: runs of the program
    // and misses of it together are fewer than the tracepoint was passed, as ftrace counts that (5 to 115 of 1,000
    // misses on Linux 6.18). Other hosts on this kernel may have had such drops, too, so that it may be more.
    let unsaid = counted.saturating_sub(told + skipped);
    assert!(
        unsaid <= skipped / 2,
        "{unsaid} of {counted} are neither counted nor said to be skipped ({skipped})"
    );
    Ok(())
}
