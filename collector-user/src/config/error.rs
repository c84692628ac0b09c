//! What can be wrong with a configuration, and where.

use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    str::Utf8Error,
};

use super::{CidrError, GlobError, IntervalError, NetworkFault, PolicyFault, SocketError};
use crate::{
    error::with_causes,
    host::pcap::FilterError,
    policy::explosion::Explosion,
    pu::{
        cgroup_glob::CgroupGlobError, port::PortError, registry::TooMany, trace::NoSuchUnit,
        unit_glob::UnitGlobError,
    },
};

/// A configuration file that does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: the configuration cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file does not end where a configuration would.
    #[error("{}: the configuration goes on behind {most} octets: expected a file of at most that", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// What is read at most.
        most: u64,
    },
    /// Something in the file is wrong.
    #[error("{place}: {fault}")]
    Wrong {
        /// Where.
        place: Place,
        /// What, and what was expected. Its text is part of this one's, so it is no source.
        fault: Box<Fault>,
    },
}

impl ConfigError {
    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// `octets` are no text from where `error` says.
    pub(super) fn not_utf8(path: &Path, octets: &[u8], error: Utf8Error) -> Self {
        let (text, rest) = octets.split_at_checked(error.valid_up_to()).unwrap_or_default();
        let text = str::from_utf8(text).unwrap_or_default();
        let octet = rest.first().copied().unwrap_or_default();
        Self::Wrong { place: Place::of(path, text, text.len()), fault: Box::new(Fault::NotUtf8 { octet }) }
    }
}

const KINDS: &str = "flow, container, user, trace, packet, counter, dns, ping";

