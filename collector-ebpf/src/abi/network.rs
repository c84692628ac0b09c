//! Networks inside of tunnels: addresses mean something within one of them only.
//!
//! Each has a number of its own in the place of the boundary in the keys of its flows. The programs make the numbers, and
//! the map `NETWORKS` says whose each is.

/// The first number of a network; those below are boundaries of interfaces.
pub const FIRST: u16 = 1 << 15;
/// How many networks there can be.
pub const MOST: u32 = 1 << 15;

/// Whether a boundary in a flow's key is a network inside of a tunnel.
pub const fn is_inside(boundary: u16) -> bool {
    boundary >= FIRST
}

/// VXLAN (RFC 7348); its networks have identifiers of 24 bits.
pub const VXLAN: u8 = 1;
/// GENEVE (RFC 8926); its networks have identifiers of 24 bits.
pub const GENEVE: u8 = 2;
/// GRE (RFC 2784), with the key of RFC 2890 as the identifier where there is one; else 0.
pub const GRE: u8 = 3;
/// IPv4 in IP (RFC 2003, RFC 2473); no identifier.
pub const IPIP: u8 = 4;
/// IPv6 in IP (RFC 4213, RFC 2473); no identifier.
pub const SIT: u8 = 5;

/// The key of a network in the map `NETWORKS`.
pub const fn key(kind: u8, id: u32) -> u64 {
    (kind as u64) << 32 | id as u64
}

/// Kind and identifier of the network with that key.
pub const fn of_key(key: u64) -> (u8, u32) {
    ((key >> 32) as u8, key as u32)
}

#[cfg(test)]
mod tests {
    use super::{FIRST, MOST, VXLAN, is_inside, key, of_key};
    use crate::abi::flow::LOOPBACK_BOUNDARY;

    #[test]
    fn every_network_has_a_number() {
        assert_eq!(u32::from(FIRST) + MOST, 1 << 16);
        assert!(
            !is_inside(LOOPBACK_BOUNDARY) && !is_inside(FIRST - 1) && is_inside(FIRST) && is_inside(u16::MAX)
        );
    }

    #[test]
    fn a_key_gives_back_what_it_was_made_of() {
        assert_eq!(of_key(key(VXLAN, 0xFF_FFFF)), (VXLAN, 0xFF_FFFF));
        assert_eq!(of_key(key(3, u32::MAX)), (3, u32::MAX));
    }
}
