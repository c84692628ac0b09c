//! Ids made of what they stand for: SHA-256, lower-case hexadecimal, every part preceded by its length, so that no two
//! inputs meet.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::{EndPoint, FlowRecord, UserRecord};

/// The hash by which the original merges flows: what they share are both ends' ids and addresses, the destination's port
/// and URI, both actions by their word, and the drop reason.
///
/// Not in it, so that flows which differ there only are one: the processing unit and its namespace, the source's port,
/// the protocol (port 53 of TCP and of UDP are one), the VLAN, policies and service, types of ends, users. The actions
/// go in as [`ActionType::text`](super::ActionType::text) has them: every combination of bits is `unknown`. An end that
/// is absent counts as an empty one.
pub fn stats_flow_hash(record: &FlowRecord) -> String {
    let ends = [record.source.as_ref(), record.destination.as_ref()];
    let [source_ip, destination_ip] = ends.map(|end| end.map(EndPoint::ip_text).unwrap_or_default());
    let [source, destination] = ends.map(|end| end.map_or("", |end| &end.id));
    let [_, server] = ends;
    digest(
        [
            source.as_bytes(),
            destination.as_bytes(),
            source_ip.as_bytes(),
            destination_ip.as_bytes(),
            &server.map_or(0, |end| end.port).to_be_bytes(),
            record.action.text().as_bytes(),
            record.observed_action.text().as_bytes(),
            record.drop_reason.as_bytes(),
            server.map_or("", |end| &end.uri).as_bytes(),
        ]
        .into_iter(),
    )
}

