//! Units come and go, and policies change.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use collector_ebpf::abi::policy::{
    ClassesKey, INCOMING, OUTGOING, RemoteKey, ServiceKey, UnitPolicy, verdict,
};
use proptest::prelude::{
    ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};

use super::{Change, Set, Sets};
use crate::{
    event::{TagStore, Text},
    policy::{
        explosion::What,
        rule::{Action, Observe, Opened, Policy, Ports, Remote, Rule, Selector, Service, Subject},
        search::search,
    },
    pu::trace::Directions,
};

fn policy(id: &str, units: &[&str], directions: Directions, cidr: &[&str], action: Action) -> Policy {
    Policy {
        selector: Selector {
            units: units.iter().map(|glob| glob.parse().unwrap()).collect(),
            ..Selector::default()
        },
        directions,
        rule: Arc::new(Rule {
            id: id.into(),
            remote: Remote {
                cidr: cidr.iter().map(|cidr| cidr.parse().unwrap()).collect(),
                networks: Vec::new(),
            },
            service: Service { protocol: Some(6), ports: vec![Ports::one(443)] },
            action,
            log: false,
            observe: Observe::None,
        }),
    }
}

const ACCEPT: Action = Action::Accept { encrypt: false };

fn unit(index: u16, id: &str) -> Subject {
    Subject { index, id: id.into(), namespace: "".into(), tags: Arc::new(TagStore::new()) }
}

fn numbers(sets: &[Arc<Set>]) -> Vec<u32> {
    sets.iter().map(|set| set.number).collect()
}

/// What the programs' maps hold, if they are told all changes.
#[derive(Default)]
struct Maps {
    units: HashMap<u16, UnitPolicy>,
    remotes: HashMap<(u32, RemoteKey), u32>,
    services: HashMap<(u32, ServiceKey), u32>,
    verdicts: HashMap<ClassesKey, u32>,
}

impl Maps {
    fn told(&mut self, change: &Change, sets: &mut Sets) {
        self.written(change);
        self.removed(&change.old, sets);
    }

    fn written(&mut self, change: &Change) {
        for set in &change.new {
            self.remotes.extend(set.remotes().map(|(length, key, class)| ((length, key), class)));
            self.services.extend(set.services().map(|(length, key, class)| ((length, key), class)));
            self.verdicts.extend(set.verdicts());
        }
        self.units.extend(change.units.iter().copied());
    }

    fn removed(&mut self, old: &[Arc<Set>], sets: &mut Sets) {
        for set in old {
            assert!(
                self.units.values().all(|unit| !unit.sets.contains(&set.number)),
                "a set that is removed is nobody's"
            );
            for (length, key, _) in set.remotes() {
                assert!(self.remotes.remove(&(length, key)).is_some());
            }
            for (length, key, _) in set.services() {
                assert!(self.services.remove(&(length, key)).is_some());
            }
            for (key, _) in set.verdicts() {
                assert!(self.verdicts.remove(&key).is_some());
            }
            sets.removed(set.number);
        }
    }

    /// As the programs look up.
    fn verdict(&self, unit: u16, direction: usize, flow: &Opened) -> u32 {
        let policy = self.units.get(&unit).copied().unwrap_or_default();
        let set = policy.sets[direction];
        if set == 0 {
            return 0;
        }
        let address = match flow.remote {
            std::net::IpAddr::V4(four) => four.to_ipv6_mapped(),
            std::net::IpAddr::V6(six) => six,
        };
        let remote = (0..=128).rev().find_map(|length: u32| {
            let kept = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            let key = RemoteKey { set, address: (address.to_bits() & kept).to_be_bytes() };
            self.remotes.get(&(32 + length, key))
        });
        let service = (0..=16).rev().find_map(|length: u32| {
            let kept = u16::MAX.checked_shl(16 - length).unwrap_or(0);
            let port = (flow.port & kept).to_be_bytes();
            let key = ServiceKey { set, protocol: flow.protocol, is_unread: 0, port };
            self.services.get(&(48 + length, key))
        });
        let class = |found: Option<&u32>| found.copied().unwrap_or(0) as u16;
        let key = ClassesKey { set, remote: class(remote), service: class(service) };
        self.verdicts.get(&key).copied().unwrap_or(policy.otherwise[direction])
    }
}

