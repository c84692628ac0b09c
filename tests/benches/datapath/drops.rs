//! A packet that the kernel drops, by a rule, in a storm; reports are held back but for a few.

use std::net::{IpAddr, UdpSocket};

use aya::sys::{Stats, enable_stats};
use collector_ebpf::abi::pu::index;
use collector_tests::{Result, lab::Wire, measure::median};
use collector_user::kernel::{control::Controller, object, requirements::ticks_per_second};

use crate::settings;

/// Packets that are dropped in a round.
const STORM: u64 = 200_000;

pub(crate) fn run(rounds: usize) -> Result<()> {
    let wire = Wire::new()?;
    println!("A drop in a storm, ns over an empty program on the same tracepoint");
    wire.a.place.within(|| {
        let loaded = object::load(&settings())?;
        let (mut programs, mut controller) =
            (loaded.programs, Controller::new(loaded.control, ticks_per_second()?)?);
        // Both hang there at once: each drop runs both, and what the kernel adds to a run is in both numbers.
        programs.attach_empty_drops()?;
        programs.attach_drops()?;
        let _stats = enable_stats(Stats::RunTime)?;
        wire.a
            .place
            .nft("table inet t { chain o { type filter hook output priority 0; udp dport 9 drop; }; }")?;
        let socket = UdpSocket::bind((wire.a.v4, 40_000))?;
        // What finds none of its addresses has been looked for in every way.
        for (whose, own) in [("nobody's", false), ("the host's", true)] {
            if own {
                controller.add_local(wire.a.v4.into(), index::HOST)?;
            }
            let mut figures = [Vec::new(), Vec::new()];
            for _ in 0..rounds {
                let before = programs.drop_runs()?;
                for _ in 0..STORM {
                    // The sender hears of it.
                    let _ = socket.send_to(&[0; 18], (IpAddr::V4(wire.b.v4), 9));
                }
                let after = programs.drop_runs()?;
                for ((of, before), after) in figures.iter_mut().zip(before).zip(after) {
                    of.push((after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64);
                }
            }
            let [ours, empty] = figures.map(|mut figures| median(&mut figures));
            println!("{whose:<20} {:>8.0}   (of {ours:.0}, the empty one {empty:.0})", ours - empty);
        }
        Ok(())
    })
}
