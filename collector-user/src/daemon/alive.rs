//! One unit that was found and has not ended, and when it is asked for its network namespace.

use std::collections::BTreeSet;

use crate::{host::namespaces::Namespace, pu::registry::Kind};

/// Which units are asked for their network namespaces: of a thousand containers each question takes some 30 us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Those that were never asked.
    New,
    /// Those too that came a moment ago, and some of the others, the more seldom the longer they have been there.
    Recent,
    /// All: there is a namespace that is new.
    All,
}

/// A unit that was found and has not ended.
#[derive(Clone, Debug)]
pub(super) struct Alive {
    /// Index of its unit.
    pub(super) unit: u16,
    /// The unit is declared, and lives as that.
    pub(super) is_declared: bool,
    pub(super) kind: Kind,
    /// The path of the cgroup that is all of it.
    pub(super) root: String,
    pub(super) cgroups: BTreeSet<u64>,
    /// Since when it has a process.
    pub(super) populated: Option<u64>,
    pub(super) namespace: Namespace,
    /// It has had a process.
    pub(super) has_run: bool,
    /// How often it was asked for that, and when it is again.
    asked: (u32, u64),
}

impl Alive {
    /// Nothing has run in it yet, and nobody has asked for its namespace.
    pub(super) const fn new(unit: u16, is_declared: bool, kind: Kind, root: String) -> Self {
        Self {
            unit,
            is_declared,
            kind,
            root,
            cgroups: BTreeSet::new(),
            populated: None,
            namespace: Namespace::Unknown,
            has_run: false,
            asked: (0, 0),
        }
    }

    /// The same, but for what cgroups are in it.
    pub(super) fn without_cgroups(&self) -> Self {
        Self { cgroups: BTreeSet::new(), root: self.root.clone(), ..*self }
    }

    /// What runs in it ran as another unit's before.
    pub(super) const fn runs_as(&mut self, was: &Self) {
        (self.populated, self.namespace, self.has_run) = (was.populated, was.namespace, was.has_run);
    }

    /// It has a process.
    pub(super) const fn runs_since(&mut self, now: u64) {
        (self.populated, self.has_run) = (Some(now), true);
    }

    /// Its network namespace may be another than is known.
    pub(super) fn is_open(&self) -> bool {
        self.populated.is_some()
            && match self.namespace {
                // A container is in ours until its engine has made one for it.
                Namespace::Own => self.kind == Kind::Container,
                Namespace::Numbered(_) => false,
                Namespace::Unknown => true,
            }
    }

    /// Whether it is one of those that are asked for their namespace, at `now` on the boot clock.
    pub(super) fn is_asked(&self, whose: Whose, now: u64) -> bool {
        let (times, again) = self.asked;
        let is_among = match whose {
            Whose::New => times == 0,
            Whose::Recent => times == 0 || self.is_recent(now) || now >= again,
            Whose::All => true,
        };
        is_among && self.is_open()
    }

    /// It came a moment ago: its engine may still be about to give it a namespace.
    pub(super) fn is_recent(&self, now: u64) -> bool {
        const MOMENT_NS: u64 = 5_000_000_000;
        self.populated.is_some_and(|since| now.saturating_sub(since) < MOMENT_NS)
    }

    /// It was asked.
    pub(super) fn was_asked(&mut self, now: u64) {
        const SECOND_NS: u64 = 1_000_000_000;
        let (times, _) = self.asked;
        // Up to a minute.
        self.asked = (times.saturating_add(1), now.saturating_add(SECOND_NS << times.min(6)));
    }

    /// Whoever runs in it now was not asked.
    pub(super) const fn is_new_again(&mut self) {
        self.asked = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::{Alive, Kind, Namespace, Whose};

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn who_is_asked_in_vain_is_asked_the_more_seldom() {
        let mut alive = Alive::new(101, false, Kind::Container, "/docker/aa".to_owned());
        assert!(!alive.is_asked(Whose::All, SECOND), "nobody is there to be asked");
        alive.populated = Some(SECOND);
        assert!(alive.is_asked(Whose::New, SECOND));
        alive.was_asked(SECOND);
        assert!(!alive.is_asked(Whose::New, SECOND) && alive.is_asked(Whose::Recent, SECOND));
        let mut times = Vec::new();
        for now in 7..200 {
            if alive.is_asked(Whose::Recent, now * SECOND) {
                alive.was_asked(now * SECOND);
                times.push(now);
            }
        }
        assert_eq!(times, [7, 9, 13, 21, 37, 69, 133, 197]);
        assert!(alive.is_asked(Whose::All, 200 * SECOND));
        alive.namespace = Namespace::Numbered(3);
        assert!(!alive.is_asked(Whose::All, 200 * SECOND));
    }
}
