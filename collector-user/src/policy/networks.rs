//! Networks that have a name.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::rule::canonical;
use crate::event::Text;

/// A network outside of all units, by a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExternalNetwork {
    /// The name: the id of ends of flows that are there.
    pub id: Text,
    /// Its networks.
    pub cidr: Vec<IpNet>,
}

/// Which of them an address is in.
#[derive(Clone, Debug, Default)]
pub struct Networks {
    ids: HashMap<IpNet, Text>,
    /// The lengths that there are of IPv4 and of IPv6 networks.
    lengths: [BTreeSet<u8>; 2],
}

impl Networks {
    /// These. Of several that have one network, it is the first's.
    pub fn new<'a>(networks: impl IntoIterator<Item = &'a Arc<ExternalNetwork>>) -> Self {
        let mut all = Self::default();
        for network in networks {
            for cidr in network.cidr.iter().copied().map(canonical) {
                let [four, six] = &mut all.lengths;
                if cidr.addr().is_ipv4() { four } else { six }.insert(cidr.prefix_len());
                all.ids.entry(cidr).or_insert_with(|| Text::clone(&network.id));
            }
        }
        all
    }

    /// The name of the longest network that holds an address.
    pub fn of(&self, address: IpAddr) -> Option<&Text> {
        let address = address.to_canonical();
        let [four, six] = &self.lengths;
        let lengths = if address.is_ipv4() { four } else { six };
        lengths.iter().rev().find_map(|length| self.ids.get(&IpNet::new(address, *length).ok()?.trunc()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{ExternalNetwork, Networks};

    fn network(id: &str, cidr: &[&str]) -> Arc<ExternalNetwork> {
        let cidr = cidr.iter().map(|cidr| cidr.parse().unwrap()).collect();
        Arc::new(ExternalNetwork { id: id.into(), cidr })
    }

    #[test]
    fn the_longest_that_holds_an_address_names_it() {
        let all = Networks::new(&[
            network("internet", &["0.0.0.0/0", "::/0"]),
            network("office", &["192.0.2.0/24", "2001:db8::/32"]),
            network("printer", &["192.0.2.7/32"]),
            network("again", &["192.0.2.0/24"]),
        ]);
        let of = |address: &str| all.of(address.parse().unwrap()).map(|id| &**id);
        for (address, id) in [
            ("198.51.100.1", "internet"),
            ("192.0.2.0", "office"),
            ("192.0.2.255", "office"),
            ("192.0.3.0", "internet"),
            ("192.0.2.7", "printer"),
            ("::ffff:192.0.2.7", "printer"),
            ("2001:db8::1", "office"),
            ("2001:db9::1", "internet"),
        ] {
            assert_eq!(of(address), Some(id), "{address}");
        }
        assert_eq!(Networks::default().of([192, 0, 2, 1].into()), None);
    }

    #[test]
    fn ipv6_holds_no_ipv4() {
        let all = Networks::new(&[network("six", &["::/0"]), network("mapped", &["::ffff:10.0.0.0/104"])]);
        assert_eq!(all.of([192, 0, 2, 1].into()), None);
        assert_eq!(all.of([10, 0, 0, 1].into()).map(|id| &**id), Some("mapped"));
    }
}
