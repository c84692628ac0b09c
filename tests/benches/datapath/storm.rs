//! A storm of drops on all CPUs at once, beside a collector that is a process of its own: how many a second there are, what
//! one costs in the kernel, and what memory the collector has meanwhile.
//!
//! What makes most drops for what it costs itself: a datagram of 64 parts, which is cut behind the queue, and none of whose
//! parts the other end of the wire takes. The kernel drops each where it is sent.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    panic, thread,
};

use anyhow::ensure;
use aya::sys::{Stats, enable_stats};
use collector_tests::{
    Result,
    lab::{End, Wire},
    measure::median,
    traffic::{pin, sender},
};
use collector_user::kernel::{cpus, object};
use tokio::time::Instant;

use crate::{
    process::{Collector, Memory},
    settings,
};

/// Parts of a datagram: as many as Linux takes (before 6.9).
const PARTS: usize = 64;
/// Packets that each CPU has dropped in a round.
const EACH: u64 = 2_000_000 / PARTS as u64 * PARTS as u64;
/// Octets of payload of each.
const SIZE: usize = 64;
/// The least that an interface may say that it takes, and less than a part is.
const MTU: usize = 68;

pub(crate) fn run(rounds: usize) -> Result<()> {
    let wire = Wire::new()?;
    wire.a.place.run(&format!("ethtool -K {} tx-udp-segmentation off", wire.a.dev))?;
    wire.b.place.ip(&format!("link set {} mtu {MTU}", wire.b.dev))?;
    let storm = Storm { from: &wire.a, to: wire.b.at(4, 9), cpus: cpus::online()? };
    println!("\nA storm of drops on {} CPUs: drops a second, in millions", storm.cpus.len());
    let rates = |storm: &Storm<'_>| (0..rounds).map(|_| storm.blow()).collect::<Result<Vec<_>>>();
    let tell = |name: &str, mut rates: Vec<f64>| println!("{name:<28} {:>8.2}", median(&mut rates) / 1e6);
    tell("nothing is attached", rates(&storm)?);

    let collector = Collector::start(&wire.a.place, &["--iface", &wire.a.dev])?;
    collector.forget_most()?;
    let before = collector.memory()?;
    let mut with = vec![storm.blow()?];
    let first = collector.memory()?;
    for _ in 1..rounds {
        with.push(storm.blow()?);
    }
    tell("a collector runs", with);

    let mut programs = wire.a.place.within(|| Ok(object::load(&settings())?.programs))?;
    programs.attach_empty_drops()?;
    let _stats = enable_stats(Stats::RunTime)?;
    let mut figures = [Vec::new(), Vec::new()];
    let mut timed = Vec::new();
    for _ in 0..rounds {
        let mut runs = || Ok::<_, anyhow::Error>([collector.drop_runs()?, programs.drop_runs()?[1]]);
        let before = runs()?;
        timed.push(storm.blow()?);
        let after = runs()?;
        for ((of, before), after) in figures.iter_mut().zip(before).zip(after) {
            of.push((after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64);
        }
    }
    tell("and each run is timed", timed);
    let last = collector.memory()?;
    let made = storm.drops() * 2 * rounds as u64;
    let ledger = collector.stop()?.0.ledger;
    ensure!(
        ledger.drops_of_units + ledger.drops_skipped >= made,
        "{made} packets were dropped, but {ledger:?}"
    );
    let [ours, empty] = figures.map(|mut figures| median(&mut figures));
    println!(
        "A drop in it, ns over an empty program: {:.0}   (of {ours:.0}, the empty one {empty:.0})",
        ours - empty
    );
    println!("The collector's memory, MB");
    for (when, drops, memory) in [
        ("before", 0, before.now),
        ("after the first round", storm.drops(), first.now),
        ("after the last", made, last.now),
        ("the most meanwhile", made, last.most),
    ] {
        println!(
            "{when:<28} {:>8.1}   after {:.1} million drops",
            Memory::megabytes(memory),
            drops as f64 / 1e6
        );
    }
    println!(
        "Told of them {}, held back {}, found no room {}; not run {}",
        ledger.drop_reports, ledger.drop_reports_held_back, ledger.drop_reports_failed, ledger.drops_skipped
    );
    Ok(())
}

struct Storm<'a> {
    from: &'a End,
    to: SocketAddr,
    cpus: Vec<u32>,
}

impl Storm<'_> {
    /// Packets that are dropped in a round.
    const fn drops(&self) -> u64 {
        EACH * self.cpus.len() as u64
    }

    /// One round of it; drops a second.
    fn blow(&self) -> Result<f64> {
        let begun = Instant::now();
        thread::scope(|scope| {
            let spawned = self.cpus.iter().map(|cpu| scope.spawn(|| self.send_on(*cpu as usize)));
            let all: Vec<_> = spawned.collect();
            all.into_iter()
                .try_for_each(|sender| sender.join().unwrap_or_else(|cause| panic::resume_unwind(cause)))
        })?;
        Ok(self.drops() as f64 / begun.elapsed().as_secs_f64())
    }

    fn send_on(&self, cpu: usize) -> Result<()> {
        pin(cpu)?;
        let socket = sender(self.from, 4, 0)?;
        send_in_parts(&socket, SIZE)?;
        let datagram = [0; PARTS * SIZE];
        for _ in 0..EACH / PARTS as u64 {
            // The sender may hear of it.
            let _ = socket.send_to(&datagram, self.to);
        }
        Ok(())
    }
}

/// What the socket sends is cut into datagrams of so many octets.
fn send_in_parts(socket: &UdpSocket, octets: usize) -> Result<()> {
    let octets = libc::c_int::try_from(octets)?;
    // SAFETY: the value is as long as is said.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const octets).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    ensure!(set == 0, "UDP_SEGMENT: {}", std::io::Error::last_os_error());
    Ok(())
}