/// What is wrong in a configuration file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It is not TOML, names a key that is not known, or gives a value of another type.
    #[error("{}", in_words(source.message()))]
    Syntax {
        /// What the reader expected.
        source: toml::de::Error,
    },
    /// It is no text.
    #[error("the octet {octet:#04x} is no UTF-8: expected the file in that encoding")]
    NotUtf8 {
        /// The first that cannot be read.
        octet: u8,
    },
    /// A pattern for interfaces is none.
    #[error("iface: {source}")]
    Glob {
        /// What is wrong with it.
        source: GlobError,
    },
    /// A pattern for the ids of units is none.
    #[error("ignore: {source}")]
    UnitGlob {
        /// What is wrong with it.
        source: UnitGlobError,
    },
    /// A place of the socket is none.
    #[error("socket: {source}")]
    Socket {
        /// What is wrong with it.
        source: SocketError,
    },
    /// A length of time is none.
    #[error("{key}: {source}")]
    Interval {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        source: IntervalError,
    },
    /// A packet filter is none, or libpcap is not there.
    #[error("filter: {}", with_causes(source))]
    Filter {
        /// What is wrong with it.
        source: FilterError,
    },
    /// A number that must not be 0 is.
    #[error("{key} is 0: expected a number from 1 on")]
    Zero {
        /// The key.
        key: &'static str,
    },
    /// There are no outputs.
    #[error("output: no output is left: expected `text`, `json`, or tables headed [[output]]")]
    NoOutput,
    /// An output cannot go there.
    #[error("output: {given:?} is no place for type {form:?}: expected {expected}")]
    OutputPlace {
        /// The output's type.
        form: &'static str,
        /// What was given.
        given: String,
        /// What it may be.
        expected: &'static str,
    },
    /// Two outputs write to one place.
    #[error(
        "output: two outputs go to {to}, the first in line {first}: expected another `to`, or one of them less"
    )]
    SharedPlace {
        /// The place.
        to: String,
        /// The line of the first.
        first: usize,
    },
    /// The name of an output is none.
    #[error("output: {name:?} is no name: expected one without control characters")]
    OutputName {
        /// The name.
        name: String,
    },
    /// The name of an output is that of something else in the ledger.
    #[error("output: the name {name:?} is the collector's own: expected another one")]
    ReservedName {
        /// The name.
        name: String,
    },
    /// Two outputs have one name.
    #[error(
        "output: two outputs are named {name:?}, the first in line {first}: expected a name of its own for each"
    )]
    OutputNamedTwice {
        /// The name.
        name: String,
        /// The line of the first.
        first: usize,
    },
    /// An output gets nothing.
    #[error("output: no kind of event is left: expected some of {KINDS}, or no `events` for all")]
    NoEvents,
    /// A kind of event is none.
    #[error("output: {given:?} is no kind of event: expected {KINDS}")]
    EventKind {
        /// What was given.
        given: String,
    },
    /// A mask has holes.
    #[error(
        "mark-mask {mask:#010x} has holes: expected one run of bits, such as 0xfffc0000, or 0 for no mark"
    )]
    MarkMask {
        /// The mask.
        mask: u32,
    },
    /// A processing unit has no id.
    #[error("a processing unit has an empty id: expected a name")]
    EmptyId,
    /// The id belongs to a unit that is always there.
    #[error(
        "processing unit {id:?}: the id is the collector's own; expected another than host, forwarded, unknown and overlay"
    )]
    ReservedId {
        /// The id.
        id: String,
    },
    /// A limit that is too small or too great.
    #[error("limits.{key} = {given}: expected a number from {least} to {most}")]
    Range {
        /// The key.
        key: &'static str,
        /// What was given.
        given: u32,
        /// The least that is meant.
        least: u32,
        /// The most that is meant.
        most: u32,
    },
    /// A number that is too small or too great.
    #[error("{key} = {given}: expected a number from {least} to {most}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// What was given.
        given: u32,
        /// The least that is meant.
        least: u32,
        /// The most that is meant.
        most: u32,
    },
    /// The packets of a unit are asked for that is not declared.
    #[error("trace.pu: {source}")]
    NoSuchUnit {
        /// Which.
        source: NoSuchUnit,
    },
    /// More units than can be counted.
    #[error("{source}: expected fewer units, or several networks in one")]
    TooMany {
        /// How many, and how many there can be.
        source: TooMany,
    },
    /// Two units have one id.
    #[error(
        "processing unit {id:?} is declared twice, first in line {first}: expected an id of its own for each"
    )]
    DuplicateId {
        /// The id.
        id: String,
        /// The line of the first.
        first: usize,
    },
    /// A unit matches nothing.
    #[error(
        "processing unit {id:?} matches nothing: expected a name in `interface`, a network in `cidr`, a path in `cgroup`, a name in `netns`, a number in `port` or a user in `uid`"
    )]
    NoMatcher {
        /// The unit.
        id: String,
    },
    /// Without an interface there is no side of it.
    #[error(
        "processing unit {id:?} has a `side`, and no interface on whose side it could be: expected `interface` too"
    )]
    SideOfNothing {
        /// The unit.
        id: String,
    },
    /// A pattern stands where a name should.
    #[error(
        "processing unit {id:?}: {name:?} looks like a pattern, and a unit's interfaces are names: write each in full"
    )]
    InterfacePattern {
        /// The unit.
        id: String,
        /// What was given.
        name: String,
    },
    /// The name of an interface is impossible.
    #[error(
        "processing unit {id:?}: no interface can be called {name:?}: expected 1 to 15 octets without blanks, `/` or `:`"
    )]
    InterfaceName {
        /// The unit.
        id: String,
        /// The name.
        name: String,
    },
    /// A pattern for cgroups is none.
    #[error("processing unit {id:?}: cgroup: {source}")]
    Cgroup {
        /// The unit.
        id: String,
        /// What is wrong with it.
        source: CgroupGlobError,
    },
    /// A network namespace cannot have such a name.
    #[error(
        "processing unit {id:?}: {name:?} names no network namespace: expected a name as `ip netns list` has it, or a path \
         such as /proc/1234/ns/net"
    )]
    Netns {
        /// The unit.
        id: String,
        /// The name.
        name: String,
    },
    /// A port is none.
    #[error("processing unit {id:?}: port: {source}")]
    Port {
        /// The unit.
        id: String,
        /// What is wrong with it.
        source: PortError,
    },
    /// A user cannot be called so.
    #[error(
        "processing unit {id:?}: {given:?} is no user: expected an id from 0 to 4294967294, or a name as /etc/passwd has it"
    )]
    User {
        /// The unit.
        id: String,
        /// What was given.
        given: String,
    },
    /// More users than the programs have room for.
    #[error(
        "processing unit {id:?}: with its own there are more than {most} users in `uid`: expected fewer, or their cgroups"
    )]
    TooManyUsers {
        /// The unit.
        id: String,
        /// So many there may be.
        most: u32,
    },
    /// A network is none.
    #[error("processing unit {id:?}: {source}")]
    Cidr {
        /// The unit.
        id: String,
        /// What is wrong with it.
        source: CidrError,
    },
    /// Two units claim the same.
    #[error("processing unit {id:?} claims {matcher}, as does {other:?}: expected each in one unit only")]
    ClaimedTwice {
        /// The unit.
        id: String,
        /// The one that stands before it.
        other: String,
        /// The interface or network.
        matcher: String,
    },
    /// A network that has a name is wrong.
    #[error("network {id:?}: {source}")]
    Network {
        /// Its id.
        id: String,
        /// What is wrong with it.
        source: NetworkFault,
    },
    /// A policy is wrong.
    #[error("policy {id:?}: {source}")]
    Policy {
        /// Its id.
        id: String,
        /// What is wrong with it.
        source: Box<PolicyFault>,
    },
    /// The policies are too many.
    #[error("{source}")]
    Explosion {
        /// For what.
        source: Explosion,
    },
    /// A tag has no key.
    #[error("processing unit {id:?}: the tag {tag:?} lacks a key or a `=`: expected key=value")]
    Tag {
        /// The unit.
        id: String,
        /// The tag.
        tag: String,
    },
}

/// A fault and where in the text it stands.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) span: Range<usize>,
    pub(super) fault: Fault,
}

/// A place in a file, as editors understand it: `path:line:column`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column, in characters, from 1.
    pub column: usize,
}

impl Place {
    /// Where the octet at `offset` of `text` stands.
    pub(super) fn of(path: &Path, text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = line_of(text, offset);
        let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
        Self { path: path.to_owned(), line, column }
    }
}

/// What the reader says, without names of types.
fn in_words(message: &str) -> String {
    message.replace("expected u32", &format!("expected a whole number from 0 to {}", u32::MAX))
}

/// The line, from 1, in which the octet at `offset` of `text` stands.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.get(..offset).unwrap_or(text).matches('\n').count() + 1
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Place;

    #[test]
    fn lines_and_columns_count_from_one_and_columns_are_characters() {
        let place = |offset| {
            let place = Place::of(Path::new("f"), "a\n\u{e9}b\n", offset);
            (place.line, place.column)
        };
        assert_eq!(
            [0, 1, 2, 4, 5, 6, 99].map(place),
            [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 1), (3, 1)]
        );
        assert_eq!(Place::of(Path::new("/etc/c.toml"), "x", 0).to_string(), "/etc/c.toml:1:1");
    }
}
