//! Which modules the kernel has loaded, and where: `/proc/modules`.

use std::{collections::BTreeMap, fs, ops::Range};

/// The modules that are loaded, by name: the addresses of each, which are none where the kernel hides them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modules {
    loaded: BTreeMap<String, Range<u64>>,
}

impl Modules {
    /// Reads them. A kernel without modules has no such list, and so none.
    #[must_use]
    pub fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/modules").unwrap_or_default())
    }

    /// Lines of a name, octets, users, who they are, a state, and where it begins. Of these only the first two and the last
    /// say which module it is: users come and go.
    fn parse(lines: &str) -> Self {
        let module = |line: &str| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [name, octets, _, _, _, begin, ..] = words.as_slice() else { return None };
            let begin = u64::from_str_radix(begin.strip_prefix("0x")?, 16).ok()?;
            let octets: u64 = octets.parse().ok()?;
            Some(((*name).to_owned(), begin..if begin == 0 { 0 } else { begin.saturating_add(octets) }))
        };
        Self { loaded: lines.lines().filter_map(module).collect() }
    }

    /// Their names, each with its addresses, always in the same order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Range<u64>)> {
        self.loaded.iter().map(|(name, addresses)| (name.as_str(), addresses))
    }

    /// Those of one.
    #[cfg(test)]
    pub(super) fn of(lines: &str) -> Self {
        Self::parse(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::Modules;

    #[test]
    fn who_uses_a_module_makes_it_no_other() {
        let of = |users: &str, begin: &str| {
            Modules::parse(&format!("nf_tables 4096 {users} Live {begin} (E)\nx\n"))
        };
        let loaded = of("0 -", "0xffffffffc0100000");
        assert_eq!(
            loaded.iter().collect::<Vec<_>>(),
            [("nf_tables", &(0xffff_ffff_c010_0000..0xffff_ffff_c010_1000))]
        );
        assert_eq!(loaded, of("2 nft_ct,nft_nat,", "0xffffffffc0100000"));
        assert_ne!(loaded, of("0 -", "0xffffffffc0200000"), "it was loaded anew");
        let hidden = of("0 -", "0x0000000000000000");
        assert!(hidden.iter().all(|(_, addresses)| *addresses == (0..0)));
    }
}
