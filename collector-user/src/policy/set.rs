//! A compiled list of rules as the programs have it.

use collector_ebpf::abi::policy::{ClassesKey, RemoteKey, ServiceKey, verdict};

use super::{compile::Compiled, explosion::What, verdict::Verdict};

/// A compiled list of rules, with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The number; not 0. No other list ever has it.
    pub number: u32,
    /// The list.
    pub compiled: Compiled,
    /// The [verdict](mod@verdict) that stands for each of the list's.
    pub(super) words: Vec<u32>,
}

/// Bits of a key before the address, or the protocol: the set's number.
const SET_BITS: u32 = 32;
/// Bits of a key before the port: the set's number, the protocol, and the padding.
const PROTOCOL_BITS: u32 = 48;

impl Set {
    /// The entries of the trie of remote addresses: length in bits, key, class.
    pub fn remotes(&self) -> impl Iterator<Item = (u32, RemoteKey, u32)> {
        self.compiled.remotes.iter().map(|entry| {
            let key = RemoteKey { set: self.number, address: entry.address };
            (SET_BITS + u32::from(entry.length), key, entry.class.into())
        })
    }

    /// The entries of the trie of services: length in bits, key, class; those of packets that were not understood last.
    pub fn services(&self) -> impl Iterator<Item = (u32, ServiceKey, u32)> {
        let services = self.compiled.services.iter().map(|entry| {
            let port = entry.port.to_be_bytes();
            let key = ServiceKey { set: self.number, protocol: entry.protocol, is_unread: 0, port };
            (PROTOCOL_BITS + u32::from(entry.length), key, entry.class.into())
        });
        let unread = self.compiled.unread.iter().map(|entry| {
            let [protocol, is_unread, one, two] = ServiceKey::unread(entry.protocol);
            let key = ServiceKey { set: self.number, protocol, is_unread, port: [one, two] };
            (PROTOCOL_BITS + u16::BITS, key, entry.class.into())
        });
        services.chain(unread)
    }

    /// The entries of the hash of verdicts.
    pub fn verdicts(&self) -> impl Iterator<Item = (ClassesKey, u32)> {
        self.compiled.pairs.iter().map(|pair| {
            let key = ClassesKey { set: self.number, remote: pair.remote, service: pair.service };
            (key, self.word(pair.verdict))
        })
    }

    /// The numbers of its verdicts.
    pub(super) fn verdicts_by_number(&self) -> impl Iterator<Item = u16> {
        self.words.iter().map(|word| (word & verdict::NUMBER) as u16)
    }

    /// What is done where there is no entry.
    pub fn otherwise(&self) -> u32 {
        self.word(self.compiled.otherwise)
    }

    /// Whether any of its rules asks for flows to be encrypted.
    pub fn asks_for_encryption(&self) -> bool {
        self.compiled.verdicts.iter().any(|verdict| verdict.action.encrypted())
    }

    /// Whether it may reject a packet that was not understood.
    pub fn may_reject_unread(&self) -> bool {
        self.otherwise() & verdict::REJECT != 0 || !self.compiled.unread.is_empty()
    }

    fn word(&self, verdict: usize) -> u32 {
        self.words.get(verdict).copied().unwrap_or_default()
    }
}

/// What the programs have for a verdict with this number.
pub(super) fn word(number: u16, verdict: &Verdict, is_enforced: bool) -> u32 {
    let bits = match (verdict.action.rejected(), is_enforced) {
        (true, true) => verdict::REJECT | verdict::DROP,
        (true, false) => verdict::REJECT,
        (false, _) => 0,
    };
    u32::from(number) | bits
}

/// Entries of sets together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    remotes: usize,
    services: usize,
    pairs: usize,
}

impl Size {
    pub(super) fn add(&mut self, set: &Set) {
        self.remotes += set.compiled.remotes.len();
        self.services += set.compiled.services.len() + set.compiled.unread.len();
        self.pairs += set.compiled.pairs.len();
    }

    pub(super) fn take_off(&mut self, set: &Set) {
        self.remotes -= set.compiled.remotes.len();
        self.services -= set.compiled.services.len() + set.compiled.unread.len();
        self.pairs -= set.compiled.pairs.len();
    }

    /// Of what there is too much.
    pub(super) fn beyond(&self) -> Option<What> {
        let all = [
            (What::RemoteEntries, self.remotes),
            (What::ServiceEntries, self.services),
            (What::Pairs, self.pairs),
        ];
        all.into_iter().find(|(what, size)| *size > what.most()).map(|(what, _)| what)
    }
}
