//! Network interfaces and their addresses, as the kernel's routing netlink tells them.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr},
};

use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    address::{AddressAttribute, AddressMessage, AddressScope},
    link::{
        InfoData, InfoGeneve, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType,
        LinkMessage, LinkXdp, XdpAttached,
    },
};
use rtnetlink::Handle;

use crate::{event::DeviceDrops, host::ethtool};

/// A question to netlink that went unanswered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// No netlink socket.
    #[error("cannot open a netlink socket")]
    Open(#[from] io::Error),
    /// The kernel refuses.
    #[error("the kernel does not list its {what}")]
    List {
        /// What was asked for.
        what: &'static str,
        /// Its answer.
        source: rtnetlink::Error,
    },
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "flags of the kernel's, each by itself")]
pub struct Link {
    /// The interface index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What `ip -d link` calls its type (`veth`, `bridge`, ...); empty where the driver has none.
    pub kind: String,
    /// The interface that it is a port or slave of.
    pub master: Option<u32>,
    /// The interface below it (a VLAN's parent), or the other end of a pair.
    pub lower: Option<u32>,
    /// The lower interface is in another network namespace: by this number in ours.
    pub lower_namespace: Option<i32>,
    /// The bus that its device sits on; empty for a device that exists in software only.
    pub bus: String,
    /// It is a loopback interface.
    pub loopback: bool,
    /// The queueing discipline that it sends by, as `tc` calls it; `noqueue` where it has none.
    pub queue: String,
    /// Its frames start with an IP header.
    pub raw_ip: bool,
    /// It is up.
    pub up: bool,
    /// It can carry packets: it is up, and so is what it is tied to.
    pub running: bool,
    /// A program at XDP runs on its socket buffers.
    pub generic_xdp: bool,
    /// The kernel's numbers of the programs at XDP, in whatever mode.
    pub xdp_programs: Vec<u32>,
    /// Packets that it has received and sent, by its own counters.
    pub counted: [u64; 2],
    /// Packets that it has dropped, by its own counters.
    pub dropped: DeviceDrops,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// As a tunnel: what carries its packets. That of wireguard is not known here.
    pub carriers: Vec<Tunnel>,
}

impl Link {
    /// It is one end of a pair, whose other end lies below it in what the kernel says.
    pub fn is_pair(&self) -> bool {
        matches!(self.kind.as_str(), "veth" | "netkit")
    }

    /// The network namespace that it leads into: it is the end of a pair whose other end lies there.
    pub fn leads_into(&self) -> Option<i32> {
        self.lower_namespace.filter(|_| self.is_pair())
    }
}

/// What carries the packets of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tunnel {
    /// The IP protocol.
    pub protocol: u8,
    /// The port that they are sent to; 0 where the protocol has none.
    pub port: u16,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// It is valid beyond the link.
    pub routable: bool,
}

/// All interfaces of this network namespace with their addresses, by index.
///
/// # Errors
///
/// [`HostError`].
pub async fn list(handle: &Handle) -> Result<BTreeMap<u32, Link>, HostError> {
    let fail = |what| move |source| HostError::List { what, source };
    let mut links = BTreeMap::new();
    let mut messages = handle.link().get().execute();
    while let Some(message) = messages.try_next().await.map_err(fail("interfaces"))? {
        let mut link = link(message);
        // Drivers of software have a kind.
        if link.bus.is_empty() && link.kind.is_empty() && !link.loopback {
            link.bus = ethtool::bus(&link.name).unwrap_or_default();
        }
        links.insert(link.index, link);
    }
    let mut messages = handle.address().get().execute();
    while let Some(message) = messages.try_next().await.map_err(fail("addresses"))? {
        let index = message.header.index;
        if let (Some(address), Some(link)) = (address(&message), links.get_mut(&index)) {
            link.addresses.push(address);
        }
    }
    Ok(links)
}

/// What a message says of an address.
pub(super) fn address(message: &AddressMessage) -> Option<Address> {
    // The local address of a point-to-point interface is not the one that names its network.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    let ip = local.or(any)?;
    let routable = message.header.scope == AddressScope::Universe
        && !ip.is_loopback()
        && ip != IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    Some(Address { ip, routable })
}