/// Fills in the id of a user: a hash of the namespace and of all claims but the `sub` ones, whatever their order.
/// Sorts the claims. (The original leaves out all that begin with these three letters, `subnet=` too.)
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
    use std::collections::HashSet;

    use super::{digest, hash_hash_with_namespace, stats_flow_hash, stats_user_hash};
    use crate::event::{ActionType, EndPoint, EndPointType, FlowRecord, ServiceType, UserRecord};

    fn id(namespace: &str, claims: &[&str]) -> String {
        let claims = claims.iter().copied().map(Into::into).collect();
        let mut record = UserRecord { id: "".into(), namespace: namespace.into(), claims };
        stats_user_hash(&mut record);
        record.id.to_string()
    }

    fn end(id: &str, ip: &str, port: u16) -> EndPoint {
        EndPoint { id: id.into(), ip: Some(ip.parse().unwrap()), port, ..EndPoint::default() }
    }

    fn flow() -> FlowRecord {
        FlowRecord {
            source: Some(end("A", "1.1.1.1", 40000)),
            destination: Some(end("B", "2.2.2.2", 80)),
            ..FlowRecord::default()
        }
    }

    /// A flow that is [`flow`] but for one change.
    fn but(change: impl FnOnce(&mut FlowRecord, &mut EndPoint, &mut EndPoint)) -> FlowRecord {
        let mut record = flow();
        let (mut source, mut destination) =
            (record.source.take().unwrap(), record.destination.take().unwrap());
        change(&mut record, &mut source, &mut destination);
        FlowRecord { source: Some(source), destination: Some(destination), ..record }
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
        // Nine octets in every way of cutting them into ids, addresses and what follows: no two hashes meet.
        let text = "abcdefghi";
        let mut hashes = HashSet::new();
        for first in 0..=text.len() {
            for second in first..=text.len() {
                for third in second..=text.len() {
                    let flow = but(|flow, source, destination| {
                        source.id = text[..first].into();
                        destination.id = text[first..second].into();
                        flow.drop_reason = text[second..third].into();
                        destination.uri = text[third..].into();
                    });
                    assert!(hashes.insert(stats_flow_hash(&flow)), "{flow}");
                }
            }
        }
        assert_eq!(hashes.len(), 220);
    }

    #[test]
    fn a_flow_is_told_apart_by_what_the_original_hashes() {
        let others = [
            but(|_, source, _| source.id = "C".into()),
            but(|_, _, destination| destination.id = "C".into()),
            but(|_, source, _| source.ip = Some([1, 1, 1, 2].into())),
            but(|_, _, destination| destination.ip = Some([1, 1, 1, 2].into())),
            but(|_, _, destination| destination.port = 81),
            but(|flow, _, _| flow.action = ActionType::ACCEPT),
            but(|flow, _, _| flow.observed_action = ActionType::ACCEPT),
            but(|flow, _, _| flow.drop_reason = "policy".into()),
            but(|_, _, destination| destination.uri = "GET /x".into()),
            flow(),
        ];
        let hashes: HashSet<_> = others.iter().map(stats_flow_hash).collect();
        assert_eq!(hashes.len(), others.len());
    }

    #[test]
    fn a_flow_is_not_told_apart_by_the_rest() {
        let same = but(|flow, source, destination| {
            *flow = FlowRecord {
                context_id: "other".into(),
                namespace: "/other".into(),
                policy_id: "p".into(),
                observed_policy_id: "o".into(),
                service_type: ServiceType::Http,
                service_id: "s".into(),
                count: 9,
                // A combination of bits has no word of its own, as none has.
                action: ActionType::ACCEPT | ActionType::ENCRYPT,
                l4_protocol: 17,
                vlan: 5,
                packets: 7,
                ..FlowRecord::default()
            };
            for end in [&mut *source, &mut *destination] {
                end.r#type = EndPointType::Claims;
                end.user_id = "u".into();
                end.http_method = "GET".into();
            }
            source.port = 1;
            source.uri = "GET /x".into();
        });
        assert_eq!(stats_flow_hash(&same), stats_flow_hash(&flow()));
    }

    /// SHA-256 of nothing, from FIPS 180-4's examples.
    #[test]
    fn the_digest_is_sha_256_in_lower_case() {
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(std::iter::empty()), nothing);
        assert_eq!(id("/ns", &[]), hash_hash_with_namespace(nothing, "/ns"));
    }

    /// The inputs are those of the original's vectors; the hashes were made by Python's `hashlib`, each field behind its
    /// length in eight octets, big-endian.
    #[test]
    fn hashes_stay_what_they_are() {
        assert_eq!(
            id("/_apotests", &["O=b01a6042-437-allow", "CN=b01a6042-437-allow"]),
            "281bd8b810c16beffae24bcb78b3ad73dda37ea61abd70aa1c845c7a17c3e923"
        );
        assert_eq!(
            id("/ns", &["sub=alice", "b=2", "a=1"]),
            "16deeca76308cad742be380c8db4e41465391185b10e843995b133f493284cc4"
        );
        let six = FlowRecord {
            source: Some(end("A", "2001:db8::1", 1)),
            destination: Some(EndPoint { uri: "GET /x".into(), ..end("B", "2001:db8::2", 443) }),
            action: ActionType::ACCEPT,
            ..FlowRecord::default()
        };
        let rejected = but(|flow, _, _| {
            flow.action = ActionType::REJECT;
            flow.drop_reason = "policy".into();
        });
        for (flow, want) in [
            (flow(), "f618fddc72c3d18db6506f0f5c77696e1d5e22b2369cfbb79a5e014f1dd36379"),
            (
                but(|flow, _, _| flow.action = ActionType::ACCEPT),
                "26d4f815e0d604fbe456a06cf5fbaa1d5276b54fa697073520483edd11b378c3",
            ),
            (rejected, "2eb55d9665d35d0c78e790c694068b7269cb557f07f3c7aef5402622a2c37c11"),
            (six, "64689fcaa8feb1fdacf7013d47d894044d1d2af9e02206b0135f9bbf666f30be"),
            (FlowRecord::default(), "dbf9d085fac39dec5c5257fd6228065d4882d480db45a70fdb47e8ca8b3516e6"),
        ] {
            assert_eq!(stats_flow_hash(&flow), want, "{flow}");
        }
    }
}
