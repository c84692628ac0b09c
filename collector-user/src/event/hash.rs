//! Ids made of what they stand for: SHA-256, lower-case hexadecimal, every part preceded by its length, so that no two
//! inputs meet.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::UserRecord;

/// Fills in the id of a user: a hash of the namespace and of all claims but the `sub` ones, whatever their order.
/// Sorts the claims.
pub fn stats_user_hash(record: &mut UserRecord) {
    record.claims.sort_unstable();
    let claims =
        record.claims.iter().filter(|claim| claim.split_once('=').is_none_or(|(key, _)| key != "sub"));
    let claims = digest(claims.map(|claim| claim.as_bytes()));
    record.id = hash_hash_with_namespace(&claims, &record.namespace).into();
}

/// The hash of a hash of claims and a namespace.
pub fn hash_hash_with_namespace(claims_hash: &str, namespace: &str) -> String {
    digest([claims_hash.as_bytes(), namespace.as_bytes()].into_iter())
}

fn digest<'a>(parts: impl Iterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().fold(String::with_capacity(64), |mut text, octet| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::{digest, hash_hash_with_namespace, stats_user_hash};
    use crate::event::UserRecord;

    fn id(namespace: &str, claims: &[&str]) -> String {
        let claims = claims.iter().copied().map(Into::into).collect();
        let mut record = UserRecord { id: "".into(), namespace: namespace.into(), claims };
        stats_user_hash(&mut record);
        record.id.to_string()
    }

    #[test]
    fn order_and_sub_do_not_matter() {
        assert_eq!(id("/ns", &["sub=alice", "b=2", "a=1"]), id("/ns", &["a=1", "b=2"]));
        assert_ne!(id("/ns", &["subject=alice", "a=1"]), id("/ns", &["a=1"]));
        assert_ne!(id("/ns", &["a=1"]), id("/other", &["a=1"]));
    }

    #[test]
    fn parts_cannot_flow_into_one_another() {
        assert_ne!(id("/ns", &["ab", "c"]), id("/ns", &["a", "bc"]));
        assert_ne!(hash_hash_with_namespace("a", "bc"), hash_hash_with_namespace("ab", "c"));
    }

    /// SHA-256 of nothing, from FIPS 180-4's examples.
    #[test]
    fn the_digest_is_sha_256_in_lower_case() {
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(std::iter::empty()), nothing);
        assert_eq!(id("/ns", &[]), hash_hash_with_namespace(nothing, "/ns"));
    }
}
