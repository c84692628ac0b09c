//! What a thousand units cost the daemon: its memory, and its CPU while nothing happens and while each of them sends; and what
//! ten policies of each cost it besides, which are loaded at the start.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    panic,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use collector_tests::{
    PATIENCE, Result,
    cgroups::{Cgroup, Guest},
    collector::declared,
    lab::{End, Wire},
    measure::median,
    netns::unique,
    talk::asker,
    traffic::Host,
};
use collector_user::{
    collector::EventCollector,
    config::Discover,
    daemon::{self, Options},
    event::{
        ContainerRecord, CounterReport, DnsRequestReport, FlowRecord, PacketReport, PingReport, UserRecord,
    },
    policy::rule::{Action, Observe, Policy, Ports, Remote, Rule, Selector, Service},
    pu::trace::Directions,
};
use rustix::time::{ClockId, clock_gettime};
use tokio::{sync::oneshot, time::Instant};

const UNITS: u16 = 1000;
/// Reports of counters, one a second, over which its CPU is measured.
const SECONDS: usize = 5;
const PORT: u16 = 5004;

/// What they are.
#[derive(Clone, Copy)]
enum Kind {
    None,
    /// Declared, each by an address of the host, with so many policies.
    Declared(u16),
    /// Services, each with a process and a socket.
    Found,
}

/// What the daemon took.
struct Taken {
    /// Until it counts.
    start: Duration,
    /// Octets of its process more than before it.
    memory: u64,
    /// Of a CPU, in a second.
    idle: Duration,
    /// The same, while each unit sends a datagram in each second.
    busy: Duration,
}

pub(crate) fn run(rounds: usize) -> Result<()> {
    println!("\n{UNITS} units: start in ms, MB of memory, ms of a CPU in each second");
    println!("{:<24} {:>8} {:>8} {:>8} {:>8}", "units", "start", "memory", "idle", "sending");
    for (name, kind) in [
        ("none", Kind::None),
        ("declared, by address", Kind::Declared(0)),
        ("with 10,000 policies", Kind::Declared(10)),
        ("found, services", Kind::Found),
    ] {
        let taken = (0..rounds).map(|_| measure(kind)).collect::<Result<Vec<_>>>()?;
        // What an allocator has kept of a round would hide what the next one takes.
        let memory = taken.first().map_or(0, |first| first.memory);
        let ms = |of: fn(&Taken) -> Duration| {
            median(&mut taken.iter().map(|it| of(it).as_secs_f64() * 1e3).collect::<Vec<_>>())
        };
        println!(
            "{name:<24} {:>8.0} {:>8.1} {:>8.1} {:>8.1}",
            ms(|it| it.start),
            memory as f64 / 1e6,
            ms(|it| it.idle),
            ms(|it| it.busy)
        );
    }
    Ok(())
}

/// Where a unit's socket is.
fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 99, high, low)
}

/// It accepts a port of a network of its own.
fn policy_of(unit: u16, number: u16) -> Result<Policy> {
    let [high, low] = unit.to_be_bytes();
    Ok(Policy {
        selector: Selector { units: vec![format!("u{unit}").parse()?], ..Selector::default() },
        directions: Directions::Both,
        rule: Arc::new(Rule {
            id: format!("p{unit}-{number}").into(),
            remote: Remote { cidr: vec![format!("10.{high}.{low}.0/24").parse()?], networks: Vec::new() },
            service: Service { protocol: Some(6), ports: vec![Ports::one(1000 + number)] },
            action: Action::Accept { encrypt: false },
            log: false,
            observe: Observe::None,
        }),
    })
}

fn measure(kind: Kind) -> Result<Taken> {
    let wire = Wire::new()?;
    let host = Host::new(&wire.b, &[PORT])?;
    let to = host.address(4, PORT);
    let mut options = Options { counter_interval: Duration::from_secs(1), ..Options::default() };
    options.discover = if matches!(kind, Kind::Found) { Discover::On } else { Discover::Off };
    let (mut groups, mut sockets) = (Vec::new(), Vec::new());
    match kind {
        Kind::None => {}
        Kind::Declared(policies) => {
            wire.a.place.ip("route add local 10.99.0.0/16 dev lo table local")?;
            wire.b.place.ip(&format!("route add 10.99.0.0/16 via {}", wire.a.v4))?;
            for number in 1..=UNITS {
                options.units.push(declared(
                    &format!("u{number}"),
                    &[],
                    &[format!("{}/32", address(number))],
                )?);
                for policy in 0..policies {
                    options.policies.push(policy_of(number, policy)?);
                }
                sockets.push(asker(&wire.a.place, (address(number), 40_000).into(), to)?);
            }
        }
        Kind::Found => {
            let slice = format!("{}.slice", unique("ct").replace('.', "_"));
            for number in 0..UNITS {
                let group = Cgroup::new(&format!("{slice}/u{number}.service"))?;
                let from = SocketAddr::from((wire.a.v4, 20_000 + number));
                sockets.push(group.within(|| asker(&wire.a.place, from, to))?);
                groups.push((Guest::enter(group.directory())?, group));
            }
        }
    }
    let taken = watch(&wire.a, &options, &sockets);
    drop(groups);
    taken
}

