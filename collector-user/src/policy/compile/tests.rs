//! What is looked up is what a search finds.

use std::{net::IpAddr, net::Ipv6Addr, sync::Arc};

use collector_ebpf::wire::UNKNOWN;
use ipnet::IpNet;
use proptest::{
    collection::vec,
    prelude::{
        Just, ProptestConfig, Strategy, TestCaseError, any, prop, prop_assert, prop_assert_eq, prop_compose,
        prop_oneof, proptest,
    },
};

use super::{Compiled, RemoteEntry, ServiceEntry, compile};
use crate::policy::{
    explosion::What,
    networks::ExternalNetwork,
    rule::{Action, Observe, Opened, Ports, Remote, Rule, Service},
    search::search,
    verdict::Verdict,
};

/// Few addresses, so that the networks of rules hold each other.
fn networks() -> impl Strategy<Value = IpNet> {
    let four = (prop::sample::select(vec![[10, 0, 0, 0], [10, 1, 0, 0], [10, 1, 2, 3], [255; 4]]), 0..=32_u8)
        .prop_map(|(address, length)| IpNet::new(address.into(), length).unwrap().trunc());
    let six: Vec<Ipv6Addr> = ["::", "2001:db8::", "2001:db8::1", "ffff:ffff::", "::fffe:0:0", "::1:0:0:0"]
        .map(|address| address.parse().unwrap())
        .to_vec();
    let six = (prop::sample::select(six), 0..=128_u8)
        .prop_map(|(address, length)| IpNet::new(address.into(), length).unwrap().trunc());
    let mapped = (96..=128_u8)
        .prop_map(|length| IpNet::new("::ffff:10.1.2.3".parse().unwrap(), length).unwrap().trunc());
    prop_oneof![4 => four, 4 => six, 1 => mapped]
}

fn services() -> impl Strategy<Value = Service> {
    let edges = prop::sample::select(vec![0, 1, 79, 80, 81, 443, 1023, 1024, 32_767, 32_768, 65_534, 65_535]);
    let ports = (edges.clone(), edges)
        .prop_map(|(one, other): (u16, u16)| Ports { first: one.min(other), last: one.max(other) });
    prop_oneof![
        1 => Just(Service::default()),
        4 => (prop::sample::select(vec![0, 1, 6, 17, 255]), vec(ports, 0..4))
            .prop_map(|(protocol, ports)| Service { protocol: Some(protocol), ports }),
    ]
}

prop_compose! {
    fn rules()(
        cidr in vec(networks(), 0..3),
        named in vec(networks(), 1..3),
        is_named in any::<bool>(),
        service in services(),
        action in prop::sample::select(vec![
            Action::Accept { encrypt: false }, Action::Accept { encrypt: true }, Action::Reject,
        ]),
        log in any::<bool>(),
        observe in prop::sample::select(vec![Observe::None, Observe::None, Observe::Continue, Observe::Apply]),
    ) -> Rule {
        let network = || Arc::new(ExternalNetwork { id: "named".into(), cidr: named });
        let networks = if is_named && !cidr.is_empty() { vec![network()] } else { Vec::new() };
        Rule { id: "".into(), remote: Remote { cidr, networks }, service, action, log, observe }
    }
}

fn named(rules: Vec<Rule>) -> Vec<Arc<Rule>> {
    let name = |(place, rule): (usize, Rule)| Arc::new(Rule { id: format!("p{place}").into(), ..rule });
    rules.into_iter().enumerate().map(name).collect()
}

