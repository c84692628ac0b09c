//! Policies and networks in a file.

use super::{error, parse};
use crate::{
    config::Fault,
    policy::rule::{Action, Observe, Policy, Ports},
    pu::trace::Directions,
};

/// Every key, in more than one way.
pub(super) const ALL: &str = r#"
[[network]]
id = "office"
cidr = ["192.0.2.0/24", "2001:db8::/32"]

[[network]]
id = "site"
cidr = ["198.51.100.0/24"]

[[policy]]
id = "web-in"
pu = ["web", "db-*"]
direction = "in"
cidr = ["10.0.0.0/8", "fd00::/8"]
network = ["office", "site"]
protocol = "tcp"
port = [443, "8000-8999", "22"]
action = "accept"
encrypt = true
log = true
observe = "continue"

[[policy]]
id = "ping"
namespace = "/prod"
tags = ["app=web", "tier=front"]
direction = "both"
protocol = "icmp"
icmp-type = ["echo-request", 3, "11/0"]
action = "reject"

[[policy]]
id = "tunnel"
pu = ["host"]
direction = "out"
protocol = 47
action = "reject"
observe = "apply"

[[policy]]
id = "ping6"
pu = ["*"]
direction = "out"
protocol = "icmpv6"
icmp-type = ["packet-too-big"]
action = "accept"

[[policy]]
id = "all"
pu = ["*"]
direction = "out"
action = "accept"
"#;

#[test]
fn everything_can_be_said_of_a_policy() {
    let config = parse(ALL).unwrap();
    assert!(!config.enforce && parse("enforce = true").unwrap().enforce);
    assert_eq!(config.network.iter().map(|network| &*network.id).collect::<Vec<_>>(), ["office", "site"]);
    let [web, ping, tunnel, ping6, all] = config.policy.as_slice() else { panic!("{:?}", config.policy) };
    let units = |policy: &Policy| policy.selector.units.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((units(web), web.directions), (vec!["web".into(), "db-*".into()], Directions::In));
    let networks: Vec<_> = web.rule.remote.all().map(|network| network.to_string()).collect();
    assert_eq!(networks, ["10.0.0.0/8", "fd00::/8", "192.0.2.0/24", "2001:db8::/32", "198.51.100.0/24"]);
    let ports = [Ports::one(443), Ports { first: 8000, last: 8999 }, Ports::one(22)];
    assert_eq!((web.rule.service.protocol, web.rule.service.ports.as_slice()), (Some(6), &ports[..]));
    assert_eq!((web.rule.action, web.rule.log), (Action::Accept { encrypt: true }, true));
    assert_eq!(web.rule.observe, Observe::Continue);
    assert_eq!(ping.selector.namespace.as_deref(), Some("/prod"));
    assert_eq!(ping.selector.tags, ["app=web".into(), "tier=front".into()]);
    assert!(ping.rule.remote.is_everywhere());
    let types =
        [Ports { first: 0x0800, last: 0x08FF }, Ports { first: 0x0300, last: 0x03FF }, Ports::one(0x0B00)];
    assert_eq!((ping.rule.service.protocol, ping.rule.service.ports.as_slice()), (Some(1), &types[..]));
    assert_eq!((ping.rule.action, ping.directions), (Action::Reject, Directions::Both));
    assert_eq!((tunnel.rule.service.protocol, tunnel.rule.observe), (Some(47), Observe::Apply));
    assert_eq!(ping6.rule.service.ports, [Ports { first: 0x0200, last: 0x02FF }]);
    assert!(all.rule.service.is_everything() && all.rule.remote.is_everywhere());
}

/// A policy that serves, with one line after another for those of its keys.
fn policy(lines: &str) -> String {
    let mut text = "[[policy]]\nid = \"p\"\n".to_owned();
    for (key, usual) in [("pu", "[\"*\"]"), ("direction", "\"in\""), ("action", "\"accept\"")] {
        if !lines.lines().any(|line| line.starts_with(key)) {
            text = format!("{text}{key} = {usual}\n");
        }
    }
    format!("{text}{lines}")
}

