//! A hash for the keys of flows.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Makes hashers that begin with a secret number. Keys of flows come from a network: who sends packets must not know which of
/// them fall together.
#[derive(Clone, Copy, Debug)]
pub struct Seed(u64);

impl Default for Seed {
    fn default() -> Self {
        Self(RandomState::new().hash_one(FACTOR))
    }
}

impl BuildHasher for Seed {
    type Hasher = Mix;

    #[inline]
    fn build_hasher(&self) -> Mix {
        Mix(self.0)
    }
}

/// Words, each multiplied by an odd number together with all before, and folded.
#[derive(Clone, Copy, Debug)]
pub struct Mix(u64);

const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

impl Hasher for Mix {
    fn write(&mut self, octets: &[u8]) {
        let (words, rest) = octets.as_chunks();
        for word in words {
            self.write_u64(u64::from_ne_bytes(*word));
        }
        // With how many there are, which tells them from such with zeros behind.
        let rest = rest.iter().fold(rest.len() as u64, |word, octet| word << 8 | u64::from(*octet));
        self.write_u64(rest);
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(FACTOR);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        hash::{BuildHasher as _, Hasher as _},
        net::IpAddr,
    };

    use super::Seed;
    use crate::drain::flow::FlowId;

    fn id(nth: u32) -> FlowId {
        FlowId {
            local: IpAddr::from([10, 0, 0, 1]),
            remote: IpAddr::from((nth / 256).to_be_bytes()),
            local_port: 443,
            remote_port: (nth % 256) as u16,
            boundary: 0,
            protocol: 6,
            ports: 1,
        }
    }

    #[test]
    fn keys_that_differ_in_little_are_far_apart() {
        let seed = Seed::default();
        let hashes: Vec<_> = (0..1 << 16).map(|nth| seed.hash_one(id(nth))).collect();
        assert_eq!(hashes.iter().collect::<BTreeSet<_>>().len(), hashes.len());
        // What tables look at: the lowest bits for the place, the seven uppermost for the rest. At random 64 in each.
        for shift in [0, 54] {
            let mut buckets = [0_u32; 1 << 10];
            for hash in &hashes {
                buckets[(hash >> shift) as usize % (1 << 10)] += 1;
            }
            let most = buckets.iter().max();
            assert!(most < Some(&128), "{shift}: {most:?}");
        }
    }

    #[test]
    fn another_seed_has_other_hashes() {
        let [one, other] = [Seed::default(), Seed::default()].map(|seed| seed.hash_one(id(7)));
        assert_ne!(one, other);
    }

    #[test]
    fn octets_are_told_apart_by_what_and_how_many_they_are() {
        let octets = [&[][..], &[0], &[0, 0], &[0; 8], &[0; 9], &[1, 0], &[0, 1], &[1; 8], &[1; 9]];
        let seed = Seed::default();
        let hashes: BTreeSet<_> = octets
            .iter()
            .map(|octets| {
                let mut hasher = seed.build_hasher();
                hasher.write(octets);
                hasher.finish()
            })
            .collect();
        assert_eq!(hashes.len(), octets.len());
    }
}
