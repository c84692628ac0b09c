//! What an address in the kernel is called: `/proc/kallsyms`.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufReader},
};

use rustix::thread::{CapabilitySet, capabilities};

use super::modules::Modules;

/// Why addresses have no names.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SymbolsError {
    /// The list cannot be read.
    #[error("/proc/kallsyms cannot be read")]
    Read(#[from] io::Error),
    /// Nobody may see the addresses.
    #[error(
        "/proc/kallsyms shows none, since kernel.kptr_restrict is 2: with 1 it shows them to whoever has CAP_SYSLOG"
    )]
    Restricted,
    /// Who asks may not.
    #[error("/proc/kallsyms shows none to a process without CAP_SYSLOG")]
    NoPrivilege,
    /// They are hidden in spite of that.
    #[error("/proc/kallsyms shows none: CAP_SYSLOG counts outside of containers' user namespaces only")]
    Hidden,
}

/// The functions of the kernel and its modules, by address.
#[derive(Debug, Default)]
pub struct Symbols {
    /// In the order of their addresses.
    places: Vec<Place>,
    /// The names, each with an end of its own.
    names: String,
    /// Where each module ends; 0 where nobody knows.
    ends: Vec<u64>,
}

/// Where a function begins.
#[derive(Debug)]
struct Place {
    begin: u64,
    /// Where in the names its own begins.
    name: u32,
    /// Whose it is: [`KERNEL`], [`NOBODY`], or a module's place among the ends, from 1 on.
    of: u16,
}

/// The kernel itself.
const KERNEL: u16 = 0;
/// Neither the kernel nor a module: programs that were translated, and modules that came a moment ago.
const NOBODY: u16 = u16::MAX;

/// Where it is not known how long a function is, it ends with its page.
const PAGE: u64 = 4096;

impl Symbols {
    /// Reads them, the modules being these.
    ///
    /// # Errors
    ///
    /// [`SymbolsError`].
    pub fn read(modules: &Modules) -> Result<Self, SymbolsError> {
        let list = BufReader::with_capacity(1 << 16, File::open("/proc/kallsyms")?);
        let symbols = Self::parse(list, modules)?;
        if symbols.places.is_empty() {
            let restrict = fs::read_to_string("/proc/sys/kernel/kptr_restrict").unwrap_or_default();
            let may = capabilities(None).is_ok_and(|held| held.effective.contains(CapabilitySet::SYSLOG));
            return Err(why_hidden(restrict.trim(), may));
        }
        Ok(symbols)
    }

    /// Lines of an address, a letter for the kind (`t` and `T`, `w` and `W` are code), a name, and perhaps `[module]`.
    fn parse(lines: impl io::BufRead, modules: &Modules) -> io::Result<Self> {
        let numbers: HashMap<_, u16> = modules.iter().map(|(name, _)| name).zip(1..NOBODY).collect();
        let ends = modules.iter().map(|(_, addresses)| addresses.end).collect();
        let mut symbols = Self { ends, ..Self::default() };
        for line in lines.lines() {
            let line = line?;
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let Ok(address) = u64::from_str_radix(address, 16) else { continue };
            if address == 0 || !matches!(kind, "t" | "T" | "w" | "W") {
                continue;
            }
            let of = words.next().map_or(KERNEL, |module| {
                let name = module.trim_matches(['[', ']']);
                numbers.get(name).copied().unwrap_or(NOBODY)
            });
            symbols.places.push(Place { begin: address, name: symbols.names.len() as u32, of });
            symbols.names.push_str(name);
            symbols.names.push('\n');
        }
        symbols.places.sort_unstable_by_key(|place| place.begin);
        Ok(symbols)
    }

    /// Where a function begins, and how far it is to its end.
    #[must_use]
    pub fn extent(&self, function: &str) -> Option<(u64, u64)> {
        let (begin, length, _) = self.functions().find(|(_, _, name)| *name == function)?;
        Some((begin, length))
    }

    /// The functions in the order of their addresses: where each begins, its octets up to the next one, and its name.
    pub fn functions(&self) -> impl Iterator<Item = (u64, u64, &str)> {
        let next = self.places.iter().skip(1).map(Some).chain([None]);
        self.places.iter().zip(next).filter_map(|(place, next)| {
            Some((place.begin, self.end(place, next) - place.begin, self.name(place)?))
        })
    }

