//! Layer 2: Ethernet with 802.1Q and 802.1ad tags (IEEE 802.3-2022 clause 3.2.6, 802.1Q-2022 clause 9), and what may stand
//! between it and the network layer; or nothing.

use super::{Link, bytes::Bytes, llc, mpls, pppoe};
use crate::abi::counter::Unparsed;

/// IPv4 (RFC 894).
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// IPv6 (RFC 2464 section 3).
pub const ETHERTYPE_IPV6: u16 = 0x86DD;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_RARP: u16 = 0x8035;
const ETHERTYPE_8021Q: u16 = 0x8100;
const ETHERTYPE_8021AD: u16 = 0x88A8;
/// A tag that many switches put outermost before there was 802.1ad. In no standard; Linux takes none off.
const ETHERTYPE_OLD_TAG: u16 = 0x9100;
/// Below this the field is a length (IEEE 802.3-2022 clause 3.2.6).
pub const FIRST_ETHERTYPE: u16 = 0x0600;

/// Where the Ethertype stands in the header.
pub const ETHERTYPE_AT: u32 = 12;
const TAG: u32 = 4;
/// Tags that are followed: two are what the standard has, a third one is met where providers nest.
const TAGS: u32 = 4;
/// A tag control field's low 12 bits are the VLAN id; above them stand priority and drop eligibility.
pub const VLAN_ID: u16 = 0x0FFF;

/// What layer 2 says of the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer2 {
    /// The Ethertype of what begins there.
    pub ethertype: u16,
    /// The id of the first tag in the frame, 0 without one.
    pub vlan: u16,
    /// Where the network layer begins.
    pub next: u32,
}

/// Reads the Ethernet header, its tags, and what stands between them and the network layer: SNAP, PPPoE, MPLS labels.
///
/// # Errors
///
/// `Truncated`, `VlanDepth`, those of [`llc::ethertype`], [`pppoe::skip`] and [`mpls::skip`], and for raw IP `IpVersion`.
#[inline(always)]
pub fn parse(bytes: &impl Bytes, link: Link) -> Result<Layer2, Unparsed> {
    match link {
        Link::Ethernet => {
            let ethertype = bytes.number(ETHERTYPE_AT).ok_or(Unparsed::Truncated)?;
            behind(bytes, ethertype, ETHERTYPE_AT + 2)
        }
        Link::RawIp => raw_ip(bytes, 0),
    }
}

/// The same behind a header that says what follows it by an Ethertype, or a length in its place, and that ends at `next`.
///
/// # Errors
///
/// `Truncated`, `VlanDepth`, those of [`llc::ethertype`], [`pppoe::skip`] and [`mpls::skip`].
#[inline(always)]
pub fn behind(bytes: &impl Bytes, ethertype: u16, next: u32) -> Result<Layer2, Unparsed> {
    let mut layer2 = tagged(bytes, ethertype, next)?;
    if layer2.ethertype < FIRST_ETHERTYPE {
        let (ethertype, next) = llc::ethertype(bytes, bytes.forget(layer2.next))?;
        layer2 = Layer2 { ethertype, next, ..layer2 };
    }
    if layer2.ethertype == pppoe::ETHERTYPE_SESSION {
        let (ethertype, next) = pppoe::skip(bytes, bytes.forget(layer2.next))?;
        layer2 = Layer2 { ethertype, next, ..layer2 };
    } else if mpls::is_mpls(layer2.ethertype) {
        let (ethertype, next) = mpls::skip(bytes, bytes.forget(layer2.next))?;
        layer2 = Layer2 { ethertype, next, ..layer2 };
    }
    Ok(layer2)
}

