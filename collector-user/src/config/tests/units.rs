//! Processing units in a file.

use super::{error, parse};
use crate::config::Fault;

#[test]
fn more_units_than_can_be_counted_have_the_place_of_the_first_too_many() {
    let units: Vec<_> =
        (0..17_000).map(|unit| format!("[[pu]]\nid = \"{unit}\"\ninterface = [\"v{unit}\"]\n")).collect();
    let (message, fault) = error(&units.concat());
    let Fault::TooMany { source } = fault else { panic!("{message}") };
    let want = format!(
        "c.toml:{}:6: 17000 processing units are declared, at most {} can be counted: expected fewer units",
        source.most * 3 + 2,
        source.most
    );
    assert!(message.starts_with(&want), "{message}");
}

#[test]
fn every_fault_of_a_unit_names_it() {
    let pu = "[[pu]]\nid = \"web\"\n";
    for (text, want) in [
        (
            "",
            "c.toml:2:6: processing unit \"web\" matches nothing: expected a name in `interface`, a network in",
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
        ("port = [0]", "c.toml:3:9: processing unit \"web\": port: \"0\" is no port: expected 1 to 65535 or"),
        ("port = [\"x\"]", "c.toml:3:9: processing unit \"web\": port: \"x\" is no port"),
        ("port = [true]", "c.toml:3:8: expected a number or text"),
        (
            "port = [\"9-8\"]",
            "c.toml:3:9: processing unit \"web\": port: \"9-8\": the range ends before it begins: write 8-9",
        ),
        (
            "port = [\"icmp/8\"]",
            "c.toml:3:9: processing unit \"web\": port: \"icmp/8\": \"icmp\" is none of the protocols",
        ),
        (
            "uid = [-1]",
            "c.toml:3:8: processing unit \"web\": \"-1\" is no user: expected an id from 0 to 4294967294, or a name",
        ),
        ("uid = [4294967295]", "c.toml:3:8: processing unit \"web\": \"4294967295\" is no user"),
        ("uid = [\"\"]", "c.toml:3:8: processing unit \"web\": \"\" is no user"),
        ("interface = [\"\"]", "c.toml:3:14: processing unit \"web\": no interface can be called \"\""),
        (
            "interface = [\"veth*\"]",
            "c.toml:3:14: processing unit \"web\": \"veth*\" looks like a pattern, and a unit's interfaces are names",
        ),
        (
            "cidr = [\"::ffff:10.0.0.0/104\"]",
            "c.toml:3:9: processing unit \"web\": no packet has an address of ::ffff:10.0.0.0/104, which is how IPv6 \
             sockets write IPv4 ones: write 10.0.0.0/8",
        ),
        (
            "cidr = [\"::ffff:10.0.0.1\"]",
            "c.toml:3:9: processing unit \"web\": 10.0.0.1 is an address, not a network",
        ),
        (
            "cidr = [\"10.0.0.0/8\"]\nside = \"host\"",
            "c.toml:4:8: processing unit \"web\" has a `side`, and no interface on whose side it could be",
        ),
        (
            "interface = [\"eth0\"]\nside = \"left\"",
            "c.toml:4:8: unknown variant `left`, expected `behind` or `host`",
        ),
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
    let (message, _) =
        error(&two("id = \"a\"\ncidr = [\"fd77::/64\"]", "id = \"b\"\ncidr = [\"fd77:0::/64\"]"));
    assert!(
        message.starts_with("c.toml:6:9: processing unit \"b\" claims fd77::/64, as does \"a\""),
        "{message}"
    );
    for id in ["host", "forwarded", "unknown", "overlay"] {
        let (message, fault) = error(&format!("[[pu]]\nid = \"{id}\"\ninterface = [\"x\"]"));
        assert!(
            message.starts_with("c.toml:2:6: ") && matches!(fault, Fault::ReservedId { .. }),
            "{message}"
        );
    }
    assert!(matches!(error("[[pu]]\nid = \"\"\ninterface = [\"x\"]").1, Fault::EmptyId));
    for (key, first, second, what) in [
        ("port", "443", "\"443-443\"", "port 443"),
        ("uid", "33", "\"033\"", "uid 33"),
        ("uid", "\"bob\"", "\"bob\"", "uid bob"),
    ] {
        let (message, _) = error(&two(
            &format!("id = \"a\"\n{key} = [{first}]"),
            &format!("id = \"b\"\n{key} = [{second}]"),
        ));
        assert!(message.contains(&format!("\"b\" claims {what}, as does \"a\"")), "{message}");
    }
    let many: Vec<_> = (0..=4096).map(|uid| uid.to_string()).collect();
    let (message, _) = error(&format!("[[pu]]\nid = \"a\"\nuid = [{}]", many.join(", ")));
    assert!(
        message.starts_with("c.toml:2:6: processing unit \"a\": with its own there are more than 4096"),
        "{message}"
    );
    // One inside the other is how a part of a network becomes a unit of its own.
    let nested = two("id = \"a\"\ncidr = [\"10.0.0.0/8\"]", "id = \"b\"\ncidr = [\"10.1.0.0/16\"]");
    assert_eq!(parse(&nested).unwrap().pu.len(), 2);
}
