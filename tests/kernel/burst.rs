//! Hundreds of interfaces that come and go at once: more than netlink has room to tell of. What is there in the end is
//! known, and the traffic of another interface is counted exactly all the while.

use std::{
    fmt::Write as _,
    io::Write as _,
    panic,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, ensure};
use collector_tests::{
    Result,
    collector::{Running, often},
    events,
    frames::UDP,
    lab::Wire,
    netns::Place,
    traffic::{Datagrams, Host, headers, send_and_settle},
};

use crate::assert_balanced;

const PORT: u16 = 5001;
const PAIRS: u32 = 250;
const COUNT: u64 = 30_000;
const SIZE: usize = 100;
const OVERRUN: &str = "more changes of interfaces than netlink had room for: all of them are looked at anew";

/// Runs many commands of `ip` in one process.
fn batch(place: &Place, lines: &str) -> Result<()> {
    place.within(|| {
        let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn()?;
        ip.stdin.take().context("ip has an input")?.write_all(lines.as_bytes())?;
        ensure!(ip.wait()?.success(), "ip -batch fails");
        Ok(())
    })
}

/// Both ends of each pair are interfaces of the host.
fn come(place: &Place) -> Result<()> {
    let mut lines = String::new();
    for number in 0..PAIRS {
        writeln!(lines, "link add p{number} group 7 type veth peer name q{number}")?;
    }
    for number in 0..PAIRS {
        writeln!(lines, "link set q{number} group 7")?;
    }
    batch(place, &lines)
}

/// The kernel removes all of them in one go.
fn go(place: &Place) -> Result<()> {
    place.ip("link del group 7").map(|_| ())
}

/// The daemon has listed the interfaces after all that was done up to now.
fn seen(collector: &Running, place: &Place, name: &str) -> Result<Vec<String>> {
    place.ip(&format!("link add {name} type bridge"))?;
    let came = format!("{name} is stacked: a bridge: its packets are seen on the interfaces below");
    let mut said = collector.wait_to_say(&came)?;
    place.ip(&format!("link del {name}"))?;
    said.extend(collector.wait_to_say(&format!("{name} is gone"))?);
    Ok(said)
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_burst_of_interfaces_leaves_the_right_view_and_exact_totals() -> Result<()> {
    let wire = Wire::silent()?;
    let place = &wire.b.place;
    let collector = Running::start_beside(place, often(), Some(&wire.b.dev))?;
    let host = Host::new(&wire.b, &[PORT])?;
    let datagrams = Datagrams { to: host.address(4, PORT), count: COUNT, size: SIZE };
    let said = thread::scope(|scope| -> Result<Vec<String>> {
        let sender = scope.spawn(|| send_and_settle(&wire.a, 40_000, &host, &[datagrams]));
        let mut said = Vec::new();
        // Heard of one by one, as far as the daemon is quick enough, and gone while they are being attached.
        come(place)?;
        go(place)?;
        said.extend(seen(&collector, place, "mark0")?);
        // Heard of when all are there; and of their going when none is.
        let held = collector.hold()?;
        come(place)?;
        drop(held);
        said.extend(collector.wait_to_say(OVERRUN)?);
        let held = collector.hold()?;
        go(place)?;
        drop(held);
        said.extend(seen(&collector, place, "mark1")?);
        sender.join().unwrap_or_else(|cause| panic::resume_unwind(cause))?;
        Ok(said)
    })?;
    let wrong: Vec<_> =
        said.iter().filter(|it| it.contains("cannot attach") || it.contains("not followed")).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let finished = collector.stop()?;
    assert_balanced(&finished);
    let roles: Vec<_> =
        finished.status.interfaces.iter().map(|it| (&*it.name, &*it.role, &*it.hook)).collect();
    assert_eq!(roles, [("lo", "not selected", ""), (&*wire.b.dev, "uplink", "ingress+egress")]);
    let [received, _, sent, _] = events::all_units(&finished.events);
    assert_eq!([received, sent], [finished.link.rx_packets, finished.link.tx_packets]);
    let flow = events::total(&finished.events, |flow| events::is_to(flow, UDP, PORT));
    let each = headers(wire.a.address(4)) + 8 + SIZE as u64;
    assert_eq!((flow.packets, flow.bytes), (COUNT, COUNT * each));
    Ok(())
}
