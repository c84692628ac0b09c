//! The numbers that each CPU gives its records: what was passed over, and that nothing comes twice.

/// Follows the numbers of every CPU from 0 on.
#[derive(Debug, Default)]
pub struct Sequences {
    /// The number that comes next, by CPU.
    next: Vec<u32>,
    /// Numbers that were passed over: their records found no room.
    pub skipped: u64,
    /// Records with a number that came before.
    pub repeated: u64,
}

impl Sequences {
    /// Of CPUs with numbers below `cpus`.
    pub fn new(cpus: usize) -> Self {
        Self { next: vec![0; cpus], ..Self::default() }
    }

    /// Takes a record's number in; `false` where it came before. One of a CPU that there is not is nobody's to follow.
    pub fn follow(&mut self, cpu: u32, sequence: u32) -> bool {
        let Some(next) = self.next.get_mut(cpu as usize) else { return true };
        // They go on from 0 after 2³² of them; the half before the next one lies behind.
        let ahead = sequence.wrapping_sub(*next);
        if ahead > u32::MAX / 2 {
            self.repeated += 1;
            return false;
        }
        self.skipped += u64::from(ahead);
        *next = sequence.wrapping_add(1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Sequences;

    #[test]
    fn what_is_passed_over_is_counted_and_what_comes_twice_is_told() {
        let mut sequences = Sequences::new(2);
        let told = [(0, 0), (1, 0), (0, 1), (0, 4), (0, 4), (0, 2), (1, 1), (0, 5)]
            .map(|(cpu, sequence)| sequences.follow(cpu, sequence));
        assert_eq!(told, [true, true, true, true, false, false, true, true]);
        assert_eq!((sequences.skipped, sequences.repeated), (2, 2));
        assert!(sequences.follow(7, 3), "there is no such CPU");
        assert_eq!((sequences.skipped, sequences.repeated), (2, 2));
    }

    #[test]
    fn the_first_that_comes_need_not_be_the_first_there_was() {
        let mut sequences = Sequences::new(1);
        assert!(sequences.follow(0, 3));
        assert_eq!(sequences.skipped, 3);
    }

    #[test]
    fn numbers_begin_anew() {
        let mut sequences = Sequences { next: vec![u32::MAX], ..Sequences::default() };
        assert!(sequences.follow(0, u32::MAX) && sequences.follow(0, 0) && !sequences.follow(0, u32::MAX));
        assert!(sequences.follow(0, 2));
        assert_eq!((sequences.skipped, sequences.repeated), (1, 1));
    }
}
