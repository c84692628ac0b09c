//! A CPU that really goes, and comes back, while the daemon runs.

use std::fs;

use collector_tests::{
    Result,
    collector::{Running, all_of_the_host, often, options},
    events,
    frames::UDP,
    lab::Wire,
    traffic::{Datagrams, Host, pin, send, sender, settle},
};
use collector_user::{
    daemon::Options,
    event::{Event, PacketReport},
    kernel::{
        cpus,
        settings::{Settings, Transport},
    },
};

use crate::assert_balanced;

const PORT: u16 = 5004;
const COUNT: u64 = 100;
const SIZE: usize = 30;
/// The one that goes. The first does not everywhere.
const CPU: u32 = 1;

/// A CPU, taken away, that comes back whatever becomes of the test.
struct Away;

impl Away {
    fn take() -> Result<Self> {
        // Nobody who is kept on it goes with it.
        pin(0)?;
        set("0")?;
        assert!(!cpus::online()?.contains(&CPU));
        Ok(Self)
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        set("1").ok();
    }
}

fn set(online: &str) -> Result<()> {
    Ok(fs::write(format!("/sys/devices/system/cpu/cpu{CPU}/online"), online)?)
}

/// Packets of a port that were reported one by one.
fn reported(events: &[Event], port: u16) -> u64 {
    let of_port = |report: &&PacketReport| report.destination_port == port;
    let reports = events.iter().filter_map(|event| match event {
        Event::Packet(report) => Some(report),
        _ => None,
    });
    reports.filter(of_port).count() as u64
}

const OVERRUN: &str =
    "more changes of CPUs than the kernel had room for: all that are online have new buffers";
/// More than a socket has room for.
const CHANGES: usize = 3000;

#[test]
#[ignore = "says that a CPU has come: for the guests of cargo xtask vm"]
fn more_changes_than_there_is_room_for_lose_nothing() -> Result<()> {
    for transport in [Transport::Auto, Transport::Perf] {
        let wire = Wire::new()?;
        let settings = Settings { transport, ..Settings::default() };
        let options = Options { traces: vec![all_of_the_host()], settings, ..often() };
        let collector = Running::start(&wire.a.place, options)?;
        let host = Host::new(&wire.b, &[PORT, PORT + 1])?;
        let held = collector.hold()?;
        for _ in 0..CHANGES {
            fs::write(format!("/sys/devices/system/cpu/cpu{CPU}/uevent"), "online")?;
        }
        // What lies in the buffers that others take the place of.
        for cpu in [0, 1] {
            pin(cpu)?;
            let socket = sender(&wire.a, 4, 40_000 + cpu as u16)?;
            send(&socket, &Datagrams { to: host.address(4, PORT), count: COUNT, size: SIZE })?;
        }
        drop(held);
        collector.wait_to_say(OVERRUN)?;
        for cpu in [0, 1] {
            pin(cpu)?;
            let socket = sender(&wire.a, 4, 40_002 + cpu as u16)?;
            send(&socket, &Datagrams { to: host.address(4, PORT + 1), count: COUNT, size: SIZE })?;
        }
        settle(&wire.a, &host)?;
        let finished = collector.stop()?;
        assert_balanced(&finished);
        for port in [PORT, PORT + 1] {
            let flow = events::total(&finished.events, |flow| events::is_to(flow, UDP, port));
            assert_eq!(flow.packets, 2 * COUNT, "{transport:?}, port {port}");
            assert_eq!(reported(&finished.events, port), 2 * COUNT, "{transport:?}, port {port}");
        }
    }
    Ok(())
}

#[test]
#[ignore = "takes a CPU away: for the guests of cargo xtask vm"]
fn what_a_cpu_saw_that_goes_and_comes_back_is_counted_and_told() -> Result<()> {
    assert!(cpus::online()?.contains(&CPU), "two CPUs are needed");
    for transport in [Transport::Auto, Transport::Perf] {
        let wire = Wire::new()?;
        let settings = Settings { transport, ..Settings::default() };
        let options = Options { traces: vec![all_of_the_host()], settings, ..options() };
        let collector = Running::start(&wire.a.place, options)?;
        let host = Host::new(&wire.b, &[PORT, PORT + 1, PORT + 2])?;
        let send_on = |cpu, nth: u16| -> Result<()> {
            pin(cpu)?;
            let socket = sender(&wire.a, 4, 40_000 + nth)?;
            send(&socket, &Datagrams { to: host.address(4, PORT + nth), count: COUNT, size: SIZE })
        };
        // What it has counted, and has told nobody yet, stays when it goes.
        send_on(1, 0)?;
        let away = Away::take()?;
        send_on(0, 1)?;
        drop(away);
        assert!(cpus::online()?.contains(&CPU), "it is back");
        collector.wait_to_say(&format!("CPU {CPU} has come: what it sees is told from now on"))?;
        send_on(1, 2)?;
        settle(&wire.a, &host)?;
        let finished = collector.stop()?;
        assert_balanced(&finished);
        for port in [PORT, PORT + 1, PORT + 2] {
            let flow = events::total(&finished.events, |flow| events::is_to(flow, UDP, port));
            assert_eq!((flow.packets, flow.count), (COUNT, 1), "{transport:?}, port {port}");
            assert_eq!(reported(&finished.events, port), COUNT, "{transport:?}, port {port}");
        }
        let ledger = &finished.status.ledger;
        assert_eq!((ledger.output_failed, ledger.packets_lost, ledger.lost), (0, 0, 0), "{ledger:?}");
    }
    Ok(())
}
