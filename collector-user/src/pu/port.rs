//! Ports of this host that a unit declares.

use std::{cmp::Reverse, collections::BTreeMap, fmt, str::FromStr};

use collector_ebpf::abi::pu::PORT_PROTOCOLS;

use super::registry::Registry;

/// A port of this host, or several that follow each other, of one protocol or of TCP, UDP and SCTP: `443`, `8000-8999`,
/// `tcp/443`, `udp/8000-8999`.
///
/// What is meant is the port on this host's side of a flow, whoever opened that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ports {
    /// The IP protocol number; none: every one of [`PORT_PROTOCOLS`].
    protocol: Option<u8>,
    first: u16,
    last: u16,
}

/// Text that is no port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// It has no meaning.
    #[error(
        "{given:?} is no port: expected 1 to 65535 or a range such as 8000-8999, with or without a protocol before it, as in tcp/443"
    )]
    Meaningless {
        /// What was given.
        given: String,
    },
    /// Units have no ports of that protocol.
    #[error(
        "{given:?}: {protocol:?} is none of the protocols whose ports can be a unit's: expected tcp, udp or sctp"
    )]
    Protocol {
        /// What was given.
        given: String,
        /// What stands for the protocol.
        protocol: String,
    },
    /// The range ends before it begins.
    #[error("{given:?}: the range ends before it begins: write {last}-{first}")]
    Reversed {
        /// What was given.
        given: String,
        /// Where it begins.
        first: u16,
        /// Where it ends.
        last: u16,
    },
}

/// Protocols by their names.
const NAMES: [(&str, u8); 3] = {
    let [tcp, udp, sctp] = PORT_PROTOCOLS;
    [("tcp", tcp), ("udp", udp), ("sctp", sctp)]
};

impl Ports {
    /// The ports that are both's; of two that are those of different protocols none.
    pub fn shares(self, other: Self) -> bool {
        let protocols = match (self.protocol, other.protocol) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        protocols && self.first <= other.last && other.first <= self.last
    }

    /// The greater of two is the more specific: the one with fewer ports, then the one that names a protocol.
    pub(super) fn weight(self) -> impl Ord + use<> {
        (Reverse(self.last - self.first), self.protocol.is_some())
    }

    fn each(self) -> impl Iterator<Item = (u8, u16)> {
        let protocols =
            PORT_PROTOCOLS.into_iter().filter(move |it| self.protocol.is_none_or(|own| own == *it));
        protocols.flat_map(move |protocol| (self.first..=self.last).map(move |port| (protocol, port)))
    }
}

/// The unit of each port that one declares, by IP protocol and port: the one whose matcher is the most specific, else the
/// first.
pub fn owners(units: &Registry) -> BTreeMap<(u8, u16), u16> {
    let all = units.iter().flat_map(|unit| unit.ports.iter().map(|ports| (*ports, unit.index)));
    let mut all: Vec<_> = all.collect();
    // What comes later is written over what came before.
    all.reverse();
    all.sort_by_key(|(ports, _)| ports.weight());
    all.into_iter().flat_map(|(ports, unit)| ports.each().map(move |port| (port, unit))).collect()
}

impl FromStr for Ports {
    type Err = PortError;

    fn from_str(given: &str) -> Result<Self, PortError> {
        let meaningless = || PortError::Meaningless { given: given.to_owned() };
        let (protocol, ports) = match given.split_once('/') {
            None => (None, given),
            Some((name, ports)) => match NAMES.iter().find(|(known, _)| *known == name) {
                Some((_, protocol)) => (Some(*protocol), ports),
                None => {
                    return Err(PortError::Protocol { given: given.to_owned(), protocol: name.to_owned() });
                }
            },
        };
        let port = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
            let port = is_number.then(|| text.parse::<u16>().ok()).flatten();
            port.filter(|port| *port != 0).ok_or_else(meaningless)
        };
        let (first, last) = match ports.split_once('-') {
            None => (port(ports)?, port(ports)?),
            Some((first, last)) => (port(first)?, port(last)?),
        };
        if first > last {
            return Err(PortError::Reversed { given: given.to_owned(), first, last });
        }
        Ok(Self { protocol, first, last })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = NAMES.iter().find(|(_, protocol)| self.protocol == Some(*protocol)) {
            write!(f, "{name}/")?;
        }
        write!(f, "{}", self.first)?;
        if self.first == self.last { Ok(()) } else { write!(f, "-{}", self.last) }
    }
}

#[cfg(test)]
mod tests {
    use super::{PortError, Ports, owners};
    use crate::pu::registry::{Declared, Registry};

    fn ports(text: &str) -> Ports {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_read_is_shown() {
        for text in ["443", "8000-8999", "tcp/443", "udp/1-65535", "sctp/9"] {
            assert_eq!(ports(text).to_string(), text);
        }
        assert_eq!(ports("80-80").to_string(), "80");
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for given in ["", "0", "65536", "-1", "+1", "1-", "-2", "1-2-3", "a", "tcp/", "1 ", "0-5", "tcp/a"] {
            let error = given.parse::<Ports>().unwrap_err();
            assert_eq!(error, PortError::Meaningless { given: given.to_owned() });
        }
        assert_eq!(
            "icmp/8".parse::<Ports>().unwrap_err(),
            PortError::Protocol { given: "icmp/8".to_owned(), protocol: "icmp".to_owned() }
        );
        let said = "9-8".parse::<Ports>().unwrap_err().to_string();
        assert!(said.ends_with("write 8-9"), "{said}");
    }

    #[test]
    fn the_narrowest_owns_a_port_then_who_names_the_protocol_then_the_first() {
        let of = |id: &str, all: &[&str]| Declared {
            id: id.into(),
            ports: all.iter().map(|text| ports(text)).collect(),
            ..Declared::default()
        };
        let units = Registry::new(&[
            of("all", &["1-65535"]),
            of("range", &["8000-8999"]),
            of("same", &["8500-9499"]),
            of("one", &["8443"]),
            of("tcp", &["tcp/8443", "tcp/8000-8999"]),
        ])
        .unwrap();
        let owners = owners(&units);
        let of = |protocol, port| units.get(owners[&(protocol, port)]).unwrap().id.to_string();
        assert_eq!((of(6, 8443), of(17, 8443)), ("tcp".into(), "one".into()));
        assert_eq!((of(6, 8600), of(17, 8600)), ("tcp".into(), "range".into()));
        assert_eq!((of(17, 9000), of(17, 9500), of(132, 1)), ("same".into(), "all".into(), "all".into()));
        assert_eq!(owners.len(), 3 * 65_535);
    }

    #[test]
    fn who_shares_a_port() {
        for (one, other, shared) in [
            ("443", "tcp/443", true),
            ("udp/443", "tcp/443", false),
            ("1-10", "10-20", true),
            ("1-10", "11-20", false),
            ("1-100", "tcp/5", true),
        ] {
            assert_eq!(ports(one).shares(ports(other)), shared, "{one} {other}");
            assert_eq!(ports(other).shares(ports(one)), shared, "{one} {other}");
        }
    }
}
