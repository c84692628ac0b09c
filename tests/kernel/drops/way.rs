//! What has no way to go, or came by a wrong one.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, TcpStream},
};

use anyhow::ensure;
use collector_tests::{
    PATIENCE, Result,
    books::assert_balanced,
    collector::{Running, options},
    release,
};
use collector_user::event::DropClass;

use super::cause::{Between, Packet, assert_dropped, caused, dropped, told};

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_cannot_go_on() -> Result<()> {
    let between = Between::new()?;
    between.place().ip(&format!("link set {} mtu 1000", between.inner[1].dev))?;
    let collector = Running::start(between.place(), options())?;
    let on = between.packet(between.outer[1].v4);
    between.send(Packet { ttl: 1, ..on }, 11)?;
    between.send(Packet { size: 1200, ..on }, 22)?;
    between.send(between.packet(Ipv4Addr::new(203, 0, 113, 1)), 33)?;
    let finished = told(collector.stop()?);
    assert_balanced(&finished);
    if release::is_at_least((6, 12)) {
        assert_dropped(&finished, "forwarded", &["IP_INHDR"], DropClass::Malformed, 11);
        assert_dropped(&finished, "forwarded", &["PKT_TOO_BIG"], DropClass::Route, 22);
        assert_dropped(&finished, "forwarded", &["IP_INNOROUTES"], DropClass::Route, 33);
    }
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn what_comes_from_where_no_answer_would_go() -> Result<()> {
    let finished = caused(|wire| {
        wire.a.place.sysctl(&[
            ("ipv4/conf/all/rp_filter", "1"),
            (&format!("ipv4/conf/{}/rp_filter", wire.a.dev), "1"),
        ])?;
        let packet = Packet { from: Ipv4Addr::new(198, 51, 100, 9), ..Packet::udp(&wire.b, wire.a.v4) };
        packet.send(40, &wire.b, &wire.a)
    })?;
    // Where the kernel gives no reason, the function is that which refuses broken headers, too.
    let class = if release::is_at_least((5, 17)) { DropClass::Route } else { DropClass::Malformed };
    assert_dropped(&finished, "host", &["IP_RPFILTER"], class, 40);
    Ok(())
}

#[test]
#[ignore = "needs CAP_BPF and CAP_NET_ADMIN: cargo xtask test kernel"]
fn whom_nobody_answers_for() -> Result<()> {
    let between = Between::new()?;
    let nobody = Ipv4Addr::new(10, 77, 2, 99);
    let waiting = format!("ipv4/neigh/{}", between.inner[1].dev);
    between.place().sysctl(&[
        (&format!("{waiting}/mcast_solicit"), "1"),
        (&format!("{waiting}/retrans_time_ms"), "10"),
        (&format!("{waiting}/unres_qlen_bytes"), "1000000"),
    ])?;
    let collector = Running::start(between.place(), options())?;
    between.send(between.packet(nobody), 40)?;
    // The host itself hears of it when all that waited has been given up.
    between.place().ip("link set lo up")?;
    let connected =
        between.place().within(|| Ok(TcpStream::connect_timeout(&(nobody, 9).into(), PATIENCE)))?;
    let unreachable = connected.is_err_and(|error| error.kind() == ErrorKind::HostUnreachable);
    ensure!(unreachable, "the host hears nothing of it");
    let finished = told(collector.stop()?);
    assert_balanced(&finished);
    let reasons = ["NEIGH_FAILED"];
    if release::is_at_least((5, 18)) {
        assert_eq!(
            dropped(&finished, "forwarded", &reasons, DropClass::Route),
            40,
            "{:#?}",
            finished.status.drops
        );
    }
    Ok(())
}
