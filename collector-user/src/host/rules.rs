//! Rules of policy routing that ask for a packet's mark.

use futures_util::TryStreamExt as _;
use netlink_packet_route::rule::RuleAttribute;
use rtnetlink::{Handle, IpVersion};

use crate::host::links::HostError;

/// A rule that asks for the mark (`ip rule ... fwmark VALUE/MASK`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MarkRule {
    /// What the bits are compared with.
    pub value: u32,
    /// Which bits are.
    pub mask: u32,
    /// Its place in the order of rules.
    pub priority: u32,
}

/// Those of both IP versions in this network namespace.
///
/// # Errors
///
/// [`HostError::List`].
pub async fn list(handle: &Handle) -> Result<Vec<MarkRule>, HostError> {
    let fail = |source| HostError::List { what: "rules of policy routing", source };
    let mut found = Vec::new();
    for version in [IpVersion::V4, IpVersion::V6] {
        let mut messages = handle.rule().get(version).execute();
        while let Some(message) = messages.try_next().await.map_err(fail)? {
            let (mut value, mut mask, mut priority) = (None, u32::MAX, 0);
            for attribute in message.attributes {
                match attribute {
                    RuleAttribute::FwMark(number) => value = Some(number),
                    RuleAttribute::FwMask(bits) => mask = bits,
                    RuleAttribute::Priority(place) => priority = place,
                    _ => {}
                }
            }
            found.extend(value.map(|value| MarkRule { value, mask, priority }));
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
