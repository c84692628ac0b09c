//! The hosts of a setting, and what joins them. Neighbours are known beforehand, so that nothing waits for an answer.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::Command,
};

use futures_util::{StreamExt as _, TryStreamExt as _};
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags},
    link::{LinkAttribute, LinkMessage, State},
};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVlan, LinkVxlan, RouteMessageBuilder,
};

use super::{
    PATIENCE,
    case::{Path, Setting},
    offloads,
    place::{Place, PlaceError},
};
use crate::host::{links::HostError, watch};

/// Hosts cannot be made, or joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum WorldError {
    /// The kernel or the host lacks what the case is about.
    #[error("{what}")]
    NotPossible {
        /// A sentence on what is missing.
        what: String,
    },
    /// A namespace cannot be had.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The kernel refuses a change of interfaces, addresses or neighbours.
    #[error("cannot {what}")]
    Refused {
        /// What was asked.
        what: String,
        /// What it said.
        source: rtnetlink::Error,
    },
    /// Netlink does not answer.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The system refuses something else.
    #[error("cannot {what}")]
    System {
        /// What was asked.
        what: String,
        /// What it said.
        source: io::Error,
    },
    /// A link does not come up.
    #[error("{name} does not come up within {} s", PATIENCE.as_secs())]
    Down {
        /// The interface.
        name: String,
    },
}

/// The hosts of a setting.
#[derive(Debug)]
pub(super) struct World {
    /// Where the collector runs.
    pub(super) watched: Place,
    /// Where the server is.
    pub(super) server: Place,
    /// Where the client is, if that is not the watched host.
    behind: Option<Place>,
    /// The host-side end of what the client is in.
    pub(super) inside: Option<String>,
    /// The client's address, and the server's.
    pub(super) addresses: (IpAddr, IpAddr),
    /// Octets of a packet at most, on the way of the client.
    pub(super) mtu: u32,
}

/// One end of a wire.
#[derive(Clone, Copy, Debug)]
struct End {
    interface: &'static str,
    mac: [u8; 6],
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl End {
    /// The address of a family.
    fn address(&self, family: u8) -> IpAddr {
        if family == 4 { self.v4.into() } else { self.v6.into() }
    }
}

const fn end(interface: &'static str, network: u8, last: u8) -> End {
    End {
        interface,
        mac: [0x02, 0x5E, 0, 0, network, last],
        v4: Ipv4Addr::new(10, 77, network, last),
        v6: Ipv6Addr::new(0xFD77, network as u16, 0, 0, 0, 0, 0, last as u16),
    }
}

/// Where the kernel's IPv6 is set, if it runs.
const IPV6: &str = "/proc/sys/net/ipv6";
/// The wire between the watched host and the server's.
const WIRE: [&str; 2] = ["wire0", "wire1"];
const VLAN: u16 = 7;
const VNI: u32 = 7;
/// RFC 7348 section 5.
const VXLAN_PORT: u16 = 4789;

impl World {
    /// Makes the hosts of a setting.
    pub(super) fn new(setting: Setting) -> Result<Self, WorldError> {
        let family = setting.family;
        if family == 6 && !fs::exists(IPV6).unwrap_or(true) {
            return Err(WorldError::NotPossible { what: "this kernel runs without IPv6".to_owned() });
        }
        let (watched, server) = (Place::new()?, Place::new()?);
        for place in [&watched, &server] {
            place.within(quiet)??;
        }
        veth(&watched, WIRE[0], &server, WIRE[1])?;
        let mut world = Self {
            watched,
            server,
            behind: None,
            inside: None,
            addresses: (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()),
            mtu: 0,
        };
        let (here, there) = match setting.path {
            Path::Veth | Path::Masquerade => (end(WIRE[0], 0, 1), end(WIRE[1], 0, 2)),
            Path::Vlan => {
                for (place, lower) in [(&world.watched, WIRE[0]), (&world.server, WIRE[1])] {
                    above(place, "VLAN", lower, |index| LinkVlan::new("vlan7", index, VLAN).build())?;
                }
                (end("vlan7", 1, 1), end("vlan7", 1, 2))
            }
            Path::Bridge => {
                bridge(&world.watched, "br0", WIRE[0])?;
                (end("br0", 2, 1), end(WIRE[1], 2, 2))
            }
            Path::Tunnel => {
                let (near, far) = (end(WIRE[0], 0, 1), end(WIRE[1], 0, 2));
                let ends = [(&world.watched, near, far), (&world.server, far, near)];
                for (place, own, other) in ends {
                    // The tunnel itself is one over IPv4, whatever it carries.
                    addressed(place, own, &[other], 4)?;
                    above(place, "VXLAN", own.interface, |index| {
                        LinkVxlan::new("vxlan7", VNI)
                            .dev(index)
                            .local(own.v4)
                            .remote(other.v4)
                            .port(VXLAN_PORT)
                            .learning(false)
                            .build()
                    })?;
                }
                (end("vxlan7", 3, 1), end("vxlan7", 3, 2))
            }
        };
        addressed(&world.watched, here, &[there], family)?;
        addressed(&world.server, there, &[here], family)?;
        let (client, server) =
            if setting.is_masqueraded() { (world.masquerade(here)?, there) } else { (here, there) };
        world.addresses = (client.address(family), server.address(family));
        if !setting.offloads {
            let all: [(&Place, &[&str]); 2] =
                [(&world.watched, &[WIRE[0], here.interface]), (&world.server, &[WIRE[1], there.interface])];
            for (place, interfaces) in all {
                for interface in interfaces {
                    place.within(|| offloads::switch_off(interface))?.map_err(|source| {
                        WorldError::System { what: format!("switch the offloads of {interface} off"), source }
                    })?;
                }
            }
        }
        up(&world.server, there.interface)?;
        up(&world.watched, here.interface)?;
        world.mtu = up(world.client(), client.interface)?;
        Ok(world)
    }

