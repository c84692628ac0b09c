//! Frames of a time before that of one which stands before them: a little so where a capture is made by several CPUs.

/// A packet that is so much older than one before it was not just captured by another CPU.
const REORDERED_NS: u64 = 1_000_000_000;
/// So many packets that are so much older, one after another: the clock was set back, or one before them has a time that cannot be.
/// What is less comes of several buffers that are read by turns.
const STEPPED: u32 = 1000;
const STEPPED_NS: u64 = 60_000_000_000;

/// Packets that are far older than one before them, one after another.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Behind(u32);

/// What one that is older means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Older {
    /// It is more than a second older.
    pub(super) is_odd: bool,
    /// Its time is the newest from here on.
    pub(super) is_set_back: bool,
}

impl Behind {
    /// A packet that is not older than all before it.
    pub(super) const fn none(&mut self) {
        self.0 = 0;
    }

    /// One that is so many nanoseconds older than the newest.
    pub(super) const fn by(&mut self, nanoseconds: u64) -> Older {
        self.0 = if nanoseconds > STEPPED_NS { self.0 + 1 } else { 0 };
        let is_set_back = self.0 == STEPPED;
        if is_set_back {
            self.0 = 0;
        }
        Older { is_odd: nanoseconds > REORDERED_NS, is_set_back }
    }
}

/// The newest time of a capture.
#[derive(Clone, Copy, Debug, Default)]
pub struct Newest {
    wall: Option<i64>,
    behind: Behind,
}

impl Newest {
    /// Whether the next frame, of this time in nanoseconds since 1970, is more than a second older than one before it.
    pub fn is_behind(&mut self, wall: Option<i64>) -> bool {
        let Some(wall) = wall else { return false };
        let newest = *self.wall.get_or_insert(wall);
        if wall >= newest {
            self.behind.none();
            self.wall = Some(wall);
            return false;
        }
        let Older { is_odd, is_set_back } = self.behind.by(newest.abs_diff(wall));
        if is_set_back {
            self.wall = Some(wall);
        }
        is_odd
    }
}

#[cfg(test)]
mod tests {
    use super::{Newest, STEPPED};

    #[test]
    fn what_is_a_second_older_is_odd_until_the_clock_is_known_to_be_set_back() {
        const SECOND: i64 = 1_000_000_000;
        let mut newest = Newest::default();
        let seen = [Some(9), None, Some(8), Some(7), Some(9)];
        let odd = seen.map(|at| newest.is_behind(at.map(|at| at * SECOND)));
        assert_eq!(odd, [false, false, false, true, false]);
        let far = |at: i64| Some(at - 100 * SECOND);
        assert!((0..i64::from(STEPPED)).all(|at| newest.is_behind(far(at))));
        assert!(!newest.is_behind(far(i64::from(STEPPED))));
        assert!(!newest.is_behind(Some(i64::MAX)) && newest.is_behind(Some(i64::MIN)));
    }
}
