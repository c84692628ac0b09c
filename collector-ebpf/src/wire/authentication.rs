//! The authentication header (RFC 4302) in IPv4; in IPv6 it is one of the [extension headers](super::ipv6).

use super::bytes::Bytes;
use crate::abi::counter::Unparsed;

/// Its protocol number.
pub(super) const AUTHENTICATION: u8 = 51;
/// Headers that are followed: one a security association; nested ones are allowed (RFC 4301 section 4.3 names two).
const DEPTH: u32 = 4;

/// The octets of a header whose length field says that; in units of 4 octets, not counting the first two (RFC 4302
/// section 2.2).
#[inline(always)]
pub(super) fn length(field: u8) -> u32 {
    (u32::from(field) + 2) * 4
}

/// Skips the headers that begin at `at`, where `protocol` says that one does: the protocol behind them, and where that
/// begins.
///
/// # Errors
///
/// `Truncated`, `ExtensionDepth`.
#[inline(always)]
pub fn skip(bytes: &impl Bytes, mut protocol: u8, mut at: u32) -> Result<(u8, u32), Unparsed> {
    for _ in 0..DEPTH {
        if protocol != AUTHENTICATION {
            return Ok((protocol, at));
        }
        let header = bytes.window::<4>(at).ok_or(Unparsed::Truncated)?;
        protocol = header.byte::<0>();
        at = bytes.forget(at + length(header.byte::<1>()));
    }
    if protocol == AUTHENTICATION { Err(Unparsed::ExtensionDepth) } else { Ok((protocol, at)) }
}

#[cfg(test)]
mod tests {
    use super::{DEPTH, skip};
    use crate::{
        abi::counter::Unparsed,
        wire::frames::{AH, UDP, authentication},
    };

    #[test]
    fn what_is_none_stays_where_it_is() {
        let nothing: &[u8] = &[];
        for protocol in (0..=u8::MAX).filter(|it| *it != AH) {
            assert_eq!(skip(&nothing, protocol, 7), Ok((protocol, 7)));
        }
    }

    #[test]
    fn every_length() {
        for words in 0..=50 {
            let header = authentication(UDP, words);
            assert_eq!(skip(&header.as_slice(), AH, 0), Ok((UDP, header.len() as u32)));
        }
    }

    #[test]
    fn headers_behind_headers() {
        for headers in 1..=DEPTH as usize + 1 {
            let chain = [authentication(AH, 3).repeat(headers - 1), authentication(UDP, 3)].concat();
            let expected = if headers <= DEPTH as usize {
                Ok((UDP, 24 * headers as u32))
            } else {
                Err(Unparsed::ExtensionDepth)
            };
            assert_eq!(skip(&chain.as_slice(), AH, 0), expected, "{headers}");
        }
    }

    #[test]
    fn a_header_that_is_cut() {
        let header = authentication(UDP, 3);
        for length in 0..4 {
            assert_eq!(skip(&&header[..length], AH, 0), Err(Unparsed::Truncated), "{length}");
        }
    }
}