    /// Where the client is.
    pub(super) fn client(&self) -> &Place {
        self.behind.as_ref().unwrap_or(&self.watched)
    }

    /// Puts the client behind a bridge of the watched host, whose own address stands for it.
    fn masquerade(&mut self, uplink: End) -> Result<End, WorldError> {
        const PORT: &str = "inside0";
        let behind = Place::new()?;
        behind.within(quiet)??;
        veth(&self.watched, PORT, &behind, "eth0")?;
        bridge(&self.watched, "br0", PORT)?;
        let (gateway, client) = (end("br0", 4, 1), end("eth0", 4, 2));
        addressed(&self.watched, gateway, &[client], 4)?;
        addressed(&behind, client, &[gateway], 4)?;
        netlink(&behind, async |handle| {
            let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway.v4).build();
            refused("add a route", handle.route().add(route).execute().await)
        })?;
        up(&self.watched, gateway.interface)?;
        self.watched.within(|| {
            write("ipv4/ip_forward", "1")?;
            let rules = format!(
                "table ip selftest {{ chain leaving {{ type nat hook postrouting priority srcnat; oifname \"{}\" \
                 masquerade; }}; }}",
                uplink.interface
            );
            nft(&rules)
        })??;
        self.inside = Some(PORT.to_owned());
        self.behind = Some(behind);
        Ok(client)
    }
}

/// Rules of the packet filter of the calling thread's namespace.
fn nft(rules: &str) -> Result<(), WorldError> {
    let output = match Command::new("nft").arg(rules).output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(WorldError::NotPossible { what: "nft is not installed".to_owned() });
        }
        Err(source) => return Err(WorldError::System { what: "run nft".to_owned(), source }),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or("it says nothing").to_owned();
    Err(WorldError::NotPossible { what: format!("this kernel's packet filter does not masquerade: {first}") })
}

