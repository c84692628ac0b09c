//! Whole files, right and wrong.

mod policies;

use std::path::Path;

use super::{
    Attach, Config, ConfigError, DEFAULT_MARK_MASK, Destination, Discover, Drops, EXAMPLE, Fault, Form,
    Limits, LogFormat, Output, OutputConfig, Socket, Tunnels, Xdp,
};
use crate::{
    collector::filter::{Kind, Kinds},
    host::pcap::Filter,
    kernel::settings::Transport,
};

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
discover = "off"
ignore = ["session-*.scope", "aa"]
forwarded = true
tunnels = "inner"
drops = "all"
xdp = "native"
transport = "ring"
filter = "tcp port 443"
output = "json"
attach = "clsact"
duration = "1m"
flow-interval = "250ms"
counter-interval = "2m"
queue = 1000
mark-mask = 0x0000FF00
log-format = "json"
socket = "/run/c.sock"
snaplen = 65535
sample = 10

[[trace]]
pu = "web"
direction = "in"
for = "10m"
sample = 3

[[trace]]
pu = "*"

[limits]
flow-slots = 1024
flows = 4096
new-flows-per-second = 10

[[pu]]
id = "web"
namespace = "/prod"
tags = ["app=web", "app=other", "empty="]
interface = ["veth1a2b"]
cidr = ["10.1.0.0/16", "fd00:1::/32"]
cgroup = ["/system.slice/web-*.service"]
netns = ["blue", "/run/other"]
port = [443, "8000-8999", "udp/53"]
uid = [1000, "www-data", "007"]

[[pu]]
id = "db"
cidr = ["10.1.2.3/32"]
"#,
    )
    .unwrap();
    assert_eq!(config.iface.iter().map(super::IfaceGlob::as_str).collect::<Vec<_>>(), ["eth0", "veth*"]);
    assert_eq!(config.discover, Discover::Off);
    assert_eq!(config.ignore.iter().map(ToString::to_string).collect::<Vec<_>>(), ["session-*.scope", "aa"]);
    assert!(config.forwarded);
    assert_eq!(config.tunnels, Tunnels::Inner);
    assert_eq!((config.drops, config.xdp, config.transport), (Drops::All, Xdp::Native, Transport::Ring));
    assert_eq!(config.filter, Some(Filter::compile("tcp port 443").unwrap()));
    assert_eq!(config.outputs, [OutputConfig::stdout(Output::Json, 1000)]);
    assert_eq!((config.attach, config.log_format), (Attach::Clsact, LogFormat::Json));
    assert_eq!(config.duration.unwrap().get().as_secs(), 60);
    assert_eq!(config.flow_interval.get().as_millis(), 250);
    assert_eq!(config.counter_interval.get().as_secs(), 120);
    assert_eq!((config.queue, config.mark_mask), (1000, 0xFF00));
    assert_eq!(config.socket, Socket::At("/run/c.sock".into()));
    assert_eq!(
        config.limits,
        Limits { flow_slots: 1024, flows: 4096, new_flows_per_second: 10, ..Limits::default() }
    );
    let traces: Vec<_> = config.trace.iter().map(ToString::to_string).collect();
    assert_eq!(traces, ["web:in:10m", "*:both"]);
    let every: Vec<_> = config.trace.iter().map(|trace| trace.wish(config.sample).every.get()).collect();
    assert_eq!((config.snaplen, every), (u16::MAX, vec![3, 10]));
    let [web, db] = config.pu.as_slice() else { panic!("{:?}", config.pu) };
    assert_eq!((&*web.id, &*web.namespace), ("web", "/prod"));
    assert_eq!(web.tags.to_string(), "app=web app=other empty=");
    assert_eq!(web.interface, ["veth1a2b"]);
    assert_eq!(web.cidr.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.0.0/16", "fd00:1::/32"]);
    assert_eq!(
        web.cgroup.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["/system.slice/web-*.service"]
    );
    assert_eq!(web.netns, ["blue", "/run/other"]);
    assert_eq!(web.port.iter().map(ToString::to_string).collect::<Vec<_>>(), ["443", "8000-8999", "udp/53"]);
    assert_eq!(web.uid.iter().map(ToString::to_string).collect::<Vec<_>>(), ["1000", "www-data", "7"]);
    assert!(db.interface.is_empty() && db.tags.is_empty() && db.namespace.is_empty());
}

