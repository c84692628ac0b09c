//! The names of interfaces as the kernel has them: octets, which need be no text.
//!
//! The library that reads netlink's messages takes no others than text, and passes over a message that it cannot read. What
//! is not among the interfaces that it lists, and is there, is found here.

use std::{collections::BTreeSet, fs};

/// The names of the interfaces in the network namespace of the calling thread; none where `/proc` cannot be read.
#[must_use]
pub fn all() -> BTreeSet<Vec<u8>> {
    fs::read("/proc/thread-self/net/dev").map_or_else(|_| BTreeSet::new(), |table| names(&table))
}

/// Two lines of heading, then a line for each: blanks, the name, a colon (which no name has) and its counters.
fn names(table: &[u8]) -> BTreeSet<Vec<u8>> {
    let lines = table.split(|octet| *octet == b'\n').skip(2);
    let name = |line: &[u8]| {
        let (name, _) = line.split_at_checked(line.iter().position(|octet| *octet == b':')?)?;
        Some(name.trim_ascii_start().to_vec())
    };
    lines.filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn names_are_octets() {
        let table =
            b"Inter-|   Receive\n face |bytes    packets\n    lo: 1 2 3\nw\xff1:0\nlong-interface1: 7\n";
        let want: [&[u8]; 3] = [b"lo", b"long-interface1", b"w\xff1"];
        assert!(names(table).iter().eq(want), "{:?}", names(table));
        assert!(names(b"").is_empty() && names(b"a\nb\nc").is_empty());
    }
}
