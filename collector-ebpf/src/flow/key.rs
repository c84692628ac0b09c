//! The key of a packet's flow.

use crate::{
    abi::flow::{FlowKey4, FlowKey6},
    wire::{ipv4::Ipv4, ipv6::Ipv6, transport::Transport},
};

/// The key of an IPv4 flow, as if the local end had sent the packet.
#[inline(always)]
pub fn key4(boundary: u16, ip: &Ipv4) -> FlowKey4 {
    let (local_port, remote_port) = ports(&ip.transport);
    let Transport { protocol, kind: ports, .. } = ip.transport;
    FlowKey4 { local: ip.source, remote: ip.destination, local_port, remote_port, boundary, protocol, ports }
}

/// The key of an IPv6 flow, as if the local end had sent the packet.
#[inline(always)]
pub fn key6(boundary: u16, ip: &Ipv6) -> FlowKey6 {
    let (local_port, remote_port) = ports(&ip.transport);
    let Transport { protocol, kind: ports, .. } = ip.transport;
    FlowKey6 { local: ip.source, remote: ip.destination, local_port, remote_port, boundary, protocol, ports }
}

/// Source and destination port, in network byte order.
#[inline(always)]
fn ports(transport: &Transport) -> (u16, u16) {
    let [s0, s1, d0, d1] = transport.ports;
    (u16::from_ne_bytes([s0, s1]), u16::from_ne_bytes([d0, d1]))
}

macro_rules! ends {
    ($key:ty, $address:ty) => {
        impl $key {
            /// Exchanges the local and the remote end.
            #[inline(always)]
            pub fn turn(&mut self) {
                let Self { local, remote, local_port, remote_port, boundary, protocol, ports } = *self;
                *self = Self {
                    local: remote,
                    remote: local,
                    local_port: remote_port,
                    remote_port: local_port,
                    boundary,
                    protocol,
                    ports,
                };
            }

            /// Whether the local end is the lesser of the two: by address (any order will do), or by port where that is the
            /// same. Tells the two directions of a flow apart of which nothing else does.
            #[inline(always)]
            pub fn is_in_order(&self) -> bool {
                let (local, remote) =
                    (<$address>::from_ne_bytes(self.local), <$address>::from_ne_bytes(self.remote));
                local < remote || local == remote && self.local_port <= self.remote_port
            }

            /// Both ends are the same, so that only what a packet says tells its direction.
            #[inline(always)]
            pub fn is_symmetric(&self) -> bool {
                self.local == self.remote && self.local_port == self.remote_port
            }
        }
    };
}

ends!(FlowKey4, u32);
ends!(FlowKey6, u128);

#[cfg(test)]
mod tests {
    use crate::abi::flow::{FlowKey4, FlowKey6};

    #[test]
    fn one_of_both_directions_is_in_order() {
        let mut four =
            FlowKey4 { local: [1, 0, 0, 1], remote: [1, 0, 0, 2], local_port: 9, ..FlowKey4::default() };
        let before = (four, four.is_in_order());
        four.turn();
        assert_eq!((four.local, four.remote_port, four.is_in_order()), ([1, 0, 0, 2], 9, !before.1));
        four.turn();
        assert_eq!((four, four.is_in_order()), before);
        let mut six = FlowKey6 { local_port: 1, remote_port: 2, ..FlowKey6::default() };
        assert!(six.is_in_order() && !six.is_symmetric());
        six.turn();
        assert!(!six.is_in_order());
        assert!(FlowKey6::default().is_symmetric() && FlowKey6::default().is_in_order());
    }
}
