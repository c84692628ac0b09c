//! A tunnel over the uplink: what is inside is the overlay's, what carries it the host's.

use std::net::SocketAddr;

use anyhow::ensure;

use collector_tests::{
    Result,
    books::{Books, assert_sum_at_uplinks},
    collector::{Running, declared, options},
    events,
    lab::{Addressed, End, join, silent_host},
    release,
    talk::{Amount, Talk, talk, transfer},
    traffic::{ANSWERS, Host},
};

use collector_user::{
    daemon::Options,
    event::{Event, FlowRecord, Tunnel},
};

use crate::assert_balanced;

/// Ethernet, IPv4, UDP and VXLAN (RFC 7348 section 5) around a frame.
pub(crate) const AROUND: u64 = 14 + 20 + 8 + 8;
pub(crate) const VXLAN: u16 = 4789;
/// The only port that tunnels send from here; the kernel's own choice depends on what is inside.
const FROM: u16 = 50_000;

/// The port of GENEVE (RFC 8926 section 3.3), whose header without options is as long as that of VXLAN.
const GENEVE: u16 = 6081;

/// The end of a tunnel on one end of a wire: VXLAN, to this port.
pub(crate) fn tunnel_by(own: &End, other: &End, last: u8, port: u16) -> Result<End> {
    let from = (FROM, FROM + 1);
    tunnel(
        own,
        last,
        &format!(
            "type vxlan id 7 local {} remote {} dstport {port} srcport {} {} dev {} nolearning",
            own.v4, other.v4, from.0, from.1, own.dev
        ),
    )
}

/// The same of GENEVE. Its flows have the port that the kernel chooses for what is inside.
fn geneve(own: &End, other: &End, last: u8) -> Result<End> {
    tunnel(own, last, &format!("type geneve id 7 remote {} dstport {GENEVE}", other.v4))
}

fn tunnel(own: &End, last: u8, kind: &str) -> Result<End> {
    let mut end = End {
        dev: "vx0".to_owned(),
        mac: [0x02, 0x66, 0, 0, 0, last],
        v4: [10, 66, 0, last].into(),
        v6: format!("fd66::{last}").parse()?,
        ..own.clone()
    };
    end.place.ip(&format!("link add vx0 address 02:66:00:00:00:0{last} {kind}"))?;
    end.place.ip("link set vx0 up")?;
    end.has_its_addresses()?;
    end.ifindex = own.ifindex;
    Ok(end)
}

/// What carries `inside` from one end of the wire to the other.
fn carried(inside: Amount, from: &End, to: &End) -> Talk {
    let forth = Amount { packets: inside.packets, bytes: inside.bytes + inside.packets * AROUND };
    Talk { forth, ..Talk::one_way((from.v4, FROM).into(), (to.v4, VXLAN).into(), 0, 0) }
}

/// What one end sends by GENEVE is a flow for each that is inside: here it becomes one, as it is by VXLAN.
fn make_one_flow(events: &mut [Event]) {
    let mut senders = Vec::new();
    for event in events {
        let Event::Flow(record) = event else { continue };
        let (Some(source), Some(destination)) = (&mut record.source, &mut record.destination) else {
            continue;
        };
        if destination.port == GENEVE {
            (source.port, destination.port) = (FROM, VXLAN);
            record.count = u64::from(!senders.contains(&source.ip));
            senders.push(source.ip);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_tunnel_is_the_hosts_and_what_it_carries_the_overlays() -> Result<()> {
    // Whoever declares the address that it ends at has none of it.
    for (declares_the_address, inner) in [(false, false), (true, false), (false, true)] {
        a_tunnel(declares_the_address, inner, Tunnel::Vxlan)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn a_tunnel_of_geneve_is_the_hosts_and_what_it_carries_the_overlays() -> Result<()> {
    let made = silent_host()?.place().ip("link add geneve0 type geneve id 7 remote 192.0.2.1");
    if let Err(error) = made {
        ensure!(error.to_string().contains("Unknown device type"), "{error:#}");
        release::has_none("tunnels of GENEVE");
        return Ok(());
    }
    for inner in [false, true] {
        a_tunnel(false, inner, Tunnel::Geneve)?;
    }
    Ok(())
}

fn a_tunnel(declares_the_address: bool, inner: bool, kind: Tunnel) -> Result<()> {
    let hosts = [silent_host()?, silent_host()?];
    let (a, b) = join(&hosts[0], &hosts[1], 0, Addressed::Both)?;
    for end in [&a, &b] {
        end.without_offloads()?;
    }
    let (here, there) = if kind == Tunnel::Vxlan {
        (tunnel_by(&a, &b, 1, VXLAN)?, tunnel_by(&b, &a, 2, VXLAN)?)
    } else {
        (geneve(&a, &b, 1)?, geneve(&b, &a, 2)?)
    };
    here.knows(&there)?;
    there.knows(&here)?;
    let _answering = [Host::new(&here, &[])?, Host::new(&there, &[])?];
    let web = declared("web", &[], &[format!("{}/32", a.v4)])?;
    let units = if declares_the_address { vec![web] } else { Vec::new() };
    let collector = Running::start_beside(&a.place, Options { units, inner, ..options() }, Some(&a.dev))?;
    let mut books = Books::new();
    let (mut sent, mut received) = (Amount::default(), Amount::default());
    let mut count = |out: Amount, back: Amount| {
        for (sum, part) in [(&mut sent, out), (&mut received, back)] {
            sum.packets += part.packets;
            sum.bytes += part.bytes;
        }
    };
    for version in [4, 6] {
        let from = SocketAddr::new(here.address(version), 40_000);
        let to = SocketAddr::new(there.address(version), ANSWERS);
        for talk in [talk(&a.place, from, to)?, transfer(&a.place, from.ip(), to, &b.place, to)?.0] {
            books.asked("overlay", &talk).asked_here("host", &talk);
            count(talk.forth, talk.back);
        }
        let (from, to) = (SocketAddr::new(to.ip(), 40_000), SocketAddr::new(from.ip(), ANSWERS));
        let talk = talk(&b.place, from, to)?;
        books.was_asked("overlay", &talk).was_asked_here("host", &talk);
        count(talk.back, talk.forth);
    }
    books.asked("host", &carried(sent, &a, &b)).was_asked("host", &carried(received, &b, &a));
    let mut finished = collector.stop()?;
    assert_balanced(&finished);
    // What the uplink's tunnel carries is in flows of its own there, and nowhere else in a sum.
    let inside = |record: &FlowRecord| record.tunnel != Tunnel::None;
    let found = events::total(&finished.events, inside);
    let want = if inner { [sent.packets + received.packets, sent.bytes + received.bytes] } else { [0; 2] };
    assert_eq!([found.packets + found.reply_packets, found.bytes + found.reply_bytes], want);
    for record in events::flows(&finished.events).filter(|record| inside(record)) {
        let name = (record.tunnel, record.tunnel_id, &*record.interface, &*record.context_id);
        assert_eq!(name, (kind, 7, &*a.dev, "overlay"), "{record}");
    }
    let ledger = &finished.status.ledger;
    assert_eq!(ledger.inner_seen, ledger.inner_explained(), "{ledger:?}");
    finished.events.retain(|event| !matches!(event, Event::Flow(record) if inside(record)));
    if kind == Tunnel::Geneve {
        make_one_flow(&mut finished.events);
    }
    books.assert_kept(&finished);
    assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown", "web"], &[finished.link]);
    Ok(())
}
