//! Tunnels whose protocols have no ports: the host's outside, the overlay's inside.

use std::net::{IpAddr, SocketAddr};

use collector_tests::{
    Result,
    books::{Books, assert_sum_at_uplinks},
    collector::{Running, options},
    lab::{End, silent_host},
    talk::{Amount, Talk, ask, asker},
    traffic::{ANSWERS, Host},
};

use crate::{assert_balanced, cable::Cable};

const ETHERNET: u64 = 14;
const IPV4: u64 = 20;

/// A kind of tunnel: the IP protocol that carries it, the octets of its own header, and the family inside.
struct Kind {
    name: &'static str,
    protocol: u8,
    header: u64,
    inside: u8,
}

#[test]
#[ignore = "needs two network cards on a cable: cargo xtask vm"]
fn a_tunnel_without_ports_is_the_hosts_and_what_it_carries_the_overlays() -> Result<()> {
    for kind in [
        Kind { name: "ipip", protocol: 4, header: 0, inside: 4 },
        Kind { name: "sit", protocol: 41, header: 0, inside: 6 },
        Kind { name: "gre", protocol: 47, header: 4, inside: 4 },
    ] {
        let hosts = [silent_host()?, silent_host()?];
        let cable = Cable::lay(&hosts[0], &hosts[1], 0)?;
        let (a, b) = (&cable.a, &cable.b);
        for (own, other) in [(a, b), (b, a)] {
            own.has_its_addresses()?;
            own.knows(other)?;
        }
        let (here, there) = (tunnel(&kind, a, b, 1)?, tunnel(&kind, b, a, 2)?);
        let before = a.counters()?;
        let collector = Running::start(&a.place, options())?;
        let _answering = Host::at(b, &[], SocketAddr::new(there, ANSWERS))?;
        let socket = asker(&a.place, (here, 40_000).into(), (there, ANSWERS).into())?;
        let talk = ask(&socket, 500, 200)?;
        let finished = collector.stop()?;
        assert_balanced(&finished);
        // Without a header of layer 2, on the tunnel's own device.
        let bare = |amount: Amount| Amount { bytes: amount.bytes - amount.packets * ETHERNET, ..amount };
        let inside = Talk { forth: bare(talk.forth), back: bare(talk.back), ..talk };
        let around =
            |amount: Amount| Amount { bytes: amount.bytes + amount.packets * (IPV4 + kind.header), ..amount };
        let ends = [a.v4, b.v4].map(|address| SocketAddr::new(address.into(), 0));
        let outside = Talk {
            protocol: kind.protocol,
            forth: around(talk.forth),
            back: around(talk.back),
            ..talk.between(ends[0], ends[1])
        };
        let mut books = Books::new();
        books.asked("overlay", &inside).asked_here("host", &inside).asked("host", &outside);
        books.assert_kept(&finished);
        assert_sum_at_uplinks(&finished, &["host", "forwarded", "unknown"], &[a.counters()?.since(&before)]);
    }
    Ok(())
}

/// The end of a tunnel, and its address.
fn tunnel(kind: &Kind, own: &End, other: &End, last: u8) -> Result<IpAddr> {
    let place = &own.place;
    let name = kind.name;
    place.ip(&format!("link add t0 type {name} local {} remote {} ttl 64", own.v4, other.v4))?;
    place.ip("link set t0 up")?;
    let address: IpAddr = match kind.inside {
        4 => format!("10.66.0.{last}").parse()?,
        _ => format!("fd66::{last}").parse()?,
    };
    let length = if address.is_ipv4() { "24" } else { "64 nodad" };
    place.ip(&format!("addr add {address}/{length} dev t0"))?;
    Ok(address)
}