/// Packets that an interface has received and sent up to now, by its own counters; none where it is gone.
pub async fn counted(handle: &Handle, index: u32) -> Option<[u64; 2]> {
    let mut messages = handle.link().get().match_index(index).execute();
    messages.try_next().await.ok().flatten().map(|message| link(message).counted)
}

fn link(message: LinkMessage) -> Link {
    let header = message.header;
    let mut link = Link {
        index: header.index,
        loopback: header.flags.contains(LinkFlags::Loopback),
        up: header.flags.contains(LinkFlags::Up),
        running: header.flags.contains(LinkFlags::Running),
        raw_ip: has_no_link_header(header.link_layer_type),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Qdisc(kind) => link.queue = kind,
            LinkAttribute::Controller(master) => link.master = Some(master).filter(|master| *master != 0),
            LinkAttribute::Link(lower) => link.lower = Some(lower).filter(|lower| *lower != 0),
            LinkAttribute::Stats64(stats) => {
                link.counted = [stats.rx_packets, stats.tx_packets];
                link.dropped = DeviceDrops {
                    received: stats.rx_dropped,
                    missed: stats.rx_missed_errors,
                    sent: stats.tx_dropped,
                };
            }
            LinkAttribute::Xdp(xdp) => {
                let is_generic =
                    |mode: &XdpAttached| matches!(mode, XdpAttached::SocketBuffer | XdpAttached::Multiple);
                link.xdp_programs = xdp
                    .iter()
                    .filter_map(|it| match it {
                        LinkXdp::ProgId(id)
                        | LinkXdp::DrvProgId(id)
                        | LinkXdp::SkbProgId(id)
                        | LinkXdp::HwProgId(id) => Some(*id),
                        _ => None,
                    })
                    .collect();
                link.generic_xdp =
                    xdp.iter().any(|it| matches!(it, LinkXdp::Attached(mode) if is_generic(mode)));
            }
            LinkAttribute::LinkNetNsId(id) => link.lower_namespace = Some(id),
            LinkAttribute::ParentDevBusName(bus) => link.bus = bus,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => {
                            link.kind = kind_name(&kind);
                            link.carriers.extend(carriers(&kind));
                        }
                        LinkInfo::Data(data) => link.carriers.extend(carrier_by_port(&data)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link
}

const UDP: u8 = 17;

/// What carries a tunnel whose protocol has no ports.
fn carriers(kind: &InfoKind) -> impl Iterator<Item = Tunnel> {
    const IPV4: u8 = 4;
    const IPV6: u8 = 41;
    const GRE: u8 = 47;
    const ESP: u8 = 50;
    let protocols: &[u8] = match kind {
        InfoKind::GreTap
        | InfoKind::GreTap6
        | InfoKind::GreTun
        | InfoKind::GreTun6
        | InfoKind::ErSpan
        | InfoKind::Ip6ErSpan => &[GRE],
        InfoKind::IpIp => &[IPV4],
        InfoKind::SitTun => &[IPV6],
        InfoKind::Ip6Tnl => &[IPV4, IPV6],
        InfoKind::Vti | InfoKind::Xfrm => &[ESP],
        _ => &[],
    };
    protocols.iter().map(|protocol| Tunnel { protocol: *protocol, port: 0 })
}

/// The port that a tunnel over UDP is sent to.
fn carrier_by_port(data: &InfoData) -> Option<Tunnel> {
    let port = match data {
        InfoData::Vxlan(all) => all.iter().find_map(|one| match one {
            InfoVxlan::Port(port) => Some(*port),
            _ => None,
        }),
        InfoData::Geneve(all) => all.iter().find_map(|one| match one {
            InfoGeneve::Port(port) => Some(*port),
            _ => None,
        }),
        _ => None,
    };
    port.map(|port| Tunnel { protocol: UDP, port })
}

fn kind_name(kind: &InfoKind) -> String {
    kind.to_string()
}

/// Link types whose frames have no header before IP (`include/uapi/linux/if_arp.h`).
fn has_no_link_header(kind: LinkLayerType) -> bool {
    matches!(
        kind,
        LinkLayerType::None
            | LinkLayerType::Rawip
            | LinkLayerType::Ppp
            | LinkLayerType::Tunnel
            | LinkLayerType::Tunnel6
            | LinkLayerType::Sit
            | LinkLayerType::Ipgre
            | LinkLayerType::Ip6gre
    )
}
