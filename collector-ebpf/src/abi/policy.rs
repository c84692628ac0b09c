//! Policies as the programs see them: compiled to classes, looked up at a flow's first packet.
//!
//! User space gives each list of rules that some unit has in one direction a number, its *set*. What a set's rules do not
//! tell apart is one *class*: of remote addresses, and of services (protocol and port). A flow costs at most four look-ups:
//! the unit's set, the remote address's class in it, the service's class in it, and the verdict on both.
//!
//! The number of a set is never used for other rules as long as a flow may remember it: so a flow knows by its
//! [`Identity::sets`](super::flow::Identity::sets) that its verdict is stale, and a reload needs no pause.

use super::{
    counter::{PU_CHUNKS, PUS_PER_CHUNK},
    layout::layout,
};

/// Index of what the remote end opened.
pub const INCOMING: usize = 0;
/// Index of what the local end opened.
pub const OUTGOING: usize = 1;

/// The entry of the array `POLICIES` for what comes for this host and shows no ports, so that nobody can tell which of the
/// host's units would take it. No unit has this index.
pub const WHOEVER: u16 = 0;

/// Entries of the array `POLICIES`: one for each unit that there can be.
pub const UNITS: u32 = PU_CHUNKS * PUS_PER_CHUNK;
/// Entries that the trie `REMOTES` takes.
pub const MOST_REMOTES: u32 = 1 << 18;
/// Entries that the trie `SERVICES` takes.
pub const MOST_SERVICES: u32 = 1 << 18;
/// Entries that the hash `VERDICTS` takes where nothing else is said before it is made.
pub const MOST_VERDICTS: u32 = 1 << 20;

/// The policies of a unit. All zero where it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnitPolicy {
    /// The set of rules, by direction ([`INCOMING`], [`OUTGOING`]); 0 where the unit has no rules in it, so that everything
    /// is accepted by default.
    pub sets: [u32; 2],
    /// What is done where no rule of the set matches: a [`verdict`](mod@verdict), by direction.
    pub otherwise: [u32; 2],
}

impl UnitPolicy {
    /// As the programs have them.
    pub const fn entry(&self) -> PolicyEntry {
        let ([incoming, outgoing], [otherwise_incoming, otherwise_outgoing]) = (self.sets, self.otherwise);
        PolicyEntry {
            directions: [
                PolicyEntry::direction(incoming, otherwise_incoming),
                PolicyEntry::direction(outgoing, otherwise_outgoing),
            ],
        }
    }
}

/// The policies of a unit: the entry of the array `POLICIES` at the unit's index.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyEntry {
    /// By direction, in one word so that no run can see the one without the other: the [set](UnitPolicy::sets) in the lower
    /// half, and in the upper one [what is done otherwise](UnitPolicy::otherwise).
    pub directions: [u64; 2],
}

layout!(PolicyEntry, 16, { directions: 0 });

impl PolicyEntry {
    const fn direction(set: u32, otherwise: u32) -> u64 {
        set as u64 | (otherwise as u64) << 32
    }

    /// The set in a direction's word; 0 for none.
    #[inline(always)]
    pub const fn set(direction: u64) -> u32 {
        direction as u32
    }

    /// What is done where none of its rules matches.
    #[inline(always)]
    pub const fn otherwise(direction: u64) -> u32 {
        (direction >> 32) as u32
    }
}

/// The data of a key of the longest-prefix trie `REMOTES`, whose values are classes (`u32`). A prefix's length counts the
/// set's 32 bits, too. An address without an entry is of class 0; so may be all of IPv4 within a prefix of IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RemoteKey {
    /// The set, native byte order: it is looked up whole.
    pub set: u32,
    /// The address, IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
}

layout!(RemoteKey, 20, { set: 0, address: 4 });

/// The data of a key of the longest-prefix trie `SERVICES`, whose values are classes (`u32`, from 1 on). A prefix's length
/// counts the set's 32 bits, too: 32 is every protocol, 48 every port of one. A service without an entry is of class 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    /// The set, native byte order: it is looked up whole.
    pub set: u32,
    /// The IP protocol number; [`UNREAD`](Self::UNREAD) of a packet that was not understood.
    pub protocol: u8,
    /// 0; 1 of a packet that was not understood.
    pub is_unread: u8,
    /// The port of the end that did not open the flow, network byte order; type and code of an ICMP message, in that order,
    /// of an echo those of its request; zero where the protocol has neither. Of a packet that was not understood 0 and the
    /// protocol, which is [`UNKNOWN`](crate::wire::UNKNOWN) where it is not known.
    pub port: [u8; 2],
}

layout!(ServiceKey, 8, { set: 0, protocol: 4, is_unread: 5, port: 6 });

impl ServiceKey {
    /// What stands in the place of the protocol of a packet that was not understood.
    pub const UNREAD: u8 = 255;

    /// The octets behind the set of packets that were not understood, of this protocol or
    /// [`UNKNOWN`](crate::wire::UNKNOWN).
    #[inline(always)]
    pub const fn unread(protocol: u8) -> [u8; 4] {
        [Self::UNREAD, 1, 0, protocol]
    }
}

/// The key of the hash `VERDICTS`, whose values are [verdicts](mod@verdict). Without an entry, the unit's
/// [`otherwise`](UnitPolicy::otherwise) is the verdict.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClassesKey {
    /// The set.
    pub set: u32,
    /// The remote address's class in it.
    pub remote: u16,
    /// The service's class in it.
    pub service: u16,
}

layout!(ClassesKey, 8, { set: 0, remote: 4, service: 6 });

/// What the policies say of a flow, in one number.
pub mod verdict {
    /// The number that user space knows action and policy ids by; 0 is "accepted, for no rule says anything", so that what
    /// is rejected has another.
    pub const NUMBER: u32 = 0xFFFF;
    /// It is rejected, and the packet is to be dropped: policies are enforced.
    pub const DROP: u32 = 1 << 16;
    /// It is rejected, whether that is enforced or not.
    pub const REJECT: u32 = 1 << 17;
    /// The flow began before anyone looked, so that its direction is a guess: it is accepted whatever the rules say.
    pub const GUESSED: u32 = 1 << 18;
    /// It is that of the unit at the flow's other end on this host.
    pub const OTHER_END: u32 = 1 << 19;
    /// Of an identity's: no packet of the flow was ever let pass.
    pub const NOTHING_PASSED: u32 = 1 << 20;
}