/// Flows at the edges of what rules name, and elsewhere.
fn at_edges(rules: &[Arc<Rule>]) -> (Vec<IpAddr>, Vec<(u8, u16)>) {
    let step = |address: IpAddr, forth: bool| match address {
        IpAddr::V4(four) => {
            let bits = four.to_bits();
            IpAddr::V4(if forth { bits.wrapping_add(1) } else { bits.wrapping_sub(1) }.into())
        }
        IpAddr::V6(six) => {
            let bits = six.to_bits();
            IpAddr::V6(if forth { bits.wrapping_add(1) } else { bits.wrapping_sub(1) }.into())
        }
    };
    let mut addresses: Vec<IpAddr> =
        ["192.0.2.1", "2001:db9::1", "::1", "::ffff:10.1.2.3", "::ffff:203.0.113.1"]
            .map(|address| address.parse().unwrap())
            .to_vec();
    let (mut services, mut protocols) = (Vec::new(), vec![0, 1, 6, 17, 47, 255]);
    for rule in rules {
        for network in rule.remote.all() {
            let (first, last) = (network.network(), network.broadcast());
            addresses.extend([first, last, step(first, false), step(last, true)]);
        }
        protocols.extend(rule.service.protocol);
        let protocol = rule.service.protocol.unwrap_or(6);
        for Ports { first, last } in &rule.service.ports {
            let ports = [*first, *last, first.wrapping_sub(1), last.wrapping_add(1)];
            services.extend(ports.map(|port| (protocol, port)));
        }
    }
    services.extend(protocols.into_iter().flat_map(|protocol| [0, 80, 65_535].map(|port| (protocol, port))));
    (addresses, services)
}

/// How many flows were asked for.
fn agree(rules: &[Arc<Rule>]) -> Result<usize, TestCaseError> {
    let compiled = compile(rules).unwrap();
    let (addresses, services) = at_edges(rules);
    // Each address with some services, and each service with some addresses: all pairs take long.
    let some = |at: usize, of: usize| (0..6).map(move |turn| (at * 7 + turn * 5) % of);
    let of_addresses =
        (0..addresses.len()).flat_map(|at| some(at, services.len()).map(move |service| (at, service)));
    let of_services =
        (0..services.len()).flat_map(|at| some(at, addresses.len()).map(move |address| (address, at)));
    let mut asked = 0;
    for (address, service) in of_addresses.chain(of_services) {
        let (protocol, port) = services[service];
        let flow = Opened { remote: addresses[address], protocol, port };
        let searched = search(rules.iter().map(|rule| &**rule), &flow);
        prop_assert_eq!(compiled.lookup(&flow), Some(&searched), "{:?}", flow);
        asked += 1;
    }
    for entry in &compiled.remotes {
        prop_assert!(entry.length <= 128);
        let behind = u128::MAX.checked_shr(entry.length.into()).unwrap_or(0);
        prop_assert_eq!(u128::from_be_bytes(entry.address) & behind, 0, "zeros behind the prefix");
    }
    let mut keys: Vec<_> =
        compiled.services.iter().map(|entry| (entry.protocol, entry.port, entry.length)).collect();
    keys.sort_unstable();
    keys.dedup();
    prop_assert_eq!(keys.len(), compiled.services.len(), "each prefix once");
    prop_assert!(compiled.services.iter().all(|entry| entry.class != 0 && entry.length <= 16));
    prop_assert!(compiled.pairs.iter().all(|pair| pair.verdict != compiled.otherwise));
    Ok(asked)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_looked_up_is_what_a_search_finds(rules in vec(rules(), 0..10)) {
        prop_assert!(agree(&named(rules))? > 0);
    }
}

