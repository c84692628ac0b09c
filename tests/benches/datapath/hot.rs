//! One flow, which holds its slot: a frame, run [`REPEAT`] times in one call.

use std::collections::BTreeMap;

use collector_ebpf::abi::pu::index;
use collector_tests::{
    Result,
    frames::ACK,
    measure::median,
    testrun::{Datapath, uplink},
};
use collector_user::kernel::programs::{EGRESS, INGRESS};

use crate::{HERE, ends, settings};

/// Timed runs in one call.
const REPEAT: u32 = 200_000;
/// Runs before those.
const WARM_UP: u32 = 10_000;

const PROGRAMS: [&str; 4] = ["empty", "floor", INGRESS, EGRESS];

pub(crate) fn run(rounds: usize) -> Result<()> {
    // Frames of 64 octets over IPv4, of 84 over IPv6.
    let cases = [
        ("TCP/IPv4", ends(4).tcp(ACK, 10)),
        ("TCP/IPv6", ends(6).tcp(ACK, 10)),
        ("UDP/IPv4", ends(4).udp(22)),
    ];
    let mut datapath = Datapath::load(&settings())?;
    datapath.controller.set_role(uplink(index::HOST, 0))?;
    for address in HERE {
        datapath.controller.add_local(address, index::HOST)?;
    }
    let mut figures = BTreeMap::<(usize, usize), Vec<f64>>::new();
    for _ in 0..rounds {
        for (number, (_, frame)) in cases.iter().enumerate() {
            for (column, program) in PROGRAMS.into_iter().enumerate() {
                datapath.renew()?;
                crate::run(&mut datapath, program, frame, WARM_UP)?;
                let ns = crate::run(&mut datapath, program, frame, REPEAT)?;
                figures.entry((number, column)).or_default().push(ns);
            }
        }
    }
    println!("One flow, ns over an empty program");
    println!(
        "{:<10} {:>8} {:>8} {:>12} {:>12} {:>14}",
        "frame", "empty", "floor", INGRESS, EGRESS, "of floor's"
    );
    for (number, (name, _)) in cases.iter().enumerate() {
        let mut of = |column| figures.get_mut(&(number, column)).map_or(f64::NAN, |ns| median(ns));
        let empty = of(0);
        let [floor, ingress, egress] = [1, 2, 3].map(|column| of(column) - empty);
        println!(
            "{name:<10} {empty:>8.0} {floor:>8.0} {ingress:>12.0} {egress:>12.0} {:>14.2}",
            ingress / floor
        );
    }
    Ok(())
}