/// What hosts say of their own accord is said before anything is counted, or not at all.
fn quiet() -> Result<(), WorldError> {
    for (name, value) in [
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/dad_transmits", "0"),
        ("ipv6/conf/default/router_solicitations", "0"),
    ] {
        match write(name, value) {
            // Without IPv6 there is nothing to silence; the cases over it say what is missing.
            Err(WorldError::System { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}

fn write(name: &str, value: &str) -> Result<(), WorldError> {
    fs::write(format!("/proc/sys/net/{name}"), value)
        .map_err(|source| WorldError::System { what: format!("set net/{name}"), source })
}

/// Asks the kernel in a namespace.
fn netlink<T: Send>(
    place: &Place,
    ask: impl AsyncFnOnce(&Handle) -> Result<T, WorldError> + Send,
) -> Result<T, WorldError> {
    in_event_loop(place, async || {
        let (netlink, _changes) = watch::open()?;
        ask(&netlink.handle).await
    })
}

/// Does in a namespace what waits.
fn in_event_loop<T: Send>(
    place: &Place,
    act: impl AsyncFnOnce() -> Result<T, WorldError> + Send,
) -> Result<T, WorldError> {
    place.within(|| {
        let system = |source| WorldError::System { what: "set up an event loop".to_owned(), source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
        runtime.block_on(act())
    })?
}

fn refused<T>(what: &str, result: Result<T, rtnetlink::Error>) -> Result<T, WorldError> {
    result.map_err(|source| WorldError::Refused { what: what.to_owned(), source })
}

/// The kernel knows no such device.
fn is_unknown(error: &rtnetlink::Error) -> bool {
    let rtnetlink::Error::NetlinkError(message) = error else { return false };
    -message.raw_code() == libc::EOPNOTSUPP
}

async fn index(handle: &Handle, name: &str) -> Result<u32, WorldError> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let found = refused(&format!("find {name}"), links.try_next().await)?;
    found.map(|link| link.header.index).ok_or_else(|| WorldError::Down { name: name.to_owned() })
}

async fn set(handle: &Handle, what: &str, message: LinkMessage) -> Result<(), WorldError> {
    refused(what, handle.link().set(message).execute().await)
}

/// A pair of devices in two namespaces, both up.
fn veth(one: &Place, name: &str, other: &Place, peer: &str) -> Result<(), WorldError> {
    netlink(one, async |handle| {
        let pair = handle.link().add(LinkVeth::new(name, peer).build()).execute().await;
        refused("make a pair of virtual Ethernet devices", pair)?;
        let moved = LinkUnspec::new_with_name(peer).setns_by_fd(other.fd()).build();
        set(handle, "move an interface", moved).await
    })?;
    for (place, name) in [(one, name), (other, peer)] {
        netlink(place, async |handle| {
            set(handle, "set an interface up", LinkUnspec::new_with_name(name).up().build()).await
        })?;
    }
    Ok(())
}

/// A device above another one.
fn above(
    place: &Place,
    kind: &str,
    lower: &str,
    device: impl FnOnce(u32) -> LinkMessage + Send,
) -> Result<(), WorldError> {
    netlink(place, async |handle| {
        let lower = index(handle, lower).await?;
        match handle.link().add(device(lower)).execute().await {
            Err(error) if is_unknown(&error) => {
                Err(WorldError::NotPossible { what: format!("this kernel has no {kind} devices") })
            }
            result => refused(&format!("make a {kind} device"), result),
        }
    })
}

/// A bridge with one port.
fn bridge(place: &Place, name: &str, port: &str) -> Result<(), WorldError> {
    above(place, "bridge", port, |_| LinkBridge::new(name).build())?;
    netlink(place, async |handle| {
        let bridge = index(handle, name).await?;
        set(handle, "add a port to a bridge", LinkUnspec::new_with_name(port).controller(bridge).build())
            .await
    })
}

/// Gives an interface its address of a family, sets it up, and makes its neighbours known.
fn addressed(place: &Place, own: End, neighbours: &[End], family: u8) -> Result<(), WorldError> {
    netlink(place, async |handle| {
        let index = index(handle, own.interface).await?;
        let up =
            LinkMessageBuilder::<LinkUnspec>::default().index(index).address(own.mac.to_vec()).up().build();
        set(handle, "set an interface up", up).await?;
        let (address, prefix) = (own.address(family), if family == 4 { 24 } else { 64 });
        let mut request = handle.address().add(index, address, prefix);
        request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        refused(&format!("add {address}"), request.execute().await)?;
        for other in neighbours {
            let address = other.address(family);
            let request = handle.neighbours().add(index, address).link_layer_address(&other.mac);
            refused(&format!("make {address} known"), request.execute().await)?;
        }
        Ok(())
    })
}

/// Waits until an interface carries packets, and returns the octets of a packet that it takes at most.
fn up(place: &Place, name: &str) -> Result<u32, WorldError> {
    in_event_loop(place, async || {
        // Heard of before it is asked for: no change in between is missed.
        let (netlink, mut changes) = watch::open()?;
        let carries = async {
            loop {
                let mut links = netlink.handle.link().get().match_name(name.to_owned()).execute();
                let link = refused(&format!("find {name}"), links.try_next().await)?;
                let attributes = link.map(|link| link.attributes).unwrap_or_default();
                if is_up(&attributes) {
                    return Ok(mtu(&attributes));
                }
                if changes.next().await.is_none() {
                    return Err(WorldError::Down { name: name.to_owned() });
                }
            }
        };
        tokio::time::timeout(PATIENCE, carries)
            .await
            .unwrap_or_else(|_| Err(WorldError::Down { name: name.to_owned() }))
    })
}

/// Devices without a carrier of their own, as tunnels, are neither up nor down.
fn is_up(attributes: &[LinkAttribute]) -> bool {
    attributes.iter().any(|it| matches!(it, LinkAttribute::OperState(State::Up | State::Unknown)))
}

fn mtu(attributes: &[LinkAttribute]) -> u32 {
    attributes
        .iter()
        .find_map(|it| if let LinkAttribute::Mtu(mtu) = it { Some(*mtu) } else { None })
        .unwrap_or(0)
}
