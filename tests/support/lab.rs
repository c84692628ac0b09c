//! Hosts in namespaces, joined by wires. Neighbours are known beforehand and nothing speaks unasked, so that all that
//! crosses a wire is what a test sends.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

use anyhow::{Context as _, bail, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketFlags, SocketType, netlink, recv, socket_with},
};

use crate::{
    PATIENCE, Result,
    netns::{NetNs, Place, unique},
};

/// What a host does of its own accord on an IPv6 link, switched off as far as it can be.
const QUIET: [(&str, &str); 8] = [
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
    // No link-local address.
    ("ipv6/conf/default/addr_gen_mode", "1"),
    // What has to be reported to multicast routers is reported at once, not within a second.
    ("ipv6/conf/default/mldv1_unsolicited_report_interval", "1"),
    ("ipv6/conf/default/mldv2_unsolicited_report_interval", "1"),
    // A TCP header's length then does not depend on what was lost or came in another order.
    ("ipv4/tcp_sack", "0"),
];

/// One end of a wire, and the host that it is on.
#[derive(Clone, Debug)]
pub struct End {
    /// The host.
    pub place: Place,
    /// The interface.
    pub dev: String,
    /// Its index.
    pub ifindex: u32,
    /// Its link-layer address.
    pub mac: [u8; 6],
    /// The host's IPv4 address on it.
    pub v4: Ipv4Addr,
    /// The host's IPv6 address on it.
    pub v6: Ipv6Addr,
}

/// Two hosts on one wire.
#[derive(Debug)]
pub struct Wire {
    /// One.
    pub a: End,
    /// The other.
    pub b: End,
    _hosts: [NetNs; 2],
}

impl Wire {
    /// Two new hosts with IPv4 and IPv6.
    pub fn new() -> Result<Self> {
        Self::between([host()?, host()?])
    }

    /// The same, between hosts that are silent to routers too.
    pub fn silent() -> Result<Self> {
        Self::between([silent_host()?, silent_host()?])
    }

    /// The same, on which every buffer is a packet of its own.
    pub fn unsegmented() -> Result<Self> {
        let wire = Self::silent()?;
        for end in [&wire.a, &wire.b] {
            end.without_offloads()?;
        }
        Ok(wire)
    }

    fn between(hosts: [NetNs; 2]) -> Result<Self> {
        let (a, b) = join(&hosts[0], &hosts[1], 0, Addressed::Both)?;
        Ok(Self { a, b, _hosts: hosts })
    }
}

/// A host that speaks only when spoken to.
pub fn host() -> Result<NetNs> {
    let host = NetNs::new()?;
    host.place().sysctl(&QUIET)?;
    Ok(host)
}

/// The same, and silent to routers too: it reports no group that it listens to, which hosts repeat at times of their own
/// choice.
pub fn silent_host() -> Result<NetNs> {
    let host = host()?;
    host.place().nft(
        "table inet silent { chain leaving { type filter hook output priority -400; meta l4proto igmp drop; \
         icmpv6 type { 130, 131, 132, 143 } drop; }; }",
    )?;
    Ok(host)
}

/// Which ends of a wire have addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressed {
    /// Both.
    Both,
    /// The second only: the first is the host-side end of what the second is in.
    Second,
}

/// Joins two hosts by wire number `number`: `10.77.NUMBER.1` and `.2`, `fd77:NUMBER::1` and `::2`.
pub fn join(one: &NetNs, two: &NetNs, number: u8, addressed: Addressed) -> Result<(End, End)> {
    join_places([one.place(), two.place()], number, addressed)
}

/// The same, where the namespaces are somebody else's.
pub fn join_places([one, two]: [&Place; 2], number: u8, addressed: Addressed) -> Result<(End, End)> {
    let end = |place: &Place, last: u8| End {
        place: place.clone(),
        dev: unique("v"),
        ifindex: 0,
        mac: [0x02, 0x77, 0, 0, number, last],
        v4: Ipv4Addr::new(10, 77, number, last),
        v6: Ipv6Addr::new(0xFD77, number.into(), 0, 0, 0, 0, 0, last.into()),
    };
    let (mut a, mut b) = (end(one, 1), end(two, 2));
    pair(&mut a, &mut b)?;
    let (before_a, before_b) = (a.clone(), b.clone());
    for (end, other) in [(&a, before_b), (&b, before_a)] {
        if addressed == Addressed::Both || other.v4.octets()[3] == 1 {
            end.has_its_addresses()?;
            end.knows(&other)?;
        }
    }
    for end in [&a, &b] {
        end.wait_for_carrier()?;
    }
    Ok((a, b))
}