    /// The function that an address lies in, and how far behind its beginning. Behind the last function of a module there may
    /// be another module by now, or nothing: what lies there has no name.
    #[must_use]
    pub fn of(&self, address: u64) -> Option<(&str, u64)> {
        let behind = self.places.partition_point(|place| place.begin <= address);
        let place = self.places.get(behind.checked_sub(1)?)?;
        let is_within = address < self.end(place, self.places.get(behind));
        Some((self.name(place).filter(|_| is_within)?, address - place.begin))
    }

    /// Where a function ends at the latest: where the next one begins, or where that which it is of ends.
    fn end(&self, place: &Place, next: Option<&Place>) -> u64 {
        let next_of_it = next.filter(|next| next.of == place.of && place.of != NOBODY);
        if let Some(next) = next_of_it {
            return next.begin;
        }
        let module = usize::from(place.of).checked_sub(1).and_then(|number| self.ends.get(number)).copied();
        let end =
            module.filter(|end| *end > place.begin).unwrap_or((place.begin | (PAGE - 1)).saturating_add(1));
        next.map_or(end, |next| end.min(next.begin))
    }

    fn name(&self, place: &Place) -> Option<&str> {
        self.names.get(place.name as usize..)?.split('\n').next()
    }
}

/// What hides the addresses (`kallsyms_show_value` of the kernel): the setting, before the capability.
fn why_hidden(restrict: &str, may: bool) -> SymbolsError {
    match (restrict, may) {
        ("2", _) => SymbolsError::Restricted,
        (_, false) => SymbolsError::NoPrivilege,
        (_, true) => SymbolsError::Hidden,
    }
}

#[cfg(test)]
mod tests {
    use super::{Modules, Symbols, why_hidden};

    fn parse(text: &str, modules: &str) -> Symbols {
        Symbols::parse(text.as_bytes(), &Modules::of(modules)).unwrap()
    }

    #[test]
    fn what_hides_addresses_is_named() {
        for (restrict, may, want) in [
            ("2", true, "kernel.kptr_restrict is 2"),
            ("2", false, "kernel.kptr_restrict is 2"),
            ("1", false, "without CAP_SYSLOG"),
            ("0", false, "without CAP_SYSLOG"),
            ("0", true, "user namespaces"),
        ] {
            let said = why_hidden(restrict, may).to_string();
            assert!(said.contains(want), "{restrict} {may}: {said}");
        }
    }

    #[test]
    fn an_address_lies_in_the_function_that_begins_before_it() {
        let text =
            "ffff0100 T second\nffff0000 t first\nffff0080 d datum\nffff0200 t third\t[module]\nnonsense\n";
        let symbols = parse(text, "");
        assert_eq!(symbols.of(0xffff_0000), Some(("first", 0)));
        assert_eq!(symbols.of(0xffff_00ff), Some(("first", 0xff)));
        assert_eq!(symbols.of(0xffff_0107), Some(("second", 7)));
        assert_eq!(symbols.of(0xffff_0200), Some(("third", 0)));
        assert_eq!(symbols.of(0xfffe_ffff), None);
        assert_eq!(symbols.extent("second"), Some((0xffff_0100, 0x100)));
        assert_eq!(symbols.extent("none"), None);
    }

    #[test]
    fn what_lies_behind_all_that_is_known_has_no_name() {
        let modules = "one 12288 0 - Live 0x00000000c0000000\n";
        let symbols = parse(
            "81000000 T first\n82000000 T last\nc0000000 t begins\t[one]\nc0002f00 t ends\t[one]\n\
             c0009000 t bpf_prog_1\t[bpf]\nc0020000 t bpf_prog_2\t[bpf]\n",
            modules,
        );
        assert_eq!(symbols.of(0x81ff_ffff), Some(("first", 0xff_ffff)), "the kernel has no gaps");
        assert_eq!(symbols.of(0x8200_0fff), Some(("last", 0xfff)));
        assert_eq!(symbols.of(0x8200_1000), None, "the kernel has ended");
        assert_eq!(symbols.of(0xc000_2fff), Some(("ends", 0xff)));
        assert_eq!(symbols.of(0xc000_3000), None, "a module that came later");
        assert_eq!(symbols.of(0xc000_a000), None, "between programs, too");
        assert_eq!(symbols.extent("ends"), Some((0xc000_2f00, 0x100)));
        let functions: Vec<_> = symbols.functions().map(|(_, length, name)| (name, length)).collect();
        assert_eq!(functions[1..4], [("last", 0x1000), ("begins", 0x2f00), ("ends", 0x100)]);
    }

    #[test]
    fn hidden_addresses_are_none() {
        let symbols = parse("0000000000000000 T one\n", "");
        assert_eq!(symbols.of(1), None);
    }
}
