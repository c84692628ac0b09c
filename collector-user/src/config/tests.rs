//! Whole files, right and wrong.

use std::path::Path;

use super::{Attach, Config, ConfigError, DEFAULT_MARK_MASK, Fault, Limits, Output};

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("c.toml"))
}

/// The message, and the fault behind it.
fn error(text: &str) -> (String, Fault) {
    let error = parse(text).unwrap_err();
    let message = error.to_string();
    let ConfigError::Wrong { fault, .. } = error else { panic!("{message}") };
    (message, *fault)
}

#[test]
fn nothing_is_the_default() {
    let config = parse("").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.mark_mask, 0xFFFC_0000);
    assert_eq!(config.queue, 65_536);
    assert_eq!(config.flow_interval.get().as_secs(), 5);
    assert_eq!(config.counter_interval.get().as_secs(), 30);
    assert_eq!(config.duration, None);
}

#[test]
fn everything_can_be_said() {
    let config = parse(
        r#"
iface = ["eth0", "veth*"]
forwarded = true
output = "json"
attach = "clsact"
duration = "1m"
flow-interval = "250ms"
counter-interval = "2m"
queue = 1000
mark-mask = 0x0000FF00

[limits]
flow_slots = 1024
flows = 4096
new_flows_per_second = 10

[[pu]]
id = "web"
namespace = "/prod"
tags = ["app=web", "app=other", "empty="]
interface = ["veth1a2b"]
cidr = ["10.1.0.0/16", "fd00:1::/32"]

[[pu]]
id = "db"
cidr = ["10.1.2.3/32"]
"#,
    )
    .unwrap();
    assert_eq!(config.iface.iter().map(super::IfaceGlob::as_str).collect::<Vec<_>>(), ["eth0", "veth*"]);
    assert!(config.forwarded);
    assert_eq!((config.output, config.attach), (Output::Json, Attach::Clsact));
    assert_eq!(config.duration.unwrap().get().as_secs(), 60);
    assert_eq!(config.flow_interval.get().as_millis(), 250);
    assert_eq!(config.counter_interval.get().as_secs(), 120);
    assert_eq!((config.queue, config.mark_mask), (1000, 0xFF00));
    assert_eq!(config.limits, Limits { flow_slots: 1024, flows: 4096, new_flows_per_second: 10 });
    let [web, db] = config.pu.as_slice() else { panic!("{:?}", config.pu) };
    assert_eq!((&*web.id, &*web.namespace), ("web", "/prod"));
    assert_eq!(web.tags.to_string(), "app=web app=other empty=");
    assert_eq!(web.interface, ["veth1a2b"]);
    assert_eq!(web.cidr.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.0.0/16", "fd00:1::/32"]);
    assert!(db.interface.is_empty() && db.tags.is_empty() && db.namespace.is_empty());
}

#[test]
fn the_form_of_the_checks_is_understood() {
    assert_eq!(parse("[[pu]]\nid = \"web\"\ninterface = [\"vc0\"]\n").unwrap().pu.len(), 1);
    assert_eq!(parse("mark_mask = 0xFFFC0000").unwrap().mark_mask, DEFAULT_MARK_MASK);
    assert_eq!(parse("mark-mask = 0").unwrap().mark_mask, 0);
    let config = parse("[limits]\nflows = 70").unwrap();
    assert_eq!(config.limits, Limits { flows: 70, ..Limits::default() });
}

#[test]
fn every_wrong_value_has_its_place_and_what_was_expected() {
    let pu = "[[pu]]\nid = \"web\"\n";
    for (text, want) in [
        ("forwarded = 1", r"c.toml:1:13: invalid type: integer `1`, expected a boolean"),
        ("\nifaces = []", "c.toml:2:1: unknown field `ifaces`, expected one of `iface`, "),
        ("output = \"xml\"", "c.toml:1:10: unknown variant `xml`, expected `text` or `json`"),
        ("queue = ", "c.toml:1:9: "),
        ("queue = 0", "c.toml:1:9: queue is 0: expected a number from 1 on"),
        ("queue = -1", "c.toml:1:9: invalid value: integer `-1`, expected u32"),
        ("iface = [\"eth0\", \"\"]", "c.toml:1:18: iface: an empty pattern matches no interface"),
        ("iface = [\"eth[\"]", "c.toml:1:10: iface: \"eth[\" is no pattern: "),
        (
            "flow-interval = \"5\"",
            "c.toml:1:17: flow-interval: \"5\" is no length of time: expected a number and",
        ),
        ("flow-interval = 5", "c.toml:1:17: invalid type: integer `5`, expected a string"),
        ("counter-interval = \"0s\"", "c.toml:1:20: counter-interval: \"0s\" is not above zero"),
        ("duration = \"-1s\"", "c.toml:1:12: duration: \"-1s\" is not above zero"),
        ("mark-mask = 5", "c.toml:1:13: mark-mask 0x00000005 has holes"),
        ("[limits]\nflows = 0", "c.toml:1:1: limits.flows = 0: expected a number from 64 to 16777216"),
        ("[limits]\nslots = 1", "c.toml:2:1: unknown field `slots`, expected one of `flow_slots`, `flows`, "),
        ("[[pu]]\ncidr = []", "c.toml:1:1: missing field `id`"),
        (&format!("{pu}name = 1"), "c.toml:3:1: unknown field `name`, expected one of `id`, `namespace`, "),
    ] {
        let message = error(text).0;
        assert!(message.starts_with(want), "{text:?}: {message:?} does not start with {want:?}");
    }
}

#[test]
fn every_fault_of_a_unit_names_it() {
    let pu = "[[pu]]\nid = \"web\"\n";
    for (text, want) in [
        (
            "",
            "c.toml:2:6: processing unit \"web\" matches nothing: expected a name in `interface` or a network",
        ),
        (
            "cidr = [\"10.0.0.0\"]",
            "c.toml:3:9: processing unit \"web\": 10.0.0.0 is an address, not a network: write 10.0.0.0/32",
        ),
        (
            "cidr = [\"10.1.2.3/16\"]",
            "c.toml:3:9: processing unit \"web\": 10.1.2.3/16 has bits beyond its length: write 10.1.0.0/16 for the \
             network, or 10.1.2.3/32 for the one address",
        ),
        (
            "cidr = [\n  \"fd00::1/64\",\n]",
            "c.toml:4:3: processing unit \"web\": fd00::1/64 has bits beyond its length: write fd00::/64",
        ),
        (
            "cidr = [\"10.0.0.0/33\"]",
            "c.toml:3:9: processing unit \"web\": \"10.0.0.0/33\" is no network: expected an address",
        ),
        ("cidr = [\"x\"]", "c.toml:3:9: processing unit \"web\": \"x\" is no network"),
        ("interface = [\"\"]", "c.toml:3:14: processing unit \"web\": no interface can be called \"\""),
        ("interface = [\"a b\"]", "c.toml:3:14: processing unit \"web\": no interface can be called \"a b\""),
        (
            "interface = [\"sixteen-letters-\"]",
            "c.toml:3:14: processing unit \"web\": no interface can be called",
        ),
        (
            "interface = [\"eth0\"]\ntags = [\"a=b\", \"lonely\"]",
            "c.toml:4:16: processing unit \"web\": the tag \"lonely\" lacks a key or a `=`: expected key=value",
        ),
        (
            "interface = [\"eth0\"]\ntags = [\"=b\"]",
            "c.toml:4:9: processing unit \"web\": the tag \"=b\" lacks",
        ),
    ] {
        let message = error(&format!("{pu}{text}")).0;
        assert!(message.starts_with(want), "{text:?}: {message:?} does not start with {want:?}");
    }
}

#[test]
fn units_do_not_get_in_each_others_way() {
    let two = |first: &str, second: &str| format!("[[pu]]\n{first}\n[[pu]]\n{second}\n");
    let (message, fault) = error(&two("id = \"a\"\ninterface = [\"x\"]", "id = \"a\"\ninterface = [\"y\"]"));
    assert_eq!(
        message,
        "c.toml:5:6: processing unit \"a\" is declared twice, first in line 2: expected an id of its own for each"
    );
    assert!(matches!(fault, Fault::DuplicateId { first: 2, .. }));
    let (message, fault) =
        error(&two("id = \"a\"\ncidr = [\"10.0.0.0/8\"]", "id = \"b\"\ncidr = [\"10.0.0.0/8\"]"));
    assert!(
        message.starts_with("c.toml:6:9: processing unit \"b\" claims 10.0.0.0/8, as does \"a\""),
        "{message}"
    );
    assert!(matches!(fault, Fault::ClaimedTwice { .. }));
    for id in ["host", "forwarded", "unknown", "overlay"] {
        let (message, fault) = error(&format!("[[pu]]\nid = \"{id}\"\ninterface = [\"x\"]"));
        assert!(
            message.starts_with("c.toml:2:6: ") && matches!(fault, Fault::ReservedId { .. }),
            "{message}"
        );
    }
    assert!(matches!(error("[[pu]]\nid = \"\"\ninterface = [\"x\"]").1, Fault::EmptyId));
    // One inside the other is how a part of a network becomes a unit of its own.
    let nested = two("id = \"a\"\ncidr = [\"10.0.0.0/8\"]", "id = \"b\"\ncidr = [\"10.1.0.0/16\"]");
    assert_eq!(parse(&nested).unwrap().pu.len(), 2);
}

#[test]
fn a_file_is_read_and_one_that_is_not_there_is_named() {
    let missing = Path::new("/nonexistent/c.toml");
    let error = Config::load(missing).unwrap_err();
    assert_eq!(error.to_string(), "/nonexistent/c.toml: the configuration cannot be read");
    assert!(matches!(error, ConfigError::Read { .. }));
    let path = std::env::temp_dir().join(format!("collector-config-{}.toml", std::process::id()));
    std::fs::write(&path, "forwarded = true\n").unwrap();
    let config = Config::load(&path);
    std::fs::remove_file(&path).unwrap();
    assert!(config.unwrap().forwarded);
}
