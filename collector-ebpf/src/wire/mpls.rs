//! MPLS: the label stack between layer 2 and the network layer (RFC 3032).

use super::{
    bytes::Bytes,
    ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};
use crate::abi::counter::Unparsed;

/// Unicast (RFC 3032 section 5).
const ETHERTYPE_MPLS: u16 = 0x8847;
/// Upstream-assigned labels, multicast among them (RFC 5332 section 3).
const ETHERTYPE_MPLS_UPSTREAM: u16 = 0x8848;

/// Entries of a stack that are followed; networks in the wild use up to six or so.
const DEPTH: u32 = 8;
const ENTRY: u32 = 4;
/// The bit of an entry's third octet that marks the last one (RFC 3032 section 2.1).
const BOTTOM_OF_STACK: u8 = 1;

/// Whether a label stack begins behind an Ethertype.
#[inline(always)]
pub fn is_mpls(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_MPLS || ethertype == ETHERTYPE_MPLS_UPSTREAM
}

/// Skips the label stack that begins at `at`: the Ethertype of what lies behind it, and where that begins.
///
/// No entry says what is behind the last one. An IP packet begins with its version, and what shall not be taken for one
/// with another number (RFC 4928 section 3).
///
/// # Errors
///
/// `Truncated`, `MplsDepth`, `MplsPayload`.
#[inline(always)]
pub fn skip(bytes: &impl Bytes, mut at: u32) -> Result<(u16, u32), Unparsed> {
    for _ in 0..DEPTH {
        let entry = bytes.window::<{ ENTRY as usize }>(at).ok_or(Unparsed::Truncated)?;
        at = bytes.forget(at + ENTRY);
        if entry.byte::<2>() & BOTTOM_OF_STACK != 0 {
            let [version_length] = bytes.array(at).ok_or(Unparsed::Truncated)?;
            return match version_length >> 4 {
                4 => Ok((ETHERTYPE_IPV4, at)),
                6 => Ok((ETHERTYPE_IPV6, at)),
                _ => Err(Unparsed::MplsPayload),
            };
        }
    }
    Err(Unparsed::MplsDepth)
}

#[cfg(test)]
mod tests {
    use super::{DEPTH, is_mpls, skip};
    use crate::{abi::counter::Unparsed, wire::frames::mpls};

    fn read(labels: u32, payload: &[u8]) -> Result<(u16, u32), Unparsed> {
        skip(&mpls(labels, payload).as_slice(), 0)
    }

    #[test]
    fn a_stack_of_every_depth() {
        for labels in 1..=DEPTH {
            assert_eq!(read(labels, &[0x45]), Ok((0x0800, labels * 4)));
            assert_eq!(read(labels, &[0x60]), Ok((0x86DD, labels * 4)));
        }
        assert_eq!(read(DEPTH + 1, &[0x45]), Err(Unparsed::MplsDepth));
    }

    #[test]
    fn what_is_behind_the_stack_tells_by_its_first_bits() {
        for octet in 0..=u8::MAX {
            let expected = match octet >> 4 {
                4 => Ok((0x0800, 8)),
                6 => Ok((0x86DD, 8)),
                // A pseudowire's control word begins with 0, an associated channel with 1 (RFC 4385 section 3).
                _ => Err(Unparsed::MplsPayload),
            };
            assert_eq!(read(2, &[octet]), expected);
        }
    }

    #[test]
    fn a_stack_that_is_cut() {
        let stack = mpls(3, &[]);
        for length in 0..=stack.len() {
            assert_eq!(skip(&&stack[..length], 0), Err(Unparsed::Truncated), "{length}");
        }
    }

    #[test]
    fn two_ethertypes() {
        assert_eq!((0..=u16::MAX).filter(|it| is_mpls(*it)).collect::<std::vec::Vec<_>>(), [0x8847, 0x8848]);
    }
}