/// Runs the daemon, idle for as long as it is then sent through.
fn watch(end: &End, options: &Options, sockets: &[UdpSocket]) -> Result<Taken> {
    thread::scope(|scope| {
        let (stop, stopped) = oneshot::channel::<()>();
        let (say, hear) = mpsc::channel();
        let (tick, ticks) = mpsc::channel();
        let place = end.place.clone();
        let (before, begun) = (memory()?, Instant::now());
        let daemon = scope.spawn(move || -> Result<()> {
            let _guard = place.enter()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let shutdown = async {
                // A sender that is dropped means the same.
                let _ = stopped.await;
            };
            let clock = Clock { tick, reports: AtomicU64::new(0) };
            runtime.block_on(daemon::run(options, &clock, shutdown, |_| {
                let _ = say.send(());
            }))?;
            Ok(())
        });
        let taken = (|| {
            hear.recv_timeout(PATIENCE)?;
            let start = begun.elapsed();
            let next = || ticks.recv_timeout(PATIENCE).context("counters are reported each second");
            // What there is at the start is told in the first.
            let first = next()?;
            for _ in 1..SECONDS {
                next()?;
            }
            let quiet = next()?;
            for _ in 1..SECONDS {
                sockets.iter().try_for_each(|socket| socket.send(b"?").map(drop))?;
                next()?;
            }
            let last = next()?;
            let each = |begin: Tick, end: Tick| {
                end.cpu.saturating_sub(begin.cpu).div_f64((end.at - begin.at).as_secs_f64())
            };
            ensure!(
                last.reports - quiet.reports >= sockets.len() as u64 * (SECONDS as u64 - 1),
                "each unit has its counters in each second"
            );
            let memory = memory()?.saturating_sub(before);
            Ok(Taken { start, memory, idle: each(first, quiet), busy: each(quiet, last) })
        })();
        drop(stop);
        daemon.join().unwrap_or_else(|cause| panic::resume_unwind(cause))?;
        taken
    })
}

/// Octets of this process that are in memory.
fn memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages = text.split(' ').nth(1).context("statm has the resident pages")?;
    Ok(pages.parse::<u64>()? * rustix::param::page_size() as u64)
}

/// A moment in which counters were reported.
#[derive(Clone, Copy)]
struct Tick {
    at: Instant,
    /// What the daemon's thread has had of a CPU.
    cpu: Duration,
    /// Reports of units so far.
    reports: u64,
}

/// Tells each report of the datapath's own counters, of which there is one in each period, the last of it.
struct Clock {
    tick: mpsc::Sender<Tick>,
    reports: AtomicU64,
}

impl EventCollector for Clock {
    fn collect_counter_event(&self, report: &CounterReport) {
        if !report.context_id.is_empty() {
            let has_counted = report.counters.iter().any(|counter| counter.value > 0);
            self.reports.fetch_add(u64::from(has_counted), Ordering::Relaxed);
            return;
        }
        let cpu = clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default();
        // Who waits for it may have ended.
        let _ =
            self.tick.send(Tick { at: Instant::now(), cpu, reports: self.reports.load(Ordering::Relaxed) });
    }

    fn collect_flow_event(&self, _: &FlowRecord) {}

    fn collect_container_event(&self, _: &ContainerRecord) {}

    fn collect_user_event(&self, _: &mut UserRecord) {}

    fn collect_trace_event(&self, _: &[String]) {}

    fn collect_packet_event(&self, _: &PacketReport) {}

    fn collect_dns_requests(&self, _: &DnsRequestReport) {}

    fn collect_ping_event(&self, _: &PingReport) {}
}
