//! A host with containers behind a bridge, and a peer beyond its uplink.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{
    Result,
    lab::{Addressed, End, join, pair, silent_host, text},
    netns::{NetNs, Place, unique},
};

/// A host with containers, and a peer.
#[derive(Debug)]
pub struct Site {
    /// The peer's end of the wire.
    pub peer: End,
    /// The host's end of the wire.
    pub uplink: End,
    /// The bridge, with an address of the host's among the containers: `10.88.0.254`, `fd88::fe`.
    pub bridge: End,
    /// The host-side ends of the containers.
    pub ports: Vec<End>,
    /// The containers: `10.88.0.1` and up, `fd88::1` and up.
    pub containers: Vec<End>,
    hosts: Vec<NetNs>,
}

/// The ports that are published for the containers, in their order: each leads to the port that answers.
pub const PUBLISHED: [u16; 3] = [8080, 8081, 8082];

impl Site {
    /// A host that routes between its uplink and `containers`. The peer knows the way to them over IPv6 only: over IPv4 it
    /// reaches them where their addresses are translated. No device does what the host could do itself, so that every
    /// interface counts packets of the wire.
    pub fn new(containers: usize) -> Result<Self> {
        let mut hosts = vec![silent_host()?, silent_host()?];
        let host = hosts[0].place().clone();
        host.sysctl(&[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            // What goes back to where it came from is no reason to tell the sender of a better way.
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/default/send_redirects", "0"),
        ])?;
        let (uplink, peer) = join(&hosts[0], &hosts[1], 0, Addressed::Both)?;
        peer.place.ip(&format!("-6 route add fd88::/64 via {} dev {}", uplink.v6, peer.dev))?;
        host.ip(&format!(
            "link add br0 address {} type bridge mcast_snooping 0 stp_state 0",
            text([0x02, 0x88, 0, 0, 0, 0xFE])
        ))?;
        host.ip("link set br0 up")?;
        let bridge = End { dev: "br0".to_owned(), ..end(&host, 0xFE) };
        bridge.has_its_addresses()?;
        let (mut ports, mut inside) = (Vec::new(), Vec::new());
        for number in (1..).take(containers) {
            hosts.push(silent_host()?);
            let mut container = end(hosts[hosts.len() - 1].place(), number);
            let mut port = end(&host, number);
            port.mac[1] = 0x89;
            pair(&mut port, &mut container)?;
            host.ip(&format!("link set {} master br0", port.dev))?;
            // Known beforehand: the bridge floods nothing.
            let mac = text(container.mac);
            host.run(&format!("bridge -n {} fdb add {mac} dev {} master static", host.name(), port.dev))?;
            container.has_its_addresses()?;
            ports.push(port);
            inside.push(container);
        }
        for container in &inside {
            for other in inside.iter().filter(|other| other.v4 != container.v4).chain([&bridge]) {
                container.knows(other)?;
            }
            bridge.knows(container)?;
            for version in [4, 6] {
                container.place.ip(&format!(
                    "-{version} route add default via {} dev {}",
                    bridge.address(version),
                    container.dev
                ))?;
            }
        }
        let site = Self { peer, uplink, bridge, ports, containers: inside, hosts };
        for end in site.ports.iter().chain(&site.containers).chain([&site.bridge]) {
            end.wait_for_carrier()?;
        }
        for end in site.ports.iter().chain(&site.containers).chain([&site.uplink, &site.peer]) {
            end.without_offloads()?;
        }
        Ok(site)
    }

    /// The host.
    pub fn host(&self) -> &Place {
        self.hosts[0].place()
    }

    /// Translates: the containers go out with the host's address, and each one's port that answers is published
    /// ([`PUBLISHED`]), for the host and the containers themselves too.
    pub fn translate(&self) -> Result<()> {
        for port in &self.ports {
            // Where the packet filter sees what is bridged (br_netfilter), a container that asks itself is answered by the
            // bridge, which else hands nothing back to where it came from. Docker sets the same.
            self.host().run(&format!(
                "bridge -n {} link set dev {} hairpin on",
                self.host().name(),
                port.dev
            ))?;
        }
        let published = |container: &End, port: u16| {
            format!(
                "ip daddr {} meta l4proto {{ tcp, udp }} th dport {port} dnat to {}:{}; ",
                self.uplink.v4,
                container.v4,
                crate::traffic::ANSWERS
            )
        };
        let all: String = self
            .containers
            .iter()
            .zip(PUBLISHED)
            .map(|(container, port)| published(container, port))
            .collect();
        self.host().nft(&format!(
            "table ip site {{ \
             chain arriving {{ type nat hook prerouting priority -100; {all} }}; \
             chain leaving {{ type nat hook output priority -100; {all} }}; \
             chain behind {{ type nat hook postrouting priority 100; \
             oifname \"{}\" ip saddr 10.88.0.0/24 masquerade; \
             ip saddr 10.88.0.0/24 ip daddr 10.88.0.0/24 ct status dnat masquerade; }}; }}",
            self.uplink.dev
        ))
    }

    /// Where a container's port that answers is published.
    pub fn published(&self, container: usize) -> SocketAddr {
        (self.uplink.v4, PUBLISHED[container]).into()
    }
}

/// Member `number` of the bridge's network.
fn end(host: &Place, number: u8) -> End {
    End {
        place: host.clone(),
        dev: unique("v"),
        ifindex: 0,
        mac: [0x02, 0x88, 0, 0, 0, number],
        v4: Ipv4Addr::new(10, 88, 0, number),
        v6: Ipv6Addr::new(0xFD88, 0, 0, 0, 0, 0, 0, number.into()),
    }
}
