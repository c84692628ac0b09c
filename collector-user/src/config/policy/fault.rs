//! What can be wrong with a policy.

use crate::{config::CidrError, pu::unit_glob::UnitGlobError};

/// What is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyFault {
    /// It has no id.
    #[error("the id is empty: expected a name")]
    EmptyId,
    /// The id stands for none in records.
    #[error("records have this id where no policy says anything: expected another than default")]
    ReservedId,
    /// Two have one id.
    #[error("another policy has this id, first in line {first}: expected an id of its own for each")]
    Twice {
        /// The line of the first.
        first: usize,
    },
    /// It does not say whose flows it is about.
    #[error("it is about no unit: expected `pu`, `namespace` or `tags`; pu = [\"*\"] for all")]
    NoSelector,
    /// A pattern for the ids of units is none.
    #[error("pu: {source}")]
    Glob {
        /// What is wrong with it.
        source: UnitGlobError,
    },
    /// A tag has no key.
    #[error("the tag {tag:?} lacks a key or a `=`: expected key=value")]
    Tag {
        /// The tag.
        tag: String,
    },
    /// A unit that it names is declared, and cannot be meant.
    #[error(
        "it can never be about {unit:?}, which is declared without {lacking}: name one of both, or declare it so"
    )]
    Never {
        /// The unit.
        unit: String,
        /// What it does not have.
        lacking: String,
    },
    /// A list is empty.
    #[error("`{key}` is an empty list, which could mean none or all: leave it out for all")]
    EmptyList {
        /// The key.
        key: &'static str,
    },
    /// A network is none.
    #[error("{source}")]
    Cidr {
        /// What is wrong with it.
        source: CidrError,
    },
    /// There is no network of this name.
    #[error("no network is called {name:?}: expected {}", names(known))]
    NoSuchNetwork {
        /// The name.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A protocol is none.
    #[error(
        "{given:?} is no protocol: expected a name such as tcp, udp, udplite, sctp, icmp, icmp6, gre, esp, or a number from 0 to 255"
    )]
    Protocol {
        /// What was given.
        given: String,
    },
    /// Ports of no protocol that has any.
    #[error("`port` goes with a protocol that has ports, and {}: expected protocol = \"tcp\", \"udp\", \"udplite\" or \"sctp\"", of(protocol.as_deref()))]
    NoPorts {
        /// The protocol; none: any.
        protocol: Option<String>,
    },
    /// Types of messages of no protocol that has any.
    #[error("`icmp-type` goes with ICMP, and {}: expected protocol = \"icmp\" or \"icmp6\"", of(protocol.as_deref()))]
    NoTypes {
        /// The protocol; none: any.
        protocol: Option<String>,
    },
    /// A port is none.
    #[error("{given:?} is no port: expected a number from 0 to 65535, or a range such as \"8000-8999\"")]
    Port {
        /// What was given.
        given: String,
    },
    /// A range ends before it begins.
    #[error("the range {first}-{last} ends before it begins: write \"{last}-{first}\"")]
    Reversed {
        /// Where it begins.
        first: u16,
        /// Where it ends.
        last: u16,
    },
    /// A type of a message is none.
    #[error(
        "{given:?} is no type of {protocol}'s messages: expected a number, a number and a code such as \"3/4\", or one of {names}"
    )]
    Type {
        /// What was given.
        given: String,
        /// The protocol.
        protocol: String,
        /// The names of types.
        names: String,
    },
    /// What is rejected is not encrypted.
    #[error("what it rejects cannot be encrypted: expected action = \"accept\", or no `encrypt`")]
    EncryptedReject,
}

fn names(known: &[String]) -> String {
    let mut known: Vec<String> = known.iter().map(|name| format!("{name:?}")).collect();
    known.sort_unstable();
    match known.as_slice() {
        [] => "a table headed [[network]] with this id".to_owned(),
        names => names.join(", "),
    }
}

fn of(protocol: Option<&str>) -> String {
    protocol.map_or_else(|| "there is no `protocol`".to_owned(), |protocol| format!("{protocol} has none"))
}
