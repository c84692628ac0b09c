//! What the kernel's reasons for a drop are called: by the running kernel, never by a table of ours, for their numbers change
//! from one version to the next.

use std::{collections::BTreeMap, path::Path};

use super::btf::{Btf, BtfError};

/// The names of reasons.
#[derive(Debug, Default)]
pub struct Reasons {
    names: BTreeMap<u32, String>,
}

/// The enumeration of the reasons that the network's core knows (`include/net/dropreason-core.h`).
const CORE: &str = "skb_drop_reason";
/// What its names begin with.
const PREFIX: &str = "SKB_DROP_REASON_";
/// A subsystem's reasons have its number in their upper half (`include/net/dropreason.h`, Linux 6.4).
const FIRST_OF_SUBSYSTEMS: u32 = 1 << 16;
/// Where modules lay their types open, each by its name, the kernel among them.
const MODULES: &str = "/sys/kernel/btf";

impl Reasons {
    /// The kernel's, and those of the modules that are loaded.
    ///
    /// # Errors
    ///
    /// [`BtfError`] of the kernel's own; a kernel that has none (before Linux 5.17) is no error. What a module does not
    /// tell has no name.
    pub fn find(btf: &Btf) -> Result<Self, BtfError> {
        let mut reasons = Self::default();
        match btf.enumeration(CORE) {
            Ok(core) => reasons.take(core),
            Err(BtfError::Missing { .. }) => return Ok(reasons),
            Err(error) => return Err(error),
        }
        reasons.take_subsystems(btf);
        reasons.take_modules(btf, Path::new(MODULES));
        Ok(reasons)
    }

    fn take(&mut self, enumerators: Vec<(String, u32)>) {
        for (name, number) in enumerators {
            let name = name.strip_prefix(PREFIX).map(str::to_owned).unwrap_or(name);
            // Some names stand for where a group begins or ends; the first of a number is its own.
            self.names.entry(number).or_insert(name);
        }
    }

    fn take_subsystems(&mut self, btf: &Btf) {
        let of_subsystems = btf.enumerations(|name| name.contains("drop_reason") && name != CORE);
        let of_subsystems = of_subsystems.unwrap_or_default();
        // The enumeration of the subsystems themselves has small numbers. A group's first name marks its beginning.
        let is_reason =
            |(name, number): &(String, u32)| *number >= FIRST_OF_SUBSYSTEMS && !name.starts_with("__");
        self.take(of_subsystems.into_iter().filter(is_reason).collect());
    }

    fn take_modules(&mut self, kernel: &Btf, modules: &Path) {
        for entry in modules.read_dir().into_iter().flatten().flatten() {
            if entry.file_name() != "vmlinux"
                && let Ok(module) = kernel.of_module(&entry.path())
            {
                self.take_subsystems(&module);
            }
        }
    }

    /// Whether one has this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.names.values().any(|known| known == name)
    }

    /// A bit for each of the first 256 reasons that `wanted` is true of.
    #[must_use]
    pub fn bits(&self, wanted: impl Fn(&str) -> bool) -> [u64; 4] {
        let mut bits = [0; 4];
        for (number, _) in self.names.iter().filter(|(_, name)| wanted(name)) {
            if let Some(word) = bits.get_mut((number / u64::BITS) as usize) {
                *word |= 1 << (number % u64::BITS);
            }
        }
        bits
    }

    /// A bit for each of the first 64 reasons with one of these names; the 0th for the empty one, which is that of a kernel
    /// that gives none.
    #[must_use]
    pub fn mask(&self, name: &str) -> u64 {
        if name.is_empty() {
            return u64::from(self.names.is_empty());
        }
        let named = self.names.iter().filter(|(number, found)| *found == name && **number < u64::BITS);
        named.fold(0, |mask, (number, _)| mask | 1 << number)
    }

    /// What a reason is called, without the prefix that all of the core's have. One without a name is its number.
    #[must_use]
    pub fn name(&self, reason: u32) -> String {
        self.names.get(&reason).cloned().unwrap_or_else(|| format!("reason {reason:#x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Reasons;

    #[test]
    fn a_reason_has_its_first_name_without_the_prefix() {
        let mut reasons = Reasons::default();
        let named =
            [("SKB_DROP_REASON_NO_SOCKET", 3), ("SKB_DROP_REASON_OTHER", 3), ("OVS_DROP_METER", 0x3_0004)];
        reasons.take(named.map(|(name, number)| (name.to_owned(), number)).to_vec());
        assert_eq!(reasons.bits(|name| name != "OTHER"), [1 << 3, 0, 0, 0]);
        assert_eq!(reasons.name(3), "NO_SOCKET");
        assert_eq!(reasons.name(0x3_0004), "OVS_DROP_METER");
        assert_eq!(reasons.name(0x4_0001), "reason 0x40001");
    }
}
