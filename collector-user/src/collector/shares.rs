//! Who has how much of a queue, so that one unit's flood leaves room to others ([`may_have_more`]).

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::LazyLock,
};

use crate::event::{DnsRequestReport, Text};

/// How much more than what is left one may have.
const TIMES: usize = 4;

/// Whether one who has so much already may have more where so much is left: alone four fifths of all, and a second one that floods
/// it four fifths of the rest. So it is of packets that are traced in the programs, too.
///
/// Dynamic thresholds, as switches share their buffers (Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998).
pub(crate) const fn may_have_more(own: usize, left: usize) -> bool {
    own <= TIMES * left
}

/// A queue for fewer items is not shared: a fifth of it is next to nothing.
const LEAST: usize = 64;

/// The id of what belongs to no unit.
pub(crate) static NOBODY: LazyLock<Text> = LazyLock::new(Text::default);

/// Who asked for a name.
pub(crate) fn asker(request: &DnsRequestReport) -> &Text {
    request.source.as_ref().map_or(&NOBODY, |source| &source.id)
}

/// Units whose losses are told apart.
const MOST_UNITS: usize = 1 << 16;

/// Whose items found no room, by unit. In nobody's row are those of units beyond so many as nobody runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses(BTreeMap<Text, u64>);

impl Losses {
    /// One of this unit's was lost.
    pub(crate) fn add(&mut self, whose: &Text) {
        if let Some(count) = self.0.get_mut(whose) {
            *count += 1;
        } else if self.0.len() < MOST_UNITS {
            self.0.insert(whose.clone(), 1);
        }
    }

    /// By unit.
    pub(crate) fn rows(&self) -> BTreeMap<Text, u64> {
        self.0.clone()
    }
}

/// The shares of a queue. Nobody's are counted as long as nobody can have too much.
pub(crate) struct Shares<T> {
    whose: fn(&T) -> &Text,
    counted: Option<HashMap<Text, usize>>,
}

impl<T> Shares<T> {
    /// `whose` says who an item belongs to.
    pub(crate) const fn new(whose: fn(&T) -> &Text) -> Self {
        Self { whose, counted: None }
    }

    /// Whether one who has so much already, of these items, may add one where there is room for `most`.
    pub(crate) fn allow(&mut self, who: &Text, items: &VecDeque<T>, most: usize) -> bool {
        let left = most.saturating_sub(items.len());
        if most < LEAST || may_have_more(items.len(), left) {
            return true;
        }
        let whose = self.whose;
        let counted = self.counted.get_or_insert_with(|| {
            let mut counted = HashMap::new();
            for item in items {
                add(&mut counted, whose(item));
            }
            counted
        });
        counted.get(who).is_none_or(|own| may_have_more(*own, left))
    }

    /// An item was added.
    pub(crate) fn added(&mut self, item: &T) {
        if let Some(counted) = &mut self.counted {
            add(counted, (self.whose)(item));
        }
    }

    /// An item was taken out.
    pub(crate) fn taken(&mut self, item: &T) {
        if let Some(counted) = &mut self.counted
            && let Some(own) = counted.get_mut((self.whose)(item))
        {
            *own -= 1;
            if *own == 0 {
                counted.remove((self.whose)(item));
            }
        }
    }

    /// So many items are left of the `most` that there may be: whether they need be counted any longer.
    pub(crate) fn left(&mut self, items: usize, most: usize) {
        if items < most / 2 {
            self.counted = None;
        }
    }
}

fn add(counted: &mut HashMap<Text, usize>, who: &Text) {
    if let Some(own) = counted.get_mut(who) {
        *own += 1;
    } else {
        counted.insert(who.clone(), 1);
    }
}
