//! What a unit whose packets are traced, and that sends as fast as it can, costs another unit's reports of drops: they have
//! buffers of their own, but one daemon reads both, and one queue leads to the output. The other end of the wire throws away what comes, as early as it can.

use std::{
    net::{Ipv4Addr, UdpSocket},
    panic, thread,
};

use anyhow::ensure;
use collector_tests::{
    Result,
    lab::{End, Wire},
    measure::median,
    scratch::Scratch,
    traffic::pin,
};
use collector_user::kernel::cpus;
use tokio::time::Instant;

use crate::process::Collector;

/// Packets that each CPU sends for the one.
const FLOOD: u64 = 1_000_000;
/// Packets of the other that a rule drops among them, on one CPU: as many as it may have reports.
const DROPS: u64 = 1000;
const CONFIG: &str = r#"
[[pu]]
id = "quiet"
cidr = ["10.77.0.12/32"]

[limits]
drop-reports-per-second = 1000
"#;
const QUIET: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 12);

/// What came of a round.
struct Round {
    /// Of the drops that were to be reported, those that were not; and those of them that found no room in the kernel's
    /// buffers. In a hundred.
    drops: [f64; 2],
    /// The same of packets that were traced.
    packets: [f64; 2],
    /// Packets a second.
    rate: f64,
}

pub(crate) fn run(rounds: usize) -> Result<()> {
    let wire = Wire::new()?;
    wire.a
        .place
        .nft("table inet t { chain o { type filter hook output priority 0; udp dport 9 drop; }; }")?;
    wire.a.place.ip(&format!("addr add {QUIET}/32 dev {}", wire.a.dev))?;
    wire.b.place.nft(&format!(
        "table netdev t {{ chain i {{ type filter hook ingress device {} priority 0; drop; }}; }}",
        wire.b.dev
    ))?;
    let files = Scratch::new()?;
    let config = files.write("units.toml", CONFIG)?;
    println!(
        "\nReports that are lost while a unit's packets are traced, in a hundred (of them in the kernel's buffers)"
    );
    println!(
        "{:<10} {:>16} {:>16} {:>22}",
        "transport", "another's drops", "its packets", "packets a second, k"
    );
    for (transport, traces) in [("perf", false), ("perf", true), ("ring", true)] {
        let all = (0..rounds)
            .map(|_| {
                let mut arguments =
                    vec!["--config", &config, "--iface", &wire.a.dev, "--transport", transport];
                arguments.extend(if traces { &["--trace", "host:out"][..] } else { &[] });
                round(&wire.a, wire.b.v4, Collector::start(&wire.a.place, &arguments)?)
            })
            .collect::<Result<Vec<_>>>()?;
        let of = |which: &dyn Fn(&Round) -> f64| median(&mut all.iter().map(which).collect::<Vec<_>>());
        let shares = |which: fn(&Round) -> [f64; 2]| {
            format!("{:.1} ({:.1})", of(&|round| which(round)[0]), of(&|round| which(round)[1]))
        };
        println!(
            "{:<10} {:>16} {:>16} {:>22.0}",
            if traces { transport } else { "no trace" },
            shares(|round| round.drops),
            shares(|round| round.packets),
            of(&|round| round.rate) / 1e3
        );
    }
    Ok(())
}

fn round(from: &End, to: Ipv4Addr, collector: Collector) -> Result<Round> {
    let cpus = cpus::online()?;
    let begun = Instant::now();
    thread::scope(|scope| {
        let spawned = cpus.iter().map(|cpu| {
            scope.spawn(move || -> Result<()> {
                pin(*cpu as usize)?;
                let bound = |address| from.place.within(|| Ok(UdpSocket::bind((address, 0))?));
                let (noisy, quiet) = (bound(from.v4)?, bound(QUIET)?);
                for number in 0..FLOOD {
                    noisy.send_to(&[0; 100], (to, 5004))?;
                    if *cpu == 0 && number % (FLOOD / DROPS) == 0 {
                        // That a rule refuses it is told to the sender.
                        let _ = quiet.send_to(&[0; 10], (to, 9));
                    }
                }
                Ok(())
            })
        });
        let all: Vec<_> = spawned.collect();
        all.into_iter().try_for_each(|one| one.join().unwrap_or_else(|cause| panic::resume_unwind(cause)))
    })?;
    let sent = FLOOD * cpus.len() as u64;
    let rate = sent as f64 / begun.elapsed().as_secs_f64();
    let (status, dropped) = collector.stop()?;
    let ledger = status.ledger;
    ensure!(
        ledger.traced == ledger.traced_explained() && (ledger.traced == 0 || ledger.traced >= sent),
        "{ledger:?}"
    );
    ensure!(ledger.drops_of_units == ledger.drops_explained(), "{ledger:?}");
    ensure!(ledger.drops_of_units + ledger.drops_skipped >= DROPS, "{ledger:?}");
    ensure!(ledger.drop_reports_held_back == 0, "all have a report: {ledger:?}");
    let share = |lost: u64, of: u64| 100.0 * lost as f64 / of.max(1) as f64;
    let queues: u64 = ledger.queue_full.values().sum();
    let failed = ledger.output_failed + ledger.packets_lost;
    Ok(Round {
        drops: [ledger.drops_of_units - dropped, ledger.drop_reports_failed]
            .map(|lost| share(lost, ledger.drops_of_units)),
        packets: [failed + queues, failed].map(|lost| share(lost, ledger.traced)),
        rate,
    })
}
