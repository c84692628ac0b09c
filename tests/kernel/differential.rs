//! Generated frames, read by the loaded programs and by the parser in user space: the same flows, the same octets, the
//! same reasons. That the parser reads them right is shown without the kernel, against another project's.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, bail};
use collector_ebpf::{
    abi::{
        counter::{UNPARSED_REASONS, Unparsed},
        flow::TX,
    },
    wire::{self, Addresses, Frame, Link},
};
use collector_tests::{
    Result, generated,
    testrun::{Counted, Datapath, Hook},
};
use collector_user::{drain::flow::FlowId, kernel::settings::Settings};
use proptest::{
    collection,
    prelude::any,
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};

/// Frames of a run, unless the environment says another number (`FRAMES`).
const FRAMES: usize = 20_000;
/// Frames between two drains.
const BATCH: usize = 1_000;
/// Octets of a packet that the programs look at, where its headers are not of the common form.
const SHOWN: usize = 256;
/// The kernel runs no program on a frame of less than an Ethernet header, or on one of IP without an IP header.
const SHORTEST: usize = 14 + 40;

/// What a batch comes to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    /// Packets and octets by flow.
    flows: BTreeMap<FlowId, (u64, u64)>,
    /// Frames by reason.
    unparsed: [u64; UNPARSED_REASONS],
}

impl Read {
    /// Adds what the parser says of a frame that leaves.
    fn add(&mut self, bytes: &[u8]) -> Result<()> {
        let shown = &bytes[..bytes.len().min(SHOWN)];
        let frame = Frame { length: u32::try_from(bytes.len())?, gso: false };
        match wire::parse(&shown, Link::Ethernet, frame) {
            Ok(packet) => {
                let (local, remote): (IpAddr, IpAddr) = match packet.addresses {
                    Addresses::V4(one, other) => (Ipv4Addr::from(one).into(), Ipv4Addr::from(other).into()),
                    Addresses::V6(one, other) => (Ipv6Addr::from(one).into(), Ipv6Addr::from(other).into()),
                };
                let [s0, s1, d0, d1] = packet.transport.ports;
                let id = FlowId {
                    local,
                    remote,
                    local_port: u16::from_be_bytes([s0, s1]),
                    remote_port: u16::from_be_bytes([d0, d1]),
                    boundary: packet.vlan,
                    protocol: packet.transport.protocol,
                    ports: packet.transport.kind,
                };
                let (packets, octets) = self.flows.entry(id).or_default();
                *packets += 1;
                *octets += bytes.len() as u64;
            }
            Err(reason) => self.unparsed[reason as usize] += 1,
        }
        Ok(())
    }
}

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
        let mut want = Read::default();
        for bytes in &batch {
            want.add(bytes)?;
            datapath.run(Hook::Egress, bytes).with_context(|| format!("{bytes:02x?}"))?;
        }
        let deltas = datapath.deltas()?;
        let mut found = Read { unparsed: datapath.ledger()?.unparsed, ..Read::default() };
        for delta in &deltas {
            let (packets, octets) = found.flows.entry(delta.id).or_default();
            *packets += delta.packets[TX];
            *octets += delta.bytes[TX];
        }
        if found != want {
            first_difference(&mut datapath, &batch)?;
            bail!("batches differ, but no frame by itself does");
        }
        run += batch.len();
        parsed += BATCH - usize::try_from(want.unparsed.iter().sum::<u64>())?;
        datapath.begin_anew(&deltas.iter().map(|delta| (delta.id, Counted::default())).collect())?;
    }
    assert!(parsed > run / 2 && parsed < run, "{parsed} of {run} frames were understood");
    Ok(())
}

/// Runs the frames of a batch one by one, and fails at the first that is read in two ways.
fn first_difference(datapath: &mut Datapath, batch: &[Vec<u8>]) -> Result<()> {
    for bytes in batch {
        datapath.begin_anew(&[].into())?;
        let mut want = Read::default();
        want.add(bytes)?;
        datapath.run(Hook::Egress, bytes)?;
        let flows =
            datapath.deltas()?.into_iter().map(|it| (it.id, (it.packets[TX], it.bytes[TX]))).collect();
        let found = Read { unparsed: datapath.ledger()?.unparsed, flows };
        let reasons = |read: &Read| -> Vec<_> {
            Unparsed::ALL.iter().zip(read.unparsed).filter(|(_, count)| *count != 0).collect()
        };
        assert_eq!((reasons(&found), &found.flows), (reasons(&want), &want.flows), "{bytes:02x?}");
    }
    Ok(())
}