#[test]
fn the_form_of_the_checks_is_understood() {
    assert_eq!(parse("[[pu]]\nid = \"web\"\ninterface = [\"vc0\"]\n").unwrap().pu.len(), 1);
    assert_eq!(parse("mark_mask = 0xFFFC0000").unwrap().mark_mask, DEFAULT_MARK_MASK);
    assert_eq!(parse("mark-mask = 0").unwrap().mark_mask, 0);
    let config = parse("[limits]\nflows = 70").unwrap();
    assert_eq!(config.limits, Limits { flows: 70, ..Limits::default() });
    let old = "log_format = \"json\"\n[limits]\nflow_slots = 64\nnew_flows_per_second = 1";
    let config = parse(old).unwrap();
    assert_eq!(config.limits, Limits { flow_slots: 64, new_flows_per_second: 1, ..Limits::default() });
    assert_eq!(config.log_format, LogFormat::Json);
}

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

#[test]
fn what_is_shown_is_the_same_configuration() {
    let full = "iface = [\"eth*\"]\nduration = \"90s\"\nflow-interval = \"1.5s\"\nmark-mask = 0\n\
                log-format = \"json\"\nattach = \"tcx\"\ntransport = \"perf\"\nsocket = \"none\"\n\
                [limits]\nflows = 64\n[[output]]\ntype = \"log\"\nto = \"journal\"\nevents = [\"ping\"]\n\
                [[output]]\ntype = \"text\"\nto = \"a\\\"b\"\nname = \"two words\"\n\
                [[trace]]\npu = \"c\"\ndirection = \"out\"\nfor = \"1m\"\nsample = 9\n[[trace]]\npu = \"all\"\n\
                [[pu]]\nid = \"a\\tb\"\ncidr = [\"10.0.0.0/8\"]\ntags = [\"k=v\"]\n\
                [[pu]]\nid = \"c\"\nnamespace = \"/n\"\ninterface = [\"x\"]\nside = \"behind\"\n";
    let full = &format!("enforce = true\n{full}{}", policies::ALL);
    for text in ["", full, EXAMPLE] {
        let config = parse(text).unwrap();
        let shown = config.to_toml();
        assert_eq!(parse(&shown).unwrap_or_else(|error| panic!("{error} in {shown}")), config);
        // Nothing is left to a default; the duration has none.
        for key in keys("") {
            let is_empty = match key.as_str() {
                "pu" => config.pu.is_empty(),
                "network" => config.network.is_empty(),
                "policy" => config.policy.is_empty(),
                _ => false,
            };
            assert!(shown.contains(&key) || is_empty, "{key} in {shown}");
        }
    }
    assert!(parse("").unwrap().to_toml().contains("mark-mask = 0xfffc0000\n"));
}

/// The keys of a table, as the reader itself lists them; `head` opens the table.
fn keys(head: &str) -> Vec<String> {
    let message = error(&format!("{head}\nnonsense = 1")).0;
    let (_, list) = message.split_once("expected one of ").unwrap();
    let all: Vec<String> = list.split(", ").map(|key| key.trim_matches(['`', '\n']).to_owned()).collect();
    // Not the older spellings.
    all.iter().filter(|key| !all.contains(&key.replace('_', "-")) || !key.contains('_')).cloned().collect()
}

#[test]
fn a_trace_that_cannot_be_is_told_with_its_place() {
    for (text, place, want) in [
        ("[[trace]]\npu = \"wbe\"", "2:6", "no processing unit \"wbe\""),
        ("[[trace]]\npu = \"host\"\ndirection = \"up\"", "3:13", "expected one of `in`, `out`, `both`"),
        ("[[trace]]\npu = \"host\"\nfor = \"ever\"", "3:7", "trace.for: \"ever\" is no length of time"),
        ("[[trace]]\npu = \"host\"\nsample = 0", "3:10", "trace.sample is 0"),
        ("[[trace]]", "1:1", "missing field `pu`"),
        ("sample = 0", "1:10", "sample is 0"),
        ("snaplen = 0", "1:11", "snaplen = 0: expected a number from 1 to 65535"),
        ("snaplen = 65536", "1:11", "snaplen = 65536: expected a number from 1 to 65535"),
    ] {
        let (message, _) = error(text);
        assert!(message.starts_with(&format!("c.toml:{place}: ")) && message.contains(want), "{message}");
    }
}

