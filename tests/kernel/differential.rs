//! Generated frames, read by the loaded programs and by the parser in user space: the same flows, the same octets, the
//! same reasons. That the parser reads them right is shown without the kernel, against another project's.

use anyhow::{Context as _, bail};
use collector_ebpf::wire::Link;
use collector_tests::{
    Result, generated,
    reading::Reading,
    testrun::{Counted, Datapath, Hook},
};
use collector_user::kernel::settings::Settings;
use proptest::{
    collection,
    prelude::any,
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};

/// Frames of a run, unless the environment says another number (`FRAMES`).
const FRAMES: usize = 200_000;
/// Frames between two drains.
const BATCH: usize = 1_000;
/// The kernel runs no program on a frame of less than an Ethernet header, or on one of IP without an IP header.
const SHORTEST: usize = 14 + 40;

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn the_programs_read_generated_frames_as_the_parser_does() -> Result<()> {
    let frames = std::env::var("FRAMES").map_or(Ok(FRAMES), |number| number.parse())?;
    // A later fragment is by itself, as the parser has it.
    let mut datapath = Datapath::load(&Settings { fragment_seconds: 0, ..Settings::default() })?;
    let mut runner = TestRunner::default();
    let choices = collection::vec(any::<u8>(), 0..60);
    let [mut run, mut parsed] = [0, 0];
    while run < frames {
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            let choices = choices.new_tree(&mut runner).map_err(anyhow::Error::msg)?.current();
            if let (Link::Ethernet, bytes) = generated::frame(&choices)
                && bytes.len() >= SHORTEST
            {
                batch.push(bytes);
            }
        }
        let mut want = Reading::default();
        for bytes in &batch {
            want.add(bytes)?;
            datapath.run(Hook::Egress, bytes).with_context(|| format!("{bytes:02x?}"))?;
        }
        let found = Reading::counted(&mut datapath)?;
        if found != want {
            first_difference(&mut datapath, &batch)?;
            bail!("batches differ, but no frame by itself does");
        }
        run += batch.len();
        parsed += BATCH - usize::try_from(want.unparsed.iter().sum::<u64>())?;
        datapath.begin_anew(&found.flows.keys().map(|id| (*id, Counted::default())).collect())?;
    }
    assert!(parsed > run / 2 && parsed < run, "{parsed} of {run} frames were understood");
    Ok(())
}

/// Runs the frames of a batch one by one, and fails at the first that is read in two ways.
fn first_difference(datapath: &mut Datapath, batch: &[Vec<u8>]) -> Result<()> {
    for bytes in batch {
        datapath.begin_anew(&[].into())?;
        let mut want = Reading::default();
        want.add(bytes)?;
        datapath.run(Hook::Egress, bytes)?;
        let found = Reading::counted(datapath)?;
        assert_eq!((found.reasons(), &found.flows), (want.reasons(), &want.flows), "{bytes:02x?}");
    }
    Ok(())
}
