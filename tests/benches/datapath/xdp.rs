//! The program at XDP on one frame, over an empty one there: what is done of each packet is to read it, to remember whose its
//! destination is, and to say so.

use std::collections::BTreeMap;

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use collector_ebpf::abi::pu::index;
use collector_tests::{
    Result,
    frames::{ACK, ICMP, icmp},
    measure::median,
    testrun::{Datapath, XDP_PASS, own, uplink},
};
use collector_user::kernel::settings::Settings;

use crate::{HERE, ends, settings};

const REPEAT: u32 = 1_000_000;

pub(crate) fn run(rounds: usize) -> Result<()> {
    let mut datapath = Datapath::load(&Settings { xdp: true, ..settings() })?;
    for address in HERE {
        datapath.controller.add_local(address, index::HOST)?;
    }
    let by_address = uplink(index::HOST, 0);
    let cases = [
        ("TCP/IPv4", ends(4).tcp(ACK, 10), by_address),
        ("TCP/IPv6", ends(6).tcp(ACK, 10), by_address),
        ("ICMP/IPv4", ends(4).frame(ICMP, &icmp(8, 0)), by_address),
        ("TCP/IPv4, no address asked", ends(4).tcp(ACK, 10), own()),
    ];
    let mut figures = BTreeMap::<usize, Vec<f64>>::new();
    for _ in 0..rounds {
        for (number, (_, frame, role)) in cases.iter().enumerate() {
            datapath.renew()?;
            datapath.controller.set_role(*role)?;
            let ours = time(datapath.programs.xdp()?, frame)?;
            let empty = time(datapath.programs.xdp_empty()?, frame)?;
            figures.entry(number).or_default().push(ours - empty);
        }
    }
    println!("\nThe program at XDP, ns of a packet over an empty program there");
    for (number, (name, ..)) in cases.iter().enumerate() {
        println!("{name:<30} {:>8.0}", figures.get_mut(&number).map_or(f64::NAN, |ns| median(ns)));
    }
    Ok(())
}

fn time(program: &Xdp, frame: &[u8]) -> Result<f64> {
    let options = TestRunOptions { data_in: Some(frame), repeat: REPEAT, ..TestRunOptions::default() };
    let result = program.test_run(options)?;
    anyhow::ensure!(result.return_value == XDP_PASS, "it ended with {}", result.return_value);
    Ok(result.duration.as_nanos() as f64)
}
