//! One flow, which holds its slot: a frame, run [`REPEAT`] times in one call; without and with control groups that are
//! known, and with policies that accept it. What loopback carries is never the steady state: each of its packets is counted for both ends.

use std::collections::BTreeMap;

use collector_ebpf::abi::{
    flow::LOOPBACK_BOUNDARY,
    policy::UnitPolicy,
    pu::{Role, index, role},
};
use collector_tests::{
    Result,
    cgroups::Cgroup,
    frames::ACK,
    measure::median,
    testrun::{IFINDEX, uplink},
};
use collector_user::kernel::programs::{EGRESS, INGRESS};

use crate::{HERE, ends, load, settings};

/// Timed runs in one call.
const REPEAT: u32 = 200_000;
/// Runs before those.
const WARM_UP: u32 = 10_000;

const PROGRAMS: [&str; 4] = ["empty", "floor", INGRESS, EGRESS];

pub(crate) fn run(rounds: usize) -> Result<()> {
    // Frames of 64 octets over IPv4, of 84 over IPv6.
    let at_uplink = uplink(index::HOST, 0);
    let on_loopback =
        Role { ifindex: IFINDEX, boundary: LOOPBACK_BOUNDARY, flags: role::LOOPBACK, ..at_uplink };
    let frames = [
        ("TCP/IPv4", at_uplink, ends(4).tcp(ACK, 10)),
        ("TCP/IPv6", at_uplink, ends(6).tcp(ACK, 10)),
        ("UDP/IPv4", at_uplink, ends(4).udp(22)),
        ("loopback", on_loopback, ends(4).udp(22)),
    ];
    let group = Cgroup::unique()?;
    let _inside = group.enter()?;
    let mut datapaths =
        [load(&settings(), None)?, load(&settings(), Some(&group))?, load(&settings(), None)?];
    let [_, _, ruled] = &mut datapaths;
    let accepted = 1;
    ruled.controller.policies().give(index::HOST, UnitPolicy { sets: [1, 1], otherwise: [accepted; 2] })?;
    ruled.controller.hold_policies(1);
    ruled.controller.enforce_policies(true);
    for datapath in &mut datapaths {
        for address in HERE {
            datapath.controller.add_local(address, index::HOST)?;
        }
    }
    let cases: Vec<_> = frames.iter().flat_map(|frame| [0, 1, 2].map(|with| (frame, with))).collect();
    let mut figures = BTreeMap::<(usize, usize), Vec<f64>>::new();
    for _ in 0..rounds {
        for (number, ((_, role, frame), with)) in cases.iter().enumerate() {
            let Some(datapath) = datapaths.get_mut(*with) else { continue };
            datapath.controller.set_role(*role)?;
            datapath.discard()?;
            for (column, program) in PROGRAMS.into_iter().enumerate() {
                datapath.renew()?;
                crate::run(datapath, program, frame, WARM_UP)?;
                let ns = crate::run(datapath, program, frame, REPEAT)?;
                figures.entry((number, column)).or_default().push(ns);
            }
        }
    }
    println!("One flow, ns over an empty program");
    println!(
        "{:<20} {:>8} {:>8} {:>12} {:>12} {:>14}",
        "frame", "empty", "floor", INGRESS, EGRESS, "of floor's"
    );
    for (number, ((name, ..), with)) in cases.iter().enumerate() {
        let with = ["", ", groups", ", policies"].get(*with).copied().unwrap_or_default();
        let name = format!("{name}{with}");
        let mut of = |column| figures.get_mut(&(number, column)).map_or(f64::NAN, |ns| median(ns));
        let empty = of(0);
        let [floor, ingress, egress] = [1, 2, 3].map(|column| of(column) - empty);
        println!(
            "{name:<20} {empty:>8.0} {floor:>8.0} {ingress:>12.0} {egress:>12.0} {:>14.2}",
            ingress / floor
        );
    }
    Ok(())
}