#[test]
fn every_fault_of_a_policy_has_its_place_and_names_it() {
    for (lines, place, want) in [
        ("pu = []", "2:6", "it is about no unit: expected `pu`, `namespace` or `tags`; pu = [\"*\"] for all"),
        ("pu = [\"a[\"]", "5:7", "pu: \"a[\" is no pattern: "),
        ("tags = [\"lonely\"]", "6:9", "the tag \"lonely\" lacks a key or a `=`: expected key=value"),
        ("cidr = []", "6:8", "`cidr` is an empty list, which could mean none or all: leave it out for all"),
        ("network = []", "6:11", "`network` is an empty list"),
        ("cidr = [\"10.0.0.1\"]", "6:9", "10.0.0.1 is an address, not a network: write 10.0.0.1/32"),
        ("cidr = [\"10.0.0.1/8\"]", "6:9", "10.0.0.1/8 has bits beyond its length: write 10.0.0.0/8"),
        ("cidr = [\"::ffff:10.0.0.0/104\"]", "6:9", "no packet has an address of ::ffff:10.0.0.0/104"),
        (
            "network = [\"office\"]",
            "6:12",
            "no network is called \"office\": expected a table headed [[network]] with this id",
        ),
        ("protocol = \"tpc\"", "6:12", "\"tpc\" is no protocol: expected a name such as tcp"),
        ("protocol = 256", "6:12", "\"256\" is no protocol"),
        (
            "port = [443]",
            "6:9",
            "`port` goes with a protocol that has ports, and there is no `protocol`: expected protocol = \"tcp\"",
        ),
        (
            "protocol = \"gre\"\nport = [443]",
            "7:9",
            "`port` goes with a protocol that has ports, and gre has none",
        ),
        (
            "protocol = \"icmp\"\nport = [3]",
            "7:9",
            "`port` goes with a protocol that has ports, and icmp has none",
        ),
        ("protocol = \"tcp\"\nport = []", "7:8", "`port` is an empty list"),
        (
            "protocol = \"tcp\"\nport = [65536]",
            "7:9",
            "\"65536\" is no port: expected a number from 0 to 65535",
        ),
        ("protocol = \"tcp\"\nport = [-1]", "7:9", "\"-1\" is no port"),
        ("protocol = \"tcp\"\nport = [\"http\"]", "7:9", "\"http\" is no port"),
        (
            "protocol = \"tcp\"\nport = [80, \"90-80\"]",
            "7:13",
            "the range 90-80 ends before it begins: write \"80-90\"",
        ),
        (
            "icmp-type = [8]",
            "6:14",
            "`icmp-type` goes with ICMP, and there is no `protocol`: expected protocol = \"icmp\"",
        ),
        ("protocol = \"tcp\"\nicmp-type = [8]", "7:14", "`icmp-type` goes with ICMP, and tcp has none"),
        (
            "protocol = \"icmp\"\nicmp-type = [\"packet-too-big\"]",
            "7:14",
            "\"packet-too-big\" is no type of icmp's messages: expected a number, a number and a code such as \"3/4\", or one of echo-reply, ",
        ),
        (
            "action = \"reject\"\nencrypt = true",
            "6:11",
            "what it rejects cannot be encrypted: expected action = \"accept\", or no `encrypt`",
        ),
    ] {
        let (message, fault) = error(&policy(lines));
        let want = format!("c.toml:{place}: policy \"p\": {want}");
        assert!(message.starts_with(&want), "{lines:?}: {message:?} does not start with {want:?}");
        assert!(matches!(fault, Fault::Policy { .. }));
    }
}

#[test]
fn what_is_missing_or_misspelt_is_told_as_elsewhere() {
    for (text, want) in [
        (
            "[[policy]]\nid = \"p\"\npu = [\"*\"]\naction = \"accept\"",
            "c.toml:1:1: missing field `direction`",
        ),
        ("[[policy]]\nid = \"p\"\npu = [\"*\"]\ndirection = \"in\"", "c.toml:1:1: missing field `action`"),
        (
            &policy("direction = \"up\""),
            "c.toml:5:13: unknown variant `up`, expected one of `in`, `out`, `both`",
        ),
        (&policy("action = \"drop\""), "c.toml:5:10: unknown variant `drop`, expected `accept` or `reject`"),
        (
            &policy("observe = \"yes\""),
            "c.toml:6:11: unknown variant `yes`, expected one of `none`, `continue`, `apply`",
        ),
        (
            &policy("ports = [1]"),
            "c.toml:6:1: unknown field `ports`, expected one of `id`, `pu`, `namespace`",
        ),
        (
            &policy("protocol = true"),
            "c.toml:6:12: invalid type: boolean `true`, expected a number, or text in quotes",
        ),
        ("enforce = \"yes\"", "c.toml:1:11: invalid type: string \"yes\", expected a boolean"),
        ("[[network]]\nid = \"a\"", "c.toml:1:1: missing field `cidr`"),
    ] {
        let message = error(text).0;
        assert!(message.starts_with(want), "{text:?}: {message:?} does not start with {want:?}");
    }
}

