//! Whose packets are reported one by one, and for how long. A later wish extends an earlier one and never shortens it.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use collector_ebpf::abi::{
    flow::{RX, TX},
    trace::{ALL, FOR_EVER, MOST, Trace},
};

use crate::{
    event::Text,
    pu::registry::{Registry, Unit},
};

/// Octets of a packet in its report, from the IP header on, where nothing else is said: as in the original.
pub const DEFAULT_SNAPLEN: u16 = 64;

/// Whose packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Those of every unit.
    All,
    /// Those of the unit with this id.
    Unit(Text),
}

/// Which of a unit's packets, as it has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Directions {
    /// Those that it receives.
    In,
    /// Those that it sends.
    Out,
    /// All.
    #[default]
    Both,
}

impl Directions {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Both => "both",
        }
    }

    /// What the word stands for.
    pub fn of(name: &str) -> Option<Self> {
        [Self::In, Self::Out, Self::Both].into_iter().find(|directions| directions.name() == name)
    }
}

/// A wish for reports of packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Whose packets.
    pub whose: Whose,
    /// Which of them.
    pub directions: Directions,
    /// For how long; none: as long as the collector runs.
    pub duration: Option<Duration>,
    /// Of so many packets of a unit on a CPU one is reported.
    pub every: NonZeroU32,
}

/// A wish that cannot be fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no processing unit {id:?}: expected one that the configuration declares ([[pu]]) or that is there (`collector pu list`), host, \
     forwarded, unknown or overlay, or * for all{}",
    behind_a_colon(id)
)]
pub struct NoSuchUnit {
    /// The id.
    pub id: Text,
}

/// An id may have colons, and so it is the whole that is looked for where what follows one is no word that is known.
fn behind_a_colon(id: &str) -> &'static str {
    if id.contains(':') {
        "; behind it may stand :in, :out or :both, and for how long, as in host:in:10m"
    } else {
        ""
    }
}

impl Wish {
    /// The entry that it is about.
    ///
    /// # Errors
    ///
    /// [`NoSuchUnit`].
    pub fn entry(&self, units: &Registry) -> Result<u32, NoSuchUnit> {
        let Whose::Unit(id) = &self.whose else { return Ok(ALL) };
        // One that has ended may still have its name.
        let unit: Option<&Unit> = units.of_id(id).or_else(|| units.iter().find(|unit| unit.id == *id));
        unit.map(|unit| unit.index.into()).ok_or_else(|| NoSuchUnit { id: id.clone() })
    }
}

impl Wish {
    /// Until when it holds that is wished at the boot time `now`, in nanoseconds.
    fn until(&self, now: u64) -> u64 {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(FOR_EVER);
        self.duration.map_or(FOR_EVER, |duration| now.saturating_add(nanos(duration)))
    }
}

/// What is traced now, by entry.
#[derive(Debug, Default)]
pub struct Traces {
    entries: BTreeMap<u32, Trace>,
}

impl Traces {
    /// Adds a wish at the boot time `now`; the entry as it is then. Each direction lasts as long as the wish that lasts
    /// longest; of how many packets one is reported, the last wish says.
    pub fn add(&mut self, entry: u32, wish: &Wish, now: u64) -> Trace {
        let until = wish.until(now);
        let trace = self.entries.entry(entry).or_default();
        for (direction, other) in [(RX, Directions::Out), (TX, Directions::In)] {
            if wish.directions != other
                && let Some(before) = trace.until_ns.get_mut(direction)
            {
                *before = until.max(*before);
            }
        }
        trace.every = wish.every.get();
        *trace
    }

    /// What is traced of one entry is from here on traced of another, too, which is the same unit's.
    pub fn follow(&mut self, from: u32, to: u32) -> Option<Trace> {
        let trace = *self.entries.get(&from)?;
        self.entries.insert(to, trace);
        Some(trace)
    }

    /// Forgets an entry, which is nobody's any more; whether it was traced.
    pub fn forget(&mut self, entry: u32) -> bool {
        self.entries.remove(&entry).is_some()
    }

    /// Forgets what is over at the boot time `now`; the entries.
    pub fn end(&mut self, now: u64) -> Vec<u32> {
        let is_over = |trace: &Trace| trace.until_ns.iter().all(|until| *until <= now);
        let over = self.entries.iter().filter(|(_, trace)| is_over(trace));
        let over: Vec<_> = over.map(|(entry, _)| *entry).collect();
        for entry in &over {
            self.entries.remove(entry);
        }
        over
    }

    /// Whether nothing is traced.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// What was wished, for as long as it holds: a container that is started anew is another unit of the same id, and where one wish
/// ends others go on.
#[derive(Debug, Default)]
pub struct Wishes {
    kept: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    wish: Wish,
    /// Until when, on the boot clock in nanoseconds.
    until: u64,
    /// The configuration says it.
    is_configured: bool,
}

impl Wishes {
    /// Remembers a wish from the boot time `now` on. One that ends sooner and asks for the same adds nothing to it, unless the
    /// configuration says it. Beyond [`MOST`] the newest are not remembered.
    pub fn keep(&mut self, wish: &Wish, now: u64, is_configured: bool) {
        let until = wish.until(now);
        let is_for_the_same =
            |other: &Wish| (&other.whose, other.directions) == (&wish.whose, wish.directions);
        self.kept.retain(|other| {
            let is_within = !other.is_configured && other.until <= until && is_for_the_same(&other.wish);
            other.until > now && !is_within
        });
        if self.kept.len() < MOST as usize {
            self.kept.push(Kept { wish: wish.clone(), until, is_configured });
        }
    }

