//! Which policies units have, and what the programs are told.

use std::sync::Arc;

use collector_ebpf::abi::{policy::UnitPolicy, pu::index};

use super::{Orders, Policies};
use crate::{
    policy::{
        rule::{Action, Observe, Policy, Remote, Rule, Selector, Service},
        sets::Set,
    },
    pu::{
        registry::{Declared, Found, Kind, Registry},
        trace::Directions,
    },
};

fn policy(id: &str, unit: &str) -> Policy {
    Policy {
        selector: Selector { units: vec![unit.parse().unwrap()], ..Selector::default() },
        directions: Directions::In,
        rule: Arc::new(Rule {
            id: id.into(),
            remote: Remote::default(),
            service: Service { protocol: Some(6), ports: Vec::new() },
            action: Action::Reject,
            log: false,
            observe: Observe::None,
        }),
    }
}

fn registry() -> Registry {
    let web = Declared { id: "web".into(), ..Declared::default() };
    Registry::new(&[web]).unwrap()
}

fn numbers(sets: &[Arc<Set>]) -> Vec<u32> {
    sets.iter().map(|set| set.number).collect()
}

fn having(orders: &Orders) -> Vec<(u16, u32)> {
    orders.entries.iter().map(|(index, policy)| (*index, policy.sets[0])).collect()
}

#[test]
fn an_index_has_what_the_unit_has_that_it_stands_for() {
    let mut units = registry();
    let mut policies = Policies::default();
    policies.load(&[policy("host", "host"), policy("containers", "c*")], true, &units, 0).unwrap();
    let orders = policies.follow(&units, 1);
    assert_eq!((numbers(&orders.new), having(&orders)), (vec![1], vec![(index::HOST, 1)]));
    let reserved = units.reserve(index::HOST).unwrap();
    let orders = policies.follow(&units, 2);
    assert_eq!((numbers(&orders.new), having(&orders)), (vec![], vec![(reserved, 1)]));
    let found = Found { id: "c1".into(), kind: Kind::Container, tags: vec![] };
    let unit = units.add(&found, 3).unwrap();
    units.join(reserved, unit, 3);
    let orders = policies.follow(&units, 3);
    assert_eq!((numbers(&orders.new), having(&orders)), (vec![2], vec![(reserved, 2), (unit, 2)]));
    assert!(policies.follow(&units, 4).is_empty());
    units.end(unit, 5);
    assert!(policies.follow(&units, 5).is_empty(), "what is late is judged all the same");
    units.forget(100);
    let orders = policies.follow(&units, 100);
    assert_eq!(
        (orders.entries, numbers(&orders.old)),
        (vec![(reserved, UnitPolicy::default()), (unit, UnitPolicy::default())], vec![2])
    );
}

#[test]
fn a_reload_reaches_every_index_and_what_was_never_told_is_not_taken_back() {
    let mut units = registry();
    let reserved = units.reserve(index::HOST).unwrap();
    let mut policies = Policies::default();
    policies.follow(&units, 0);
    policies.load(&[policy("a", "host")], true, &units, 1).unwrap();
    policies.load(&[policy("b", "host")], true, &units, 2).unwrap();
    let orders = policies.follow(&units, 3);
    assert_eq!(
        (numbers(&orders.new), having(&orders), numbers(&orders.old)),
        (vec![2], vec![(index::HOST, 2), (reserved, 2)], vec![])
    );
    policies.load(&[policy("b", "host")], false, &units, 4).unwrap();
    let orders = policies.follow(&units, 5);
    assert_eq!(
        (numbers(&orders.new), having(&orders), numbers(&orders.old)),
        (vec![3], vec![(index::HOST, 3), (reserved, 3)], vec![2])
    );
    policies.load(&[], false, &units, 6).unwrap();
    let orders = policies.follow(&units, 7);
    assert_eq!((having(&orders), numbers(&orders.old)), (vec![(index::HOST, 0), (reserved, 0)], vec![3]));
}

