//! Networks, as they are written.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// Text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CidrError {
    /// It is none.
    #[error(
        "{given:?} is no network: expected an address, `/` and a length, as in 10.1.0.0/16 or fd00:1::/32"
    )]
    None {
        /// What was given.
        given: String,
    },
    /// It is one of IPv4 addresses in the form that IPv6 sockets have for them.
    #[error(
        "no packet has an address of {given}, which is how IPv6 sockets write IPv4 ones: {}",
        meant.map_or_else(|| "write the IPv4 network".to_owned(), |network| format!("write {network}"))
    )]
    Mapped {
        /// What was given.
        given: IpNet,
        /// The IPv4 network, where it is one.
        meant: Option<Ipv4Net>,
    },
    /// It is an address.
    #[error("{address} is an address, not a network: write {only} for it alone")]
    Address {
        /// The address.
        address: IpAddr,
        /// The network that holds nothing else.
        only: IpNet,
    },
    /// It has bits behind its length.
    #[error(
        "{given} has bits beyond its length: write {network} for the network, or {only} for the one address"
    )]
    HostBits {
        /// What was given.
        given: IpNet,
        /// The network that holds it.
        network: IpNet,
        /// The network of the address alone.
        only: IpNet,
    },
}

/// Reads a network.
pub(crate) fn parse(given: String) -> Result<IpNet, CidrError> {
    if let Ok(address) = given.parse::<IpAddr>() {
        let address = address.to_canonical();
        return Err(CidrError::Address { address, only: address.into() });
    }
    let Ok(network) = given.parse::<IpNet>() else { return Err(CidrError::None { given }) };
    if let IpAddr::V4(address) = network.addr().to_canonical()
        && network.addr().is_ipv6()
    {
        // No packet has such an address: it stands for an IPv4 one on sockets only (RFC 4038, section 4.2).
        let length = network.prefix_len().checked_sub(96);
        let meant = length.and_then(|length| Ipv4Net::new(address, length).ok());
        return Err(CidrError::Mapped { given: network, meant: meant.map(|it| it.trunc()) });
    }
    if network.trunc() == network {
        Ok(network)
    } else {
        Err(CidrError::HostBits { given: network, network: network.trunc(), only: network.addr().into() })
    }
}