/// Makes a wire between two hosts, whose ends are up and have no addresses yet.
pub fn pair(a: &mut End, b: &mut End) -> Result<()> {
    a.place.ip(&format!(
        "link add {} address {} type veth peer name {} address {} netns {}",
        a.dev,
        text(a.mac),
        b.dev,
        text(b.mac),
        b.place.name()
    ))?;
    for end in [a, b] {
        end.place.ip(&format!("link set {} up", end.dev))?;
        end.ifindex = end.index()?;
    }
    Ok(())
}

impl End {
    /// What every host has.
    pub fn loopback(place: &Place) -> Self {
        Self {
            place: place.clone(),
            dev: "lo".to_owned(),
            ifindex: 1,
            mac: [0; 6],
            v4: Ipv4Addr::LOCALHOST,
            v6: Ipv6Addr::LOCALHOST,
        }
    }

    /// Gives the interface its addresses.
    pub fn has_its_addresses(&self) -> Result<()> {
        self.place.ip(&format!("addr add {}/24 dev {}", self.v4, self.dev))?;
        self.place.ip(&format!("addr add {}/64 dev {} nodad", self.v6, self.dev))?;
        Ok(())
    }

    /// The address of the family of `like`.
    pub fn address(&self, version: u8) -> IpAddr {
        if version == 4 { self.v4.into() } else { self.v6.into() }
    }

    /// A port at that address.
    pub fn at(&self, version: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(version), port)
    }

    /// Makes another end of the same wire known as a neighbour, for good: nobody has to ask.
    pub fn knows(&self, other: &Self) -> Result<()> {
        for address in [other.address(4), other.address(6)] {
            self.knows_address(&address.to_string(), other)?;
        }
        Ok(())
    }

    /// The same for another address of that end.
    pub fn knows_address(&self, address: &str, other: &Self) -> Result<()> {
        self.place.ip(&format!(
            "neigh replace {address} lladdr {} dev {} nud permanent",
            text(other.mac),
            self.dev
        ))?;
        Ok(())
    }

    /// Switches segmentation and checksums by the device off, on which every buffer is a packet on the wire.
    pub fn without_offloads(&self) -> Result<()> {
        self.place.run(&format!("ethtool -K {} gso off tso off gro off tx off", self.dev)).map(|_| ())
    }

    /// What the interface itself has counted.
    pub fn counters(&self) -> Result<LinkCounters> {
        self.place.within(|| LinkCounters::read(&self.dev))
    }

    /// The index of the interface of this name.
    pub fn index(&self) -> Result<u32> {
        self.place.within(|| {
            let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            Ok(rustix::net::netdevice::name_to_index(&socket, &self.dev)?)
        })
    }

    /// The kernel gives a link its queue some time after both ends are up, and drops what is sent before.
    pub fn wait_for_carrier(&self) -> Result<()> {
        let changes = self.place.within(link_changes)?;
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        loop {
            if self.place.ip(&format!("-br link show {}", self.dev))?.split_whitespace().nth(1) == Some("UP")
            {
                return Ok(());
            }
            let mut waiting = [PollFd::new(&changes, PollFlags::IN)];
            if poll(&mut waiting, Some(&patience))? == 0 {
                bail!("{} does not come up", self.dev);
            }
            let mut message = [0; 8192];
            recv(&changes, &mut message[..], rustix::net::RecvFlags::empty())?;
        }
    }
}

/// A netlink socket that hears of changes of links in the calling thread's namespace.
fn link_changes() -> Result<OwnedFd> {
    const RTMGRP_LINK: u32 = 1;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, RTMGRP_LINK))?;
    Ok(socket)
}

/// What an interface has received and sent: buffers, and octets of layer 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Received.
    pub rx_packets: u64,
    /// Received.
    pub rx_bytes: u64,
    /// Sent.
    pub tx_packets: u64,
    /// Sent.
    pub tx_bytes: u64,
}

impl LinkCounters {
    /// Reads those of an interface in the calling thread's namespace.
    pub fn read(dev: &str) -> Result<Self> {
        // Of the thread: /proc/net is the process's, whose main thread is elsewhere.
        let text = std::fs::read_to_string("/proc/thread-self/net/dev")?;
        let line = text
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(dev)?.strip_prefix(':'))
            .with_context(|| format!("no interface {dev}"))?;
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        ensure!(numbers.len() >= 10, "/proc/net/dev has another form: {line}");
        let [rx_bytes, rx_packets, .., tx_bytes, tx_packets] = numbers[..10] else { bail!("impossible") };
        Ok(Self { rx_packets, rx_bytes, tx_packets, tx_bytes })
    }

    /// By how much they have grown since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            rx_packets: self.rx_packets - before.rx_packets,
            rx_bytes: self.rx_bytes - before.rx_bytes,
            tx_packets: self.tx_packets - before.tx_packets,
            tx_bytes: self.tx_bytes - before.tx_bytes,
        }
    }
}

pub(crate) fn text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}