#[test]
fn what_came_to_nothing_is_taken_back_as_a_whole() {
    let mut units = registry();
    let mut policies = Policies::default();
    policies.load(&[policy("a", "host")], true, &units, 0).unwrap();
    policies.follow(&units, 0);
    let (before, had) = (policies.clone(), units.clone());
    units.add(&Found { id: "c1".into(), kind: Kind::Container, tags: vec![] }, 1).unwrap();
    policies.load(&[policy("b", "*")], true, &units, 1).unwrap();
    let told = policies.follow(&units, 1);
    assert_eq!((numbers(&told.new), numbers(&told.old)), (vec![2], vec![1]));
    let back = policies.put_back(before, 2);
    assert_eq!((numbers(&back.new), numbers(&back.old)), (vec![], vec![2]));
    let before: Vec<_> =
        told.entries.iter().map(|(index, _)| (*index, u32::from(*index == index::HOST))).collect();
    let sorted = |mut entries: Vec<(u16, u32)>| {
        entries.sort_unstable();
        entries
    };
    assert_eq!(sorted(having(&back)), sorted(before));
    assert!(policies.follow(&had, 3).is_empty(), "as if nothing had been");
    policies.load(&[policy("b", "host")], true, &had, 4).unwrap();
    assert_eq!(numbers(&policies.follow(&had, 4).new), [3], "no number is given twice");
}

#[test]
fn who_has_no_room_has_no_policy_and_that_is_said_until_the_next_load() {
    let mut units = registry();
    let mut policies = Policies::default();
    let cidr = (0..200_000_u32).map(|at| std::net::IpAddr::V4((at * 2).into()).into());
    let wide = |id: &str, unit: &str| {
        let mut wide = policy(id, unit);
        let rule = Arc::make_mut(&mut wide.rule);
        rule.remote.cidr = cidr.clone().collect();
        wide
    };
    policies.load(&[wide("a", "web"), wide("b", "c1")], true, &units, 0).unwrap();
    assert_eq!(policies.follow(&units, 1).entries.len(), 1);
    let found = Found { id: "c1".into(), kind: Kind::Container, tags: vec![] };
    units.add(&found, 2).unwrap();
    assert!(policies.follow(&units, 2).is_empty() && policies.follow(&units, 3).is_empty());
    let said = policies.beyond_room().unwrap();
    assert!(
        said.starts_with("policies of 1 processing units, which may do everything: the policies make"),
        "{said}"
    );
    let both = [wide("a", "web"), wide("b", "c1")];
    assert!(policies.load(&both, true, &units, 4).is_err(), "at once they are refused");
    assert!(policies.follow(&units, 4).is_empty());
    policies.load(&[wide("a", "web"), policy("b", "c1")], true, &units, 4).unwrap();
    assert_eq!(policies.follow(&units, 5).entries.len(), 1);
    assert_eq!(policies.beyond_room(), None);
}

#[test]
fn what_shows_no_port_is_judged_by_who_would_reject_it_and_may_take_it() {
    let of = |orders: &Orders| orders.whoever.map(|whoever| whoever.sets);
    let services = Declared { id: "db".into(), ports: vec!["5432".parse().unwrap()], ..Declared::default() };
    let behind = Declared { id: "web".into(), ..Declared::default() };
    let units = Registry::new(&[behind, services]).unwrap();
    let everything = |unit: &str| {
        let mut policy = policy("all", unit);
        let rule = Arc::make_mut(&mut policy.rule);
        rule.action = Action::Accept { encrypt: false };
        rule.service = Service::default();
        policy
    };
    let mut policies = Policies::default();
    // Whose sockets are elsewhere is not meant, nor is who accepts whatever comes.
    policies.load(&[policy("a", "web"), everything("host")], true, &units, 0).unwrap();
    assert_eq!(of(&policies.follow(&units, 0)), None);
    policies.load(&[policy("a", "web"), everything("host"), policy("b", "db")], true, &units, 1).unwrap();
    let orders = policies.follow(&units, 1);
    let set =
        orders.entries.iter().find(|(index, _)| units.get(*index).unwrap().id == "db".into()).unwrap().1.sets
            [0];
    assert_eq!(of(&orders), Some([set, 0]));
    assert!(policies.follow(&units, 2).is_empty());
    // The host comes first.
    policies.load(&[policy("h", "host"), policy("b", "db")], true, &units, 3).unwrap();
    let orders = policies.follow(&units, 3);
    let (_, host) = orders.entries.iter().find(|(index, _)| *index == index::HOST).unwrap();
    assert_eq!(of(&orders), Some([host.sets[0], 0]));
    policies.load(&[], true, &units, 4).unwrap();
    assert_eq!(of(&policies.follow(&units, 4)), Some([0, 0]));
}

#[test]
fn what_is_kept_of_before_is_shared_where_nothing_has_changed() {
    let units = registry();
    let mut policies = Policies::default();
    policies.load(&[policy("a", "host")], true, &units, 0).unwrap();
    policies.follow(&units, 1);
    let before = policies.clone();
    assert!(policies.follow(&units, 2).is_empty());
    assert!(Arc::ptr_eq(&before.sets, &policies.sets) && Arc::ptr_eq(&before.told, &policies.told));
}