/// What is said of a packet that is not understood, by a search: rules that would be about it whatever its ports are, and those
/// that reject what it may be.
fn search_unread(rules: &[Arc<Rule>], remote: IpAddr, protocol: u8) -> Verdict {
    /// Two protocols that no rule is about.
    const ASKED: u8 = 253;
    const ANOTHER: u8 = 254;
    let is_about = |rule: &Rule| {
        let Service { protocol: of, ports } = &rule.service;
        match (of, rule.action) {
            (None, _) => true,
            (Some(of), Action::Reject) => protocol == UNKNOWN || *of == protocol,
            (Some(of), Action::Accept { .. }) => protocol != UNKNOWN && *of == protocol && ports.is_empty(),
        }
    };
    let of = |rule: &Rule| Service { protocol: (!is_about(rule)).then_some(ANOTHER), ports: Vec::new() };
    let rules: Vec<Rule> = rules.iter().map(|rule| Rule { service: of(rule), ..Rule::clone(rule) }).collect();
    search(rules.iter(), &Opened { remote, protocol: ASKED, port: 0 })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_is_not_understood_is_looked_up_as_it_is_searched(rules in vec(rules(), 0..10)) {
        let rules = named(rules);
        let compiled = compile(&rules).unwrap();
        let (addresses, _) = at_edges(&rules);
        for address in addresses {
            for protocol in [UNKNOWN, 1, 6, 17, 47, 255] {
                let searched = search_unread(&rules, address, protocol);
                prop_assert_eq!(compiled.lookup_unread(address, protocol), Some(&searched), "{}", protocol);
            }
        }
    }
}

#[test]
fn what_is_not_understood_is_accepted_by_who_accepts_all_of_its_protocol() {
    let reject = |rule: Arc<Rule>| Arc::new(Rule { action: Action::Reject, ..Rule::clone(&rule) });
    let any = "192.0.2.1".parse().unwrap();
    let said = |rules: &[Arc<Rule>], protocol| {
        let compiled = compile(rules).unwrap();
        compiled
            .lookup_unread(any, protocol)
            .map(|verdict| (!verdict.action.rejected(), verdict.policy_id.to_string()))
    };
    let web = accept("web", &[], Some(6), &[Ports::one(443)]);
    let of_tcp = accept("tcp", &[], Some(6), &[]);
    let everything = accept("all", &[], None, &[]);
    let no_ssh = reject(accept("no-ssh", &[], Some(6), &[Ports::one(22)]));
    for (rules, protocol, accepted, by) in [
        (vec![&web], 6, false, "default"),
        (vec![&web, &of_tcp], 6, true, "tcp"),
        (vec![&of_tcp], UNKNOWN, false, "default"),
        (vec![&everything], UNKNOWN, true, "all"),
        (vec![&everything, &no_ssh], 6, false, "no-ssh"),
        (vec![&everything, &no_ssh], 17, true, "all"),
        (vec![&everything, &no_ssh], UNKNOWN, false, "no-ssh"),
    ] {
        let rules: Vec<_> = rules.into_iter().cloned().collect();
        assert_eq!(said(&rules, protocol), Some((accepted, by.to_owned())), "{protocol}");
    }
}

fn accept(id: &str, cidr: &[&str], protocol: Option<u8>, ports: &[Ports]) -> Arc<Rule> {
    let cidr = cidr.iter().map(|cidr| cidr.parse().unwrap()).collect();
    Arc::new(Rule {
        id: id.into(),
        remote: Remote { cidr, networks: Vec::new() },
        service: Service { protocol, ports: ports.to_vec() },
        action: Action::Accept { encrypt: false },
        log: false,
        observe: Observe::None,
    })
}

#[test]
fn no_rules_accept_everything() {
    let compiled = compile(&[]).unwrap();
    assert_eq!(compiled.verdicts, [Verdict::default()]);
    assert!(compiled.remotes.is_empty() && compiled.services.is_empty() && compiled.pairs.is_empty());
}

