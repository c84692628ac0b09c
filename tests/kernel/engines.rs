//! Real engines: what Docker and Podman run is found, counted to the last packet, and told of, each step once and in order.

use std::net::SocketAddr;

use collector_tests::{
    Result,
    books::assert_sum_at_uplinks,
    collector::{Finished, Running, discovering},
    engine::{ASKS, Engine},
    events,
    frames::UDP,
    lab::{LinkCounters, Wire},
    talk::{Amount, Talk},
    traffic::ANSWERS,
};
use collector_user::daemon::Options;

// Docker's networks: a bridge with published ports, two on a bridge, the host's own.
mod networks;
// Lives: of a moment, twice, and many at once.
mod lives;
// Podman's default network.
mod podman;

/// What a container's life is told by.
const WHOLE: [&str; 4] = ["create", "start", "stop", "delete"];

/// Where the port that answers is published.
const PUBLISHED: u16 = 8080;

/// A host with an uplink to a peer. No device does what the host could do itself.
fn wire() -> Result<Wire> {
    Wire::unsegmented()
}

fn start(wire: &Wire) -> Result<Running> {
    let options = Options { forwarded: true, ..discovering() };
    Running::start_beside(&wire.a.place, options, Some(&wire.a.dev))
}

/// Packets and octets as the unit behind an interface has them: received, then sent.
fn behind(link: &LinkCounters) -> [u64; 4] {
    [link.tx_packets, link.tx_bytes, link.rx_packets, link.rx_bytes]
}

fn assert_uplinks(finished: &Finished, others: &[&str]) {
    let units = [&["host", "forwarded", "unknown"], others].concat();
    assert_sum_at_uplinks(finished, &units, &[finished.link]);
}

/// 100 questions of 100 octets by a process of a container's.
fn ask_from(engine: &Engine, id: &str, port: u16, to: SocketAddr) -> Result<()> {
    let (port, address, to) = (port.to_string(), to.ip().to_string(), to.port().to_string());
    engine.execute(id, ASKS, &[&port, &address, &to, "100", "100"]).map(|_| ())
}

/// How many questions those ask that live for a moment.
const FEW: u64 = 20;

/// Starts a container that asks these, and ends.
fn ask_and_end(engine: &Engine, options: &[&str], to: SocketAddr) -> Result<String> {
    let (address, port, few) = (to.ip().to_string(), to.port().to_string(), FEW.to_string());
    engine.start(options, ASKS, &["40000", &address, &port, &few, "100"])
}

/// Of the unit of one that has asked a few questions there is one flow, which is exact, and in its counters that and what is
/// no IP packet. At the uplink all of them passed through.
fn assert_few(finished: &Finished, id: &str, wire: &Wire, askers: u64) {
    let want = Talk::answered((wire.a.v4, 40_000).into(), (wire.b.v4, ANSWERS).into(), FEW, 100);
    let Amount { packets, bytes } = want.forth;
    let flows: Vec<_> = events::flows(&finished.events).filter(|record| &*record.context_id == id).collect();
    assert_eq!(flows.len(), 1, "{flows:?}");
    assert!(events::is_to(flows[0], UDP, ANSWERS), "{flows:?}");
    let all = [flows[0].packets, flows[0].bytes, flows[0].reply_packets, flows[0].reply_bytes];
    assert_eq!(all, [packets, bytes, packets, bytes], "{flows:?}");
    // Who has which address is asked and answered by frames of 42 octets.
    let [rx_packets, rx_bytes, tx_packets, tx_bytes] = events::unit(&finished.events, id);
    let besides = [rx_packets - packets, tx_packets - packets];
    assert_eq!([rx_bytes, tx_bytes], besides.map(|frames| bytes + 42 * frames), "{besides:?} frames besides");
    assert_eq!(
        events::unit(&finished.events, "forwarded"),
        want.of_source().map(|count| askers * count),
        "of {askers}"
    );
}