#[test]
fn policies_have_ids_of_their_own() {
    let of = |id: &str| policy("").replacen("\"p\"", &format!("\"{id}\""), 1);
    let (message, _) = error(&format!("{}{}", of("a"), of("a")));
    assert_eq!(
        message,
        "c.toml:7:6: policy \"a\": another policy has this id, first in line 2: expected an id of its own for each"
    );
    assert!(error(&of("default")).0.contains("where no policy says anything: expected another than default"));
    assert!(error(&of("")).0.contains("the id is empty"));
}

#[test]
fn a_unit_that_is_declared_otherwise_is_never_meant() {
    let unit = "[[pu]]\nid = \"web\"\nnamespace = \"/prod\"\ntags = [\"app=web\"]\ncidr = [\"10.0.0.0/8\"]\n";
    let with = |lines: &str| format!("{unit}{}", policy(lines));
    for (lines, want) in [
        (
            "pu = [\"web\"]\nnamespace = \"/test\"",
            "it can never be about \"web\", which is declared without the namespace \"/test\": name one of both",
        ),
        (
            "pu = [\"db\", \"web\"]\ntags = [\"app=db\"]",
            "it can never be about \"web\", which is declared without the tag",
        ),
    ] {
        let message = error(&with(lines)).0;
        assert!(message.contains(want), "{message}");
    }
    for lines in [
        "pu = [\"web\"]\nnamespace = \"/prod\"\ntags = [\"app=web\"]",
        "pu = [\"w*\"]\nnamespace = \"/test\"",
        "pu = [\"nginx.service\"]\nnamespace = \"/test\"",
    ] {
        assert!(parse(&with(lines)).is_ok(), "{lines}");
    }
}

#[test]
fn every_fault_of_a_network_names_it() {
    let network = |id: &str, cidr: &str| format!("[[network]]\nid = \"{id}\"\ncidr = [{cidr}]\n");
    for (text, want) in [
        (network("", "\"10.0.0.0/8\""), "c.toml:2:6: network \"\": the id is empty"),
        (
            network("default", "\"10.0.0.0/8\""),
            "c.toml:2:6: network \"default\": the id is the collector's own",
        ),
        (network("a", ""), "c.toml:2:6: network \"a\": it holds no address: expected networks in `cidr`"),
        (network("a", "\"x\""), "c.toml:3:9: network \"a\": \"x\" is no network"),
        (
            network("a", "\"10.0.0.0/8\"") + &network("a", "\"10.1.0.0/16\""),
            "c.toml:5:6: network \"a\": another network has this id, first in line 2",
        ),
        (
            network("a", "\"10.0.0.0/8\"") + &network("b", "\"10.1.0.0/16\", \"10.0.0.0/8\""),
            "c.toml:6:24: network \"b\": it holds 10.0.0.0/8, as does \"a\": expected each in one network only",
        ),
    ] {
        let message = error(&text).0;
        assert!(message.starts_with(want), "{text:?}: {message:?} does not start with {want:?}");
    }
    let unknown = network("office", "\"10.0.0.0/8\"") + &policy("network = [\"ofice\"]");
    assert!(error(&unknown).0.contains("no network is called \"ofice\": expected \"office\""));
}

#[test]
fn policies_that_are_too_many_are_told_with_their_place() {
    let ports: Vec<_> = (0..1_000).map(|port| format!("{}", port * 2)).collect();
    let many: Vec<_> = ports
        .iter()
        .map(|port| {
            policy(&format!("protocol = \"tcp\"\nport = [{port}]\n")).replacen(
                "\"p\"",
                &format!("\"p{port}\""),
                1,
            )
        })
        .collect();
    let wide: Vec<_> = (0..2_000)
        .map(|at| {
            policy(&format!("cidr = [\"10.{}.{}.0/24\"]\n", at / 256, at % 256)).replacen(
                "\"p\"",
                &format!("\"c{at}\""),
                1,
            )
        })
        .collect();
    let (message, fault) = error(&format!("{}{}", many.concat(), wide.concat()));
    assert!(matches!(fault, Fault::Explosion { .. }), "{message}");
    assert!(
        message.starts_with("c.toml:2:6: the policies make more pairs of remote addresses and services"),
        "{message}"
    );
    assert!(
        message.contains("most of them by \"p0\"") && message.contains("name fewer networks"),
        "{message}"
    );
}
