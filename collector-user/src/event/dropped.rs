//! What the kernel drops, as rows: whose, why, where, and how much.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Text, vocabulary::vocabulary};

vocabulary! {
    /// What kind of a drop it is: which are somebody's trouble, and which are the noise of a network.
    DropClass {
        /// The kernel gave no reason that says.
        Unknown = "unknown",
        /// A rule or a program said so.
        Policy = "policy",
        /// Nobody listens there.
        NoSocket = "no_socket",
        /// The packet breaks the rules of its protocol, or its checksum is wrong.
        Malformed = "malformed",
        /// A queue, a buffer or the memory was full.
        Resource = "resource",
        /// No way to its destination, or nobody there who answers.
        Route = "route",
        /// It was for somebody else.
        NotForUs = "not_for_us",
        /// It had done its work, or came for a connection that goes on or has ended: nothing is missing.
        EndOfLife = "end_of_life",
    }
}

impl DropClass {
    /// Every class.
    pub const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Policy,
        Self::NoSocket,
        Self::Malformed,
        Self::Resource,
        Self::Route,
        Self::NotForUs,
        Self::EndOfLife,
    ];

    /// Whether such drops are what a network does on a good day, so that people are not told of each.
    #[must_use]
    pub const fn is_benign(self) -> bool {
        matches!(self, Self::NotForUs | Self::EndOfLife)
    }
}

/// Drops of one unit with one reason at one place in the kernel, since the collector started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Dropped {
    /// The processing unit; empty for packets of other network namespaces that are no declared unit's.
    pub puid: Text,
    /// Its namespace.
    pub namespace: Text,
    /// The kernel's own reason, by the name that it has in the running kernel; empty before Linux 5.17, which gives none.
    pub kernel_reason: Text,
    /// The function that dropped, and how far in it; an address where no name is to be had.
    pub place: Text,
    /// The kind.
    pub class: DropClass,
    /// The word of [`reason`](super::reason) that stands for it in flow records.
    pub drop_reason: Text,
    /// What to do about such drops, for people.
    pub advice: Text,
    /// Wire packets.
    pub packets: u64,
    /// Socket buffers.
    pub skbs: u64,
    /// Octets of the buffers as the kernel held them.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::DropClass;

    #[test]
    fn every_class_is_listed_once() {
        let mut all = DropClass::ALL.to_vec();
        all.dedup();
        assert_eq!(all.len(), 8);
        assert_eq!(all.iter().filter(|class| class.is_benign()).count(), 2);
    }
}
