//! What an address in the kernel is called: `/proc/kallsyms`.

use std::{
    fs::{self, File},
    io::{self, BufReader},
};

use rustix::thread::{CapabilitySet, capabilities};

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
    /// Addresses, ascending, and where in `names` each name begins.
    places: Vec<(u64, u32)>,
    /// The names, each with an end of its own.
    names: String,
}

impl Symbols {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// [`SymbolsError`].
    pub fn read() -> Result<Self, SymbolsError> {
        let symbols = Self::parse(BufReader::with_capacity(1 << 16, File::open("/proc/kallsyms")?))?;
        if symbols.places.is_empty() {
            let restrict = fs::read_to_string("/proc/sys/kernel/kptr_restrict").unwrap_or_default();
            let may = capabilities(None).is_ok_and(|held| held.effective.contains(CapabilitySet::SYSLOG));
            return Err(why_hidden(restrict.trim(), may));
        }
        Ok(symbols)
    }

    /// Lines of an address, a letter for the kind (`t` and `T`, `w` and `W` are code), a name, and perhaps `[module]`.
    fn parse(lines: impl io::BufRead) -> io::Result<Self> {
        let mut symbols = Self::default();
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
            symbols.places.push((address, symbols.names.len() as u32));
            symbols.names.push_str(name);
            symbols.names.push('\n');
        }
        symbols.places.sort_unstable_by_key(|(address, _)| *address);
        Ok(symbols)
    }

    /// Where a function begins, and how far it is to the next one.
    #[must_use]
    pub fn extent(&self, function: &str) -> Option<(u64, u64)> {
        let is_it = |(_, name): &(u64, u32)| {
            self.names.get(*name as usize..).and_then(|rest| rest.split('\n').next()) == Some(function)
        };
        let at = self.places.iter().position(is_it)?;
        let ((begin, _), (end, _)) = (self.places.get(at)?, self.places.get(at + 1)?);
        Some((*begin, end - begin))
    }

    /// The functions in the order of their addresses: where each begins, its octets up to the next one, and its name.
    pub fn functions(&self) -> impl Iterator<Item = (u64, u64, &str)> {
        let ends = self.places.iter().skip(1).map(|(begin, _)| *begin);
        self.places.iter().zip(ends).filter_map(|((begin, name), end)| {
            let name = self.names.get(*name as usize..)?.split('\n').next()?;
            Some((*begin, end - begin, name))
        })
    }

    /// The function that an address lies in, and how far behind its beginning.
    #[must_use]
    pub fn of(&self, address: u64) -> Option<(&str, u64)> {
        let behind = self.places.partition_point(|(begin, _)| *begin <= address);
        let (begin, name) = self.places.get(behind.checked_sub(1)?)?;
        let name = self.names.get(*name as usize..)?.split('\n').next()?;
        Some((name, address - begin))
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
    use super::{Symbols, why_hidden};

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
        let symbols = Symbols::parse(text.as_bytes()).unwrap();
        assert_eq!(symbols.of(0xffff_0000), Some(("first", 0)));
        assert_eq!(symbols.of(0xffff_00ff), Some(("first", 0xff)));
        assert_eq!(symbols.of(0xffff_0107), Some(("second", 7)));
        assert_eq!(symbols.of(0xffff_0200), Some(("third", 0)));
        assert_eq!(symbols.of(0xfffe_ffff), None);
        assert_eq!(symbols.extent("second"), Some((0xffff_0100, 0x100)));
        assert_eq!(symbols.extent("none"), None);
    }

    #[test]
    fn hidden_addresses_are_none() {
        let symbols = Symbols::parse("0000000000000000 T one\n".as_bytes()).unwrap();
        assert_eq!(symbols.of(1), None);
    }
}
