//! Sets of policy rules by hand, as the programs look them up: classes and what is said of them.

use std::{net::IpAddr, sync::Arc};

use collector_ebpf::abi::policy::{ClassesKey, RemoteKey, ServiceKey, verdict};
use collector_user::{
    kernel::{
        control::mapped,
        policies::{Entries, SET_BITS},
    },
    policy::rule::{Action, Observe, Policy, Ports, Remote, Rule, Selector, Service},
    pu::trace::Directions,
};
use ipnet::IpNet;

use crate::Result;

/// Rejected and dropped, by the verdict with this number.
pub const fn dropped(number: u16) -> u32 {
    number as u32 | verdict::REJECT | verdict::DROP
}

/// Rejected, and only said so.
pub const fn rejected(number: u16) -> u32 {
    number as u32 | verdict::REJECT
}

/// A set without entries.
#[derive(Clone, Debug)]
pub struct Set {
    number: u32,
    entries: Entries,
}

impl Set {
    /// Number `number`.
    pub fn new(number: u32) -> Self {
        Self { number, entries: Entries::default() }
    }

    /// Remote addresses of a class.
    pub fn remote(mut self, range: &str, class: u16) -> Result<Self> {
        let range: IpNet = range.parse()?;
        let address = mapped(range.network());
        let bits =
            u32::from(range.prefix_len()) + if matches!(range.network(), IpAddr::V4(_)) { 96 } else { 0 };
        self.entries.remotes.push((SET_BITS + bits, RemoteKey { set: self.number, address }, class.into()));
        Ok(self)
    }

    /// Services of a class: those of a protocol whose ports begin with so many bits of `port`.
    #[must_use]
    pub fn service(mut self, protocol: u8, (port, bits): (u16, u32), class: u16) -> Self {
        let port = port.to_be_bytes();
        self.entries.services.push((
            // The protocol, and an octet that is always 0.
            SET_BITS + 16 + bits,
            ServiceKey { set: self.number, protocol, is_unread: 0, port },
            class.into(),
        ));
        self
    }

    /// Packets of a protocol, or [`UNKNOWN`](collector_ebpf::wire::UNKNOWN), that are not understood, of a class.
    #[must_use]
    pub fn unread(mut self, protocol: u8, class: u16) -> Self {
        let [protocol, is_unread, one, two] = ServiceKey::unread(protocol);
        let key = ServiceKey { set: self.number, protocol, is_unread, port: [one, two] };
        self.entries.services.push((SET_BITS + 32, key, class.into()));
        self
    }

    /// What is said of both.
    #[must_use]
    pub fn says(mut self, remote: u16, service: u16, verdict: u32) -> Self {
        self.entries.verdicts.push((ClassesKey { set: self.number, remote, service }, verdict));
        self
    }

    /// Its number.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Its entries.
    #[must_use]
    pub fn entries(self) -> Entries {
        self.entries
    }
}

/// A policy about one unit, or those that a pattern means, and about flows of a protocol to these ports; what it does is
/// `accept` or not.
pub fn policy(
    id: &str,
    units: &str,
    directions: Directions,
    (protocol, ports): (u8, std::ops::RangeInclusive<u16>),
    (accept, observe): (bool, Observe),
) -> Result<Policy> {
    let service = Service {
        protocol: Some(protocol),
        ports: vec![Ports { first: *ports.start(), last: *ports.end() }],
    };
    Ok(Policy {
        selector: Selector { units: vec![units.parse()?], ..Selector::default() },
        directions,
        rule: Arc::new(Rule {
            id: id.into(),
            remote: Remote::default(),
            service,
            action: if accept { Action::Accept { encrypt: false } } else { Action::Reject },
            log: false,
            observe,
        }),
    })
}
