//! Every row of the original's table, and what surrounds it.

use super::search;
use crate::{
    event::ActionType,
    policy::{
        rule::{Action, Observe, Opened, Ports, Remote, Rule, Service},
        verdict::Verdict,
    },
};

const ACCEPT: Action = Action::Accept { encrypt: false };
const ENCRYPT: Action = Action::Accept { encrypt: true };

fn rule(id: &str, action: Action, observe: Observe) -> Rule {
    Rule {
        id: id.into(),
        remote: Remote::default(),
        service: Service::default(),
        action,
        log: false,
        observe,
    }
}

fn flow() -> Opened {
    Opened { remote: [192, 0, 2, 1].into(), protocol: 6, port: 443 }
}

/// What is said: done by whom, observed by whom.
fn said(rules: &[Rule]) -> (u8, String, u8, String) {
    let verdict = search(rules, &flow());
    (
        verdict.action.bits(),
        verdict.policy_id.to_string(),
        verdict.observed_action.bits(),
        verdict.observed_policy_id.to_string(),
    )
}

fn row(action: ActionType, id: &str, observed: ActionType, by: &str) -> (u8, String, u8, String) {
    (action.bits(), id.to_owned(), observed.bits(), by.to_owned())
}

#[test]
fn every_row_of_the_originals_table() {
    use Observe::{Apply, Continue, None as Done};
    let (none, accepted, rejected) = (ActionType::NONE, ActionType::ACCEPT, ActionType::REJECT);
    let accept = || rule("accept", ACCEPT, Done);
    let reject = || rule("reject", Action::Reject, Done);
    for (name, mut rules, expected) in [
        ("accept", vec![accept()], row(accepted, "accept", none, "")),
        (
            "accept and encrypt",
            vec![rule("accept", ENCRYPT, Done)],
            row(accepted | ActionType::ENCRYPT, "accept", none, ""),
        ),
        ("reject", vec![reject()], row(rejected, "reject", none, "")),
        (
            "observe-continue reject, then accept",
            vec![rule("observe", Action::Reject, Continue), accept()],
            row(accepted, "accept", rejected, "observe"),
        ),
        (
            "observe-continue accept, then reject",
            vec![rule("observe", ACCEPT, Continue), reject()],
            row(rejected, "reject", none, ""),
        ),
        (
            "observe-apply accept",
            vec![rule("apply", ACCEPT, Apply)],
            row(accepted, "apply", accepted, "apply"),
        ),
        (
            "observe-apply reject",
            vec![rule("apply", Action::Reject, Apply)],
            row(rejected, "apply", rejected, "apply"),
        ),
        ("nothing", vec![Rule { service: of_udp(), ..accept() }], row(rejected, "default", none, "")),
        // What follows from the order of the search.
        ("reject before accept", vec![accept(), reject()], row(rejected, "reject", none, "")),
        (
            "observe-continue reject, then reject",
            vec![rule("observe", Action::Reject, Continue), reject()],
            row(rejected, "reject", rejected, "observe"),
        ),
        (
            "observe-continue accept, then accept",
            vec![rule("observe", ACCEPT, Continue), accept()],
            row(accepted, "accept", accepted, "observe"),
        ),
        (
            "observe-continue reject before observe-continue accept",
            vec![rule("a", ACCEPT, Continue), rule("r", Action::Reject, Continue), accept()],
            row(accepted, "accept", rejected, "r"),
        ),
        (
            "observe-apply after all others",
            vec![rule("apply", Action::Reject, Apply), accept()],
            row(accepted, "accept", none, ""),
        ),
        (
            "observe-continue, then observe-apply",
            vec![rule("observe", ACCEPT, Continue), rule("apply", Action::Reject, Apply)],
            row(rejected, "apply", accepted, "observe"),
        ),
        (
            "observe-continue, then nothing",
            vec![rule("observe", ACCEPT, Continue)],
            row(rejected, "default", accepted, "observe"),
        ),
        (
            "another rule that asks for encryption",
            vec![accept(), rule("encrypt", ENCRYPT, Done)],
            row(accepted | ActionType::ENCRYPT, "accept", none, ""),
        ),
    ] {
        assert_eq!(said(&rules), expected, "{name}");
        // Kinds are searched one after the other, so that only the order within one matters.
        if name != "another rule that asks for encryption" {
            rules.reverse();
            assert_eq!(said(&rules), expected, "{name}, in the other order");
        }
    }
}

fn of_udp() -> Service {
    Service { protocol: Some(17), ports: Vec::new() }
}

#[test]
fn without_a_rule_it_passes() {
    assert_eq!(search(&[], &flow()), Verdict::default());
    assert_eq!(said(&[]), row(ActionType::ACCEPT, "default", ActionType::NONE, ""));
}

#[test]
fn of_one_kind_the_first_is_found_whatever_its_prefix() {
    let of = |id: &str, cidr: &str| Rule {
        remote: Remote { cidr: vec![cidr.parse().unwrap()], networks: Vec::new() },
        ..rule(id, ACCEPT, Observe::None)
    };
    let (wide, narrow) = (of("wide", "192.0.0.0/8"), of("narrow", "192.0.2.1/32"));
    assert_eq!(said(&[wide.clone(), narrow.clone()]).1, "wide");
    assert_eq!(said(&[narrow, wide]).1, "narrow");
}

#[test]
fn a_log_is_a_bit_of_the_rule_that_is_found() {
    let logged = Rule { log: true, ..rule("logged", ACCEPT, Observe::None) };
    let plain = rule("plain", ACCEPT, Observe::None);
    assert_eq!(said(&[logged.clone(), plain.clone()]).0, (ActionType::ACCEPT | ActionType::LOG).bits());
    assert_eq!(said(&[plain, logged]).0, ActionType::ACCEPT.bits());
}

#[test]
fn a_rule_is_about_what_it_says() {
    let at = |cidr: &str| Remote { cidr: vec![cidr.parse().unwrap()], networks: Vec::new() };
    let holds = |remote: &Remote, address: &str| remote.holds(address.parse().unwrap());
    assert!(holds(&at("192.0.2.0/24"), "192.0.2.255") && !holds(&at("192.0.2.0/24"), "192.0.3.0"));
    assert!(holds(&at("192.0.2.0/24"), "::ffff:192.0.2.1"));
    assert!(holds(&at("::/0"), "2001:db8::1") && !holds(&at("::/0"), "192.0.2.1"));
    assert!(!holds(&at("0.0.0.0/0"), "2001:db8::1") && holds(&Remote::default(), "2001:db8::1"));
    let service = |protocol, ports: &[Ports]| Service { protocol, ports: ports.to_vec() };
    let web = service(Some(6), &[Ports::one(443), Ports { first: 8000, last: 8999 }]);
    assert!(web.holds(6, 443) && web.holds(6, 8000) && web.holds(6, 8999));
    assert!(!web.holds(17, 443) && !web.holds(6, 9000) && !web.holds(6, 7999));
    assert!(service(None, &[]).holds(47, 0) && service(Some(47), &[]).holds(47, 0));
}
