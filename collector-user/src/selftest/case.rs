//! What is tried: ways through a host, with and without offloads, each kind of traffic over both IP versions.

use serde::Serialize;

/// A way that packets take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// By a pair of virtual Ethernet devices.
    Veth,
    /// By a VLAN device above one.
    Vlan,
    /// By a bridge, one of which is a port.
    Bridge,
    /// Inside of a VXLAN tunnel.
    Tunnel,
    /// From behind a bridge, with masquerading.
    Masquerade,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Traffic {
    /// A connection with data both ways.
    Tcp,
    /// Datagrams.
    Udp,
    /// Datagrams that do not fit into a packet.
    Fragments,
}

impl Traffic {
    /// The IP protocol number.
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp | Self::Fragments => 17,
        }
    }
}

/// Hosts, and how they are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The way of packets between them.
    pub path: Path,
    /// Segments are made and joined by the devices (GSO, GRO).
    pub offloads: bool,
    /// 4 or 6.
    pub family: u8,
}

/// One thing that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    /// Where.
    #[serde(flatten)]
    pub setting: Setting,
    /// What is sent.
    pub traffic: Traffic,
}

impl Setting {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let plain = [Path::Veth, Path::Vlan, Path::Bridge, Path::Tunnel].into_iter().flat_map(|path| {
            [true, false].into_iter().flat_map(move |offloads| {
                [4, 6].into_iter().map(move |family| Self { path, offloads, family })
            })
        });
        plain.chain([Self { path: Path::Masquerade, offloads: true, family: 4 }])
    }

    /// What is tried there.
    pub fn cases(self) -> impl Iterator<Item = Case> {
        [Traffic::Tcp, Traffic::Udp, Traffic::Fragments]
            .into_iter()
            .map(move |traffic| Case { setting: self, traffic })
    }

    /// The sender is behind a bridge, and another address of this host stands for it.
    pub fn is_masqueraded(self) -> bool {
        self.path == Path::Masquerade
    }
}

#[cfg(test)]
mod tests {
    use super::{Case, Setting};

    #[test]
    fn every_combination_once() {
        let all: Vec<Case> = Setting::all().flat_map(Setting::cases).collect();
        assert_eq!(all.len(), (4 * 2 * 2 + 1) * 3);
        for (index, case) in all.iter().enumerate() {
            assert!(!all[..index].contains(case), "{case:?} twice");
        }
    }
}
