//! What is known of a processing unit.

use std::{net::IpAddr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Counters, TagStore, Text, Time, vocabulary::vocabulary};

vocabulary! {
    /// What a processing unit is.
    UnitKind {
        /// One of those that always are: `host`, `forwarded`, `unknown`, `overlay`.
        Fixed = "fixed",
        /// Declared by the operator.
        Declared = "declared",
        /// A container that was found.
        Container = "container",
        /// A service of a service manager that was found.
        Service = "service",
        /// A scope of a service manager that was found: processes that it did not start itself, such as a session.
        Scope = "scope",
    }
}

/// A processing unit, as a running collector knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnitStatus {
    /// Its id.
    pub context_id: Text,
    /// What it is.
    pub kind: UnitKind,
    /// Its namespace.
    pub namespace: Text,
    /// Its tags.
    pub tags: Arc<TagStore>,
    /// The id that its ends of flows have in records.
    pub identity: Text,
    /// Its number in the collector. Once the unit is forgotten, another may have it.
    pub index: u16,
    /// The number that its packets carry in the mark's bits of `skb->mark`; none where it has no mark, or these bits have no
    /// room for it.
    pub mark: Option<u16>,
    /// What is taken for it.
    pub matchers: UnitMatchers,
    /// When it was found; of those that were not, when the collector started.
    pub since: Time,
    /// When it ended. It is known for a while after that, so that late records have its name.
    pub ended: Option<Time>,
    /// All counters of its reports, in their order, zeros included: what was counted since the collector started, up to the
    /// moment of the answer. What is found to be a unit's before it was reported moves from `unknown` to the unit.
    pub counters: Vec<Counters>,
}

/// What is taken for a processing unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnitMatchers {
    /// Interfaces that are declared to be its boundary.
    pub interfaces: Vec<String>,
    /// Networks that are declared to be its own: `10.1.0.0/16`.
    pub cidr: Vec<String>,
    /// Ports of this host that are declared to be its own: `tcp/443`, `8000-8999`.
    pub port: Vec<String>,
    /// Users whose sockets are declared to be its own: ids, names.
    pub uid: Vec<String>,
    /// Cgroups that are declared to be its own, and those of its that there are now: paths from the root of the hierarchy, with
    /// all that is below each.
    pub cgroup: Vec<String>,
    /// Network namespaces that are declared to be its own.
    pub netns: Vec<String>,
    /// Interfaces of this host that were found to lead to it.
    pub ends: Vec<String>,
    /// Addresses that it was found to have.
    pub addresses: Vec<IpAddr>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{UnitKind, UnitMatchers, UnitStatus};
    use crate::event::{Counters, Time};

    #[test]
    fn every_key_is_there_in_an_empty_one() {
        assert_eq!(
            serde_json::to_value(UnitStatus::default()).unwrap(),
            json!({
                "context_id": "", "kind": "fixed", "namespace": "", "tags": [], "identity": "", "index": 0, "mark": null,
                "matchers": { "interfaces": [], "cidr": [], "port": [], "uid": [], "cgroup": [], "netns": [], "ends": [], "addresses": [] },
                "since": "1970-01-01T00:00:00.000000000Z", "ended": null, "counters": [],
            })
        );
    }

    #[test]
    fn it_reads_back_as_what_it_was() {
        let unit = UnitStatus {
            context_id: "a\u{1b}".into(),
            kind: UnitKind::Container,
            namespace: "/n".into(),
            tags: std::sync::Arc::new(["k=v"].into_iter().collect()),
            identity: "a\u{1b}".into(),
            index: 102,
            mark: Some(102),
            matchers: UnitMatchers {
                interfaces: vec!["v".into()],
                cidr: vec!["10.0.0.0/8".into()],
                port: vec!["tcp/443".into()],
                uid: vec!["www-data".into()],
                cgroup: vec!["/docker/aa".into()],
                netns: vec!["blue".into()],
                ends: vec!["veth1".into()],
                addresses: vec!["fd00::1".parse().unwrap()],
            },
            since: Time::from_unix_nanos(1),
            ended: Some(Time::from_unix_nanos(2)),
            counters: vec![Counters { name: "rx_packets".into(), value: u64::MAX }],
        };
        let text = serde_json::to_string(&unit).unwrap();
        assert_eq!(serde_json::from_str::<UnitStatus>(&text).unwrap(), unit);
    }
}