#[test]
fn the_example_has_every_key_and_is_right_with_and_without_its_comments() {
    assert_eq!(parse(EXAMPLE).unwrap(), Config::default());
    // Prose has a blank behind its `#`. The one key that excludes others stays out.
    let uncommented: Vec<_> = EXAMPLE
        .lines()
        .filter(|line| *line != "#output = \"json\"")
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
            _ => line,
        })
        .collect();
    let text = uncommented.join("\n");
    let config = parse(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
    assert_eq!((config.outputs.len(), config.pu.len(), config.trace.len()), (3, 1, 1));
    assert_eq!((config.network.len(), config.policy.len()), (1, 2));
    let mut sections: Vec<(&str, Vec<&str>)> = vec![("", Vec::new())];
    for line in uncommented {
        match line.strip_prefix('[') {
            Some(head) => sections.push((head.trim_matches(['[', ']']), Vec::new())),
            None => sections.last_mut().unwrap().1.extend(line.split_once(" = ").map(|(key, _)| key)),
        }
    }
    let of = |section: &str| -> Vec<&str> {
        let same = sections.iter().filter(|(name, _)| *name == section);
        same.flat_map(|(_, keys)| keys.iter().copied()).collect()
    };
    for (section, head) in [
        ("", ""),
        ("limits", "[limits]"),
        ("output", "[[output]]\ntype = \"log\""),
        ("pu", "[[pu]]\nid = \"a\""),
        ("trace", "[[trace]]\npu = \"host\""),
        ("policy", "[[policy]]\nid = \"a\""),
    ] {
        let keys = keys(head);
        assert!(keys.len() >= 3, "{keys:?}");
        for key in keys {
            let is_section = sections.iter().any(|(name, _)| *name == key);
            assert!(of(section).contains(&key.as_str()) || is_section, "{key} of [{section}]");
        }
    }
}

#[test]
fn a_file_that_is_no_text_has_the_place_of_its_first_octet_that_is_none() {
    let path = std::env::temp_dir().join(format!("collector-utf8-{}.toml", std::process::id()));
    std::fs::write(&path, b"forwarded = true\n# \xc3\xa9\xff\n").unwrap();
    let error = Config::load(&path).unwrap_err();
    std::fs::remove_file(&path).unwrap();
    let want =
        format!("{}:2:4: the octet 0xff is no UTF-8: expected the file in that encoding", path.display());
    assert_eq!(error.to_string(), want);
}

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
fn every_wrong_value_has_its_place_and_what_was_expected() {
    let pu = "[[pu]]\nid = \"web\"\n";
    for (text, want) in [
        ("forwarded = 1", r"c.toml:1:13: invalid type: integer `1`, expected a boolean"),
        ("\nifaces = []", "c.toml:2:1: unknown field `ifaces`, expected one of `iface`, "),
        ("output = \"xml\"", "c.toml:1:10: unknown variant `xml`, expected `text` or `json`"),
        ("queue = ", "c.toml:1:9: "),
        ("queue = 0", "c.toml:1:9: queue is 0: expected a number from 1 on"),
        (
            "queue = -1",
            "c.toml:1:9: invalid value: integer `-1`, expected a whole number from 0 to 4294967295",
        ),
        ("iface = [\"eth0\", \"\"]", "c.toml:1:18: iface: an empty pattern matches no interface"),
        ("iface = [\"eth[\"]", "c.toml:1:10: iface: \"eth[\" is no pattern: "),
        (
            "flow-interval = \"5\"",
            "c.toml:1:17: flow-interval: \"5\" is no length of time: expected a number and",
        ),
        (
            "flow-interval = 5",
            "c.toml:1:17: invalid type: integer `5`, expected a number and a unit in quotes",
        ),
        ("counter-interval = \"0s\"", "c.toml:1:20: counter-interval: \"0s\" is not above zero"),
        ("duration = \"-1s\"", "c.toml:1:12: duration: \"-1s\" is not above zero"),
        ("mark-mask = 5", "c.toml:1:13: mark-mask 0x00000005 has holes"),
        ("[limits]\nflows = 0", "c.toml:2:9: limits.flows = 0: expected a number from 64 to 16777216"),
        ("[limits]\nflow-slots = 1", "c.toml:2:14: limits.flow-slots = 1: expected a number from 64 to "),
        ("[limits]\nslots = 1", "c.toml:2:1: unknown field `slots`, expected one of `flow-slots`, "),
        ("socket = \"\"", "c.toml:1:10: socket: \"\" is no place of a socket: expected a path of"),
        ("log-format = \"xml\"", "c.toml:1:14: unknown variant `xml`, expected `text` or `json`"),
        (
            "transport = \"both\"",
            "c.toml:1:13: unknown variant `both`, expected one of `auto`, `ring`, `perf`",
        ),
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

#[test]
fn a_file_without_an_end_is_not_read_for_ever() {
    let error = Config::load(Path::new("/dev/zero")).unwrap_err();
    assert!(matches!(error, ConfigError::TooLong { most: Config::MOST_OCTETS, .. }), "{error}");
}
