//! Places in the kernel that drops were met at. What is loaded later than the names were read has none among them: at a place
//! that is new it is worth a look whether there are other modules than before.

use std::collections::BTreeSet;

use crate::host::modules::Modules;

/// Places that are remembered; when there are more, each is new again.
const MOST: usize = 8192;

/// The places, and which modules there were when the names were read.
#[derive(Debug, Default)]
pub struct Met {
    places: BTreeSet<u64>,
    modules: Modules,
}

impl Met {
    /// None yet; the names are those of these modules.
    #[must_use]
    pub const fn new(modules: Modules) -> Self {
        Self { places: BTreeSet::new(), modules }
    }

    /// Whether nobody has looked at the modules since a drop was met there first.
    pub fn is_new(&mut self, place: u64) -> bool {
        if self.places.len() >= MOST {
            self.places.clear();
        }
        self.places.insert(place)
    }

    /// Whether these are other modules than those that the names are of; from here on they are.
    pub fn are_others(&mut self, modules: Modules) -> bool {
        let are_others = modules != self.modules;
        self.modules = modules;
        are_others
    }

    /// The modules that the names are of.
    #[must_use]
    pub const fn modules(&self) -> &Modules {
        &self.modules
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST, Met};
    use crate::host::modules::Modules;

    #[test]
    fn a_place_is_new_once_and_there_are_not_endlessly_many() {
        let mut met = Met::default();
        assert!(met.is_new(1) && !met.is_new(1) && !met.are_others(Modules::default()));
        assert!((2..=MOST as u64 + 1).all(|place| met.is_new(place)));
        assert!(met.is_new(1), "it was forgotten");
    }
}