#[test]
fn what_no_rule_tells_apart_is_one_class() {
    let ports = [Ports::one(80), Ports::one(443)];
    let compiled = compile(&[
        accept("a", &["10.0.0.0/8", "192.0.2.0/24", "10.1.0.0/16"], Some(6), &ports),
        accept("b", &["192.0.2.0/24", "10.0.0.0/8"], Some(6), &ports),
    ])
    .unwrap();
    let classes: Vec<_> = compiled.remotes.iter().map(|entry| entry.class).collect();
    // 10.1.0.0/16 is of another class only where somebody names it without what is around it.
    assert_eq!(classes, [1, 1], "{:?}", compiled.remotes);
    assert_eq!(compiled.services.iter().map(|entry| entry.class).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(compiled.pairs.len(), 1);
    assert_eq!(compiled.verdicts.get(compiled.otherwise), Some(&Verdict::rejected()));
}

#[test]
fn a_rule_for_everything_takes_one_verdict() {
    let compiled = compile(&[accept("all", &[], None, &[])]).unwrap();
    assert_eq!((compiled.remotes.len(), compiled.services.len(), compiled.pairs.len()), (0, 0, 0));
    assert_eq!(compiled.verdicts.get(compiled.otherwise).map(|verdict| &*verdict.policy_id), Some("all"));
}

#[test]
fn ipv4_has_an_entry_of_its_own_within_ipv6() {
    let compiled = compile(&[accept("six", &["::/0"], None, &[])]).unwrap();
    let mapped = "::ffff:0:0".parse::<Ipv6Addr>().unwrap().octets();
    assert_eq!(
        compiled.remotes,
        [
            RemoteEntry { address: [0; 16], length: 0, class: 1 },
            RemoteEntry { address: mapped, length: 96, class: 0 }
        ]
    );
}

#[test]
fn a_range_within_a_protocol_carries_both() {
    let range = [Ports { first: 0, last: u16::MAX }];
    let compiled = compile(&[
        accept("all of tcp", &[], Some(6), &[]),
        accept("web", &["10.0.0.0/8"], Some(6), &[Ports::one(80)]),
        accept("every port of udp", &[], Some(17), &range),
    ])
    .unwrap();
    let entry = |protocol, port, length, class| ServiceEntry { protocol, port, length, class };
    assert_eq!(compiled.services, [entry(6, 0, 0, 1), entry(6, 80, 16, 2), entry(17, 0, 0, 3)]);
}

#[test]
fn a_list_that_is_too_much_is_refused_and_says_by_whom() {
    let wide: Vec<String> =
        (0..40_000_u32).map(|number| format!("{}/32", std::net::Ipv4Addr::from(number * 2))).collect();
    let each: Vec<Arc<Rule>> =
        wide.iter().enumerate().map(|(at, cidr)| accept(&format!("c{at}"), &[cidr], None, &[])).collect();
    let ports = (0..100).map(|at| accept(&format!("port{at}"), &[], Some(6), &[Ports::one(at * 2)]));
    let rules: Vec<Arc<Rule>> = ports.chain(each).collect();
    let error = compile(&rules).unwrap_err();
    assert_eq!(error.what, What::Pairs);
    assert!(error.policies.iter().any(|id| id.starts_with("port")), "{error}");
    assert!(error.to_string().contains("1048576"), "{error}");
    let all: Vec<&str> = wide.iter().map(String::as_str).collect();
    assert!(compile(&[accept("list", &all, None, &[])]).is_ok(), "one class of many prefixes");
}

#[test]
fn ranges_that_all_hold_each_other_are_bounded() {
    let nested = |at: u16| accept("n", &[], Some(6), &[Ports { first: at, last: u16::MAX - at }]);
    let rules: Vec<Arc<Rule>> = (0..30_000).map(nested).collect();
    assert_eq!(compile(&rules).unwrap_err().what, What::Services);
}

#[test]
fn ten_thousand_rules_of_one_unit_are_compiled() {
    let rule = |at: u16| {
        let [high, low] = at.to_be_bytes();
        accept(&format!("p{at}"), &[&format!("10.{high}.{low}.0/24")], Some(6), &[Ports::one(at)])
    };
    let rules: Vec<Arc<Rule>> = (0..10_000).map(rule).collect();
    let compiled: Compiled = compile(&rules).unwrap();
    assert_eq!(
        (compiled.pairs.len(), compiled.remotes.len(), compiled.services.len()),
        (10_000, 10_000, 10_000)
    );
}
