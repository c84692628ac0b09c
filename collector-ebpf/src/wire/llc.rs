//! IEEE 802.2 LLC behind an 802.3 length, of which one form carries IP: SNAP with an Ethertype (RFC 1042).

use super::bytes::Bytes;
use crate::abi::counter::Unparsed;

/// Both service access points are SNAP's; unnumbered information.
const SNAP: [u8; 3] = [0xAA, 0xAA, 0x03];
/// The organisation whose numbers are Ethertypes.
const ETHERTYPES: [u8; 3] = [0; 3];
/// Octets of LLC and SNAP.
const HEADER: u32 = 8;

/// The Ethertype in the header that begins at `at`, and where what it names begins.
///
/// # Errors
///
/// `Truncated`, `Llc`.
#[inline(always)]
pub fn ethertype(bytes: &impl Bytes, at: u32) -> Result<(u16, u32), Unparsed> {
    if bytes.array(at).ok_or(Unparsed::Truncated)? != SNAP {
        return Err(Unparsed::Llc);
    }
    let snap = bytes.window::<5>(at + 3).ok_or(Unparsed::Truncated)?;
    if snap.get::<0, 3>() != ETHERTYPES {
        return Err(Unparsed::Llc);
    }
    Ok((snap.number::<3>(), at + HEADER))
}

#[cfg(test)]
mod tests {
    use super::ethertype;
    use crate::{abi::counter::Unparsed, wire::frames::snap};

    #[test]
    fn snap_with_an_ethertype() {
        let frame = snap(0x86DD, &[0x60]);
        assert_eq!(ethertype(&frame.as_slice(), 0), Ok((0x86DD, 8)));
        for length in 0..8 {
            assert_eq!(ethertype(&&frame[..length], 0), Err(Unparsed::Truncated), "{length}");
        }
    }

    #[test]
    fn everything_else_is_another_protocol() {
        let frame = snap(0x0800, &[]);
        for at in 0..6 {
            for value in (0..=u8::MAX).filter(|it| *it != frame[at]) {
                let mut other = frame.clone();
                other[at] = value;
                assert_eq!(ethertype(&other.as_slice(), 0), Err(Unparsed::Llc), "{at}: {value}");
            }
        }
        assert_eq!(ethertype(&[0x42, 0x42, 0x03].as_slice(), 0), Err(Unparsed::Llc));
    }
}