/// The tags that begin at `next`, if the Ethertype before says so.
#[inline(always)]
fn tagged(bytes: &impl Bytes, ethertype: u16, next: u32) -> Result<Layer2, Unparsed> {
    let mut layer2 = Layer2 { ethertype, vlan: 0, next };
    for depth in 0..TAGS {
        if !is_tag(layer2.ethertype) {
            return Ok(layer2);
        }
        let tag = bytes.window::<{ TAG as usize }>(layer2.next).ok_or(Unparsed::Truncated)?;
        if depth == 0 {
            layer2.vlan = tag.number::<0>() & VLAN_ID;
        }
        layer2.ethertype = tag.number::<2>();
        layer2.next += TAG;
    }
    if is_tag(layer2.ethertype) { Err(Unparsed::VlanDepth) } else { Ok(layer2) }
}

/// The same of a packet that begins with its IP header, at `at`.
///
/// # Errors
///
/// [`Unparsed::Truncated`], and [`Unparsed::IpVersion`] where it is neither of IPv4 nor of IPv6.
#[inline(always)]
pub fn raw_ip(bytes: &impl Bytes, at: u32) -> Result<Layer2, Unparsed> {
    let [version_length] = bytes.array(at).ok_or(Unparsed::Truncated)?;
    let ethertype = match version_length >> 4 {
        4 => ETHERTYPE_IPV4,
        6 => ETHERTYPE_IPV6,
        _ => return Err(Unparsed::IpVersion),
    };
    Ok(Layer2 { ethertype, vlan: 0, next: at })
}

/// The reason why a frame of this Ethertype is not an IP packet.
#[inline(always)]
pub fn refuse(ethertype: u16) -> Unparsed {
    match ethertype {
        ETHERTYPE_ARP | ETHERTYPE_RARP => Unparsed::Arp,
        length if length < FIRST_ETHERTYPE => Unparsed::Llc,
        _ => Unparsed::EtherType,
    }
}

/// Whether a tag follows an Ethertype: 802.1Q's, 802.1ad's, or that of before.
#[inline(always)]
pub fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_8021Q | ETHERTYPE_8021AD | ETHERTYPE_OLD_TAG)
}

