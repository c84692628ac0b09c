//! PPP over Ethernet: the packets of a session (RFC 2516).

use super::{
    bytes::Bytes,
    ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};
use crate::abi::counter::Unparsed;

/// Of a session (RFC 2516 section 4); discovery has another, and no IP in it.
pub(super) const ETHERTYPE_SESSION: u16 = 0x8864;
/// PPPoE's header, and the PPP protocol that its payload begins with.
const HEADER: u32 = 8;
/// Version 1, type 1, code 0 (RFC 2516 section 6).
const SESSION_DATA: u16 = 0x1100;
/// RFC 1332 section 3.
const PPP_IPV4: u16 = 0x0021;
/// RFC 5072 section 2.
const PPP_IPV6: u16 = 0x0057;

/// Skips the headers that begin at `at`: the Ethertype of what lies behind them, and where that begins.
///
/// # Errors
///
/// `Truncated`, `PppPayload`.
#[inline(always)]
pub fn skip(bytes: &impl Bytes, at: u32) -> Result<(u16, u32), Unparsed> {
    let header = bytes.window::<{ HEADER as usize }>(at).ok_or(Unparsed::Truncated)?;
    let ethertype = match header.number::<6>() {
        PPP_IPV4 => ETHERTYPE_IPV4,
        PPP_IPV6 => ETHERTYPE_IPV6,
        _ => return Err(Unparsed::PppPayload),
    };
    if header.number::<0>() != SESSION_DATA {
        return Err(Unparsed::PppPayload);
    }
    Ok((ethertype, at + HEADER))
}

#[cfg(test)]
mod tests {
    use super::skip;
    use crate::{abi::counter::Unparsed, wire::frames::pppoe};

    #[test]
    fn either_version_of_ip() {
        for (protocol, ethertype) in [(0x0021, 0x0800), (0x0057, 0x86DD)] {
            assert_eq!(skip(&pppoe(protocol, &[]).as_slice(), 0), Ok((ethertype, 8)));
        }
    }

    #[test]
    fn what_the_ends_say_to_each_other_is_no_ip() {
        // LCP, IPCP, IPV6CP, PAP.
        for protocol in [0xC021, 0x8021, 0x8057, 0xC023] {
            assert_eq!(skip(&pppoe(protocol, &[]).as_slice(), 0), Err(Unparsed::PppPayload));
        }
        for (at, value) in [(0, 0x21), (0, 0x12), (1, 0xA7)] {
            let mut other = pppoe(0x0021, &[]);
            other[at] = value;
            assert_eq!(skip(&other.as_slice(), 0), Err(Unparsed::PppPayload));
        }
    }

    #[test]
    fn a_header_that_is_cut() {
        let frame = pppoe(0x0021, &[]);
        for length in 0..8 {
            assert_eq!(skip(&&frame[..length], 0), Err(Unparsed::Truncated), "{length}");
        }
    }
}
