//! What a packet costs: `cargo bench -p collector-tests --bench datapath -- [--rounds N] [--only PART]`, as root.
//!
//! - [`hot`]: one flow, which holds its slot.
//! - [`flows`]: many flows, whose packets come mixed.
//! - [`first`]: the first packet of a flow, with everything on.
//! - [`filter`]: the packet filter alone.
//! - [`drops`]: a packet that is dropped.
//! - [`storm`]: a million of them a second, and the collector's memory.
//! - [`traced`]: one flow, whose packets are reported.
//! - [`flood`]: what reports of one unit's packets cost another one's drops.
//! - [`xdp`]: the program at XDP.
//! - [`units`]: the daemon with a thousand units.
//! - [`harm`]: TCP over a veth pair, with nothing attached and with each of what can be.
//!
//! Each program is run by `BPF_PROG_TEST_RUN`, beside two of the same object: an empty one, which is what running a
//! program costs at all and is subtracted, and `floor`, the usual way to count flows. Programs take turns within a round,
//! so that whatever else the machine does meets all of them; what is printed are medians over the rounds.
#![expect(clippy::print_stdout, reason = "the tables are what it is for")]

mod drops;
mod filter;
mod first;
mod flood;
mod flows;
mod harm;
mod hot;
mod process;
mod storm;
mod traced;
mod units;
mod walk;
mod xdp;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::ExitCode,
};

use anyhow::ensure;
use aya::programs::{TestRun as _, TestRunOptions};
use collector_tests::{
    Result,
    cgroups::Cgroup,
    frames::Ends,
    measure::Options,
    testrun::{Datapath, PASS_ON, UNIT},
    traffic::pin,
};
use collector_user::kernel::settings::Settings;

fn main() -> Result<ExitCode> {
    if let Some(code) = process::collector() {
        return Ok(code);
    }
    let options = Options::parse(std::env::args().skip(1))?;
    pin(0)?;
    for (part, run) in [
        ("hot", hot::run as fn(usize) -> Result<()>),
        ("flows", flows::run),
        ("first", first::run),
        ("filter", filter::run),
        ("traced", traced::run),
        ("flood", flood::run),
        ("drops", drops::run),
        ("storm", storm::run),
        ("xdp", xdp::run),
        ("units", units::run),
        ("harm", harm::run),
    ] {
        if options.wants(part) {
            run(options.rounds)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// This host, as the programs know it.
const HERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xFD77, 0, 0, 0, 0, 0, 0, 2))];
/// Where sockets wait.
const PORT: u16 = 5_201;

/// To this host.
fn ends(version: u8) -> Ends {
    let [four, six] = HERE;
    let (source, destination) = match version {
        4 => (IpAddr::from([10, 77, 0, 1]), four),
        _ => (IpAddr::from([0xFD77, 0, 0, 0, 0, 0, 0, 1]), six),
    };
    Ends { source, destination, source_port: 40_001, destination_port: PORT }
}

/// With the programs of the bench, and a budget of new flows that nothing here uses up.
fn settings() -> Settings {
    Settings {
        reference_programs: true,
        new_flows_per_second: 10_000_000,
        new_flows_burst: 10_000_000,
        ..Settings::default()
    }
}

/// The programs with these settings, which know a control group if they are given one.
fn load(settings: &Settings, group: Option<&Cgroup>) -> Result<Datapath> {
    let mut datapath = Datapath::load(&Settings { cgroups: group.is_some(), ..settings.clone() })?;
    if let (Some(groups), Some(group)) = (&mut datapath.cgroups, group) {
        groups.set(group.id()?, UNIT)?;
    }
    Ok(datapath)
}

/// Nanoseconds of a run of the program on the frame, over `repeat` runs.
fn run(datapath: &mut Datapath, program: &'static str, frame: &[u8], repeat: u32) -> Result<f64> {
    run_for(datapath, program, PASS_ON, frame, repeat)
}

/// The same of a program that ends with another action.
fn run_for(
    datapath: &mut Datapath,
    program: &'static str,
    action: i32,
    frame: &[u8],
    repeat: u32,
) -> Result<f64> {
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
    let result = datapath.programs.classifier(program)?.test_run(options)?;
    ensure!(result.return_value as i32 == action, "{program} ended with {}", result.return_value as i32);
    Ok(result.duration.as_nanos() as f64)
}
