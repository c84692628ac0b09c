//! Generated frames, read by the loaded programs and by the parser in user space: the same flows, the same octets, the
//! same reasons. That the parser reads them right is shown without the kernel, against another project's.

use std::cell::{Cell, RefCell};

use anyhow::{Context as _, bail};
use collector_ebpf::{abi::pu::role, wire::Link};
use collector_tests::{
    Result, generated,
    reading::Reading,
    testrun::{Counted, Datapath, Hook, own},
};
use collector_user::kernel::settings::Settings;
use proptest::{
    collection,
    prelude::{ProptestConfig, any},
    test_runner::{FileFailurePersistence, TestCaseError, TestRunner},
};

/// Frames of a run, unless the environment says another number (`FRAMES`).
const FRAMES: u32 = 200_000;
/// Frames between two drains, more or less.
const BATCH: u32 = 1_000;
/// The kernel runs no program on a frame of less than an Ethernet header, or on one of IP without an IP header.
const SHORTEST: usize = 14 + 40;
/// What this test has failed at before; a file that comes with the first failure. A guest has none, and keeps none.
const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/differential_kernel.txt");

/// A frame, and how it crosses its interface.
#[derive(Debug)]
struct Crossing {
    hook: Hook,
    link: Link,
    bytes: Vec<u8>,
}

impl Crossing {
    /// `None` where the kernel runs no program on it.
    fn new(arrives: bool, choices: &[u8]) -> Option<Self> {
        let (link, bytes) = generated::frame(choices);
        // Of what comes in without a link layer the programs ask the kernel where IP begins, and in a run by hand it says that
        // it begins behind an Ethernet header.
        let hook = if arrives && link == Link::Ethernet { Hook::Ingress } else { Hook::Egress };
        (bytes.len() >= SHORTEST).then_some(Self { hook, link, bytes })
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn the_programs_read_generated_frames_as_the_parser_does() -> Result<()> {
    let frames = std::env::var("FRAMES").map_or(Ok(FRAMES), |number| number.parse())?;
    // A later fragment is by itself, as the parser has it.
    let datapath = Datapath::load(&Settings { fragment_seconds: 0, ..Settings::default() })?;
    let datapath = RefCell::new(datapath);
    let config = ProptestConfig {
        cases: frames.div_ceil(BATCH),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(SEEDS))),
        // As many as leave one frame of a batch, and some for that one.
        max_shrink_iters: 4 * BATCH,
        ..ProptestConfig::default()
    };
    let batches =
        collection::vec((any::<bool>(), collection::vec(any::<u8>(), 0..60)), 1..2 * BATCH as usize);
    let [run, parsed] = [Cell::new(0), Cell::new(0)];
    let result = TestRunner::new(config).run(&batches, |batch| {
        let crossings: Vec<_> =
            batch.iter().filter_map(|(arrives, choices)| Crossing::new(*arrives, choices)).collect();
        let (want, found) = both(&mut datapath.borrow_mut(), &crossings)
            .map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        if found != want {
            let said = |it: &Reading| format!("{:?} {:?}", it.reasons(), it.flows);
            let (want, found) = (said(&want), said(&found));
            let why = format!("the parser {want}, the programs {found}: {crossings:02x?}");
            return Err(TestCaseError::fail(why));
        }
        let count = crossings.len() as u64;
        run.set(run.get() + count);
        parsed.set(parsed.get() + count - want.unparsed.iter().sum::<u64>());
        Ok(())
    });
    if let Err(error) = result {
        bail!("{error}");
    }
    let (run, parsed) = (run.get(), parsed.get());
    assert!(parsed > run / 2 && parsed < run, "{parsed} of {run} frames were understood");
    Ok(())
}

/// What the parser makes of frames, and what the programs do.
fn both(datapath: &mut Datapath, crossings: &[Crossing]) -> Result<(Reading, Reading)> {
    // Frames before may have failed in the midst.
    datapath.begin_anew(&[].into())?;
    let mut want = Reading::default();
    for link in [Link::Ethernet, Link::RawIp] {
        let mut role = own();
        if link == Link::RawIp {
            role.flags |= role::RAW_IP;
        }
        datapath.controller.set_role(role)?;
        for Crossing { hook, bytes, .. } in crossings.iter().filter(|it| it.link == link) {
            want.add_at(*hook, link, bytes)?;
            datapath.run(*hook, bytes).with_context(|| format!("{bytes:02x?}"))?;
        }
    }
    let found = Reading::counted(datapath)?;
    datapath.begin_anew(&found.flows.keys().map(|id| (*id, Counted::default())).collect())?;
    Ok((want, found))
}