#[cfg(test)]
mod tests {
    use super::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Layer2, parse, refuse};
    use crate::{
        abi::counter::Unparsed,
        wire::{
            Link,
            frames::{C_TAG, OLD_TAG, S_TAG, ethernet, mpls, pppoe, snap},
        },
    };

    fn read(tags: &[(u16, u16)]) -> Result<Layer2, Unparsed> {
        parse(&ethernet(tags, ETHERTYPE_IPV6, &[]).as_slice(), Link::Ethernet)
    }

    #[test]
    fn no_tag() {
        assert_eq!(read(&[]), Ok(Layer2 { ethertype: ETHERTYPE_IPV6, vlan: 0, next: 14 }));
    }

    #[test]
    fn one_tag_of_any_kind() {
        for kind in [C_TAG, S_TAG, OLD_TAG] {
            assert_eq!(read(&[(kind, 100)]), Ok(Layer2 { ethertype: ETHERTYPE_IPV6, vlan: 100, next: 18 }));
        }
    }

    #[test]
    fn priority_and_drop_eligibility_are_no_part_of_the_id() {
        assert_eq!(read(&[(C_TAG, 0xFFFE)]).map(|it| it.vlan), Ok(0xFFE));
        assert_eq!(read(&[(C_TAG, 0xE000)]), Ok(Layer2 { ethertype: ETHERTYPE_IPV6, vlan: 0, next: 18 }));
    }

    #[test]
    fn of_two_tags_the_outer_one_counts() {
        for inner in [C_TAG, S_TAG] {
            let expected = Ok(Layer2 { ethertype: ETHERTYPE_IPV6, vlan: 200, next: 22 });
            assert_eq!(read(&[(S_TAG, 200), (inner, 100)]), expected);
            assert_eq!(read(&[(C_TAG, 200), (inner, 100)]), expected);
        }
    }

    #[test]
    fn four_tags_are_followed() {
        let tags = [(S_TAG, 1), (C_TAG, 2), (C_TAG, 3), (C_TAG, 4), (C_TAG, 5)];
        for count in 1..=4 {
            let expected = Ok(Layer2 { ethertype: ETHERTYPE_IPV6, vlan: 1, next: 14 + 4 * count as u32 });
            assert_eq!(read(&tags[..count]), expected);
        }
        assert_eq!(read(&tags), Err(Unparsed::VlanDepth));
    }

    #[test]
    fn what_stands_behind_the_tags() {
        for tags in [&[][..], &[(C_TAG, 7)]] {
            let behind = 14 + 4 * tags.len() as u32;
            let vlan = if tags.is_empty() { 0 } else { 7 };
            for (ethertype, payload, expected) in std::vec![
                (40, snap(ETHERTYPE_IPV4, &[0x45]), Ok((ETHERTYPE_IPV4, 8))),
                (40, snap(0x8847, &mpls(1, &[0x60])), Ok((ETHERTYPE_IPV6, 12))),
                (0x8864, pppoe(0x57, &[0x60]), Ok((ETHERTYPE_IPV6, 8))),
                (0x8864, pppoe(0xC021, &[]), Err(Unparsed::PppPayload)),
                (40, std::vec![0x42, 0x42, 3, 0, 0, 0, 8, 0], Err(Unparsed::Llc)),
            ] {
                let frame = ethernet(tags, ethertype, &payload);
                let expected =
                    expected.map(|(ethertype, length)| Layer2 { ethertype, vlan, next: behind + length });
                assert_eq!(parse(&frame.as_slice(), Link::Ethernet), expected, "{ethertype:#x}");
            }
        }
    }

    #[test]
    fn labels_behind_tags() {
        for tags in [&[][..], &[(C_TAG, 7)], &[(S_TAG, 7), (C_TAG, 8)]] {
            for ethertype in [0x8847, 0x8848] {
                let frame = ethernet(tags, ethertype, &mpls(2, &[0x45]));
                let (vlan, next) = (if tags.is_empty() { 0 } else { 7 }, 14 + 4 * tags.len() as u32 + 8);
                let expected = Ok(Layer2 { ethertype: ETHERTYPE_IPV4, vlan, next });
                assert_eq!(parse(&frame.as_slice(), Link::Ethernet), expected);
            }
        }
    }

    #[test]
    fn a_header_that_is_cut() {
        let frame = ethernet(&[(S_TAG, 1), (C_TAG, 2)], ETHERTYPE_IPV4, &[]);
        for length in 0..frame.len() {
            assert_eq!(parse(&&frame[..length], Link::Ethernet), Err(Unparsed::Truncated), "{length}");
        }
    }

    #[test]
    fn raw_ip_goes_by_its_version() {
        for octet in 0..=u8::MAX {
            let expected = match octet >> 4 {
                4 => Ok(Layer2 { ethertype: ETHERTYPE_IPV4, vlan: 0, next: 0 }),
                6 => Ok(Layer2 { ethertype: ETHERTYPE_IPV6, vlan: 0, next: 0 }),
                _ => Err(Unparsed::IpVersion),
            };
            assert_eq!(parse(&[octet].as_slice(), Link::RawIp), expected);
        }
        assert_eq!(parse(&[].as_slice(), Link::RawIp), Err(Unparsed::Truncated));
    }

    #[test]
    fn what_is_not_ip_is_refused_by_name() {
        for (ethertype, reason) in [
            (0, Unparsed::Llc),
            (46, Unparsed::Llc),
            (1500, Unparsed::Llc),
            (0x05FF, Unparsed::Llc),
            (0x0600, Unparsed::EtherType),
            (0x0806, Unparsed::Arp),
            (0x8035, Unparsed::Arp),
            (0x88CC, Unparsed::EtherType),
            (0xFFFF, Unparsed::EtherType),
        ] {
            assert_eq!(refuse(ethertype), reason, "{ethertype:#06x}");
        }
    }
}
