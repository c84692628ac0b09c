//! Outputs in a file.

use super::{error, parse};
use crate::{
    collector::filter::{Kind, Kinds},
    config::{Destination, Form},
};

#[test]
fn any_number_of_outputs() {
    let config = parse(
        r#"
queue = 7
[[output]]
type = "json"
[[output]]
type = "json"
to = "flows.json"
queue = 9
events = ["flow", "dns"]
[[output]]
type = "log"
[[output]]
type = "log"
to = "journal"
name = "json-2"
[[output]]
type = "log"
to = "syslog:/run/other/log"
[[output]]
type = "text"
to = "./journal"
"#,
    )
    .unwrap();
    let told: Vec<_> = config
        .outputs
        .iter()
        .map(|output| (output.form, output.to.to_string(), output.name.as_str(), output.queue))
        .collect();
    let want = [
        (Form::Json, "stdout", "json", 7),
        (Form::Json, "flows.json", "json-3", 9),
        (Form::Log, "stderr", "log", 7),
        (Form::Log, "journal:/run/systemd/journal/socket", "json-2", 7),
        (Form::Log, "syslog:/run/other/log", "log-2", 7),
        (Form::Text, "./journal", "text", 7),
    ];
    assert_eq!(told, want.map(|(form, to, name, queue)| (form, to.to_owned(), name, queue)));
    assert_eq!(config.outputs[1].events, [Kind::Flow, Kind::Dns].into_iter().collect());
    assert_eq!(config.outputs[0].events, Kinds::ALL);
    assert_eq!(config.outputs[1].to, Destination::File("flows.json".into()));
}

#[test]
fn every_fault_of_an_output_has_its_place() {
    let json = "[[output]]\ntype = \"json\"\n";
    for (text, want) in [
        (
            format!("{json}{json}"),
            "c.toml:4:8: output: two outputs go to stdout, the first in line 2: expected another `to`",
        ),
        (
            format!("{json}to = \"a/./b\"\n{json}to = \"a/b\""),
            "c.toml:6:6: output: two outputs go to a/b, the first in line 3: ",
        ),
        (
            format!("{json}to = \"stderr\""),
            "c.toml:3:6: output: \"stderr\" is no place for type \"json\": expected stdout or the path of a file",
        ),
        (
            "[[output]]\ntype = \"log\"\nto = \"stdout\"".to_owned(),
            "c.toml:3:6: output: \"stdout\" is no place for type \"log\": expected stderr, journal, syslog, or",
        ),
        (
            "[[output]]\ntype = \"log\"\nto = \"syslog:log\"".to_owned(),
            "c.toml:3:6: output: \"syslog:log\" is no place for",
        ),
        (
            "[[output]]\ntype = \"xml\"".to_owned(),
            "c.toml:2:8: unknown variant `xml`, expected one of `text`, `json`, `log`",
        ),
        ("[[output]]\nto = \"f\"".to_owned(), "c.toml:1:1: missing field `type`"),
        (
            format!("{json}file = \"f\""),
            "c.toml:3:1: unknown field `file`, expected one of `type`, `to`, `name`, `queue`, `events`",
        ),
        (format!("{json}queue = 0"), "c.toml:3:9: queue is 0: expected a number from 1 on"),
        (format!("{json}name = \"\""), "c.toml:3:8: output: \"\" is no name"),
        (
            format!("{json}name = \"aggregate\""),
            "c.toml:3:8: output: the name \"aggregate\" is the collector's own: expected another",
        ),
        (format!("{json}name = \"a\\u0000\""), "c.toml:3:8: output: \"a\\0\" is no name"),
        (
            format!("{json}name = \"a\"\n{json}to = \"f\"\nname = \"a\""),
            "c.toml:7:8: output: two outputs are named \"a\", the first in line 3: ",
        ),
        (
            format!("{json}events = []"),
            "c.toml:3:10: output: no kind of event is left: expected some of flow, ",
        ),
        (
            format!("{json}events = [\"flow\", \"status\"]"),
            "c.toml:3:19: output: \"status\" is no kind of event: expected flow, container, user, trace, ",
        ),
        (
            "filter = \"tcp port\"".to_owned(),
            "c.toml:1:10: filter: \"tcp port\" is no filter (pcap-filter(7)): ",
        ),
        (
            "filter = \"ip6 protochain 6\"".to_owned(),
            "c.toml:1:10: filter: \"ip6 protochain 6\" is compiled to a loop",
        ),
        ("output = []".to_owned(), "c.toml:1:10: output: no output is left: expected "),
        (
            "[limits]\nflows = -1".to_owned(),
            "c.toml:2:9: invalid value: integer `-1`, expected a whole number from 0 to 4294967295",
        ),
        (
            "output = 1".to_owned(),
            "c.toml:1:10: invalid type: integer `1`, expected `text`, `json`, or tables",
        ),
    ] {
        let message = error(&text).0;
        assert!(message.starts_with(want), "{text:?}: {message:?} does not start with {want:?}");
    }
}
