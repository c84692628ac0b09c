//! The program at XDP on one frame, over an empty one there: what is done of each packet is to read it, to remember whose its
//! destination is, and to say so; or, of a flow that is rejected, to count it and to drop it, as TC does.

use std::collections::BTreeMap;

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use collector_ebpf::abi::{policy::UnitPolicy, pu::index};
use collector_tests::{
    Result,
    frames::{ACK, ICMP, icmp},
    measure::median,
    policies,
    testrun::{Datapath, Hook, UNIT, XDP_PASS, own, uplink},
};
use collector_user::kernel::{drops::DropLimits, programs::INGRESS, settings::Settings};

use crate::{HERE, ends, run_for, settings};

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
            let ours = time(datapath.programs.xdp()?, XDP_PASS, frame)?;
            let empty = time(datapath.programs.xdp_empty()?, XDP_PASS, frame)?;
            figures.entry(number).or_default().push(ours - empty);
        }
    }
    println!("\nThe program at XDP, ns of a packet over an empty program there");
    for (number, (name, ..)) in cases.iter().enumerate() {
        println!("{name:<30} {:>8.0}", figures.get_mut(&number).map_or(f64::NAN, |ns| median(ns)));
    }
    dropped(rounds)
}

/// `XDP_DROP` and `TC_ACT_SHOT`.
const XDP_DROP: u32 = 1;
const SHOT: i32 = 2;

/// A packet of a flow that is rejected, at either place. What TC drops is counted among the drops by another program, in the
/// kernel's own time; at XDP it is all one.
fn dropped(rounds: usize) -> Result<()> {
    println!(
        "\nA packet that a policy rejects, ns over an empty program: at TC, at XDP, there with drops counted"
    );
    for version in [4, 6] {
        let frame = ends(version).udp(18);
        let (mut without, mut with) = (load(None, &frame)?, load(Some(DropLimits::default()), &frame)?);
        let mut figures = [const { Vec::new() }; 3];
        for _ in 0..rounds {
            without.renew()?;
            with.renew()?;
            let tc = run_for(&mut without, INGRESS, SHOT, &frame, REPEAT)?
                - crate::run(&mut without, "empty", &frame, REPEAT)?;
            let round = [tc, refuse(&mut without, &frame)?, refuse(&mut with, &frame)?];
            for (figures, ns) in figures.iter_mut().zip(round) {
                figures.push(ns);
            }
        }
        let [tc, xdp, counted] = figures.each_mut().map(|ns| median(ns));
        println!("{:<30} {tc:>8.0} {xdp:>8.0} {counted:>8.0}", format!("UDP/IPv{version}"));
    }
    Ok(())
}

/// The programs, which have rejected the frame once.
fn load(drops: Option<DropLimits>, frame: &[u8]) -> Result<Datapath> {
    let mut datapath = Datapath::load(&Settings { xdp: true, drops, ..settings() })?;
    let otherwise = policies::dropped(1);
    datapath.controller.policies().give(UNIT, UnitPolicy { sets: [1, 0], otherwise: [otherwise, 0] })?;
    datapath.controller.hold_policies(1);
    datapath.controller.enforce_policies(true);
    anyhow::ensure!(datapath.run(Hook::Ingress, frame)?.action == SHOT, "it was not rejected");
    Ok(datapath)
}

/// A frame that is dropped at XDP, over one that passes an empty program there.
fn refuse(datapath: &mut Datapath, frame: &[u8]) -> Result<f64> {
    let ours = time(datapath.programs.xdp()?, XDP_DROP, frame)?;
    Ok(ours - time(datapath.programs.xdp_empty()?, XDP_PASS, frame)?)
}

fn time(program: &Xdp, action: u32, frame: &[u8]) -> Result<f64> {
    let options = TestRunOptions { data_in: Some(frame), repeat: REPEAT, ..TestRunOptions::default() };
    let result = program.test_run(options)?;
    anyhow::ensure!(result.return_value == action, "it ended with {}", result.return_value);
    Ok(result.duration.as_nanos() as f64)
}