#[test]
fn units_with_the_same_rules_share_a_set() {
    let mut sets = Sets::default();
    let web = policy("web", &["web-*"], Directions::In, &["10.0.0.0/8"], ACCEPT);
    assert_eq!(sets.load(&[web], true, 0), Ok(Change::default()), "there are no units");
    let first = sets.put(unit(101, "web-1"), 1).unwrap();
    assert_eq!((numbers(&first.new), first.old), (vec![1], vec![]));
    let policy = UnitPolicy { sets: [1, 0], otherwise: sets.of(101).otherwise };
    assert_eq!(first.units, [(101, policy)]);
    let second = sets.put(unit(102, "web-2"), 2).unwrap();
    assert_eq!(second, Change { units: vec![(102, policy)], ..Change::default() });
    assert_eq!(sets.put(unit(102, "web-2"), 3), Ok(Change::default()), "it is as before");
    assert_eq!(sets.put(unit(103, "db"), 4), Ok(Change::default()), "nobody has spoken of it");
    let gone = sets.remove(101, 5);
    assert_eq!(gone, Change { units: vec![(101, UnitPolicy::default())], ..Change::default() });
    let gone = sets.remove(102, 6);
    assert_eq!((gone.units, numbers(&gone.old)), (vec![(102, UnitPolicy::default())], vec![1]));
    let again = sets.put(unit(104, "web-3"), 7).unwrap();
    assert_eq!(numbers(&again.new), [2], "no number is given twice");
}

#[test]
fn an_enforced_reject_is_dropped_and_another_is_not() {
    let flow = Opened { remote: [192, 0, 2, 1].into(), protocol: 6, port: 443 };
    let (mut sets, mut maps) = (Sets::default(), Maps::default());
    let policies = [
        policy("in", &["*"], Directions::In, &["192.0.2.0/24"], Action::Reject),
        policy("out", &["*"], Directions::Out, &["192.0.2.0/24"], ACCEPT),
    ];
    let change = sets.put(unit(101, "web"), 0).unwrap();
    maps.told(&change, &mut sets);
    for (is_enforced, bits) in [(false, verdict::REJECT), (true, verdict::REJECT | verdict::DROP)] {
        let change = sets.load(&policies, is_enforced, 0).unwrap();
        maps.told(&change, &mut sets);
        let rejected = maps.verdict(101, INCOMING, &flow);
        assert_eq!(rejected & !verdict::NUMBER, bits);
        let said = sets.verdicts.get((rejected & verdict::NUMBER) as u16).unwrap();
        assert_eq!((said.action.rejected(), &*said.policy_id), (true, "in"));
        let elsewhere = Opened { remote: [198, 51, 100, 1].into(), ..flow };
        let default = maps.verdict(101, OUTGOING, &elsewhere);
        assert_eq!(default & !verdict::NUMBER, bits);
        let accepted = maps.verdict(101, OUTGOING, &flow);
        assert_eq!(accepted & !verdict::NUMBER, 0);
        assert_eq!(maps.verdict(102, INCOMING, &flow), 0, "no unit, no policy");
    }
    assert_eq!(sets.load(&policies, true, 0), Ok(Change::default()), "the same again");
}