    /// The configuration does not say it any more.
    pub fn forget_configured(&mut self, wish: &Wish) {
        self.kept.retain(|kept| !kept.is_configured || kept.wish != *wish);
    }

    /// What is still wished of somebody at the boot time `now`, for as long as is left of it.
    pub fn of(&self, whose: &Whose, now: u64) -> Vec<Wish> {
        let is_wanted = |kept: &&Kept| kept.until > now && kept.wish.whose == *whose;
        let left = |Kept { wish, until, .. }: &Kept| Wish {
            duration: wish.duration.map(|_| Duration::from_nanos(until - now)),
            ..wish.clone()
        };
        self.kept.iter().filter(is_wanted).map(left).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use collector_ebpf::abi::trace::{ALL, FOR_EVER, Trace};

    use super::{Directions, NoSuchUnit, Traces, Whose, Wish, Wishes};
    use crate::pu::registry::{Declared, Registry};

    const SECOND: u64 = 1_000_000_000;

    fn wish(directions: Directions, seconds: Option<u64>, every: u32) -> Wish {
        Wish {
            whose: Whose::All,
            directions,
            duration: seconds.map(Duration::from_secs),
            every: NonZeroU32::new(every).unwrap(),
        }
    }

    fn trace(until_ns: [u64; 2], every: u32) -> Trace {
        Trace { until_ns, every, _pad: 0 }
    }

    #[test]
    fn a_later_wish_extends_and_never_shortens() {
        let mut traces = Traces::default();
        assert_eq!(traces.add(7, &wish(Directions::In, Some(10), 1), 5), trace([10 * SECOND + 5, 0], 1));
        assert_eq!(
            traces.add(7, &wish(Directions::Both, Some(3), 4), 5),
            trace([10 * SECOND + 5, 3 * SECOND + 5], 4)
        );
        assert_eq!(
            traces.add(7, &wish(Directions::Out, Some(60), 1), 5),
            trace([10 * SECOND + 5, 60 * SECOND + 5], 1)
        );
        assert_eq!(traces.add(7, &wish(Directions::Both, None, 1), 5), trace([FOR_EVER; 2], 1));
        assert_eq!(traces.add(7, &wish(Directions::Both, Some(1), 1), 5), trace([FOR_EVER; 2], 1));
    }

    #[test]
    fn what_is_wished_of_who_comes_again_is_what_lasts_longest() {
        let whose = Whose::Unit("web".into());
        let of_web = |seconds| Wish { whose: whose.clone(), ..wish(Directions::Both, seconds, 1) };
        let mut wishes = Wishes::default();
        wishes.keep(&of_web(None), 0, true);
        wishes.keep(&of_web(Some(2)), 0, false);
        wishes.keep(&wish(Directions::Both, None, 1), 0, false);
        assert_eq!(wishes.of(&whose, SECOND), [of_web(None), of_web(Some(1))]);
        // A later one of the same is as good as what it goes beyond.
        wishes.keep(&of_web(Some(9)), SECOND, false);
        assert_eq!(wishes.of(&whose, SECOND), [of_web(None), of_web(Some(9))]);
        assert_eq!(wishes.of(&whose, 10 * SECOND), [of_web(None)]);
        // What the configuration no longer says others may have asked for.
        wishes.keep(&of_web(None), SECOND, false);
        wishes.forget_configured(&of_web(None));
        assert_eq!(wishes.of(&whose, SECOND), [of_web(None)]);
        assert_eq!(wishes.of(&Whose::All, SECOND), [wish(Directions::Both, None, 1)]);
        wishes.forget_configured(&wish(Directions::Both, None, 1));
        assert_eq!(wishes.of(&Whose::All, SECOND).len(), 1, "it was not the configuration's");
    }

    #[test]
    fn what_is_over_is_forgotten_once() {
        let mut traces = Traces::default();
        traces.add(7, &wish(Directions::In, Some(10), 1), 0);
        traces.add(8, &wish(Directions::Out, Some(20), 1), 0);
        traces.add(ALL, &wish(Directions::Both, None, 1), 0);
        assert!(traces.end(10 * SECOND - 1).is_empty());
        assert_eq!(traces.end(10 * SECOND), [7]);
        assert_eq!(traces.end(u64::MAX - 1), [8]);
        assert!(!traces.is_empty(), "there is one without an end");
        // It began anew: what was over before does not come back.
        assert_eq!(traces.add(7, &wish(Directions::Out, Some(1), 1), SECOND), trace([0, 2 * SECOND], 1));
    }

    #[test]
    fn units_are_named_by_their_ids() {
        let web = Declared { id: "web".to_owned(), ..Declared::default() };
        let units = Registry::new(&[web]).unwrap();
        let entry = |id: &str| {
            Wish { whose: Whose::Unit(id.into()), ..wish(Directions::Both, None, 1) }.entry(&units)
        };
        assert_eq!([entry("web"), entry("host")], [Ok(101), Ok(1)]);
        assert_eq!(wish(Directions::Both, None, 1).entry(&units), Ok(ALL));
        let error = entry("wbe").unwrap_err();
        assert_eq!(error, NoSuchUnit { id: "wbe".into() });
        assert!(error.to_string().contains("[[pu]]") && !error.to_string().contains(":in"), "{error}");
        let error = entry("host:sideways").unwrap_err();
        assert!(error.to_string().contains(":in, :out or :both"), "{error}");
    }
}