#[test]
fn a_reload_leaves_what_is_the_same_and_a_refused_one_everything() {
    let (mut sets, mut maps) = (Sets::default(), Maps::default());
    for (index, id) in [(101, "web"), (102, "db")] {
        let change = sets.put(unit(index, id), 0).unwrap();
        maps.told(&change, &mut sets);
    }
    let of_web = || policy("web", &["web"], Directions::In, &["10.0.0.0/8"], ACCEPT);
    let of_db = |cidr: &str| policy("db", &["db"], Directions::In, &[cidr], ACCEPT);
    let change = sets.load(&[of_web(), of_db("10.0.0.0/8")], true, 0).unwrap();
    maps.told(&change, &mut sets);
    let change = sets.load(&[of_web(), of_db("10.1.0.0/16")], true, 10).unwrap();
    assert_eq!(change.units.iter().map(|(unit, _)| *unit).collect::<Vec<_>>(), [102]);
    maps.told(&change, &mut sets);
    let (web, db) = (sets.of(101), sets.of(102));
    let many: Vec<String> =
        (0..40_000_u32).map(|at| format!("{}/32", std::net::Ipv4Addr::from(at * 2))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let wide = |at: usize| {
        let id = format!("p{at}");
        // Each unit has a set of its own.
        policy(&id, &["*"], Directions::In, &many, ACCEPT)
    };
    let mut policies: Vec<Policy> = vec![wide(0)];
    for at in 0..8 {
        let id = format!("u{at}");
        maps.told(&sets.put(unit(110 + at, &id), 10).unwrap(), &mut sets);
        policies.push(policy(&id, &[&id], Directions::In, &["10.0.0.0/8"], ACCEPT));
    }
    let error = sets.load(&policies, true, 20).unwrap_err();
    assert_eq!(error.what, What::RemoteEntries);
    assert_eq!(error.policies.first().map(|id| &**id), Some("p0"), "{error}");
    assert_eq!((sets.of(101), sets.of(102)), (web, db));
    assert_eq!(sets.load(&[of_web(), of_db("10.1.0.0/16")], true, 30), Ok(Change::default()));
}

#[test]
fn numbers_of_verdicts_are_kept_as_long_as_a_record_may_have_one() {
    let mut sets = Sets::default();
    sets.put(unit(101, "web"), 0).unwrap();
    sets.load(&[policy("a", &["web"], Directions::In, &[], ACCEPT)], true, 0).unwrap();
    let set = Arc::clone(sets.get(1).unwrap());
    let ids = |sets: &Sets| -> BTreeSet<Text> {
        let numbers = set.verdicts().map(|(_, word)| word).chain([set.otherwise()]);
        numbers
            .filter_map(|word| sets.verdicts.get((word & verdict::NUMBER) as u16))
            .map(|it| it.policy_id.clone())
            .collect()
    };
    assert_eq!(ids(&sets), ["a", "default"].map(Into::into).into());
    sets.load(&[], true, 10).unwrap();
    sets.verdicts.forget(10);
    assert_eq!(ids(&sets), ["a", "default"].map(Into::into).into());
    sets.verdicts.forget(11);
    assert_eq!(ids(&sets), BTreeSet::new());
}

fn some_policy() -> impl Strategy<Value = Policy> {
    let units = prop::sample::select(vec!["u1", "u2", "u*", "*", "host", "forwarded", "u[13]"]);
    let directions = prop::sample::select(vec![Directions::In, Directions::Out, Directions::Both]);
    let cidr = prop::sample::select(vec!["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "::/0", "2001:db8::/32"]);
    let action = prop::sample::select(vec![ACCEPT, Action::Reject]);
    let id = prop::sample::select(vec!["a", "b", "c", "d"]);
    (id, units, directions, cidr, action)
        .prop_map(|(id, unit, directions, cidr, action)| policy(id, &[unit], directions, &[cidr], action))
}

#[derive(Clone, Debug)]
enum Step {
    Load(Vec<Policy>, bool),
    /// They are loaded, and then it turns out that they cannot be had.
    Refuse(Vec<Policy>, bool),
    Put(u16),
    Remove(u16),
}

fn steps() -> impl Strategy<Value = Step> {
    let loads = (prop::collection::vec(some_policy(), 0..5), any::<bool>(), any::<bool>());
    prop_oneof![
        4 => loads.prop_map(|(policies, is_enforced, holds)| {
            if holds { Step::Load(policies, is_enforced) } else { Step::Refuse(policies, is_enforced) }
        }),
        3 => (0..5_u16).prop_map(Step::Put),
        1 => (0..5_u16).prop_map(Step::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_the_programs_look_up_is_what_the_policies_say(steps in prop::collection::vec(steps(), 1..12)) {
        let subjects = [unit(1, "host"), unit(2, "forwarded"), unit(101, "u1"), unit(102, "u2"), unit(103, "u3")];
        let (mut sets, mut maps) = (Sets::default(), Maps::default());
        let (mut policies, mut is_enforced, mut there) = (Vec::new(), false, BTreeSet::new());
        for (now, step) in (0..).zip(steps) {
            let change = match step {
                Step::Load(loaded, enforced) => {
                    (policies, is_enforced) = (loaded, enforced);
                    sets.load(&policies, is_enforced, now).unwrap()
                }
                Step::Refuse(loaded, enforced) => {
                    let before = sets.clone();
                    let refused = sets.load(&loaded, enforced, now).unwrap();
                    maps.written(&refused);
                    let old = sets.put_back(before, now);
                    let units = refused.units.iter().map(|(unit, _)| (*unit, sets.of(*unit)));
                    maps.written(&Change { units: units.collect(), ..Change::default() });
                    Change { old, ..Change::default() }
                }
                Step::Put(at) => {
                    there.insert(at);
                    sets.put(subjects[usize::from(at)].clone(), now).unwrap()
                }
                Step::Remove(at) => {
                    there.remove(&at);
                    sets.remove(subjects[usize::from(at)].index, now)
                }
            };
            maps.told(&change, &mut sets);
            sets.verdicts.forget(now);
            for (at, subject) in (0..).zip(&subjects) {
                for (direction, other) in [(INCOMING, Directions::Out), (OUTGOING, Directions::In)] {
                    let rules = policies.iter().filter(|policy| {
                        there.contains(&at) && policy.directions != other && policy.selector.selects(subject)
                    });
                    let rules = rules.map(|policy| &*policy.rule);
                    for remote in ["10.1.0.1", "10.2.0.1", "192.0.2.1", "2001:db8::1", "2001:db9::1"] {
                        for port in [443, 444] {
                            let flow = Opened { remote: remote.parse().unwrap(), protocol: 6, port };
                            let expected = search(rules.clone(), &flow);
                            let word = maps.verdict(subject.index, direction, &flow);
                            prop_assert_eq!(sets.verdicts.get((word & verdict::NUMBER) as u16), Some(&expected));
                            let is_rejected = expected.action.rejected();
                            prop_assert_eq!(word & verdict::REJECT != 0, is_rejected);
                            prop_assert_eq!(word & verdict::DROP != 0, is_rejected && is_enforced);
                        }
                    }
                }
            }
            let used: BTreeSet<u32> =
                maps.units.values().flat_map(|unit| unit.sets).filter(|set| *set != 0).collect();
            let there: BTreeSet<u32> = maps.verdicts.keys().map(|key| key.set).collect();
            prop_assert!(there.is_subset(&used), "nothing is left of a set that is nobody's");
        }
    }
}
